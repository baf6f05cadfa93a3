"""Ring buffer of the last W frames of every environment, preallocated."""

from __future__ import annotations

import torch

from smp.motion.features import (
  FPS,
  WINDOW,
  MotionState,
  window_velocities,
)

# Numbers of a root position and a root quaternion; joints and end effectors follow.
_PARTS = (3, 4)


class MotionBuffer:
  """A ring of poses, one row of ``window`` frames per environment.

  Only poses are kept. Velocities are a function of the poses of a window
  (`window_velocities`), so the windows of this buffer equal, to the last bit, the
  slices of an offline recording. All positions are relative to the origin that the
  caller chose (the environment's own), which keeps float32 exact far from the world's
  origin.

  ``push`` and ``window`` neither allocate storage that grows, nor wait for the device,
  nor branch on tensors; the position in the ring lives on the device.
  """

  def __init__(
    self,
    num_envs: int,
    num_joints: int,
    num_ee: int,
    device: str | torch.device,
    window: int = WINDOW,
    fps: float = FPS,
  ) -> None:
    self._sizes = (*_PARTS, num_joints, 3 * num_ee)
    self._num_ee = num_ee
    self._fps = fps
    shape = (num_envs, window, sum(self._sizes))
    self._ring = torch.zeros(shape, device=device)
    self._ring[..., 3] = 1.0  # Identity rotations: an unfilled buffer is still finite.
    self._ordered = torch.zeros(shape, device=device)
    self._newest = torch.full((1,), window - 1, dtype=torch.long, device=device)
    self._ages = torch.arange(1, window + 1, device=device)

  @property
  def num_envs(self) -> int:
    """Return the number of environments."""
    return self._ring.shape[0]

  @property
  def window_size(self) -> int:
    """Return the number of frames per window."""
    return self._ring.shape[1]

  def state(self) -> list[torch.Tensor]:
    """Return the tensors of the state: the ring, and the slot of the newest frames."""
    return [self._ring, self._newest]

  def push(
    self,
    root_pos: torch.Tensor,
    root_quat: torch.Tensor,
    joint_pos: torch.Tensor,
    ee_pos: torch.Tensor,
  ) -> None:
    """Add one frame to every environment, replacing its oldest frame.

    Args:
      root_pos: Pelvis position (N, 3), m, world axes, relative to the chosen origin.
      root_quat: Pelvis orientation (N, 4), wxyz.
      joint_pos: Joint angles (N, J), rad.
      ee_pos: End-effector positions (N, E, 3), m, same origin as ``root_pos``.
    """
    frame = torch.cat((root_pos, root_quat, joint_pos, ee_pos.flatten(1)), dim=-1)
    self._newest.add_(1).remainder_(self.window_size)
    self._ring.index_copy_(1, self._newest, frame.unsqueeze(1))

  def fill(self, env_ids: torch.Tensor, state: MotionState) -> None:
    """Replace the whole window of some environments.

    Args:
      env_ids: Indices (n,).
      state: Poses (n, W, ...), oldest first; its velocities are not used.
    """
    frames = torch.cat(
      (
        state.root_pos_w,
        state.root_quat_w,
        state.joint_pos,
        state.ee_pos_w.flatten(-2),
      ),
      dim=-1,
    )
    self._ring[env_ids.unsqueeze(-1), self._order()] = frames

  def window(self) -> MotionState:
    """Return the windows of all environments (N, W, ...), oldest frame first."""
    torch.index_select(self._ring, 1, self._order(), out=self._ordered)
    pos, quat, joints, ee = self._ordered.split(self._sizes, dim=-1)
    lin_vel, ang_vel = window_velocities(pos, quat, self._fps)
    return MotionState(
      root_pos_w=pos,
      root_quat_w=quat,
      root_lin_vel_w=lin_vel,
      root_ang_vel_w=ang_vel,
      joint_pos=joints,
      ee_pos_w=ee.unflatten(-1, (self._num_ee, 3)),
    )

  def _order(self) -> torch.Tensor:
    """Return the ring slots (W,) from the oldest frame to the newest."""
    return (self._newest + self._ages).remainder(self.window_size)
