"""The 59 features of a frame. This module alone defines their layout.

A window is W frames at 50 Hz. Everything spatial is expressed in the frame of the
window's last root: origin at that pelvis's xy, x along its heading, z up from the
floor.

| slice | name | meaning |
|---|---|---|
| 0:3 | root_pos | pelvis position; z is the height above the floor |
| 3:9 | root_rot | pelvis orientation, first and third matrix columns |
| 9:38 | joint_pos | 29 joint angles, rad |
| 38:53 | ee_pos | five end effectors minus the same frame's pelvis, m |
| 53:56 | root_lin_vel | velocity of the pelvis origin, m/s |
| 56:59 | root_ang_vel | angular velocity of the pelvis, rad/s |

Source: Mu et al., arXiv 2512.03028, as the G1 reproduction states it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from smp.errors import UserError
from smp.motion.mirror import AXIAL, POLAR, reflect
from smp.motion.rotations import (
  HeadingKind,
  quat_conj,
  quat_from_rot6d,
  quat_log,
  quat_mul,
  rot6d_from_quat,
  rotate_z,
)
from smp.motion.rotations import (
  heading as heading_of,
)
from smp.robots import g1
from smp.utils.schema import Size, read_as

VelocityKind = Literal["window", "clip"]
FPS = 50
WINDOW = 10
FEATURE_NAMES = (
  "root_pos",
  "root_rot",
  "joint_pos",
  "ee_pos",
  "root_lin_vel",
  "root_ang_vel",
)
FEATURE_DIMS = (3, 6, g1.NUM_JOINTS, 3 * len(g1.EE_BODY_NAMES), 3, 3)
FEATURE_DIM = sum(FEATURE_DIMS)
SLICES: dict[str, slice] = {
  name: slice(sum(FEATURE_DIMS[:i]), sum(FEATURE_DIMS[: i + 1]))
  for i, name in enumerate(FEATURE_NAMES)
}


class MotionState(NamedTuple):
  """Frames of motion from any source, as tensors (..., 3), (..., 4), ...

  World frame (any frame with z up and the floor at 0), m, rad, s. A window has one
  more leading axis, W frames, oldest first.
  """

  root_pos_w: torch.Tensor
  """Pelvis position (..., 3)."""
  root_quat_w: torch.Tensor
  """Pelvis orientation (..., 4), wxyz."""
  root_lin_vel_w: torch.Tensor
  """Velocity of the pelvis frame's origin (..., 3)."""
  root_ang_vel_w: torch.Tensor
  """Angular velocity of the pelvis (..., 3), world axes."""
  joint_pos: torch.Tensor
  """Joint angles (..., 29)."""
  ee_pos_w: torch.Tensor
  """End-effector positions (..., 5, 3)."""


def qpos_of(state: MotionState) -> np.ndarray:
  """Return poses (..., 36) for MuJoCo: root xyz, root wxyz, joint angles."""
  parts = (state.root_pos_w, state.root_quat_w, state.joint_pos)
  return np.concatenate([part.cpu().numpy() for part in parts], axis=-1)


class Anchor(NamedTuple):
  """The frame in which a window is expressed: its position and its heading."""

  pos_xy: torch.Tensor
  """(..., 2), m."""
  cos: torch.Tensor
  """Cosine of the heading (...)."""
  sin: torch.Tensor
  """Sine of the heading (...)."""


def anchor_of(state: MotionState, heading: HeadingKind = "twist") -> Anchor:
  """Return the anchor of windows (..., W, .): their last root, made upright."""
  cos, sin = heading_of(state.root_quat_w[..., -1, :], heading)
  return Anchor(state.root_pos_w[..., -1, :2], cos, sin)


def encode(state: MotionState, heading: HeadingKind = "twist") -> torch.Tensor:
  """Return the features (..., W, 59) of windows of motion."""
  anchor = anchor_of(state, heading)
  # Rotate by the inverse of the heading, for every frame of the window.
  cos, sin = anchor.cos.unsqueeze(-1), -anchor.sin.unsqueeze(-1)
  xy = state.root_pos_w[..., :2] - anchor.pos_xy.unsqueeze(-2)
  pos = torch.cat((xy, state.root_pos_w[..., 2:]), dim=-1)
  rot = rot6d_from_quat(state.root_quat_w)
  ee = state.ee_pos_w - state.root_pos_w.unsqueeze(-2)
  return torch.cat(
    (
      rotate_z(cos, sin, pos),
      rotate_z(cos, sin, rot[..., :3]),
      rotate_z(cos, sin, rot[..., 3:]),
      state.joint_pos,
      rotate_z(cos.unsqueeze(-1), sin.unsqueeze(-1), ee).flatten(-2),
      rotate_z(cos, sin, state.root_lin_vel_w),
      rotate_z(cos, sin, state.root_ang_vel_w),
    ),
    dim=-1,
  )


def decode(features: torch.Tensor, anchor: Anchor | None = None) -> MotionState:
  """Return windows of motion from features (..., W, 59), the inverse of `encode`.

  Args:
    features: Encoded or generated; the orientation is made orthonormal.
    anchor: Position and heading of the window. None: at the origin, facing along x.
  """
  pos, rot, joints, ee, lin, ang = (features[..., SLICES[n]] for n in FEATURE_NAMES)
  ee = ee.unflatten(-1, (-1, 3))
  if anchor is not None:
    cos, sin = anchor.cos.unsqueeze(-1), anchor.sin.unsqueeze(-1)
    pos = rotate_z(cos, sin, pos)
    shift = torch.cat((anchor.pos_xy, torch.zeros_like(anchor.pos_xy[..., :1])), -1)
    pos = pos + shift.unsqueeze(-2)
    rot = torch.cat(
      (rotate_z(cos, sin, rot[..., :3]), rotate_z(cos, sin, rot[..., 3:])), dim=-1
    )
    ee = rotate_z(cos.unsqueeze(-1), sin.unsqueeze(-1), ee)
    lin, ang = rotate_z(cos, sin, lin), rotate_z(cos, sin, ang)
  return MotionState(
    root_pos_w=pos,
    root_quat_w=quat_from_rot6d(rot),
    root_lin_vel_w=lin,
    root_ang_vel_w=ang,
    joint_pos=joints,
    ee_pos_w=ee + pos.unsqueeze(-2),
  )


# Velocity.


def window_velocities(
  root_pos_w: torch.Tensor, root_quat_w: torch.Tensor, fps: float
) -> tuple[torch.Tensor, torch.Tensor]:
  """Return the velocities of the root as a function of a window's poses alone.

  This is the only definition of velocity: clips, the simulated robot and generated
  windows all use it, so that velocities do not reveal where a window came from. Inside
  the window these are central differences; at its two ends one-sided differences of
  second order.

  The ends lack their outer neighbour, so they differ from the central differences of a
  whole clip. Over all windows of the 36 LAFAN1 clips at 50 Hz that gap is, as RMS,
  0.033 m/s and 0.108 rad/s, and 0.042 m/s and 0.148 rad/s with ends of first order. In
  exchange, noise in the poses is amplified 1.8 times as much at the ends.

  Args:
    root_pos_w: (..., W, 3), m; W at least 3.
    root_quat_w: (..., W, 4), wxyz; the sign does not matter.
    fps: Frames per second.

  Returns:
    Linear (..., W, 3), m/s, and angular velocity (..., W, 3), rad/s, world axes.

  Raises:
    ValueError: too few frames. Shapes are static, so this does not branch on values.
  """
  frames = root_pos_w.shape[-2]
  if frames < 3:
    raise ValueError(f"{frames} frame(s) have no velocity of second order: needs 3")
  # Mean velocities (W - 1) between neighbouring frames. The rotation from one frame to
  # the next is in world axes, because it multiplies from the left.
  turn = quat_mul(root_quat_w[..., 1:, :], quat_conj(root_quat_w[..., :-1, :]))
  steps = torch.cat((root_pos_w.diff(dim=-2), quat_log(turn)), dim=-1) * fps
  # At inner frames, take the mean of the step before and the step after.
  inner = 0.5 * (steps[..., 1:, :] + steps[..., :-1, :])
  # At the ends, extrapolate the two nearest steps by half a step.
  first = 1.5 * steps[..., :1, :] - 0.5 * steps[..., 1:2, :]
  last = 1.5 * steps[..., -1:, :] - 0.5 * steps[..., -2:-1, :]
  velocity = torch.cat((first, inner, last), dim=-2)
  return velocity[..., :3], velocity[..., 3:]


# The mirror.


def _mirror_of(name: str) -> tuple[list[int], list[float]]:
  """Return the order and the signs of the numbers of a feature in the mirror."""
  if name == "joint_pos":
    return list(g1.MIRROR_INDEX), list(g1.MIRROR_SIGN)
  if name == "ee_pos":
    index = [3 * body + axis for body in g1.EE_MIRROR_INDEX for axis in range(3)]
    return index, list(POLAR) * len(g1.EE_MIRROR_INDEX)
  if name == "root_ang_vel":
    return list(range(3)), list(AXIAL)
  # The x and z axes of the body are in the plane of the mirror.
  size = FEATURE_DIMS[FEATURE_NAMES.index(name)]
  return list(range(size)), list(POLAR) * (size // 3)


def mirror_features(features: torch.Tensor) -> torch.Tensor:
  """Return the mirror image of windows (..., W, 59).

  Mirroring commutes with encoding.
  """
  parts = [reflect(features[..., SLICES[f]], *_mirror_of(f)) for f in FEATURE_NAMES]
  return torch.cat(parts, dim=-1)


# The specification of windows.


@dataclass(frozen=True)
class FeatureSpec:
  """Meaning of the numbers of a window; stored with windows, statistics and priors."""

  joint_names: tuple[str, ...]
  ee_body_names: tuple[str, ...]
  root_body: str
  feature_names: tuple[str, ...]
  feature_dims: tuple[Size, ...]
  window: Size
  fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
  heading: HeadingKind
  """Definition of the anchor's heading (`smp.motion.rotations.heading`)."""
  velocity: VelocityKind
  """"window" (`window_velocities`), or "clip": central differences over whole clips."""

  def to_dict(self) -> dict[str, Any]:
    """Return the fields as plain JSON types."""
    return {
      key: list(value) if isinstance(value, tuple) else value
      for key, value in asdict(self).items()
    }

  @staticmethod
  def from_dict(data: dict[str, Any]) -> FeatureSpec:
    """Return the spec with the fields of a table, the inverse of `to_dict`.

    Raises:
      UserError: a field is missing, or of another type.
    """
    return read_as(FeatureSpec, data, "feature spec")

  def check(self, expected: FeatureSpec) -> None:
    """Raise unless this spec equals the expected one.

    Raises:
      UserError: names the first field that differs, with both values.
    """
    for field in fields(FeatureSpec):
      ours, theirs = getattr(self, field.name), getattr(expected, field.name)
      if ours != theirs:
        raise UserError(
          f"feature spec: field '{field.name}' is {_short(ours, theirs)}, expected "
          f"{_short(theirs, ours)}"
        )


def _short(value: Any, other: Any) -> str:
  """Return a value for a message; of long tuples only the first difference."""
  if not isinstance(value, tuple) or not isinstance(other, tuple):
    return repr(value)
  if len(value) != len(other):
    return f"{len(value)} entries"
  index = next(i for i, (a, b) in enumerate(zip(value, other, strict=True)) if a != b)
  return f"{value[index]!r} at position {index}"


def g1_spec(
  joint_names: tuple[str, ...] = g1.JOINT_NAMES,
  window: int = WINDOW,
  fps: float = FPS,
  heading: HeadingKind = "twist",
  velocity: VelocityKind = "window",
) -> FeatureSpec:
  """Return the spec of this project's windows on the G1."""
  return FeatureSpec(
    joint_names=tuple(joint_names),
    ee_body_names=g1.EE_BODY_NAMES,
    root_body=g1.ROOT_BODY,
    feature_names=FEATURE_NAMES,
    feature_dims=FEATURE_DIMS,
    window=window,
    fps=float(fps),
    heading=heading,
    velocity=velocity,
  )
