"""The robot's current state, at any point of a step.

mjlab's body poses and velocities (``entity.data.root_link_*``, ``body_link_*``) come
from the last ``forward``. When terminations and rewards run, that was one physics step
(5 ms) before ``qpos``. These functions read ``qpos`` and ``qvel``, which are always
current, also right after a reset has written them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from mjlab.entity import Entity

from smp.motion.head import Head
from smp.motion.rotations import quat_rotate
from smp.robots import g1

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


def root_pos_w(robot: Entity) -> torch.Tensor:
  """Return the position of the root (N, 3), m, world."""
  indexing = robot.indexing
  return robot.data.data.qpos[:, indexing.free_joint_q_adr[0:3]]


def root_quat_w(robot: Entity) -> torch.Tensor:
  """Return the orientation of the root (N, 4), wxyz, world."""
  indexing = robot.indexing
  return robot.data.data.qpos[:, indexing.free_joint_q_adr[3:7]]


def root_lin_vel_w(robot: Entity) -> torch.Tensor:
  """Return the velocity of the root frame's origin (N, 3), m/s, world axes.

  MuJoCo keeps the linear velocity of a free joint in world axes.
  """
  indexing = robot.indexing
  return robot.data.data.qvel[:, indexing.free_joint_v_adr[0:3]]


def root_ang_vel_w(robot: Entity) -> torch.Tensor:
  """Return the angular velocity of the root (N, 3), rad/s, world axes.

  MuJoCo keeps the angular velocity of a free joint in the body's axes.
  """
  spin = robot.data.data.qvel[:, robot.indexing.free_joint_v_adr[3:6]]
  return quat_rotate(root_quat_w(robot), spin)


def above_floor(env: ManagerBasedRlEnv, position_w: torch.Tensor) -> torch.Tensor:
  """Return the heights (N,), m, of positions (N, 3) above their environment's floor."""
  return position_w[:, 2] - env.scene.env_origins[:, 2]


def head_w(robot: Entity) -> tuple[torch.Tensor, torch.Tensor]:
  """Return position (N, 3), m, and velocity (N, 3), m/s, of the head, world axes."""
  quat = root_quat_w(robot)
  return _head(quat.device)(
    root_pos_w(robot),
    quat,
    robot.data.joint_pos,
    root_lin_vel_w(robot),
    root_ang_vel_w(robot),
    robot.data.joint_vel,
  )


@functools.cache
def _head(device: torch.device) -> Head:
  """Return the head's kinematics on a device."""
  return Head(g1.load_model()).to(device)
