"""Forward kinematics of the G1 in batches."""

from __future__ import annotations

import mujoco
import numpy as np
import torch
from torch import nn

from smp.motion import native_kinematics
from smp.motion.rotations import quat_mul, quat_rotate
from smp.robots import g1


class Kinematics(nn.Module):
  """Forward kinematics in tensors, from a MuJoCo model of the robot alone.

  MuJoCo's own kinematics runs on one state at a time, or inside a simulation whose body
  poses are one physics step old when rewards are computed. This class computes
  positions for the given joint angles, on any device, one level of the robot's tree at
  a time: a dozen small operations for any number of environments. Static shapes, no
  branches on values.

  Bodies are in the order of the model, without the world: the root first.
  """

  body_pos: torch.Tensor
  body_quat: torch.Tensor
  axes: torch.Tensor

  def __init__(self, model: mujoco.MjModel) -> None:
    super().__init__()
    if np.any(model.jnt_pos):
      raise ValueError("joints away from their body's origin are not supported")
    self.body_names = tuple(model.body(b).name for b in range(1, model.nbody))
    parents = model.body_parentid[1:] - 1
    joint_of_body = [int(model.body_jntadr[b]) - 1 for b in range(1, model.nbody)]
    if joint_of_body[1:] != list(range(model.nbody - 2)):
      raise ValueError("every body but the root needs one hinge, in order")

    def as_float(array):
      return torch.tensor(array, dtype=torch.float32)

    self.register_buffer("body_pos", as_float(model.body_pos[2:]), persistent=False)
    self.register_buffer("body_quat", as_float(model.body_quat[2:]), persistent=False)
    self.register_buffer("axes", as_float(model.jnt_axis[1:]), persistent=False)
    self._levels(parents)
    ee = [self.body_names.index(name) for name in g1.EE_BODY_NAMES]
    self._add_index("ee_index", self.place[ee])
    self._parents, self._ee = parents, ee
    self._native: native_kinematics.NativeForwardKinematics | None = None

  def _levels(self, parents: np.ndarray) -> None:
    """Group bodies by depth; store the index of each body and of its parent."""
    depth = np.zeros(len(parents), dtype=int)
    for body in range(1, len(parents)):
      depth[body] = depth[parents[body]] + 1
    order = np.argsort(depth, kind="stable")
    # `order` lists the bodies by depth; `place` is its inverse, the position of each
    # body in that list.
    place = np.argsort(order)
    self.place = place
    self.num_levels = int(depth.max())
    self._add_index("place_index", place)
    for level in range(1, self.num_levels + 1):
      bodies = np.flatnonzero(depth == level)
      # All parents are one level up, so their position within that level is enough.
      above = np.flatnonzero(depth == level - 1)
      self._add_index(f"joints_{level}", bodies - 1)
      self._add_index(f"parents_{level}", np.searchsorted(above, parents[bodies]))

  def _add_index(self, name: str, values: np.ndarray) -> None:
    index = torch.as_tensor(np.asarray(values), dtype=torch.long)
    self.register_buffer(name, index, persistent=False)

  def _walk(
    self, root_pos: torch.Tensor, root_quat: torch.Tensor, joint_pos: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions and orientations of all bodies, ordered by depth."""
    # Orientation of each body relative to its parent: the fixed rotation of the body,
    # then the rotation of its hinge.
    half = 0.5 * joint_pos.unsqueeze(-1)
    turn = torch.cat((half.cos(), half.sin() * self.axes), dim=-1)
    local = quat_mul(self.body_quat.expand_as(turn), turn)
    pos, quat = root_pos.unsqueeze(-2), root_quat.unsqueeze(-2)
    all_pos, all_quat = [pos], [quat]
    for level in range(1, self.num_levels + 1):
      joints = getattr(self, f"joints_{level}")
      parents = getattr(self, f"parents_{level}")
      parent_quat = quat.index_select(-2, parents)
      offset = self.body_pos.index_select(0, joints).expand(*parent_quat.shape[:-1], 3)
      pos = pos.index_select(-2, parents) + quat_rotate(parent_quat, offset)
      quat = quat_mul(parent_quat, local.index_select(-2, joints))
      all_pos.append(pos)
      all_quat.append(quat)
    return torch.cat(all_pos, dim=-2), torch.cat(all_quat, dim=-2)

  def forward(
    self, root_pos: torch.Tensor, root_quat: torch.Tensor, joint_pos: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions and orientations of all bodies.

    Args:
      root_pos: (..., 3), m.
      root_quat: (..., 4), wxyz.
      joint_pos: (..., 29), rad.

    Returns:
      Positions (..., 30, 3) and orientations (..., 30, 4), wxyz, in the frame of the
      root's pose.
    """
    pos, quat = self._walk(root_pos, root_quat, joint_pos)
    place = self.get_buffer("place_index")
    return pos.index_select(-2, place), quat.index_select(-2, place)

  def ee_positions(
    self, root_pos: torch.Tensor, root_quat: torch.Tensor, joint_pos: torch.Tensor
  ) -> torch.Tensor:
    """Return the end effectors (..., 5, 3), m, for the arguments of `forward`."""
    on_cpu = joint_pos.device.type == "cpu" and joint_pos.dtype == torch.float32
    if not on_cpu or not native_kinematics.KERNEL.usable:
      return self.ee_positions_torch(root_pos, root_quat, joint_pos)
    if self._native is None:
      self._native = native_kinematics.NativeForwardKinematics(
        self._parents, self._ee, self.body_pos, self.body_quat, self.axes
      )
    return self._native.ee_positions(root_pos, root_quat, joint_pos)

  def ee_positions_torch(
    self, root_pos: torch.Tensor, root_quat: torch.Tensor, joint_pos: torch.Tensor
  ) -> torch.Tensor:
    """Return `ee_positions`, computed on any device and in any precision."""
    pos, _ = self._walk(root_pos, root_quat, joint_pos)
    return pos.index_select(-2, self.get_buffer("ee_index"))


def mj_ee_positions(model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
  """Return end-effector positions by MuJoCo's ``mj_kinematics``.

  Args:
    model: The robot alone (`smp.robots.g1.load_model`).
    qpos: (T, 36): root xyz, root wxyz, joint angles.

  Returns:
    (T, 5, 3), m, float64.
  """
  data = mujoco.MjData(model)
  bodies = [model.body(name).id for name in g1.EE_BODY_NAMES]
  positions = np.empty((len(qpos), len(bodies), 3))
  for t, frame in enumerate(qpos):
    data.qpos[:] = frame
    mujoco.mj_kinematics(model, data)
    positions[t] = data.xpos[bodies]
  return positions
