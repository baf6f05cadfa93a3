"""Frames of observation, put together as a policy sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Part(Protocol):
  """A part of the observation, in a policy's metadata or in a deploy file."""

  @property
  def size(self) -> int:
    """Return the number of values of one frame."""
    ...

  @property
  def history_length(self) -> int:
    """Return the number of frames in the vector."""
    ...


class History:
  """The last frames of each part of the observation.

  Args:
    parts: The parts, in order.
  """

  def __init__(self, parts: Sequence[Part]) -> None:
    self._parts = parts
    self._frames: list[np.ndarray] = []

  def clear(self) -> None:
    """Forget all frames: the next one is repeated into the past."""
    self._frames.clear()

  def push(self, frame: np.ndarray) -> np.ndarray:
    """Add a frame (F,) and return the observation vector (O,).

    The frames of a part follow one another, oldest first; then comes the next part.
    """
    longest = max((part.history_length for part in self._parts), default=1)
    known = self._frames or [frame] * longest
    self._frames = [*known, frame][-longest:]
    return arrange(self._parts, np.stack(self._frames))


def arrange(parts: Sequence[Part], frames: np.ndarray) -> np.ndarray:
  """Return the observation (O,) at the last of ``frames`` (H, F), oldest first.

  H is at least the longest history of ``parts``.
  """
  columns, start = [], 0
  for part in parts:
    rows = frames[len(frames) - part.history_length :]
    columns.append(rows[:, start : start + part.size].ravel())
    start += part.size
  return np.concatenate(columns)
