"""When a robot has stopped, without torch: a robot's controller has none."""

from __future__ import annotations

import numpy as np

STOPPED, STOPPED_S = 0.3, 0.5
"""A robot has stopped when it is slower than the first, m/s, for the second, s."""


def held_since(condition: np.ndarray, steps: int) -> np.ndarray:
  """Return the first step (N,) from which ``condition`` (T, N) holds; -1: never.

  It must hold for ``steps`` steps in a row.
  """
  if len(condition) < steps:
    return np.full(condition.shape[1], -1)
  held = np.lib.stride_tricks.sliding_window_view(condition, steps, axis=0).all(axis=-1)
  return np.where(held.any(axis=0), held.argmax(axis=0), -1)


def stop_time(speed: np.ndarray, valid: np.ndarray, fps: float) -> np.ndarray:
  """Return the time from the first step until each robot stopped (N,), s.

  Args:
    speed: (T, N), m/s.
    valid: (T, N), the steps that count.
    fps: Steps per second.

  Returns:
    nan for a robot that never stopped.
  """
  slow = (speed < STOPPED) & valid
  since = held_since(slow, round(STOPPED_S * fps))
  return np.where(since >= 0, since / fps, np.nan)
