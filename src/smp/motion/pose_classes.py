"""How a robot on the ground lies."""

from __future__ import annotations

from typing import Literal

import numpy as np

StartPose = Literal["prone", "supine", "left", "right", "other"]
START_POSES: tuple[StartPose, ...] = ("prone", "supine", "left", "right", "other")
"""``left`` lies on the left side; ``other`` does not lie: sitting, or propped up."""

MAX_RAISE = 30.0
"""Maximum elevation of the torso above the horizontal that still counts as lying, degrees."""


def start_pose(torso_up: np.ndarray) -> StartPose:
  """The kind of pose, from the vertical in the torso's frame (3,).

  A torso near the horizontal lies on its front or back, or on a side, by which of its
  axes is closer to the vertical.
  """
  if abs(torso_up[2]) > np.sin(np.radians(MAX_RAISE)):
    return "other"
  if abs(torso_up[0]) > abs(torso_up[1]):
    return "supine" if torso_up[0] > 0 else "prone"
  # The left side points up: the robot lies on its right.
  return "right" if torso_up[1] > 0 else "left"
