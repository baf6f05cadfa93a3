"""The mean of a signal over a stride, without torch: a robot's controller has none."""

from __future__ import annotations

import numpy as np

STRIDE_S = 1.0
"""Time over which the yaw rate is averaged, s: about a stride. The pelvis of a person who
walks or runs straight on turns to and fro by 0.35 to 0.7 rad/s with each (LAFAN1, mean
absolute deviation from the mean over a second; docs/results.md)."""


def running_mean(
  values: np.ndarray, mask: np.ndarray, seconds: float, fps: float
) -> np.ndarray:
  """Return the mean (T, N) of ``values`` around each step, over ``seconds`` in all.

  Only steps where ``mask`` (T, N) holds count; 0 where none is near.
  """
  half = round(0.5 * seconds * fps)

  def around(x: np.ndarray) -> np.ndarray:
    total = np.cumsum(x, axis=0, dtype=np.float64)
    total = np.pad(total, ((half + 1, 0), (0, 0)))
    # total[i] is the sum before step i - half; beyond the end it stays what it is.
    total = np.pad(total, ((0, half), (0, 0)), mode="edge")
    return total[2 * half + 1 :] - total[: len(x)]

  sums = around(np.where(mask, values, 0.0))
  return sums / np.maximum(around(mask), 1.0)
