"""What the tests hold the library against, and it can do without."""

from __future__ import annotations

import torch
from torch import Tensor

from smp.diffusion.ddpm import CosineSchedule
from smp.motion.features import MotionState
from smp.motion.mirror import AXIAL, POLAR, mirror_joints, reflect
from smp.robots import g1


def quat_exp(vec: Tensor) -> Tensor:
  """Return quaternions (..., 4) of rotation vectors (..., 3), rad."""
  half = 0.5 * vec.norm(dim=-1, keepdim=True)
  # sinc in torch is of pi x; it is exact at zero.
  xyz = 0.5 * vec * torch.sinc(half / torch.pi)
  return torch.cat((half.cos(), xyz), dim=-1)


def remove_noise(schedule: CosineSchedule, x_t: Tensor, eps: Tensor, t: Tensor):
  """Return the clean signal that ``eps`` implies: the inverse of `add_noise`."""
  shape = t.shape + (1,) * (x_t.dim() - t.dim())
  return (x_t - schedule.noise[t].view(shape) * eps) / schedule.signal[t].view(shape)


def mirror_state(state: MotionState) -> MotionState:
  """Return the motion seen in a mirror that stands in the world's xz plane."""
  places = range(3)
  return MotionState(
    root_pos_w=reflect(state.root_pos_w, places, POLAR),
    root_quat_w=reflect(state.root_quat_w, range(4), (1.0, *AXIAL)),
    root_lin_vel_w=reflect(state.root_lin_vel_w, places, POLAR),
    root_ang_vel_w=reflect(state.root_ang_vel_w, places, AXIAL),
    joint_pos=mirror_joints(state.joint_pos),
    ee_pos_w=reflect(state.ee_pos_w[..., list(g1.EE_MIRROR_INDEX), :], places, POLAR),
  )
