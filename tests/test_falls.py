"""Robots that were dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smp import g1
from smp.motion import falls
from smp.motion.contact import penetration
from smp.motion.falls import FALL_POSES, Falls, drop_robots
from smp.motion.head import Head
from smp.motion.select_getups import start_pose

PER_POSE = 2


@pytest.fixture(scope="module")
def dropped() -> Falls:
  return drop_robots(PER_POSE, window=10, fps=50.0, seed=1)


def torso_up(qpos: np.ndarray) -> np.ndarray:
  """The vertical in the torso's frame, by MuJoCo."""
  import mujoco

  data = mujoco.MjData(g1.load_model())
  data.qpos[:] = qpos
  mujoco.mj_kinematics(g1.load_model(), data)
  return data.body(g1.HEAD_BODY).xmat.reshape(3, 3)[2]


def test_every_pose_is_there_as_often(dropped):
  assert dropped.qpos.shape == (len(FALL_POSES) * PER_POSE, 10, 36)
  assert np.bincount(dropped.pose).tolist() == [PER_POSE] * len(FALL_POSES)
  for qpos, pose in zip(dropped.qpos, dropped.pose, strict=True):
    assert start_pose(torso_up(qpos[-1])) == FALL_POSES[pose]


def test_they_lie_on_the_floor(dropped):
  q = torch.from_numpy(dropped.qpos[:, -1]).float()
  head, _ = Head(g1.load_model())(q[:, :3], q[:, 3:7], q[:, 7:])
  assert head[:, 2].max() < 0.6
  overlap = penetration(dropped.qpos[:, -1])
  assert overlap.of_floor.max() < 1e-3  # The model is not mirrored to the last digit.
  assert overlap.of_itself.max() <= falls.MAX_OVERLAP
  lowered = dropped.qpos[:, -1].copy()
  lowered[:, 2] -= 0.005
  assert penetration(lowered).of_floor.min() > 0.0  # And on it, not above.


def test_they_are_at_rest(dropped):
  speed = np.abs(np.diff(dropped.qpos[:, -2:, 7:], axis=1)) * 50.0
  assert speed.max() < 1.5 * falls.MAX_JOINT_SPEED
  drift = np.diff(dropped.qpos[:, -2:, :3], axis=1) * 50.0
  assert np.linalg.norm(drift, axis=-1).max() < 2 * falls.MAX_ROOT_SPEED


def test_poses_are_not_all_the_same(dropped):
  joints = dropped.qpos[:, -1, 7:]
  distance = np.abs(joints[:, None] - joints[None]).max(axis=-1)
  assert (distance + np.eye(len(joints))).min() > 0.1


def test_same_seed_same_falls(dropped):
  again = drop_robots(PER_POSE, window=10, fps=50.0, seed=1)
  np.testing.assert_array_equal(again.qpos, dropped.qpos)


def test_mirror_image_lies_on_the_other_side(dropped):
  for qpos, pose in zip(dropped.qpos, dropped.pose, strict=True):
    mirrored = falls._mirror(qpos)
    assert start_pose(torso_up(mirrored[-1])) == FALL_POSES[falls._MIRRORED[pose]]
    np.testing.assert_allclose(falls._mirror(mirrored), qpos)


def test_a_pose_that_never_comes_about_is_named(monkeypatch):
  monkeypatch.setattr(falls, "MAX_DROPS", 1)
  monkeypatch.setattr(falls, "_pose_at_rest", lambda model, data: 0)
  with pytest.raises(RuntimeError, match="supine"):
    drop_robots(1, window=10, fps=50.0)
