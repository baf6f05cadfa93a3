"""Conversion of a published prior into this project's format."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smp.cli.options import parse
from smp.diffusion.reproduction import UNKNOWN_LICENCE, import_reproduction
from smp.errors import UserError


@dataclass(frozen=True)
class Options:
  """Convert a prior of the published G1 reproduction into this project's format.

  Example: uv run scripts/import_prior.py pretrained_loco.pt published_loco.safetensors

  The source is a pickle (.pt); no code in it is run.
  """

  source: Annotated[Path, tyro.conf.Positional]
  """Published checkpoint (.pt)."""

  output: Annotated[Path, tyro.conf.Positional]
  """Prior to write (.safetensors)."""

  licence: str = UNKNOWN_LICENCE
  """Licence text to store with the prior."""


def main(arguments: Sequence[str] | None = None) -> None:
  """Run ``import_prior SOURCE OUTPUT [OPTIONS]``."""
  arguments = sys.argv[1:] if arguments is None else arguments
  options = parse(Options, arguments)
  if options.output.suffix != ".safetensors":
    raise UserError(f"{options.output}: expected a file name ending in .safetensors")
  prior = import_reproduction(options.source, options.licence)
  prior.save(options.output)
  count = sum(parameter.numel() for parameter in prior.denoiser.parameters())
  print(f"{options.output}: {count} parameters, heading {prior.spec.heading}")
