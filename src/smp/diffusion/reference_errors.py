"""Measurement of a prior's denoising errors on motion of its kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.diffusion.reference import Reference, WindowsOf
from smp.errors import UserError
from smp.utils.rows import evenly_spaced

REFERENCE_WINDOWS = 2048
"""Maximum number of windows measured, spread evenly over all there are."""
REFERENCE_DRAWS = 4
"""Draws of noise per window and timestep."""
REFERENCE_SEED = 0
_CHUNK = 256
_TIMESTEPS_AT_ONCE = 10


def choose_windows(count: int, most: int = REFERENCE_WINDOWS) -> Tensor:
  """Return the indices (n,) of at most ``most`` windows to measure among ``count``."""
  return evenly_spaced(count, most)


def clips_of(prior: MotionPrior) -> dict[str, str]:
  """Return the split of each clip that a prior lists; empty if it lists none."""
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
  """Compute SDS losses (N, K) of windows (N, W, F), mean over draws of noise.

  The result is on the CPU. The noise of a window depends on its position, on the
  preceding timesteps, and on the seed.
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
  """Measure the reference errors of a prior at all its timesteps.

  Args:
    prior: The prior.
    features: Windows (N, W, F) to measure, in the features of the prior.
    windows_of: Relation of the windows to the prior.
    clips: Clips that the windows are from.
    windows_in_all: Number of windows from which they were chosen; None: these are all.

  Raises:
    UserError: There are no windows, or their error is not finite.
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
  """Measure reference errors on samples of the prior, where there is no motion."""
  generator = torch.Generator(prior.q_low.device).manual_seed(REFERENCE_SEED)
  samples = prior.sample(REFERENCE_WINDOWS, generator)
  return measure_reference(prior, samples.cpu(), "samples")
