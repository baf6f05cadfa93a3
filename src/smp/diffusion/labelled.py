"""The denoiser on a CPU where windows have labels of their own.

`FusedDenoiser` takes groups of windows that share a modulation. So windows are sorted
by their labels into groups of a few, which fixes all shapes: where the windows of a
label do not fill its last group, that group has idle places. A window of a composition
has two places, one for the label of each part of the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.native_denoiser import BLOCK, FusedDenoiser
from smp.diffusion.styles import find_parts


@dataclass(frozen=True)
class WindowLabels:
  """The labels of windows, some of a denoiser's."""

  index: Tensor
  """(N,) int64, the place in ``choices`` of each window's label. It is read in every
  evaluation, so a change in place takes effect."""
  choices: tuple[int, ...]
  """S labels of the denoiser: of the whole body, or of the upper one."""
  weight: float = 1.0
  """w of classifier-free guidance (`smp.diffusion.styles`)."""
  lower: tuple[int, ...] = ()
  """S labels of the lower body; empty: those of the upper one."""

  def composes(self) -> bool:
    """Return whether a choice has another label for the lower body."""
    return self.lower not in ((), self.choices)


def window_labels(
  index: Tensor, names: Sequence[str], styles: Sequence[str], weight: float = 1.0
) -> WindowLabels:
  """Return the labels of windows of several styles, or compositions of two.

  Args:
    index: (N,) int64, the place in ``names`` of each window's style.
    names: S styles as in run, or guarded/run (`smp.diffusion.styles.parse_style`).
    styles: Those of the prior.
    weight: w of classifier-free guidance.

  Raises:
    UserError: A name is malformed, or the prior has no such style.
  """
  labels = [find_parts(name, styles, "styles") for name in names]
  upper, lower = zip(*labels, strict=True)
  return WindowLabels(index, upper, weight, lower)


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

  Windows whose choice composes two labels are evaluated under both, the others once.

  Args:
    denoiser: A denoiser on the CPU that `usable` accepts.
    timesteps: (K,).
    labels: The labels of the N windows.
    lower_mask: (F,) 1 at the features of the lower body, else 0; None: no choice
      composes.
  """

  def __init__(
    self,
    denoiser: Denoiser,
    timesteps: Tensor,
    labels: WindowLabels,
    lower_mask: Tensor | None = None,
  ) -> None:
    self._fused = FusedDenoiser(denoiser)
    self._index, lower = labels.index, labels.lower or labels.choices
    known = tuple(dict.fromkeys((*labels.choices, *lower)))
    self._table = modulation_table(denoiser, timesteps, known)
    self._count = len(known)
    # Places in `known` of the labels of each choice.
    self._upper = torch.tensor([known.index(label) for label in labels.choices])
    self._lower = torch.tensor([known.index(label) for label in lower])
    self._lower_mask = None if lower_mask is None else lower_mask.bool()
    self._out, self._grouped, self._spare = torch.empty(0), [], []

  def __call__(self, x: Tensor) -> Tensor:
    """Return the noise predicted in windows ``x`` (K, N, W, F)."""
    steps, windows, *size = x.shape
    each = min(BLOCK, windows)
    if self._out.shape != x.shape:
      self._reserve(x, each)
    label, twice = self._evaluations()
    place, owner = group_by_label(label, self._count, each)
    shape = (steps, len(owner) * each, *size)
    grouped, predicted = (_view(memory, shape) for memory in self._grouped)
    grouped.index_copy_(1, place[:windows], x)
    if len(twice):
      spare = _view(self._spare[0], (steps, len(twice), *size))
      again = torch.index_select(x, 1, twice, out=spare)
      grouped.index_copy_(1, place[windows:], again)
    self._fused(
      grouped.view(-1, each, *size),
      self._table.index_select(2, owner).flatten(1, 2),
      out=predicted.view(-1, each, *size),
    )
    torch.index_select(predicted, 1, place[:windows], out=self._out)
    if len(twice):
      self._take_lower(predicted, place[windows:], twice)
    return self._out

  def _evaluations(self) -> tuple[Tensor, Tensor]:
    """Return the label of each evaluation (M,), and the windows of the last (M - N,).

    The first N are of all windows, the others of those whose lower body has a label of
    its own.
    """
    label = self._upper[self._index]
    if self._lower_mask is None:
      return label, label[:0]
    lower = self._lower[self._index]
    twice = (label != lower).nonzero().squeeze(1)
    return torch.cat((label, lower[twice])), twice

  def _reserve(self, x: Tensor, each: int) -> None:
    """Allocate what windows such as ``x`` (K, N, W, F) need, whatever their labels."""
    steps, windows, *size = x.shape
    composes = self._lower_mask is not None
    most = (1 + composes) * windows + self._count * (each - 1)
    count = steps * (most // each * each) * math.prod(size)
    # Idle places must hold numbers.
    self._grouped = [torch.zeros(count), torch.empty(count)]
    self._spare = [torch.empty(x.numel()) for _ in range(2 * composes)]
    self._out = torch.empty_like(x)

  def _take_lower(self, predicted: Tensor, place: Tensor, windows: Tensor) -> None:
    """Take the lower body of some windows (n,) of the result from other places (n,)."""
    assert self._lower_mask is not None
    steps, _, *size = predicted.shape
    lower, upper = (_view(spare, (steps, len(place), *size)) for spare in self._spare)
    torch.index_select(predicted, 1, place, out=lower)
    torch.index_select(self._out, 1, windows, out=upper)
    torch.where(self._lower_mask, lower, upper, out=lower)
    self._out.index_copy_(1, windows, lower)


def _view(memory: Tensor, shape: Sequence[int]) -> Tensor:
  """Return the first numbers of ``memory`` (n,) in a shape."""
  return memory[: math.prod(shape)].view(shape)
