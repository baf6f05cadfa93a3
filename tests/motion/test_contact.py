"""Overlaps with the floor and with itself."""

import numpy as np
import pytest

from smp.motion.contact import outside_limits, penetration
from smp.robots import g1

ROLL = [g1.JOINT_NAMES.index(f"{s}_shoulder_roll_joint") for s in ("left", "right")]


def standing(height: float = 0.8) -> np.ndarray:
  pose = np.zeros(36)
  pose[2], pose[3] = height, 1.0
  pose[[7 + j for j in ROLL]] = 0.6, -0.6
  return pose


def test_depth_under_the_floor_is_how_far_it_must_be_lifted():
  poses = np.stack([standing(h) for h in (0.9, 0.75, 0.7, 0.6)])
  depth = penetration(poses).of_floor
  assert depth[0] == 0.0 and depth[1] > 0.0
  np.testing.assert_allclose(np.diff(depth[1:]), [0.05, 0.1], atol=1e-6)
  lifted = poses.copy()
  lifted[:, 2] += depth
  assert penetration(lifted).of_floor.max() < 1e-6


def test_lying_robots_are_lifted_by_whatever_is_lowest():
  lying = standing(0.05)
  lying[3:7] = np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0
  depth = penetration(lying[None]).of_floor[0]
  assert depth > 0.02
  lying[2] += depth + 1e-4
  assert penetration(lying[None]).of_floor[0] == 0.0


def test_an_arm_in_the_body_is_seen_and_the_floor_is_not_taken_for_it():
  free, inside = standing(0.7), standing()
  inside[[7 + j for j in ROLL]] = -0.3, 0.3
  of_itself = penetration(np.stack([free, inside])).of_itself
  assert of_itself[0] == 0.0 and of_itself[1] > 0.005


def test_joint_limits_at_their_edge():
  limits = g1.load_model().jnt_range[1:]
  poses = np.stack([limits[:, 0], limits[:, 1], limits.mean(axis=1)])
  assert outside_limits(poses).max() == 0.0
  poses[2, 3] = limits[3, 1] + 0.25
  np.testing.assert_allclose(outside_limits(poses), [0.0, 0.0, 0.25])
  poses[1, 5] = limits[5, 0] - 0.5
  assert outside_limits(poses)[1] == pytest.approx(0.5)
