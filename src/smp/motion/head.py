"""Position and velocity of the head, and the stand-up criterion."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import torch
from torch import nn

from smp.motion.rotations import quat_mul, quat_rotate
from smp.robots import g1


@dataclass(frozen=True)
class StandUp:
  """Criterion for a robot that has stood up, as the task Getup defines it."""

  height: float = 1.2
  """Minimum height of the head, m."""
  speed: float = 0.5
  """Maximum speed of the pelvis while the robot comes to stand, m/s."""
  still_s: float = 0.5
  """Minimum uninterrupted time with both conditions met, s."""
  hold_s: float = 2.0
  """Additional time for which the head stays up, at any speed, s."""


STAND_UP = StandUp()


class Head(nn.Module):
  """Position and velocity of the head from the robot's own coordinates.

  The G1 has no head body: a point on the torso represents it (`g1.HEAD_OFFSET`). Only
  the joints between the root and the torso matter, so this follows that chain alone.
  Unlike a simulation's body velocities, the result belongs exactly to the given
  coordinates.
  """

  def __init__(self, model: mujoco.MjModel) -> None:
    super().__init__()
    chain = [model.body(g1.HEAD_BODY).id]
    root = model.body(g1.ROOT_BODY).id
    while model.body_parentid[chain[0]] != root:
      chain.insert(0, int(model.body_parentid[chain[0]]))
    self._joints = [int(model.body_jntadr[body]) - 1 for body in chain]

    def constant(name: str, rows: list) -> None:
      values = torch.tensor(rows, dtype=torch.float32)
      self.register_buffer(name, values, persistent=False)

    constant("offset", [model.body_pos[body].tolist() for body in chain])
    constant("turn", [model.body_quat[body].tolist() for body in chain])
    constant("axis", [model.jnt_axis[j + 1].tolist() for j in self._joints])
    constant("head", list(g1.HEAD_OFFSET))

  def forward(
    self,
    root_pos: torch.Tensor,
    root_quat: torch.Tensor,
    joint_pos: torch.Tensor,
    root_lin_vel: torch.Tensor | None = None,
    root_ang_vel: torch.Tensor | None = None,
    joint_vel: torch.Tensor | None = None,
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head's position (..., 3), m, and velocity (..., 3), m/s.

    Both in the axes of the root's pose (the world's, if that is a world pose).

    Args:
      root_pos: (..., 3), m.
      root_quat: (..., 4), wxyz.
      joint_pos: (..., 29), rad.
      root_lin_vel: (..., 3), m/s, of the root's origin. None: at rest, like the next
        two.
      root_ang_vel: (..., 3), rad/s, in the same axes (a MuJoCo free joint's angular
        velocity is in the body's axes: rotate it first).
      joint_vel: (..., 29), rad/s.
    """
    pos, quat = root_pos, root_quat
    lin = torch.zeros_like(pos) if root_lin_vel is None else root_lin_vel
    ang = torch.zeros_like(pos) if root_ang_vel is None else root_ang_vel
    rate = torch.zeros_like(joint_pos) if joint_vel is None else joint_vel
    offset, turn = self.get_buffer("offset"), self.get_buffer("turn")
    axis, head = self.get_buffer("axis"), self.get_buffer("head")
    # Rigid bodies: a point at `arm` from a body's origin moves at lin + ang x arm, and a
    # hinge adds its rate about its axis to the angular velocity.
    for i, joint in enumerate(self._joints):
      arm = quat_rotate(quat, offset[i].expand_as(pos))
      pos, lin = pos + arm, lin + torch.linalg.cross(ang, arm)
      half = 0.5 * joint_pos[..., joint, None]
      local = torch.cat((half.cos(), half.sin() * axis[i]), dim=-1)
      quat = quat_mul(quat, quat_mul(turn[i].expand_as(local), local))
      ang = ang + rate[..., joint, None] * quat_rotate(quat, axis[i].expand_as(pos))
    arm = quat_rotate(quat, head.expand_as(pos))
    return pos + arm, lin + torch.linalg.cross(ang, arm)
