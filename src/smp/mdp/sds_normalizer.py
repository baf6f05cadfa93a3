"""Normalisation of the SDS losses: a running mean, or the prior's reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.distributed
from torch import nn

from smp.mdp.env_styles import log_name

MU_FLOOR = 1e-4
"""Lower bound of the running means, which prevents a division by zero."""


REFERENCE_MULTIPLE = 6.5
"""Ratio of a fixed μ to the prior's reference error of the same timestep.

At w_s = 6 the median window has r_smp = exp(-6 / 6.5) = 0.40: natural motion earns a
high reward that is not saturated, and losses ten times as large can still be
distinguished.
"""


class SdsNormalizer(nn.Module):
  """Count-weighted running mean of the SDS loss of each timestep.

  The mean is over every window seen while updating was on, all of equal weight, the
  first batch included. It stops changing after ``freeze_after_samples`` windows, so
  that the scale of the reward then stays fixed. It counts *windows*, not steps: with
  more environments the same number of windows passes in fewer iterations, and in an
  earlier phase of training, which is the one thing that the mean depends on beside the
  prior and the policy. Losses that are not finite (a diverged simulation) are left out.

  All operations are tensor arithmetic on the device: no branches on values, no
  synchronisation. ``mean`` and ``count`` are part of the policy's checkpoint.

  Where training runs as several processes, each updates its mean with its own windows;
  `average_over_ranks`, called by all of them at intervals, turns it into the mean over
  the windows of all.
  """

  fixed = False
  """Whether the scale is the prior's own."""
  mean: torch.Tensor
  count: torch.Tensor
  _shared: torch.Tensor

  def __init__(self, num_timesteps: int, freeze_after_samples: float) -> None:
    super().__init__()
    self.freeze_after_samples = freeze_after_samples
    # float64: adding a batch of 64 to a count of 5e7 must not vanish.
    self.register_buffer("mean", torch.zeros(num_timesteps, dtype=torch.float64))
    self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
    # Sum of the losses, and their number, at the last exchange.
    shared = torch.zeros(num_timesteps + 1, dtype=torch.float64)
    self.register_buffer("_shared", shared, persistent=False)

  @torch.no_grad()
  def update(self, error: torch.Tensor) -> None:
    """Add a batch of SDS losses (N, K) to the mean."""
    # After the freeze ``open_`` is 0, so that the update changes nothing.
    valid = error.isfinite().all(dim=-1, keepdim=True)
    batch = valid.sum().double()
    total = torch.where(valid, error, torch.zeros_like(error)).double().sum(dim=0)
    open_ = (self.count < self.freeze_after_samples).double()
    added = open_ * batch
    new_count = self.count + added
    step = (open_ * (total - batch * self.mean)) / new_count.clamp(min=1.0)
    self.mean.add_(step)
    self.count.copy_(new_count)

  @torch.no_grad()
  def average_over_ranks(self) -> None:
    """Merge what all processes have seen since the last call.

    This is a collective operation. Without `torch.distributed` in use, it does nothing.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
      return
    now = torch.cat((self.mean * self.count, self.count))
    seen = now - self._shared
    torch.distributed.all_reduce(seen)
    self._set(self._shared + seen)

  def load(self, mean: torch.Tensor, count: torch.Tensor) -> None:
    """Load the state of a checkpoint, the same one on every rank."""
    mean, count = mean.to(self.mean), count.to(self.count)
    self._set(torch.cat((mean * count, count)))

  def _set(self, sums: torch.Tensor) -> None:
    self._shared.copy_(sums)
    self.count.copy_(sums[-1:])
    self.mean.copy_(sums[:-1] / self.count.clamp(min=1.0))

  def scale(self) -> torch.Tensor:
    """Return μ of each timestep (K,), float32, at least ``MU_FLOOR``."""
    return self.mean.clamp(min=MU_FLOOR).float()

  def mu(self) -> torch.Tensor:
    """Return μ of each timestep (K,): `scale`."""
    return self.scale()

  def spread(self, error: torch.Tensor) -> torch.Tensor:
    """Return the losses that belong to `scale`: ``error`` (N, K) itself."""
    return error

  def gather(self, losses: torch.Tensor) -> torch.Tensor:
    """Return the SDS losses (N, K) of the result of `spread`."""
    return losses

  def log(self) -> Iterator[tuple[str, torch.Tensor]]:
    """Return μ (K,) by the end of its name in the log."""
    yield "", self.scale()

  def forward(self, error: torch.Tensor) -> torch.Tensor:
    """Return SDS losses (N, K) divided by their running means (N, K)."""
    return error / self.scale()


class ReferenceSdsNormalizer(SdsNormalizer):
  """A fixed scale that is a property of the prior.

  μ of a timestep is `REFERENCE_MULTIPLE` times the prior's reference error
  (`smp.diffusion.reference`), so that r_smp of a window is the same in every run.
  ``count`` is 1, so that a training that resumes from the checkpoint with a running
  mean starts at this scale and soon leaves it.
  """

  fixed = True

  def __init__(self, reference_error: Sequence[float]) -> None:
    super().__init__(len(reference_error), freeze_after_samples=0.0)
    self.mean.copy_(REFERENCE_MULTIPLE * torch.tensor(reference_error).double())
    self.count.fill_(1.0)

  def update(self, error: torch.Tensor) -> None:
    """Do nothing: the scale is fixed."""

  def average_over_ranks(self) -> None:
    """Do nothing: every rank has the same prior."""

  def load(self, mean: torch.Tensor, count: torch.Tensor) -> None:
    """Keep the prior's scale; warn if a checkpoint has another."""
    if torch.allclose(mean.to(self.mean), self.mean, rtol=1e-6, atol=0.0):
      return
    theirs, ours = (
      ", ".join(f"{m:.4g}" for m in x.tolist()) for x in (mean, self.mean)
    )
    print(
      f"[WARN] checkpoint has another scale of the errors ({theirs}) than the prior's "
      f"reference ({ours}): the prior's is kept, so the reward differs from before"
    )


class StyleNormalizers(nn.Module):
  """The scales of environments that have styles of their own: one for each style.

  So r_smp of a style is what it would be if all environments had that style. Losses
  that say of themselves which scale is theirs have S blocks of K columns: those of an
  environment's style hold its SDS losses, the others are 0. With the scale of each
  style divided by S, the mean over columns of loss / scale is that over timesteps of
  loss / μ. So whatever stores losses and composes rewards later, such as a replay
  buffer, needs to know nothing of styles.

  Args:
    parts: The scale of each style by its name, all of one kind.
    index: (N,) int64, the style of each environment; read in every call.
  """

  index: torch.Tensor

  def __init__(self, parts: Mapping[str, SdsNormalizer], index: torch.Tensor) -> None:
    super().__init__()
    self._names, self._parts = tuple(parts), nn.ModuleList(parts.values())
    self.fixed = all(part.fixed for part in parts.values())
    # No buffer: others change it in place.
    self.index = index
    self._styles = torch.arange(len(parts), device=index.device)

  def parts(self) -> list[SdsNormalizer]:
    """Return the scale of each style."""
    return [cast(SdsNormalizer, part) for part in self._parts]

  @property
  def mean(self) -> torch.Tensor:
    """Return the means of all styles (S * K,), one after the other."""
    return torch.cat([part.mean for part in self.parts()])

  @property
  def count(self) -> torch.Tensor:
    """Return the number of windows of each style (S,)."""
    return torch.cat([part.count for part in self.parts()])

  def update(self, error: torch.Tensor) -> None:
    """Add a batch of SDS losses (N, K) to the means of their styles."""
    for style, part in enumerate(self.parts()):
      own = (self.index == style).unsqueeze(-1)
      # Losses that are not finite are left out.
      part.update(error.masked_fill(~own, torch.nan))

  def average_over_ranks(self) -> None:
    """Merge what all processes have seen; see `SdsNormalizer`."""
    for part in self.parts():
      part.average_over_ranks()

  def load(self, mean: torch.Tensor, count: torch.Tensor) -> None:
    """Load ``mean`` (S * K,) and ``count`` (S,) of a checkpoint."""
    parts = self.parts()
    pairs = zip(mean.chunk(len(parts)), count.chunk(len(parts)), strict=True)
    for part, (each, windows) in zip(parts, pairs, strict=True):
      part.load(each, windows)

  def scale(self) -> torch.Tensor:
    """Return μ / S of all styles (S * K,)."""
    parts = self.parts()
    return torch.cat([part.scale() for part in parts]) / len(parts)

  def mu(self) -> torch.Tensor:
    """Return μ of each environment's style (N, K)."""
    return torch.stack([part.scale() for part in self.parts()])[self.index]

  def spread(self, error: torch.Tensor) -> torch.Tensor:
    """Return SDS losses (N, K) in the block of their style (N, S * K)."""
    own = (self.index.unsqueeze(-1) == self._styles).unsqueeze(-1)
    blocks = torch.where(own, error.unsqueeze(1), torch.zeros_like(error).unsqueeze(1))
    return blocks.flatten(1)

  def gather(self, losses: torch.Tensor) -> torch.Tensor:
    """Return the SDS losses (N, K) of the result of `spread`."""
    return losses.unflatten(-1, (len(self._parts), -1)).sum(dim=1)

  def log(self) -> Iterator[tuple[str, torch.Tensor]]:
    """Return μ (K,) of each style by the end of its name in the log."""
    for name, part in zip(self._names, self.parts(), strict=True):
      yield f"_{log_name(name)}", part.scale()
