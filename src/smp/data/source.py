"""How motion files are read: options, orders of joints, and what is read of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from smp.data.checks import ISAAC
from smp.errors import UserError
from smp.robots import g1
from smp.utils.limits import Positive

Format = Literal["auto", "csv", "seed", "gmr", "mjlab"]
QuaternionOrder = Literal["auto", "xyzw", "wxyz"]
LengthUnit = Literal["auto", "m", "cm", "mm", "in"]
AngleUnit = Literal["auto", "rad", "deg"]

CSV_FPS = 30.0
SEED_FPS = 120.0
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}

SIX_MISSING = (
  "waist_roll_joint",
  "waist_pitch_joint",
  "left_wrist_pitch_joint",
  "left_wrist_yaw_joint",
  "right_wrist_pitch_joint",
  "right_wrist_yaw_joint",
)
"""Joints that the G1 of 23 joints lacks."""

JOINTS_23 = tuple(name for name in g1.JOINT_NAMES if name not in SIX_MISSING)

ORDERS: dict[str, tuple[str, ...]] = {
  "mujoco": g1.JOINT_NAMES,
  "isaac": ISAAC,
}
"""Named orders of joints: depth first, and breadth first as in Isaac Lab."""


@dataclass(frozen=True)
class SourceCfg:
  """Settings for reading motion files; ``auto``: as defined by the format."""

  format: Format = "auto"
  """``csv``: numbers, or columns with names; ``seed``: BONES-SEED; ``gmr``: GMR's PKL
  or NPZ; ``mjlab``: NPZ of a tracking task."""

  fps: Positive | None = None
  """Rows per second. None: the file's own rate, or else 30 (``seed``: 120)."""

  quaternion_order: QuaternionOrder = "auto"
  length_unit: LengthUnit = "auto"
  angle_unit: AngleUnit = "auto"
  """Unit of joint angles and Euler angles."""

  up_axis: Literal["z", "y"] = "z"
  joint_order: tuple[str, ...] = ()
  """Names of the joints of the file, in its order; or ``mujoco`` or ``isaac``."""

  fill_missing_joints: bool = False
  """Fill joints that the file lacks with zero (a G1 of 23 joints)."""

  def check(self) -> None:
    """Raise ``UserError`` for an invalid order of joints."""
    if self.joint_order:
      self.order()

  def order(self) -> tuple[str, ...]:
    """Return the joints of the file by `joint_order`; empty: unspecified."""
    words = tuple(
      w for part in self.joint_order for w in re.split(r"[,\s]+", part) if w
    )
    if len(words) == 1:
      if words[0] not in ORDERS:
        raise UserError(
          f"--joint-order {words[0]}: give all joint names, or one of {', '.join(ORDERS)}"
        )
      return ORDERS[words[0]]
    names = []
    for word in words:
      joint = joint_of(word)
      if joint is None:
        raise UserError(f"--joint-order: no joint of the G1 is called '{word[:40]}'")
      if joint in names:
        raise UserError(f"--joint-order: '{word}' is named twice")
      names.append(joint)
    return tuple(names)


def plain(name: str) -> str:
  """Return a column's name without case, units and punctuation."""
  text = re.sub(r"[\(\[].*?[\)\]]", "", name.strip().lower())
  text = re.sub(r"[\s./:\-]+", "_", text).strip("_")
  return re.sub(r"_(deg|degrees|rad|radians|cm|mm|m)$", "", text)


def joint_of(name: str) -> str | None:
  """Return the joint that a column belongs to, by its name."""
  text = plain(name)
  text = re.sub(r"^(joint|dof|q|pos|joint_pos|dof_pos)_", "", text)
  text = re.sub(r"_(dof|pos|position|angle|q)$", "", text)
  text = text.removesuffix("_link").removesuffix("_joint")
  text = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", text))
  text = re.sub(r"^torso$", "waist_yaw", text)
  joint = f"{text}_joint"
  return joint if joint in g1.JOINT_NAMES else None


@dataclass(frozen=True)
class Raw:
  """Contents of a file, in its own units and orders."""

  pos: np.ndarray
  quat: np.ndarray | None
  """(T, 4)"""
  euler: np.ndarray | None
  """(T, 3), extrinsic xyz."""
  joints: np.ndarray
  order: tuple[str, ...]
  """Names of the joints; empty: unknown."""
  lines: np.ndarray
  fps: float
  quaternion_order: str
  length_unit: str = "m"
  angle_unit: str = "rad"
  """Of the joints."""
  euler_unit: str = "rad"
  units_given: bool = False
  """Whether the options were heeded in `angle_unit` and `euler_unit`."""


def in_robot_order(joints: np.ndarray, order: Sequence[str]) -> np.ndarray:
  """Return the joints (T, 29) in `g1.JOINT_NAMES`' order; those that lack are zero.

  Args:
    joints: (T, joints)
    order: Their names.
  """
  found = np.zeros((len(joints), g1.NUM_JOINTS))
  found[:, [g1.JOINT_NAMES.index(name) for name in order]] = joints
  return found
