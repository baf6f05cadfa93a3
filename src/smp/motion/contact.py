"""Overlap of the robot's collision shapes with the floor or with each other."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from smp.robots import g1


class Penetration(NamedTuple):
  """Penetration depths of poses (N, ...), m; 0 without contact."""

  of_floor: np.ndarray
  """(N,): depth of the lowest point of any collision shape under the floor at z = 0."""
  of_itself: np.ndarray
  """(N,): the deepest overlap of two parts that are not neighbours."""


def penetration(qpos: np.ndarray) -> Penetration:
  """Return the overlaps of poses, by MuJoCo's own collision detection.

  It takes some 30 microseconds per pose.

  Args:
    qpos: (N, 36): root xyz, root wxyz, joint angles.
  """
  model = g1.load_model(floor=True)
  floor = model.geom(g1.FLOOR).id
  data = mujoco.MjData(model)
  result = Penetration(np.zeros(len(qpos)), np.zeros(len(qpos)))
  for i, pose in enumerate(qpos):
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)  # Broad-phase collision detection needs it.
    mujoco.mj_collision(model, data)
    depth = -data.contact.dist[: data.ncon]
    on_floor = (data.contact.geom[: data.ncon] == floor).any(axis=1)
    result.of_floor[i] = max(0.0, depth[on_floor].max(initial=0.0))
    result.of_itself[i] = max(0.0, depth[~on_floor].max(initial=0.0))
  return result


def outside_limits(joint_pos: np.ndarray) -> np.ndarray:
  """Return by how much each pose (N, 29) exceeds joint limits (N,), rad, maximum."""
  limits = g1.load_model().jnt_range[1:]
  over = np.maximum(limits[:, 0] - joint_pos, joint_pos - limits[:, 1])
  return over.max(axis=1).clip(min=0.0)
