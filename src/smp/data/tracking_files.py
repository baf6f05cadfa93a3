"""NPZ files of mjlab's tracking tasks, whose bodies tell what the joints are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from smp.data.array_values import array_of, refuse_objects, texts_of
from smp.data.arrays import order_of, raw_of
from smp.data.checks import ISAAC
from smp.data.clip_kinematics import body_names, find_bodies
from smp.data.source import (
  JOINTS_23,
  METRES,
  ORDERS,
  Raw,
  SourceCfg,
  in_robot_order,
)
from smp.errors import UserError, shown
from smp.robots import g1


def read_tracking(path: Path, data: Mapping[str, Any], source: SourceCfg) -> Raw:
  """Return the contents of a tracking task's NPZ: world bodies, pelvis first."""
  joints = array_of(path, data, "joint_pos")
  if "body_quat_w" not in data:
    raise UserError(f"{path}: no array 'body_quat_w'")
  pos, quat = (array_of(path, data, name) for name in ("body_pos_w", "body_quat_w"))
  shapes = (pos.shape[2:], quat.shape[2:], joints.ndim)
  if shapes != ((3,), (4,), 2) or pos.shape[:2] != quat.shape[:2] or not pos.shape[1]:
    raise UserError(
      f"{path}: 'body_pos_w' is {pos.shape}, 'body_quat_w' {quat.shape} and 'joint_pos' "
      f"{joints.shape}, expected (T, bodies, 3), (T, bodies, 4) and (T, 29)"
    )
  order = order_of(path, data, source, joints.shape[1])
  names = _body_names(path, data, pos.shape[1])
  root = names.index(g1.ROOT_BODY) if names else 0
  raw = raw_of(
    path, data, pos[:, root], quat[:, root], joints, "wxyz", order, source.fps
  )
  return replace(raw, order=_order_by_bodies(path, raw, source, pos, names, root))


def _body_names(path: Path, data: Mapping[str, Any], count: int) -> list[str]:
  """Return the bodies of a tracking task's NPZ, as mjlab calls them; empty: unknown.

  Raises:
    UserError: They are not as many as there are, or the pelvis is not among them.
  """
  if data.get("body_names") is None or not np.size(data["body_names"]):
    return []
  refuse_objects(path, data, "body_names")
  names = [
    re.split(r"[/.:]", name.strip().lower())[-1]
    for name in texts_of(data["body_names"])
  ]
  if len(names) != count:
    raise UserError(
      f"{path}: 'body_names' has {len(names)} names of the {count} bodies in 'body_pos_w'"
    )
  if g1.ROOT_BODY not in names and f"{g1.ROOT_BODY}_link" in names:
    names[names.index(f"{g1.ROOT_BODY}_link")] = g1.ROOT_BODY
  if names.count(g1.ROOT_BODY) != 1:
    raise UserError(
      f"{path}: 'body_names' must have '{g1.ROOT_BODY}' once, as the root is read from it; "
      f"it has {shown(names)}"
    )
  return names


BODY_TOLERANCE = 0.02
"""Largest median distance of the bodies in a file from where its joints put them, m. The
torso, taken for the pelvis, is 4 cm off."""


def _order_by_bodies(
  path: Path,
  raw: Raw,
  source: SourceCfg,
  bodies: np.ndarray,
  names: Sequence[str],
  root: int,
) -> tuple[str, ...]:
  """Return the joint order with which the bodies are where the file has them.

  Args:
    path: The file.
    raw: Its contents; an order that it gives, or the options, is only checked.
    source: The options.
    bodies: (T, B, 3)
    names: Of the bodies; empty: unknown.
    root: The body that is taken for the pelvis.

  Raises:
    UserError: There is none, or the bodies do not tell which.
  """
  given = source.order() or raw.order
  if not given and raw.joints.shape[1] == len(JOINTS_23):
    given = JOINTS_23
  orders = {"": given} if given else ORDERS
  if any(len(order) != raw.joints.shape[1] for order in orders.values()):
    return raw.order  # The next steps refuse it.
  # Whether the quaternions are as they should be is judged later.
  swapped = source.quaternion_order == "xyzw"
  assert raw.quat is not None
  quat = raw.quat[:, [3, 0, 1, 2]] if swapped else raw.quat
  others = [body for body in range(bodies.shape[1]) if body != root]
  some = np.unique(np.linspace(0, len(raw.pos) - 1, 20).astype(int))
  size = METRES[source.length_unit if source.length_unit != "auto" else "m"]
  pos, there = raw.pos[some] * size, bodies[some][:, others] * size
  joints = raw.joints[some] * (np.pi / 180 if source.angle_unit == "deg" else 1.0)
  length = np.linalg.norm(quat[some], axis=1, keepdims=True)
  sound = all(np.isfinite(each).all() for each in (pos, there, joints, length))
  if not given and not np.isfinite(there).all():
    raise UserError(f"{path}: 'body_pos_w' has numbers that are not finite")
  if not sound or length.min() < 1e-3:
    return raw.order if given else g1.JOINT_NAMES
  called = [names[body] for body in others] if names else []
  errors = {
    name: _apart(
      find_bodies(pos, quat[some] / length, in_robot_order(joints, order)),
      there,
      called,
    )
    for name, order in orders.items()
  }
  best = min(errors, key=lambda name: float(errors[name].sum()))
  off = float(np.median(errors[best])) if others else 0.0
  if off > BODY_TOLERANCE:
    raise UserError(
      f"{path}: the bodies in 'body_pos_w' are {100 * off:.1f} cm from where 'joint_pos' "
      f"puts them, if body {root + 1} is the pelvis in wxyz: name the bodies in "
      "'body_names', and the joints in 'joint_names' or by --joint-order, or give "
      "--quaternion-order, --length-unit or --angle-unit"
    )
  if given:
    return raw.order
  sums = [float(errors[name].mean()) if others else 0.0 for name in errors]
  index = [ISAAC.index(joint) for joint in g1.JOINT_NAMES]
  if max(sums) - min(sums) < 1e-3 and np.ptp(joints - joints[:, index]) > 1e-2:
    raise UserError(
      f"{path}: the bodies in 'body_pos_w' do not tell the order of the joints; give "
      "--joint-order mujoco or isaac"
    )
  return ORDERS[best]


def _apart(found: np.ndarray, there: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Return how far each body (S, B) of a file is from where kinematics puts it, m.

  Args:
    found: (S, 30, 3), as of `find_bodies`.
    there: (S, B, 3), as in the file.
    names: Of the latter. Of a body without a known name it is the nearest that counts.
  """
  distances = np.linalg.norm(found[:, :, None] - there[:, None], axis=-1)
  nearest, known = distances.min(axis=1), body_names()
  for place, name in enumerate(names):
    if name in known:
      nearest[:, place] = distances[:, known.index(name), place]
  return nearest
