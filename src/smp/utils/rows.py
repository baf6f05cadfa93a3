"""Which rows of many are looked at."""

from __future__ import annotations

import torch
from torch import Tensor


def evenly_spaced(count: int, at_most: int) -> Tensor:
  """Return at most so many of the numbers (n,) below ``count``, evenly."""
  return torch.linspace(0, count - 1, min(count, at_most)).round().long()
