"""Paths of the shipped files, independent of the working directory."""

from __future__ import annotations

from pathlib import Path

from smp.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout: the project is installed in place, as ``uv run`` does."""

DATASETS = ROOT / "datasets"
PRIORS = DATASETS / "priors"
NORM_STATS = DATASETS / "norm_stats.npz"
POLICIES = DATASETS / "policies"
MOTIONS = ROOT / "configs" / "motions"


def resolve_prior(name_or_path: str) -> Path:
  """Return the file of a prior, given the name of a shipped one or a path.

  Raises:
    UserError: no shipped prior has that name and no file that path.
  """
  shipped = PRIORS / f"{name_or_path}.safetensors"
  if shipped.is_file():
    return shipped
  path = Path(name_or_path).expanduser()
  if path.is_file():
    return path
  names = ", ".join(sorted(file.stem for file in PRIORS.glob("*.safetensors")))
  raise UserError(
    f"prior '{name_or_path}': neither a file nor a shipped prior "
    f"(shipped: {names or 'none'}); give a path or train one with scripts/pretrain.py"
  )
