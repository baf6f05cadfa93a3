"""The scale of the denoising errors: running, or that of the prior's reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import nn

MU_FLOOR = 1e-4
"""Lower bound of the running means, so that a perfect start cannot divide by zero."""


REFERENCE_MULTIPLE = 6.5
"""μ over the reference error of the same timestep, where the scale is the prior's own.

At w_s = 6 the median window has r_smp = exp(-6 / 6.5) = 0.40: natural motion earns well,
with room above it, and errors ten times as large still differ from one another.
"""


class SdsNormalizer(nn.Module):
  """Count-weighted running mean of the denoising error of each timestep.

  The mean is over every window seen while updating was on, all of equal weight, the
  first batch included. It stops moving once ``freeze_after_samples`` windows were seen, so
  the scale of the reward then stays put. It counts *windows*, not steps: with more
  environments the same number of windows passes in fewer iterations, and in an
  earlier phase of training, which is the one thing this scale depends on beside the
  prior and the policy. Non-finite errors (a diverged simulation) are left out.

  All is tensor arithmetic on the device: no branches on values, no synchronisation.
  ``mean`` and ``count`` are part of the policy's checkpoint.

  Where training runs as several processes, each moves its mean on with its own windows
  and `average_over_ranks`, called every so often by all of them, makes it the mean
  over the windows of all.
  """

  mean: torch.Tensor
  count: torch.Tensor
  _shared: torch.Tensor

  def __init__(self, num_timesteps: int, freeze_after_samples: float) -> None:
    super().__init__()
    self.freeze_after_samples = freeze_after_samples
    # float64: adding a batch of 64 to a count of 5e7 must not vanish.
    self.register_buffer("mean", torch.zeros(num_timesteps, dtype=torch.float64))
    self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
    # Sum of the errors, and their number, as of the last exchange.
    shared = torch.zeros(num_timesteps + 1, dtype=torch.float64)
    self.register_buffer("_shared", shared, persistent=False)

  @torch.no_grad()
  def update(self, error: torch.Tensor) -> None:
    """Take in a batch of errors (N, K)."""
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
    """Join what every process has seen since the last call. A collective operation.

    Without `torch.distributed` in use, nothing happens.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
      return
    now = torch.cat((self.mean * self.count, self.count))
    seen = now - self._shared
    torch.distributed.all_reduce(seen)
    self._set(self._shared + seen)

  def load(self, mean: torch.Tensor, count: torch.Tensor) -> None:
    """Go on from a checkpoint, the same one on every rank."""
    mean, count = mean.to(self.mean), count.to(self.count)
    self._set(torch.cat((mean * count, count)))

  def _set(self, sums: torch.Tensor) -> None:
    self._shared.copy_(sums)
    self.count.copy_(sums[-1:])
    self.mean.copy_(sums[:-1] / self.count.clamp(min=1.0))

  def scale(self) -> torch.Tensor:
    """μ of each timestep (K,), float32, at least ``MU_FLOOR``."""
    return self.mean.clamp(min=MU_FLOOR).float()

  def forward(self, error: torch.Tensor) -> torch.Tensor:
    """Errors (N, K) in units of their running means (N, K)."""
    return error / self.scale()


class ReferenceSdsNormalizer(SdsNormalizer):
  """A scale that belongs to the prior and never moves, whatever is seen.

  μ of a timestep is `REFERENCE_MULTIPLE` times the prior's reference error
  (`smp.diffusion.reference`), so that r_smp of a window is the same in every run.
  ``count`` is 1 and means nothing, except that whoever goes on from the checkpoint with
  a running mean starts near this scale and soon leaves it.
  """

  def __init__(self, reference_error: Sequence[float]) -> None:
    super().__init__(len(reference_error), freeze_after_samples=0.0)
    self.mean.copy_(REFERENCE_MULTIPLE * torch.tensor(reference_error).double())
    self.count.fill_(1.0)

  def update(self, error: torch.Tensor) -> None:
    """Nothing."""

  def average_over_ranks(self) -> None:
    """Nothing: every rank has the same prior."""

  def load(self, mean: torch.Tensor, count: torch.Tensor) -> None:
    """Keep the prior's scale; say so where a checkpoint has another."""
    if torch.allclose(mean.to(self.mean), self.mean, rtol=1e-6, atol=0.0):
      return
    theirs, ours = (
      ", ".join(f"{m:.4g}" for m in x.tolist()) for x in (mean, self.mean)
    )
    print(
      f"[WARN] checkpoint has another scale of the errors ({theirs}) than the prior's "
      f"reference ({ours}): the prior's is kept, so the reward differs from before"
    )
