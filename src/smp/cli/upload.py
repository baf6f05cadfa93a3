"""Upload of a prior or a policy to W&B."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smp.cli.options import parse
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.utils.wandb_files import upload


@dataclass(frozen=True)
class UploadCfg:
  """Put a prior (.safetensors) or a policy (.pt, by package_policy.py) on W&B.

  Example: uv run scripts/upload.py datasets/priors/loco.safetensors

  Without a login the upload is kept for ``uv run wandb sync``.
  """

  file: Annotated[Path, tyro.conf.Positional]

  project: str = "smp"
  """W&B project."""

  log_dir: Path = Path("logs")
  """Folder for W&B's files."""


def upload_file(cfg: UploadCfg) -> None:
  """Read the file, so that only valid ones are uploaded, and upload it."""
  if cfg.file.suffix == ".safetensors":
    prior = MotionPrior.load(cfg.file)
    metadata = {"spec": prior.spec.to_dict(), **prior.info}
    upload(cfg.file, "prior", cfg.project, metadata, cfg.log_dir)
  elif cfg.file.suffix == ".pt":
    from smp.rl.policy_file import read_policy  # Imports mjlab.

    card = read_policy(cfg.file)["card"]
    upload(cfg.file, "policy", cfg.project, card, cfg.log_dir)
  else:
    raise UserError(f"{cfg.file}: give a prior (.safetensors) or a policy (.pt)")
  print(f"{cfg.file}: artifact {cfg.file.stem} in project {cfg.project}")


def main() -> None:
  """Run ``upload FILE [OPTIONS]``."""
  upload_file(parse(UploadCfg))
