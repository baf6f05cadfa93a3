"""The robot's state as it is, at any point of a step.

mjlab's body poses and velocities (``entity.data.root_link_*``, ``body_link_*``) come
from the last ``forward``. When terminations and rewards run, that was one physics step
(5 ms) before ``qpos``. What these functions return is read from ``qpos`` and ``qvel``,
which are current everywhere, also right after a reset has written them.
"""

from __future__ import annotations

import torch
from mjlab.entity import Entity


def root_pos_w(robot: Entity) -> torch.Tensor:
  """Position of the root (N, 3), m, world."""
  indexing = robot.indexing
  return robot.data.data.qpos[:, indexing.free_joint_q_adr[0:3]]


def root_quat_w(robot: Entity) -> torch.Tensor:
  """Orientation of the root (N, 4), wxyz, world."""
  indexing = robot.indexing
  return robot.data.data.qpos[:, indexing.free_joint_q_adr[3:7]]


def root_lin_vel_w(robot: Entity) -> torch.Tensor:
  """Velocity of the root frame's origin (N, 3), m/s, world axes.

  MuJoCo keeps the linear velocity of a free joint in world axes.
  """
  indexing = robot.indexing
  return robot.data.data.qvel[:, indexing.free_joint_v_adr[0:3]]
