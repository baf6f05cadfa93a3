"""What a motion does, row by row: feet, height, speed, contacts. For checks and tables."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch

from smp import g1
from smp.motion.kinematics import Kinematics

FEET = ("left_ankle_roll_link", "right_ankle_roll_link")
SOLE = ((-0.054, 0.0), (0.132, 0.0), (0.075, -0.05), (0.075, 0.05))
"""Heel, toe and both sides of the sole: x and y in the frame of a foot of `FEET`, m."""
SOLE_Z = -0.035
"""Height of the sole in that frame, m: the lowest points of the foot's collision shapes."""
LINKS = (
  "pelvis",
  "left_knee_link",
  "right_knee_link",
  *g1.EE_BODY_NAMES,
  "left_elbow_link",
  "right_elbow_link",
)
"""Bodies that stand for the whole robot where its motion is followed."""
CONTACT = 0.02
"""A sole this close to the floor, m, stands on it."""
_CHUNK = 20_000
"""Rows at a time: all bodies of so many are some 20 MB."""


@dataclass(frozen=True)
class Poses:
  """Where the robot is in each row (T,), m, in the world."""

  links: np.ndarray
  """(T, 10, 3) positions of `LINKS`."""
  soles: np.ndarray
  """(T, 2, 4, 3) points of both soles."""
  sole_up: np.ndarray
  """(T, 2): z of each foot's own vertical; 1: flat."""
  lowest: np.ndarray
  """(T,): the lowest body's origin, or point of a sole."""
  up: np.ndarray
  """(T, 3): the world's vertical in the pelvis' frame; z is 1 upright, -1 head down."""

  @functools.cached_property
  def sole_height(self) -> np.ndarray:
    """(T, 2): height of the lowest point of each sole."""
    return self.soles[..., 2].min(axis=2)

  @functools.cached_property
  def foot_height(self) -> np.ndarray:
    """(T,): height of the lowest point of both soles."""
    return self.sole_height.min(axis=1)

  def skate(self, fps: float) -> np.ndarray:
    """Horizontal speed, m/s, of each sole in each row in which it stands on the floor."""
    center = self.soles[..., :2].mean(axis=2)
    speed = np.linalg.norm(np.diff(center, axis=0), axis=-1) * fps
    low = np.abs(self.sole_height) < CONTACT
    return speed[low[1:] & low[:-1]]


@functools.cache
def _kinematics() -> tuple[Kinematics, list[int], list[int]]:
  kinematics = Kinematics(g1.load_model())
  index = kinematics.body_names.index
  return kinematics, [index(n) for n in LINKS], [index(n) for n in FEET]


def find_poses(
  root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray
) -> Poses:
  """The poses of a motion.

  Args:
    root_pos: (T, 3), m.
    root_quat: (T, 4), wxyz, unit length.
    joint_pos: (T, 29), rad.
  """
  parts = [
    _some_poses(
      *(part[start : start + _CHUNK] for part in (root_pos, root_quat, joint_pos))
    )
    for start in range(0, max(len(root_pos), 1), _CHUNK)
  ]
  return Poses(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _some_poses(
  root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray
) -> tuple[np.ndarray, ...]:
  kinematics, links, feet = _kinematics()
  # A clip may stand far from the origin; float32 is for what is near it.
  origin = np.zeros(3) if not len(root_pos) else np.array([*root_pos[0, :2], 0.0])
  args = (root_pos - origin, root_quat, joint_pos)
  with torch.no_grad():
    pos, quat = kinematics(*(torch.from_numpy(a.astype(np.float32)) for a in args))
  pos, quat = pos.numpy() + origin, quat.numpy()
  w, x, y, z = np.moveaxis(quat[:, feet], -1, 0)[..., None]
  ex = np.concatenate(
    (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)), -1
  )
  ey = np.concatenate(
    (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)), -1
  )
  ez = np.cross(ex, ey)
  sole = np.array(SOLE)
  soles = (pos[:, feet] + SOLE_Z * ez)[:, :, None] + (
    sole[:, :1] * ex[:, :, None] + sole[:, 1:] * ey[:, :, None]
  )
  lowest = np.minimum(pos[..., 2].min(axis=1), soles[..., 2].min(axis=(1, 2)))
  return pos[:, links], soles, ez[..., 2], lowest, vertical(root_quat)


def vertical(quat: np.ndarray) -> np.ndarray:
  """The world's vertical (T, 3) in the frames of orientations (T, 4), wxyz."""
  w, x, y, z = quat.T
  up = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
  return np.stack(up, axis=1)
