"""What a file of arrays says: the order of its joints, and its motion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smp.data.array_values import key_of, refuse_objects, texts_of
from smp.data.frame_rates import rate_of_arrays
from smp.data.source import CSV_FPS, Raw, SourceCfg, joint_of
from smp.errors import UserError, shown
from smp.robots import g1

_ORDERS_OF_JOINTS = ("jointnames", "dofnames")
"""Names of the list of joints, as `key_of`, whose contents must be joints."""


def order_of(
  path: Path, data: Mapping[str, Any], source: SourceCfg, count: int
) -> tuple[str, ...]:
  """Return the joint names in a file of arrays; empty: none.

  Lists of joints count under any name; lists of bodies and of some joints do not.

  Args:
    path: The file.
    data: Its arrays.
    source: The options; an order that they give leaves that of the file unread.
    count: Number of joints in the file.

  Raises:
    UserError: Names are not those of the G1, or twice, or two lists differ.
  """
  if source.joint_order:
    return ()
  found: dict[str, tuple[str, ...]] = {}
  for name in data:
    certain = key_of(name) in _ORDERS_OF_JOINTS
    if certain or key_of(name).endswith(("jointnames", "dofnames", "jointorder")):
      refuse_objects(path, data, name)
    names = texts_of(data[name])
    said = data[name] is not None and np.size(data[name])
    if not names and said and (certain or key_of(name) == "jointorder"):
      raise UserError(f"{path}: '{name}' is not a list of joint names")
    joints = [joint_of(each) for each in names]
    known = tuple(joint for joint in joints if joint is not None)
    if not certain:
      bodies = sum(each.endswith("_link") for each in names) > len(names) / 2
      if len(known) < 10 or bodies or "body" in name.lower() or "link" in name.lower():
        continue
      if len({*known}) < count and len(known) != count:
        continue  # These are some of the joints.
    if None in joints and (certain or known != g1.JOINT_NAMES):
      strange = names[joints.index(None)]
      raise UserError(f"{path}: '{name}' has {shown(strange)}, which the G1 has not")
    twice = next((joint for joint in known if known.count(joint) > 1), None)
    if twice:
      raise UserError(f"{path}: '{name}' has {twice} twice; name each joint once")
    if known:
      found[name] = known
  for name, order in found.items():
    first = next(iter(found))
    if order != found[first]:
      raise UserError(
        f"{path}: '{first}' and '{name}' have joints in different orders; remove one, or "
        "give --joint-order"
      )
  return next(iter(found.values()), ())


def width_of(dof: np.ndarray) -> int:
  """Return the number of joints of (T, joints) or (T, joints, 1)."""
  return dof.shape[1] if dof.ndim > 1 else 0


def raw_of(
  path: Path,
  data: Mapping[str, Any],
  pos: np.ndarray,
  rot: np.ndarray,
  dof: np.ndarray,
  quaternion_order: str,
  order: tuple[str, ...],
  given_fps: float | None,
) -> Raw:
  """Return the motion of a file of arrays.

  Args:
    path: The file.
    data: Its arrays, which may give a frame rate.
    pos: (T, 3), of the root.
    rot: (T, 4), of the root.
    dof: (T, joints) or (T, joints, 1)
    quaternion_order: Of ``rot``.
    order: Names of the joints; empty: unknown.
    given_fps: A frame rate that counts more than that of the file.

  Raises:
    UserError: names the file, and the array of another shape.
  """
  if dof.ndim == 3 and dof.shape[2] == 1:
    dof = dof[..., 0]
  for name, array, width in (("root position", pos, 3), ("root rotation", rot, 4)):
    if array.ndim != 2 or array.shape[1] != width or len(array) != len(dof):
      raise UserError(
        f"{path}: the {name} is {array.shape}, expected ({len(dof)}, {width})"
      )
  if dof.ndim != 2 or not len(dof):
    raise UserError(f"{path}: the joint positions are {dof.shape}, expected (T, 29)")
  lines = np.arange(1, len(dof) + 1)
  fps = given_fps or rate_of_arrays(path, data, len(dof)) or CSV_FPS
  return Raw(pos, rot, None, dof, order, lines, fps, quaternion_order)
