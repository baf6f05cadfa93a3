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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from smp.errors import UserError
from smp.utils.rows import evenly_spaced

if TYPE_CHECKING:
  from smp.diffusion.prior import MotionPrior

REFERENCE_KEY = "reference_error"
"""Field of a prior's metadata."""
REFERENCE_WINDOWS = 2048
"""Windows that are scored at most, spread evenly over all there are."""
REFERENCE_DRAWS = 4
"""Draws of noise per window and timestep."""
REFERENCE_SEED = 0
_CHUNK = 256
_TIMESTEPS_AT_ONCE = 10

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


def choose_windows(count: int) -> Tensor:
  """Which of so many windows are scored (n,)."""
  return evenly_spaced(count, REFERENCE_WINDOWS)


def clips_of(prior: MotionPrior) -> dict[str, str]:
  """The split of each clip that a prior lists; none, if it does not say."""
  entries = prior.info.get("data")
  return {
    str(entry.get("clip")): str(entry.get("split"))
    for entry in (entries if isinstance(entries, list) else [])
    if isinstance(entry, dict)
  }


@torch.no_grad()
def sds_losses(
  prior: MotionPrior,
  features: Tensor,
  timesteps: Sequence[int],
  draws: int = REFERENCE_DRAWS,
  seed: int = REFERENCE_SEED,
) -> Tensor:
  """SDS losses (N, K) of windows (N, W, F), mean over draws of noise, on the CPU.

  The noise of a window depends on its place, on the timesteps before, and on the seed.
  """
  device, generator = prior.q_low.device, torch.Generator().manual_seed(seed)
  columns = []
  for first in range(0, len(timesteps), _TIMESTEPS_AT_ONCE):
    group = timesteps[first : first + _TIMESTEPS_AT_ONCE]
    score = prior.sds_loss_at(group, "float32")
    rows = []
    for part in features.split(_CHUNK):
      total = torch.zeros(len(part), len(group))
      for _ in range(draws):
        noise = torch.randn((len(group), *part.shape), generator=generator)
        total += score(part.to(device), noise.to(device)).cpu()
      rows.append(total / draws)
    columns.append(torch.cat(rows))
  return torch.cat(columns, dim=1)


def measure_reference(
  prior: MotionPrior,
  features: Tensor,
  windows_of: WindowsOf,
  clips: Sequence[str] = (),
  windows_in_all: int | None = None,
) -> Reference:
  """The reference errors of a prior at all its timesteps.

  Args:
    features: Windows (N, W, F) to score, in the features of the prior.
    windows_of: What they are to the prior.
    clips: That they are from.
    windows_in_all: Of how many they were chosen; None: these are all.

  Raises:
    UserError: There are none, or their error is not finite.
  """
  if not len(features):
    raise UserError("no windows to measure reference errors on")
  median = sds_losses(prior, features, range(prior.schedule.num_timesteps))
  median = median.double().median(dim=0).values.tolist()
  if not all(map(math.isfinite, median)):
    raise UserError("the prior's errors on these windows are not finite")
  return Reference(
    tuple(median),
    windows_of,
    tuple(clips),
    len(features),
    len(features) if windows_in_all is None else windows_in_all,
    REFERENCE_DRAWS,
    REFERENCE_SEED,
  )


def reference_on_samples(prior: MotionPrior) -> Reference:
  """Reference errors on what the prior itself generates, for want of motion."""
  generator = torch.Generator(prior.q_low.device).manual_seed(REFERENCE_SEED)
  samples = prior.sample(REFERENCE_WINDOWS, generator)
  return measure_reference(prior, samples.cpu(), "samples")
