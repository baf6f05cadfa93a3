"""File of a training's state, from which it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smp.errors import UserError
from smp.utils.tensor_files import load_tensors

STATE_VERSION = 1
MAY_DIFFER = {
  "windows",
  "stats",
  "output",
  "run_dir",
  "resume",
  "overwrite",
  "device",
  "eval_interval",
  "log_interval",
  "logger",
  "wandb_project",
  "upload",
  "licence",
  "notes",
}
"""Options that a resumed run may change: they do not affect the results. (Windows and
statistics are compared by content.)"""


def read_state(path: Path) -> dict[str, Any]:
  """Read a training state of tensors and plain values; no code in it is run."""
  if not path.is_file():
    raise UserError(f"{path}: no training state to resume; leave out --resume")
  try:
    state = load_tensors(path, "training state")
  except UserError as error:
    raise UserError(
      f"{path}: cannot be read, damaged or not a training state; start anew with "
      "--overwrite"
    ) from error
  if state.get("version") != STATE_VERSION:
    raise UserError(
      f"{path}: not a training state of version {STATE_VERSION}; start anew with "
      "--overwrite"
    )
  return state


def check_same_config(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
  """Raise an error for options that would make the resumed run another one.

  Raises:
    UserError: An option differs; the message names it and both values.
  """
  free = set(MAY_DIFFER)
  if saved.get("schedule") == now["schedule"] == "constant":
    free.add("steps")
  for name, value in now.items():
    if name not in free and saved.get(name) != value:
      raise UserError(
        f"{path}: was trained with {name} {saved.get(name)}, now it is {value}; use "
        "the same, or start anew with --overwrite"
      )
