"""Selection of some of many rows."""

from __future__ import annotations

import torch
from torch import Tensor


def evenly_spaced(count: int, at_most: int) -> Tensor:
  """Return at most so many of the integers (n,) below ``count``, evenly spaced."""
  return torch.linspace(0, count - 1, min(count, at_most)).round().long()
