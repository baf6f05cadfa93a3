"""The Unitree G1: names, sides and model, without importing mjlab or torch."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import mujoco

_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_ARM = (
  "shoulder_pitch",
  "shoulder_roll",
  "shoulder_yaw",
  "elbow",
  "wrist_roll",
  "wrist_pitch",
  "wrist_yaw",
)
_WAIST = ("waist_yaw", "waist_roll", "waist_pitch")

JOINT_NAMES: tuple[str, ...] = (
  *(f"left_{part}_joint" for part in _LEG),
  *(f"right_{part}_joint" for part in _LEG),
  *(f"{part}_joint" for part in _WAIST),
  *(f"left_{part}_joint" for part in _ARM),
  *(f"right_{part}_joint" for part in _ARM),
)
"""The 29 hinge joints in the order of mjlab's ``g1.xml`` and of the LAFAN1 CSVs."""

NUM_JOINTS = len(JOINT_NAMES)

MOTOR_NAMES = JOINT_NAMES
"""The joints by index of their motors in ``motor_cmd`` and ``motor_state`` of Unitree's
SDK, for the G1 with 29 motors: legs, waist, arms, the left before the right. It is the
model's order; the ankles in pitch and roll, which is the SDK's mode PR."""

ROOT_BODY = "pelvis"
FLOOR = "floor"

HEAD_BODY = "torso_link"
HEAD_OFFSET = (0.0, 0.0, 0.43)
"""Position of the head, m, in the frame of ``HEAD_BODY``. The G1 has no head body."""

EE_BODY_NAMES: tuple[str, ...] = (
  "left_ankle_roll_link",
  "right_ankle_roll_link",
  "torso_link",  # This body represents the head.
  "left_wrist_yaw_link",
  "right_wrist_yaw_link",
)


def other_side(name: str) -> str:
  """Return the name of the same part on the other side.

  Parts in the middle keep their name.
  """
  if name.startswith("left_"):
    return "right_" + name.removeprefix("left_")
  if name.startswith("right_"):
    return "left_" + name.removeprefix("right_")
  return name


MIRROR_INDEX: tuple[int, ...] = tuple(
  JOINT_NAMES.index(other_side(name)) for name in JOINT_NAMES
)
"""Mirrored joint j takes its angle from joint ``MIRROR_INDEX[j]``."""

MIRROR_SIGN: tuple[float, ...] = tuple(
  -1.0 if name.endswith(("roll_joint", "yaw_joint")) else 1.0 for name in JOINT_NAMES
)
"""Sign of each mirrored joint: rotations about x or z change sign in the mirror."""

EE_MIRROR_INDEX: tuple[int, ...] = tuple(
  EE_BODY_NAMES.index(other_side(name)) for name in EE_BODY_NAMES
)


LIMBS = ("left_leg", "right_leg", "waist", "left_arm", "right_arm")


def limb_of(joint: str) -> str:
  """Return the one of `LIMBS` that a joint belongs to."""
  side = joint.split("_")[0]
  if side == "waist":
    return side
  leg = any(part in joint for part in ("hip", "knee", "ankle"))
  return f"{side}_{'leg' if leg else 'arm'}"


def model_path() -> Path:
  """Return mjlab's G1 model file, without importing mjlab (which takes seconds)."""
  spec = importlib.util.find_spec("mjlab")
  if spec is None or not spec.submodule_search_locations:
    raise RuntimeError("mjlab is not installed: its asset zoo holds the G1 model")
  folder = Path(next(iter(spec.submodule_search_locations)))
  return folder / "asset_zoo" / "robots" / "unitree_g1" / "xmls" / "g1.xml"


def load_spec(floor: bool = False) -> mujoco.MjSpec:
  """Return a new spec of mjlab's G1, without the visual meshes, to build on.

  Args:
    floor: Add a plane at z = 0.
  """
  spec = mujoco.MjSpec.from_file(str(model_path()))
  for geom in [geom for geom in spec.geoms if geom.type == mujoco.mjtGeom.mjGEOM_MESH]:
    spec.delete(geom)
  for mesh in list(spec.meshes):
    spec.delete(mesh)
  if floor:
    spec.worldbody.add_geom(
      name=FLOOR, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0.0, 0.0, 1.0]
    )
  return spec


@functools.cache
def load_model(floor: bool = False) -> mujoco.MjModel:
  """Return mjlab's G1: kinematics and collision shapes, without visual meshes.

  The model is shared by all callers: treat it as read-only.

  Args:
    floor: Add a plane at z = 0, to find what penetrates it.

  Raises:
    RuntimeError: the model's joints are not in the order of ``JOINT_NAMES``.
  """
  model = load_spec(floor).compile()
  found = tuple(
    model.joint(j).name
    for j in range(model.njnt)
    if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE
  )
  for index, (want, got) in enumerate(zip(JOINT_NAMES, found, strict=False)):
    if want != got:
      raise RuntimeError(f"joint {index} of the G1 model is '{got}', expected '{want}'")
  if len(found) != NUM_JOINTS:
    raise RuntimeError(f"the G1 model has {len(found)} joints, expected {NUM_JOINTS}")
  return model
