"""Robots that were dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smp.motion import fallen_states
from smp.motion.contact import penetration
from smp.motion.fallen_states import FALLEN_POSES, FallenStates, sample_fallen_states
from smp.motion.head import Head
from smp.motion.mirror import mirror_qpos
from smp.motion.pose_classes import start_pose
from smp.robots import g1

PER_POSE = 2


@pytest.fixture(scope="module")
def dropped() -> FallenStates:
  return sample_fallen_states(PER_POSE, window=10, fps=50.0, seed=1)


def torso_up(qpos: np.ndarray) -> np.ndarray:
  """The vertical in the torso's frame, by MuJoCo."""
  import mujoco

  data = mujoco.MjData(g1.load_model())
  data.qpos[:] = qpos
  mujoco.mj_kinematics(g1.load_model(), data)
  return data.body(g1.HEAD_BODY).xmat.reshape(3, 3)[2]


def test_every_pose_is_there_as_often(dropped):
  assert dropped.qpos.shape == (len(FALLEN_POSES) * PER_POSE, 10, 36)
  assert np.bincount(dropped.pose).tolist() == [PER_POSE] * len(FALLEN_POSES)
  for qpos, pose in zip(dropped.qpos, dropped.pose, strict=True):
    assert start_pose(torso_up(qpos[-1])) == FALLEN_POSES[pose]


def test_they_lie_on_the_floor(dropped):
  q = torch.from_numpy(dropped.qpos[:, -1]).float()
  head, _ = Head(g1.load_model())(q[:, :3], q[:, 3:7], q[:, 7:])
  assert head[:, 2].max() < 0.6
  overlap = penetration(dropped.qpos[:, -1])
  assert overlap.of_floor.max() < 1e-3  # The model is not mirrored to the last digit.
  assert overlap.of_itself.max() <= fallen_states.MAX_OVERLAP
  lowered = dropped.qpos[:, -1].copy()
  lowered[:, 2] -= 0.005
  assert penetration(lowered).of_floor.min() > 0.0  # And on it, not above.


def test_they_are_at_rest(dropped):
  speed = np.abs(np.diff(dropped.qpos[:, -2:, 7:], axis=1)) * 50.0
  assert speed.max() < 1.5 * fallen_states.MAX_JOINT_SPEED
  drift = np.diff(dropped.qpos[:, -2:, :3], axis=1) * 50.0
  assert np.linalg.norm(drift, axis=-1).max() < 2 * fallen_states.MAX_ROOT_SPEED


def test_poses_are_not_all_the_same(dropped):
  joints = dropped.qpos[:, -1, 7:]
  distance = np.abs(joints[:, None] - joints[None]).max(axis=-1)
  assert (distance + np.eye(len(joints))).min() > 0.1


def test_same_seed_same_falls(dropped):
  again = sample_fallen_states(PER_POSE, window=10, fps=50.0, seed=1)
  np.testing.assert_array_equal(again.qpos, dropped.qpos)


def test_mirror_image_lies_on_the_other_side(dropped):
  for qpos, pose in zip(dropped.qpos, dropped.pose, strict=True):
    mirrored = mirror_qpos(qpos)
    assert (
      start_pose(torso_up(mirrored[-1])) == FALLEN_POSES[fallen_states._MIRRORED[pose]]
    )
    np.testing.assert_allclose(mirror_qpos(mirrored), qpos)


def test_a_pose_that_never_comes_about_is_named(monkeypatch):
  monkeypatch.setattr(fallen_states, "MAX_DROPS", 1)
  monkeypatch.setattr(fallen_states, "_pose_at_rest", lambda model, data: 0)
  with pytest.raises(RuntimeError, match="supine"):
    sample_fallen_states(1, window=10, fps=50.0)
