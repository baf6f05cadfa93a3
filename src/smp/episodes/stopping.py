"""When a robot has stopped, without torch: a robot's controller has none."""

from __future__ import annotations

import numpy as np

STOPPED, STOPPED_S = 0.3, 0.5
"""A robot has stopped when it is slower than the first, m/s, for the second, s."""


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
  steps = round(STOPPED_S * fps)
  if len(slow) < steps:
    return np.full(slow.shape[1], np.nan)
  held = np.lib.stride_tricks.sliding_window_view(slow, steps, axis=0).all(axis=-1)
  return np.where(held.any(axis=0), held.argmax(axis=0) / fps, np.nan)
