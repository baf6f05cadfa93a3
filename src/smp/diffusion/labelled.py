"""The denoiser on a CPU where windows have labels of their own.

`FusedDenoiser` takes groups of windows that share a modulation. So windows are sorted
by their labels into groups of a few, which fixes all shapes: where the windows of a
label do not fill its last group, that group has idle places.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.native_denoiser import BLOCK, FusedDenoiser


@dataclass(frozen=True)
class WindowLabels:
  """The labels of windows, some of a denoiser's."""

  index: Tensor
  """(N,) int64, the place in ``choices`` of each window's label. It is read in every
  evaluation, so a change in place takes effect."""
  choices: tuple[int, ...]
  """S labels of the denoiser."""
  weight: float = 1.0
  """w of classifier-free guidance (`smp.diffusion.styles`)."""


def modulation_table(
  denoiser: Denoiser, timesteps: Tensor, choices: tuple[int, ...]
) -> Tensor:
  """Return the modulations (layers, K, S, 6, D) of timesteps (K,) under S labels."""
  steps, count = len(timesteps), len(choices)
  labels = torch.tensor(choices, device=timesteps.device)
  with torch.no_grad():
    flat = denoiser.time_modulation(
      timesteps.repeat_interleave(count), labels.repeat(steps)
    )
  return flat.unflatten(1, (steps, count))


def group_by_label(index: Tensor, count: int, each: int) -> tuple[Tensor, Tensor]:
  """Return places (N,) of windows in groups of ``each``, and each group's label (G,).

  Windows of different labels are in different groups. G depends on sizes alone.

  Args:
    index: (N,) int64 labels from 0 to ``count`` - 1.
    count: Number of labels.
    each: Windows of a group.
  """
  device = index.device
  member = (index.unsqueeze(1) == torch.arange(count, device=device)).long()
  groups = (member.sum(dim=0) + each - 1) // each
  ends = groups.cumsum(dim=0)
  rank = member.cumsum(dim=0).gather(1, index.unsqueeze(1)).squeeze(1) - 1
  place = (ends - groups)[index] * each + rank
  # Each label leaves at most each - 1 places idle.
  most = (len(index) + count * (each - 1)) // each
  at = torch.arange(most, device=device)
  owner = torch.searchsorted(ends, at, right=True).clamp(max=count - 1)
  return place, owner


class LabelledOnCpu:
  """Prediction of noise by `FusedDenoiser` at K timesteps, by each window's label.

  Args:
    denoiser: A denoiser on the CPU that `usable` accepts.
    timesteps: (K,).
    labels: The labels of the N windows.
  """

  def __init__(
    self, denoiser: Denoiser, timesteps: Tensor, labels: WindowLabels
  ) -> None:
    self._fused = FusedDenoiser(denoiser)
    self._index, self._count = labels.index, len(labels.choices)
    self._table = modulation_table(denoiser, timesteps, labels.choices)
    self._sorted = self._predicted = self._out = torch.empty(0)

  def __call__(self, x: Tensor) -> Tensor:
    """Return the noise predicted in windows ``x`` (K, N, W, F)."""
    steps, windows, *size = x.shape
    each = min(BLOCK, windows)
    place, owner = group_by_label(self._index, self._count, each)
    shape = (steps, len(owner) * each, *size)
    if self._sorted.shape != shape:
      self._sorted, self._predicted = torch.zeros(shape), torch.empty(shape)
      self._out = torch.empty_like(x)
    self._sorted.index_copy_(1, place, x)
    self._fused(
      self._sorted.view(-1, each, *size),
      self._table.index_select(2, owner).flatten(1, 2),
      out=self._predicted.view(-1, each, *size),
    )
    return torch.index_select(self._predicted, 1, place, out=self._out)
