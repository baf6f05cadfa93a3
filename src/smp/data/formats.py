"""Files of G1 motion of several tools: finding, recognising and reading them.

docs/motion-formats.md describes the formats. `read_rows` returns the same for each:
metres, radians, wxyz, the 29 joints in the order of `smp.robots.g1.JOINT_NAMES`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from smp.data.array_files import read_arrays
from smp.data.checks import Rows
from smp.data.source import JOINTS_23, METRES, Raw, SourceCfg, in_robot_order
from smp.data.text_files import read_text
from smp.errors import UserError
from smp.robots import g1


def read_rows(path: Path, source: SourceCfg = SourceCfg()) -> Rows:  # noqa: B008
  """Return the contents of a motion file in metres, radians and wxyz.

  Raises:
    UserError: names the file, and the row or the array that is wrong.
  """
  if path.suffix.lower() in (".npz", ".pkl", ".pickle"):
    raw = read_arrays(path, source)
  else:
    raw = read_text(path, source)
  rows = _to_rows(path, raw, source)
  _check_finite(path, rows)
  return rows


def _check_finite(path: Path, rows: Rows) -> None:
  for what, values in (
    ("root position", rows.root_pos),
    ("root rotation", rows.root_quat),
    ("joint angles", rows.joint_pos),
  ):
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
      row, column = bad[0]
      raise UserError(
        f"{path}: row {rows.lines[row]}: not a finite number ({what}, number {column + 1})"
      )
  zero = np.flatnonzero(np.linalg.norm(rows.root_quat, axis=1) < 1e-3)
  if len(zero):
    raise UserError(f"{path}: row {rows.lines[zero[0]]}: the root quaternion is zero")


def _to_rows(path: Path, raw: Raw, source: SourceCfg) -> Rows:
  length = source.length_unit if source.length_unit != "auto" else raw.length_unit
  angle = source.angle_unit
  if angle == "auto" or raw.units_given:
    angle = raw.angle_unit
  pos = raw.pos * METRES[length]
  joints = np.radians(raw.joints) if angle == "deg" else raw.joints
  order = ""
  if raw.quat is not None:
    wanted = source.quaternion_order
    order = wanted if wanted != "auto" else raw.quaternion_order
    quat = raw.quat if order == "wxyz" else raw.quat[:, [3, 0, 1, 2]]
  else:
    assert raw.euler is not None
    turned = Rotation.from_euler("xyz", raw.euler, degrees=raw.euler_unit == "deg")
    quat = turned.as_quat()[:, [3, 0, 1, 2]]
  if source.up_axis == "y":
    turn = Rotation.from_euler("x", 90, degrees=True)
    pos = turn.apply(pos)
    rolled = np.linalg.norm(quat, axis=1, keepdims=True)
    unit = quat / np.maximum(rolled, 1e-9)
    quat = (turn * Rotation.from_quat(unit[:, [1, 2, 3, 0]])).as_quat()[:, [3, 0, 1, 2]]
    quat = quat * rolled
  names = source.order() or raw.order
  joints, filled = _all_joints(path, joints, names, source.fill_missing_joints)
  fps = source.fps or raw.fps
  return Rows(path, fps, pos, quat, joints, raw.lines, filled, order)


def _all_joints(
  path: Path, joints: np.ndarray, order: tuple[str, ...], fill: bool
) -> tuple[np.ndarray, tuple[int, ...]]:
  """Return the 29 joints (T, 29) of joints in any order, and the filled ones."""
  if not order:
    order = g1.JOINT_NAMES
    if joints.shape[1] == len(JOINTS_23):
      order = JOINTS_23
  if joints.shape[1] != len(order):
    raise UserError(
      f"{path}: {joints.shape[1]} joints, expected {len(order)}; name them in their order "
      "with --joint-order"
    )
  missing = [name for name in g1.JOINT_NAMES if name not in order]
  if missing and not fill:
    raise UserError(
      f"{path}: no {missing[0]} among {len(order)} joints; --fill-missing-joints takes "
      f"missing ones ({len(missing)}) as zero"
    )
  if order == g1.JOINT_NAMES:
    return joints, ()
  out = in_robot_order(joints, order)
  return out, tuple(g1.JOINT_NAMES.index(name) for name in missing)
