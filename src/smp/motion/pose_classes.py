"""Classes of poses of a robot on the ground."""

from __future__ import annotations

from typing import Literal

import numpy as np

StartPose = Literal["prone", "supine", "left", "right", "other"]
START_POSES: tuple[StartPose, ...] = ("prone", "supine", "left", "right", "other")
"""Classes: ``left`` lies on the left side; ``other`` sits or is propped up."""

MAX_RAISE = 30.0
"""Maximum elevation of the torso above the horizontal when lying, degrees."""


def start_pose(torso_up: np.ndarray) -> StartPose:
  """Return the class of a pose from the vertical in the torso's frame (3,).

  A torso near the horizontal lies on its front or back, or on a side, by which of its
  axes is closer to the vertical.
  """
  if abs(torso_up[2]) > np.sin(np.radians(MAX_RAISE)):
    return "other"
  if abs(torso_up[0]) > abs(torso_up[1]):
    return "supine" if torso_up[0] > 0 else "prone"
  # If the left side points up, the robot lies on its right.
  return "right" if torso_up[1] > 0 else "left"
