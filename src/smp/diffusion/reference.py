"""How large the denoising errors of a prior are on motion that it is for.

A SDS loss means something only beside those of other windows, and these differ from
prior to prior and from timestep to timestep. The reference errors are measured once and
stored in the prior's file with how they were measured, so that a scale made of them
belongs to the prior, not to a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from smp.errors import UserError, shown

REFERENCE_KEY = "reference_error"
"""Field of a prior's metadata."""

WindowsOf = Literal["held_out", "training", "unrecorded", "samples"]
"""What windows are to a prior: of clips held out of its training; of clips it was trained
on; of clips of which it does not say; its own samples."""


@dataclass(frozen=True)
class Reference:
  """The reference errors of a prior and how they were measured."""

  median: tuple[float, ...]
  """(T,) of every timestep: median over windows of the SDS loss, which is the mean over
  draws of noise."""
  windows_of: WindowsOf
  clips: tuple[str, ...]
  """That the windows are from; of samples, none."""
  windows: int
  """How many were scored,"""
  windows_in_all: int
  """spread evenly over so many."""
  draws: int
  """Of noise, per window and timestep."""
  seed: int
  """Of the noise."""

  def to_dict(self) -> dict[str, Any]:
    return {**asdict(self), "median": list(self.median), "clips": list(self.clips)}

  @classmethod
  def from_dict(cls, data: Any, num_timesteps: int) -> Reference:
    """Read what `to_dict` wrote.

    Raises:
      UserError: It is something else, or not of so many timesteps.
    """
    names = set(cls.__dataclass_fields__)
    if not isinstance(data, dict) or set(data) != names:
      raise UserError(f"expected the fields {', '.join(sorted(names))}")
    median, clips = data["median"], data["clips"]
    if not isinstance(median, list) or len(median) != num_timesteps:
      raise UserError(f"'median' must list {num_timesteps} numbers")
    for value in median:
      if type(value) is not float or not 0.0 <= value < math.inf:
        raise UserError(f"'median' holds {shown(value)}, expected numbers from 0")
    if not isinstance(clips, list) or not all(isinstance(c, str) for c in clips):
      raise UserError("'clips' must list names")
    if data["windows_of"] not in get_args(WindowsOf):
      raise UserError(f"'windows_of' is {shown(data['windows_of'])}")
    for name in ("windows", "windows_in_all", "draws", "seed"):
      if type(data[name]) is not int or data[name] < 0:
        raise UserError(f"'{name}' is {shown(data[name])}, expected a whole number")
    return cls(**{**data, "median": tuple(median), "clips": tuple(clips)})

  def at(self, timesteps: Sequence[int]) -> tuple[float, ...]:
    """The reference errors of some timesteps."""
    return tuple(self.median[t] for t in timesteps)

  def what(self) -> str:
    """On what it was measured, in words."""
    if self.windows_of == "samples":
      return f"{self.windows} of its own samples"
    kind = {"held_out": "held-out", "training": "training"}.get(self.windows_of, "")
    return f"{self.windows} windows of {len(self.clips)} {kind} clips".replace(
      "  ", " "
    )
