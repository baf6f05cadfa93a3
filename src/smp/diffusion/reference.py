"""Reference errors: the denoising errors of a prior on motion of its kind.

An SDS loss is meaningful only relative to those of other windows, which differ from
prior to prior and from timestep to timestep. The reference errors are measured once and
stored in the prior's file, with how they were measured, so that a scale made of them
belongs to the prior and not to a run.
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
"""Relation of the windows to a prior: from clips held out of its training; from clips
it was trained on; from clips that its file does not mention; its own samples."""


Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Reference:
  """The reference errors of a prior and how they were measured."""

  __pydantic_config__ = {"extra": "forbid"}

  median: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]
  """(T,), for every timestep: the median over windows of the SDS loss, which is the
  mean over draws of noise."""
  windows_of: WindowsOf
  clips: tuple[str, ...]
  """Clips of the windows; empty for samples."""
  windows: Count
  """Number of windows measured."""
  windows_in_all: Count
  """Number of windows from which they were chosen, evenly spread."""
  draws: Count
  """Draws of noise per window and timestep."""
  seed: Count
  """Seed of the noise."""

  def to_dict(self) -> dict[str, Any]:
    """Return the fields as JSON types."""
    return {**asdict(self), "median": list(self.median), "clips": list(self.clips)}

  def check(self, where: str, num_timesteps: int) -> None:
    """Raise ``UserError`` unless there is a value for each of ``num_timesteps``."""
    if len(self.median) != num_timesteps:
      raise UserError(
        f"{where}: '{REFERENCE_KEY}.median' must list {num_timesteps} numbers; measure "
        "it again"
      )

  def at(self, timesteps: Sequence[int]) -> tuple[float, ...]:
    """Return the reference errors of some timesteps."""
    return tuple(self.median[t] for t in timesteps)

  def what(self) -> str:
    """Describe in words what was measured."""
    if self.windows_of == "samples":
      return f"{self.windows} of its own samples"
    kind = {"held_out": "held-out ", "training": "training "}.get(self.windows_of, "")
    if not self.clips:  # Of a style, whose clips its file does not name.
      return f"{self.windows} {kind}windows"
    return f"{self.windows} windows of {len(self.clips)} {kind}clips"
