"""Generative state initialisation: a pool of windows sampled from the prior."""

from __future__ import annotations

from typing import Any

import torch

from smp.diffusion.prior import MotionPrior
from smp.motion.features import MotionState, decode, encode, window_velocities
from smp.motion.kinematics import Kinematics

SAMPLE_CHUNK = 1024
"""Windows sampled in one batch: bounds memory, and is large enough for a GPU."""


class StartPool:
  """Windows that the frozen prior generated, ready to start episodes from.

  The prior generates positions, joint angles, end effectors and velocities as
  independent numbers. Only the root pose and the joint angles are taken from it:
  end effectors follow from the joints by kinematics, velocities from finite
  differences of the poses, as for every other window of this project.

  Windows stand with their last frame at the origin, facing along x; heights are above
  the floor. Replacement is in order, so the oldest go first.
  """

  def __init__(
    self,
    prior: MotionPrior,
    kinematics: Kinematics,
    size: int,
    device: str | torch.device,
  ) -> None:
    self._prior = prior
    self._kinematics = kinematics
    window = prior.spec.window
    joints = len(prior.spec.joint_names)
    ee = len(prior.spec.ee_body_names)
    self.root_pos = torch.zeros(size, window, 3, device=device)
    self.root_quat = torch.zeros(size, window, 4, device=device)
    self.joint_pos = torch.zeros(size, window, joints, device=device)
    self.ee_pos = torch.zeros(size, window, ee, 3, device=device)
    self._next = 0

  @property
  def size(self) -> int:
    return self.root_pos.shape[0]

  @torch.no_grad()
  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest windows by new samples."""
    device = self.root_pos.device
    while count > 0:
      # A chunk never wraps around the end of the pool.
      n = min(count, SAMPLE_CHUNK, self.size - self._next)
      # Generated windows miss their own anchor by millimetres: stand them on it.
      state = decode(encode(decode(self._prior.sample(n))))
      slots = slice(self._next, self._next + n)
      self.root_pos[slots] = state.root_pos_w.to(device)
      self.root_quat[slots] = state.root_quat_w.to(device)
      self.joint_pos[slots] = state.joint_pos.to(device)
      self._derive(slots)
      self._next = (self._next + n) % self.size
      count -= n

  def draw(self, count: int) -> MotionState:
    """``count`` windows (count, W, ...) drawn uniformly, with replacement."""
    index = torch.randint(self.size, (count,), device=self.root_pos.device)
    pos, quat = self.root_pos[index], self.root_quat[index]
    lin_vel, ang_vel = window_velocities(pos, quat, self._prior.spec.fps)
    return MotionState(
      root_pos_w=pos,
      root_quat_w=quat,
      root_lin_vel_w=lin_vel,
      root_ang_vel_w=ang_vel,
      joint_pos=self.joint_pos[index],
      ee_pos_w=self.ee_pos[index],
    )

  def state_dict(self) -> dict[str, Any]:
    """What a checkpoint keeps: poses and position. The rest is derived on loading."""
    return {
      "root_pos": self.root_pos,
      "root_quat": self.root_quat,
      "joint_pos": self.joint_pos,
      "next": self._next,
    }

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore a saved pool. A pool of another size is left as it is (False)."""
    if state["root_pos"].shape != self.root_pos.shape:
      return False
    self.root_pos.copy_(state["root_pos"])
    self.root_quat.copy_(state["root_quat"])
    self.joint_pos.copy_(state["joint_pos"])
    self._derive(slice(None))
    self._next = int(state["next"])
    return True

  def _derive(self, slots: slice) -> None:
    self.ee_pos[slots] = self._kinematics.ee_positions(
      self.root_pos[slots], self.root_quat[slots], self.joint_pos[slots]
    )
