"""How large the denoising errors of a prior are on motion that it is for.

A SDS loss means something only beside those of other windows, and these differ from
prior to prior and from timestep to timestep. The reference errors are measured once and
stored in the prior's file with how they were measured, so that a scale made of them
belongs to the prior, not to a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from smp.errors import UserError

REFERENCE_KEY = "reference_error"
"""Field of a prior's metadata."""

WindowsOf = Literal["held_out", "training", "unrecorded", "samples"]
"""What windows are to a prior: of clips held out of its training; of clips it was trained
on; of clips of which it does not say; its own samples."""


Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Reference:
  """The reference errors of a prior and how they were measured."""

  __pydantic_config__ = {"extra": "forbid"}

  median: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
  """(T,) of every timestep: median over windows of the SDS loss, which is the mean over
  draws of noise."""
  windows_of: WindowsOf
  clips: tuple[str, ...]
  """That the windows are from; of samples, none."""
  windows: Count
  """How many were scored,"""
  windows_in_all: Count
  """spread evenly over so many."""
  draws: Count
  """Of noise, per window and timestep."""
  seed: Count
  """Of the noise."""

  def to_dict(self) -> dict[str, Any]:
    return {**asdict(self), "median": list(self.median), "clips": list(self.clips)}

  def check(self, where: str, num_timesteps: int) -> None:
    """Raise ``UserError`` unless it is of so many timesteps."""
    if len(self.median) != num_timesteps:
      raise UserError(
        f"{where}: '{REFERENCE_KEY}.median' must list {num_timesteps} numbers; measure "
        "it again"
      )

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
