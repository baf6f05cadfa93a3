"""Text files of motion: columns with names, or rows of numbers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from smp.data.column_units import ANGLES, LENGTHS, angle_units, units_of
from smp.data.frame_rates import rate_of_table
from smp.data.source import (
  CSV_FPS,
  JOINTS_23,
  SEED_FPS,
  Raw,
  SourceCfg,
  joint_of,
  plain,
)
from smp.data.text_tables import Table, counts, read_table
from smp.errors import UserError
from smp.robots import g1

CSV_COLUMNS = 7 + g1.NUM_JOINTS

_ROOT = {
  "x": "px px root_x root_pos_x pos_x position_x base_x base_pos_x pelvis_x root_translatex "
  "root_translate_x root_translation_x root_position_x base_position_x trans_x tx "
  "pelvis_pos_x root_tx root_trans_x",
  "qx": "qx root_qx root_quat_x root_rot_x quat_x rot_x base_quat_x rotation_x base_qx "
  "root_rotation_x pelvis_quat_x root_orientation_x orientation_x q_x base_rot_x",
  "ex": "root_rotatex root_rotate_x roll root_roll euler_x base_roll root_euler_x rx "
  "rotate_x",
}


def _root_names() -> dict[str, str]:
  names = {}
  for axis in "xyz":
    for kind in ("", "q", "e"):
      for word in _ROOT[f"{kind}x"].split():
        if word.endswith("roll"):
          turned = word.replace("roll", {"x": "roll", "y": "pitch", "z": "yaw"}[axis])
        else:
          place = word.rindex("x")
          turned = word[:place] + axis + word[place + 1 :]
        names[turned] = kind + axis
    names[axis] = axis
  for word in _ROOT["qx"].split():
    place = word.rindex("x")
    names[word[:place] + "w" + word[place + 1 :]] = "qw"
  return names


_ROOT_NAMES = _root_names()

_IGNORED = re.compile(
  r"(frame|time|timestamp|index|row|step|t|id|#)?(_?(idx|id|s|sec|ms))?"
)


def _part_of(name: str) -> str | None:
  """Return the joint, or the part of the root, that a column holds, by its name."""
  return joint_of(name) or _ROOT_NAMES.get(plain(name))


def read_text(path: Path, source: SourceCfg) -> Raw:
  """Return the contents of a text file.

  Raises:
    UserError: names the file, and the row or the column that is wrong.
  """
  expected = f"rows of {CSV_COLUMNS} numbers"
  table = read_table(path, expected, _part_of)
  bad = np.argwhere(~np.isfinite(table.values))
  if len(bad):
    row, column = bad[0]
    raise UserError(
      f"{path}: row {table.lines[row]}, column {column + 1}: not a finite number"
    )
  if source.format in ("gmr", "mjlab"):
    raise UserError(f"{path}: --format {source.format} is of .npz and .pkl files")
  columns = _columns(path, table, source)
  if columns is None:
    if source.format == "seed":
      raise UserError(f"{path}: no columns with the names of BONES-SEED in row 1")
    return _plain_csv(path, table, source)
  return _named_csv(path, table, columns, source)


def _columns(path: Path, table: Table, source: SourceCfg) -> dict[str, int] | None:
  """Return the columns of root and joints by their names; None: no names."""
  columns: dict[str, int] = {}
  strange = []
  if table.unplaced:
    _check_unplaced(path, table, source)
    return None
  for index, name in enumerate(table.names):
    part = _part_of(name)
    if part is None:
      if not _IGNORED.fullmatch(plain(name)):
        strange.append(name)
    elif part in columns:
      raise UserError(f"{path}: two columns are called '{part}' (column {index + 1})")
    else:
      columns[part] = index
  if sum(part in g1.JOINT_NAMES for part in columns) < 10:
    _check_places(path, table, columns, source, strange)
    return None
  for group in ("xyz", ("qw", "qx", "qy", "qz"), ("ex", "ey", "ez")):
    have = [part for part in group if part in columns]
    if have and len(have) < len(group):
      lacking = next(part for part in group if part not in columns)
      raise UserError(f"{path}: no column for '{lacking}' of the root in the heading")
  if "x" not in columns or not {"qw", "ex"} & columns.keys():
    hint = f"; not known: '{strange[0][:40]}'" if strange else ""
    raise UserError(
      f"{path}: the heading names joints, but not the root's position (root_pos_x ...) "
      f"and rotation (root_quat_w ... or root_rotateX ...){hint}"
    )
  return columns


def _check_unplaced(path: Path, table: Table, source: SourceCfg) -> None:
  """Raise an error for names that do not fit the columns; a list of joints may agree.

  Raises:
    UserError: They are other names, or the joints in another order than that read.
  """
  assert table.unplaced is not None
  line, names = table.unplaced
  width = table.values.shape[1]
  joints = tuple(joint_of(name) for name in names)
  if None in joints:
    raise UserError(
      f"{path}: row {line} names {len(names)} columns, but the rows below have {width}; "
      "name each column, or remove that line if they are as in a clip without names"
    )
  usual = JOINTS_23 if width == 7 + len(JOINTS_23) else g1.JOINT_NAMES
  if not source.joint_order and joints != usual:
    raise UserError(
      f"{path}: row {line} lists {len(names)} joints over {width} columns, not in the order "
      "of a clip without names; give the order of the columns by --joint-order, or name "
      "each column"
    )


def _check_places(
  path: Path,
  table: Table,
  columns: Mapping[str, int],
  source: SourceCfg,
  strange: Sequence[str],
) -> None:
  """Raise an error where a heading contradicts a clip that is read by place.

  A clip whose heading names few of the joints is read so: x, y, z, the quaternion,
  joints.

  Args:
    path: The file.
    table: Its rows and names.
    columns: Column of each part that the heading names.
    source: The options.
    strange: Names in the heading that are not known.

  Raises:
    UserError: The message names the column.
  """
  joints = source.order() or g1.JOINT_NAMES
  count = table.values.shape[1]
  numbered = count == len(joints) + 8 and counts(table.values[:, 0])
  quat = ("qw", "qx", "qy", "qz")
  if source.quaternion_order != "wxyz":
    quat = ("qx", "qy", "qz", "qw")
  places = ("x", "y", "z", *quat, *joints)
  if count - numbered != len(places):
    return  # Another number of columns: of 23 joints, or none that is read.
  for part, index in columns.items():
    place = index - numbered
    name = table.names[index]
    if part in ("ex", "ey", "ez") and plain(table.names[6 + numbered]).endswith("w"):
      part = f"q{part[1]}"  # Of rx, ry, rz and rw.
    if part not in places or places.index(part) != place:
      remedy = f"; not known: '{strange[0][:40]}'" if strange else ""
      if part in quat:
        remedy = "; give --quaternion-order wxyz, if it is so, or mend the heading"
      raise UserError(
        f"{path}: the heading calls column {index + 1} '{name}', but names too few joints "
        f"of the G1 to read the clip by its names{remedy}"
      )


def _named_csv(
  path: Path, table: Table, columns: Mapping[str, int], source: SourceCfg
) -> Raw:
  values, names = table.values, table.names
  order = tuple(part for part in columns if part in g1.JOINT_NAMES)
  joint_names = [names[columns[joint]] for joint in order]
  seed = source.format == "seed" or (
    "ex" in columns and all(plain(name).endswith("_dof") for name in joint_names)
  )
  if source.format == "csv":
    seed = False
  euler = "ex" in columns
  quat = None if euler else values[:, [columns[f"q{a}"] for a in "wxyz"]]
  # Root columns may be in any order: they are found by name.
  length = units_of(path, [names[columns[a]] for a in "xyz"], LENGTHS)
  turns = [names[columns[f"e{a}"]] for a in "xyz"] if euler else []
  angles = values[:, [columns[f"e{a}"] for a in "xyz"]] if euler else None
  euler_unit, angle_unit = angle_units(
    path,
    source,
    "deg" if seed else "rad",
    units_of(path, turns, ANGLES) if euler else None,
    units_of(path, joint_names, ANGLES),
    0.0 if angles is None else float(np.abs(angles).max()),
  )
  return Raw(
    values[:, [columns[a] for a in "xyz"]],
    quat,
    angles,
    values[:, [columns[joint] for joint in order]],
    order,
    table.lines,
    source.fps or rate_of_table(path, table) or (SEED_FPS if seed else CSV_FPS),
    "wxyz",
    length.over(path, "cm" if seed else "m", "--length-unit", source.length_unit),
    angle_unit,
    euler_unit,
    True,
  )


def _plain_csv(path: Path, table: Table, source: SourceCfg) -> Raw:
  values, lines = table.values, table.lines
  count = values.shape[1]
  order = source.order()
  joints = len(order) or g1.NUM_JOINTS
  if count == joints + 8 and counts(values[:, 0]):
    values, count = values[:, 1:], count - 1  # This is a column of frame numbers.
  if count == 7 + len(JOINTS_23) and not order:
    order, joints = JOINTS_23, len(JOINTS_23)
    if not source.fill_missing_joints:
      raise UserError(
        f"{path}: row {lines[0]} has {count} columns, expected {CSV_COLUMNS}: a clip of "
        "the 23-joint G1? --fill-missing-joints takes the other six as zero"
      )
  if count != 7 + joints:
    raise UserError(
      f"{path}: row {lines[0]} has {count} columns, expected {7 + joints} (root xyz, root "
      f"quaternion xyzw, {joints} joint angles)"
    )
  length, angle = "m", "rad"
  if table.names:
    names = table.names[-count:]
    option = source.angle_unit
    length = units_of(path, names[:3], LENGTHS).over(
      path, length, "--length-unit", source.length_unit
    )
    angle = units_of(path, names[7:], ANGLES).over(path, angle, "--angle-unit", option)
  parts = (values[:, :3], values[:, 3:7], None, values[:, 7:])
  fps = source.fps or rate_of_table(path, table) or CSV_FPS
  return Raw(*parts, order, lines, fps, "xyzw", length, angle)
