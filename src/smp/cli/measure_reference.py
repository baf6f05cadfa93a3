"""Measurement of a prior's reference errors, stored in its file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from smp import paths
from smp.cli.options import parse
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior, store_reference
from smp.diffusion.reference import Reference, WindowsOf
from smp.diffusion.reference_errors import (
  choose_windows,
  clips_of,
  measure_reference,
  reference_on_samples,
)
from smp.errors import UserError
from smp.evaluation.prior.eval_windows import EvalWindows, rows_to_spec
from smp.motion.dataset import WindowSet, load_windows
from smp.utils.device import choose_device


@dataclass(frozen=True)
class Options:
  """Measure the reference errors of a prior and store them in its file.

  Example: uv run scripts/measure_reference.py loco --windows datasets/npz/loco

  They are its errors on motion of its own kind. Nothing else in the file changes.
  scripts/pretrain.py does the same at the end; this is for older priors, and for
  imported ones.

  Of the windows, those of clips held out of the prior's training are measured, or if
  there are none, those it was trained on. Without windows, its own samples.
  """

  prior: Annotated[str, tyro.conf.Positional]
  """A shipped prior by name, or a file (.safetensors)."""

  windows: tuple[Path, ...] = ()
  """NPZ files of windows of the clips that the prior was trained on, or folders of
  them."""

  overwrite: bool = False
  """Measure anew although the file has reference errors. The reward of policies trained
  on them changes."""

  device: str = "cpu"


def clips_to_score(
  prior: MotionPrior, windows: WindowSet
) -> tuple[WindowsOf, list[int]]:
  """Return the relation of the windows to the prior, and the clips to measure by index.

  The prior's own list of clips decides.

  Raises:
    UserError: The prior lists its clips, and none is among these.
  """
  listed = clips_of(prior)
  if not listed:
    return "unrecorded", list(range(len(windows.clips)))
  kinds: tuple[tuple[WindowsOf, str], ...] = (
    ("held_out", "val"),
    ("training", "train"),
  )
  for kind, split in kinds:
    clips = [i for i, clip in enumerate(windows.clips) if listed.get(clip) == split]
    if clips:
      return kind, clips
  raise UserError(
    f"--windows: none of {', '.join(windows.clips)} is among the clips of the prior "
    f"({', '.join(listed)}); name windows of those"
  )


def measure(prior: MotionPrior, windows: WindowSet) -> Reference:
  """Measure the reference errors on held-out windows, or else on training windows."""
  windows_of, clips = clips_to_score(prior, windows)
  chosen = torch.from_numpy(windows.windows[np.isin(windows.clip_index, clips)])
  names = tuple(windows.clips[i] for i in clips)
  source = EvalWindows(chosen, windows.spec, windows.stride, names)
  rows = choose_windows(len(chosen))
  features = rows_to_spec(source, rows, prior.spec)
  return measure_reference(prior, features, windows_of, names, len(chosen))


def main(arguments: Sequence[str] | None = None) -> None:
  """Run ``measure_reference PRIOR [OPTIONS]``."""
  arguments = sys.argv[1:] if arguments is None else arguments
  options = parse(Options, arguments)
  path = paths.resolve_prior(options.prior)
  device = choose_device(options.device)
  prior = MotionPrior.load(path).to(device)
  if prior.reference is not None and not options.overwrite:
    raise UserError(
      f"{path}: has reference errors already (of {prior.reference.what()}); measure "
      "anew with --overwrite"
    )
  if options.windows:
    reference = measure(prior, load_windows(options.windows))
  else:
    print("[INFO] no --windows: measuring on what the prior itself generates")
    reference = reference_on_samples(prior)
  store_reference(path, reference)
  errors = zip(SCORED_TIMESTEPS, reference.at(SCORED_TIMESTEPS), strict=True)
  listed = ", ".join(f"{error:.4f} at timestep {t}" for t, error in errors)
  print(f"{path}: median error of {reference.what()}: {listed}")
