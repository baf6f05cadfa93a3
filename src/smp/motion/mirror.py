"""Sagittal mirror of joint angles and poses: the world's xz plane.

A mirror image is an order and a sign of each number, in any container. Torch is not
imported, as what runs on a robot's computer need not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from smp.robots import g1

if TYPE_CHECKING:
  import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")

POLAR = (1.0, -1.0, 1.0)
"""Signs of mirrored positions, velocities and axes in space."""
AXIAL = (-1.0, 1.0, -1.0)
"""Signs of mirrored angular velocities, and of the xyz part of a quaternion."""
_QPOS_INDEX = (*range(7), *(7 + joint for joint in g1.MIRROR_INDEX))
_QPOS_SIGN = (*POLAR, 1.0, *AXIAL, *g1.MIRROR_SIGN)


def reflect(values: Values, index: Sequence[int], sign: Sequence[float]) -> Values:
  """Return ``values`` (..., N) in the order ``index`` (N,), times ``sign`` (N,)."""
  if isinstance(values, np.ndarray):
    return values[..., list(index)] * np.asarray(sign)
  return values[..., list(index)] * values.new_tensor(sign)


def mirror_joints(joint_pos: Values) -> Values:
  """Return the mirror image of joint angles or speeds (..., 29)."""
  return reflect(joint_pos, g1.MIRROR_INDEX, g1.MIRROR_SIGN)


def mirror_qpos(qpos: Values) -> Values:
  """Return the mirror image of poses (..., 36): root xyz, root wxyz, joints."""
  return reflect(qpos, _QPOS_INDEX, _QPOS_SIGN)
