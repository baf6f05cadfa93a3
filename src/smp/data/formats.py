"""Files of G1 motion of several tools: finding, recognising and reading them.

docs/motion-formats.md describes the formats. `read_rows` returns the same for each:
metres, radians, wxyz, the 29 joints in the order of `smp.robots.g1.JOINT_NAMES`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.spatial.transform import Rotation

from smp.data.checks import ISAAC, Rows
from smp.data.clip_kinematics import body_names, find_bodies
from smp.data.pickles import load_pickle
from smp.data.text_tables import UNITS, Table, counts, read_table
from smp.errors import UserError, shown
from smp.robots import g1
from smp.utils.limits import RATES, Positive

Format = Literal["auto", "csv", "seed", "gmr", "mjlab"]
QuaternionOrder = Literal["auto", "xyzw", "wxyz"]
LengthUnit = Literal["auto", "m", "cm", "mm", "in"]
AngleUnit = Literal["auto", "rad", "deg"]

CSV_FPS = 30.0
CSV_COLUMNS = 7 + g1.NUM_JOINTS
SEED_FPS = 120.0
SUFFIXES = (".csv", ".txt", ".tsv", ".npz", ".pkl", ".pickle")
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}

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


# Finding files.


def find_files(folder: Path) -> dict[str, Path]:
  """Return the motion files in a folder and its sub-folders by clip name.

  ``folder`` may also be one file. The name of ``a/walk.csv`` is ``a__walk``. Hidden
  files, and files of windows that csv_to_npz.py wrote, are skipped.

  Raises:
    UserError: two files have the same name, or one is a link to nothing. (A link that
      may have been a folder gives a warning.)
  """
  if folder.is_file():
    return {folder.stem: folder}
  found: dict[str, Path] = {}
  for path in _walk(folder):
    inner = path.relative_to(folder)
    motion = path.suffix.lower() in SUFFIXES
    if path.is_symlink() and not path.exists():
      gone = f"{path}: a link to {os.readlink(path)}, which is not there"
      if motion:
        raise UserError(f"{gone}; fetch it, or remove the link")
      print(f"[WARN] {gone}: skipped, and all in it if it was a folder")
    if not motion or not path.is_file():
      continue
    if path.suffix.lower() not in (".csv", ".txt", ".tsv") and not _is_motion(path):
      continue
    if path.suffix.lower() == ".txt" and not _is_table(path):
      continue
    name = "__".join(inner.with_suffix("").parts)
    if name in found:
      raise UserError(
        f"{path} and {found[name]} have the same name; rename one, or leave it out"
      )
    found[name] = path
  return found


_HIDDEN = (".", "__MACOSX")
"""Beginnings of the names of hidden files and folders."""


def _walk(folder: Path) -> list[Path]:
  """Return the files in a folder and its sub-folders, without hidden ones, sorted.

  Links to folders are followed after all real folders, each folder once, and not those
  that lead back to the folder itself or above it.
  """
  top = os.path.realpath(folder)
  found: list[Path] = []
  seen: set[str] = set()
  pending = [str(folder)]
  while pending:
    start = pending.pop(0)
    if os.path.realpath(start) in seen:
      continue
    for parent, folders, names in os.walk(start):
      seen.add(os.path.realpath(parent))
      inner = sorted(name for name in folders if not name.startswith(_HIDDEN))
      paths = {name: os.path.join(parent, name) for name in inner}
      links = [path for path in paths.values() if os.path.islink(path)]
      above = os.path.join(top, "")
      pending += [
        path
        for path in links
        if not above.startswith(os.path.join(os.path.realpath(path), ""))
      ]
      folders[:] = [
        name
        for name, path in paths.items()
        if path not in links and os.path.realpath(path) not in seen
      ]
      found += [Path(parent, name) for name in names if not name.startswith(_HIDDEN)]
  return sorted(found)


def _is_motion(path: Path) -> bool:
  """Return whether an archive may hold motion, not windows or statistics."""
  if path.suffix.lower() != ".npz":
    return True
  try:
    with np.load(path, allow_pickle=False) as data:
      return not {"windows", "q_low"} & set(data.files)
  except Exception:  # The reader reports what is wrong with it.
    return True


def _is_table(path: Path) -> bool:
  """Return whether a .txt holds numbers; folders of motion also hold read-me files."""
  try:
    with open(path, "rb") as file:
      head = file.read(4000).decode("latin-1")
  except OSError:
    return False
  lines = [line for line in head.splitlines()[:-1] if line.strip()]
  return bool(lines) and len(re.findall(r"[-+]?\d+\.\d+", lines[-1])) >= 20


# Columns by name.

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
CLOCK_RATES = (2.0, RATES[1])
"""Range of the rows per second that a column of times may mean."""
USUAL_RATES = (24.0, 25.0, 30.0, 50.0, 60.0, 90.0, 100.0, 120.0, 200.0, 240.0, 500.0)
"""Rates that rounded times stand for if they come near."""
_CLOCKS = {"time", "times", "timestamp", "timestamps", "t", "timesec"}
"""Names of the times of frames, as `_key`."""


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


def _part_of(name: str) -> str | None:
  """Return the joint, or the part of the root, that a column holds, by its name."""
  return joint_of(name) or _ROOT_NAMES.get(plain(name))


_LENGTHS = ("m", "cm", "mm", "in")
_ANGLES = ("rad", "deg")
_OTHER_UNITS = ("ft", "feet", "foot", "dm", "km", "um", "mrad", "turn", "turns", "rev")
"""Units that are not read."""


def _unit_of(path: Path, name: str, known: Sequence[str]) -> str:
  """Return the unit in the name of a column, as ``x (cm)`` or ``x_cm``; empty: none.

  Raises:
    UserError: It names two units, or one that is not among ``known``.
  """
  text = name.strip().lower()
  words = re.findall(r"[\(\[](.*?)[\)\]]", text)
  bare = re.sub(r"[\s./:\-]+", "_", re.sub(r"[\(\[].*?[\)\]]", "", text)).strip("_")
  words += re.findall(r"_(deg|degrees|rad|radians|cm|mm|m)$", bare)
  words = [word.strip() for word in words]
  found: set[str] = {UNITS[word] for word in words if word in UNITS}
  found |= {word for word in words if word in _OTHER_UNITS}
  wrong = sorted(found - {*known})
  if wrong or len(found) > 1:
    raise UserError(
      f"{path}: column '{name[:60]}': its unit must be one of {', '.join(known)}"
    )
  return found.pop() if found else ""


def _units_of(path: Path, names: Sequence[str], known: Sequence[str]) -> _Units:
  """Return the unit that the names of a group of columns give.

  Args:
    path: The file.
    names: Of columns of one kind.
    known: Units that may be.

  Raises:
    UserError: They give several units, or one that cannot be.
  """
  units = {name: _unit_of(path, name, known) for name in names}
  first: dict[str, str] = {}
  for name, unit in units.items():
    first.setdefault(unit, name)
  bare = first.pop("", None)
  if len(first) > 1:
    one, two = list(first.values())[:2]
    raise UserError(
      f"{path}: '{one[:60]}' and '{two[:60]}' are in different units; write all columns "
      "of a kind in one unit"
    )
  return _Units(*next(iter(first.items()), ("", "")), bare or "")


@dataclass(frozen=True)
class _Units:
  """The unit of a group of columns by their names."""

  unit: str
  """Empty: no name gives one."""
  named: str
  """A name that gives it."""
  bare: str
  """A name that gives none; empty: all do."""

  def over(self, path: Path, default: str, option: str, given: str) -> str:
    """Return the unit: by the names, or ``default``.

    Args:
      path: The file.
      default: The unit of the format.
      option: Name of the option that gives the unit.
      given: Its value.

    Raises:
      UserError: Some names give a unit other than ``default``, and some give none.
    """
    if self.unit and self.bare and self.unit != default and given == "auto":
      raise UserError(
        f"{path}: '{self.named[:60]}' is in {self.unit}, but '{self.bare[:60]}' gives no "
        f"unit; name it for each column of the kind, or give {option}"
      )
    return self.unit or default


def _angle_units(
  path: Path,
  source: SourceCfg,
  default: str,
  turns: _Units | None,
  joints: _Units,
  largest: float,
) -> tuple[str, str]:
  """Return the units of the root's Euler angles and of the joints, each by its names.

  Args:
    path: The file.
    source: The options; the unit that it gives counts where the names give none.
    default: The unit of the format.
    turns: Unit of the Euler angles; None: there are none.
    joints: Unit of the joints.
    largest: Largest Euler angle.

  Raises:
    UserError: The names give no unit of the Euler angles, but one of the joints that is
      not certain to be theirs, or the units contradict the option.
  """
  option = source.angle_unit
  joint = joints.over(path, default, "--angle-unit", option)
  if turns is None:
    return joint, joint if option == "auto" else option
  turn = turns.over(path, default, "--angle-unit", option)
  if option != "auto":
    if turns.unit and joints.unit and turns.unit != joints.unit:
      raise UserError(
        f"{path}: --angle-unit {option}: the heading has '{turns.named[:60]}' and "
        f"'{joints.named[:60]}'; leave the option out, or mend the heading"
      )
    if turns.unit and joints.unit:
      return option, option
    return turns.unit or option, joints.unit or option
  if joints.unit and not turns.unit and joint != turn:
    # Angles beyond a full turn are no radians.
    if joint == "deg" and largest > 7.0:
      return joint, joint
    raise UserError(
      f"{path}: '{joints.named[:60]}' is in {joint}, but '{turns.bare[:60]}' gives no unit; "
      "name it for each angle, or give --angle-unit"
    )
  return turn, joint


# Reading.


@dataclass(frozen=True)
class _Raw:
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


def read_rows(path: Path, source: SourceCfg = SourceCfg()) -> Rows:  # noqa: B008
  """Return the contents of a motion file in metres, radians and wxyz.

  Raises:
    UserError: names the file, and the row or the array that is wrong.
  """
  if path.suffix.lower() in (".npz", ".pkl", ".pickle"):
    raw = _read_arrays(path, source)
  else:
    raw = _read_text(path, source)
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


def _read_text(path: Path, source: SourceCfg) -> _Raw:
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
) -> _Raw:
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
  length = _units_of(path, [names[columns[a]] for a in "xyz"], _LENGTHS)
  turns = [names[columns[f"e{a}"]] for a in "xyz"] if euler else []
  angles = values[:, [columns[f"e{a}"] for a in "xyz"]] if euler else None
  euler_unit, angle_unit = _angle_units(
    path,
    source,
    "deg" if seed else "rad",
    _units_of(path, turns, _ANGLES) if euler else None,
    _units_of(path, joint_names, _ANGLES),
    0.0 if angles is None else float(np.abs(angles).max()),
  )
  return _Raw(
    values[:, [columns[a] for a in "xyz"]],
    quat,
    angles,
    values[:, [columns[joint] for joint in order]],
    order,
    table.lines,
    source.fps or _rate(path, table) or (SEED_FPS if seed else CSV_FPS),
    "wxyz",
    length.over(path, "cm" if seed else "m", "--length-unit", source.length_unit),
    angle_unit,
    euler_unit,
    True,
  )


_SAID = re.compile(
  r"\b(fps|frame[ _-]?rate|frames[ _-]per[ _-]second|sampl(?:e|ing)[ _-](?:rate|"
  r"frequency)|mocap[ _-]?frame[ _-]?rate|frame[ _-]?time)\b(?: *[\(\[]?(?:hz|s)\b)?[^\w.+-]*(\d+\.?\d*(?:e-?\d+)?)"
  r"|(?<![\w.])(\d+\.?\d*) ?(?:fps\b|frames per second)",
  re.IGNORECASE,
)
"""A rate in a line above the numbers, such as ``# fps: 60`` or ``60 fps``."""


def _rate(path: Path, table: Table) -> float | None:
  """Return the rows per second by columns or remarks; None: there are none.

  Times are in s, ms, microseconds or nanoseconds, whichever gives a rate of `CLOCK_RATES`.

  Raises:
    UserError: Times do not increase, have a gap, or are in none of these units, or two
      rates contradict each other.
  """
  rates: dict[str, float] = {}
  steps: dict[str, float] = {}
  for index, name in enumerate(table.names):
    values, told = table.values[:, index], f"column '{name}'"
    key = _key(plain(name))
    if key in _CLOCKS and len(values) >= 3:
      if key == "t" and counts(values):
        continue  # Numbers of frames.
      rates[told] = _rate_of(path, told, values, table.lines)
    if key in _FPS or key in _STEP:
      rate = float(np.mean(values[1:] if len(values) > 1 else values))
      if np.ptp(values[1:]) > (0.5 if key in _STEP else 0.05) * abs(rate):
        raise UserError(f"{path}: {told} changes; give the rate (--input-fps, --fps)")
      simulated = key == "dt" and rate <= SIMULATOR_STEP
      (steps if simulated else rates)[told] = _sensible(path, told, rate, key in _STEP)
  for number, line in enumerate(table.above, start=1):
    for match in _SAID.finditer(line):
      word, value, alone = match.groups()
      step = bool(word) and re.sub(r"[ _-]", "", word.lower()) == "frametime"
      told = f"row {number} ('{match.group()[:40]}')"
      rates[told] = _sensible(path, told, float(value or alone), step)
  return _one_rate(path, rates or steps)


def _sensible(path: Path, told: str, value: float, step: bool) -> float:
  """Return the rate that a number means; raise ``UserError`` if it cannot be one.

  Args:
    path: The file.
    told: What gives the number, for messages.
    value: Rows per second, or the time from one to the next, s.
    step: Whether it is the time.
  """
  limits = (1.0 / RATES[1], 1.0 / RATES[0]) if step else RATES
  if not limits[0] <= value <= limits[1]:
    unit = " s" if step else ""
    raise UserError(
      f"{path}: {told} is {value:g}, expected {limits[0]:g} to {limits[1]:g}{unit}; give "
      "the rate (--input-fps, --fps), which leaves it unread"
    )
  return _usual(1.0 / value) if step else value


def _rate_of(path: Path, told: str, times: np.ndarray, lines: np.ndarray) -> float:
  """Return the rows per second by their times (T,), T at least 3.

  Args:
    path: The file.
    told: What the times are called, for messages.
    times: In one of the units that `_rate` names.
    lines: (T,), number of each row in the file.

  Raises:
    UserError: As `_rate`.
  """
  steps = np.diff(times)
  # The mean, as times may be rounded: 0.03, 0.07, 0.1 are 30 rows per second.
  mean = float(steps.mean())
  remedy = "mend it, or give the rate (--input-fps, --fps), which leaves it unread"
  if steps.min() < 0.0 or not mean > 0.0:
    line = lines[int(np.argmin(steps)) + 1]
    raise UserError(f"{path}: row {line}: {told} does not increase; {remedy}")
  usual = max(mean, float(np.median(steps)))
  if steps.max() > 1.6 * usual:
    line = lines[int(np.argmax(steps)) + 1]
    raise UserError(
      f"{path}: row {line}: {told} jumps by {steps.max():.4g}, elsewhere by "
      f"{usual:.4g}: rows are missing; {remedy}"
    )
  rate = _rate_by(mean)
  if rate is None:
    raise UserError(
      f"{path}: {told} grows by {mean:.4g} a row, which is no frame rate in s, ms, "
      f"microseconds or nanoseconds; {remedy}"
    )
  return _usual(rate)


def _usual(rate: float) -> float:
  """Return the usual or whole rate that one of rounded times stands for."""
  near = min(USUAL_RATES, key=lambda each: abs(each - rate))
  if abs(rate - near) < 0.025 * rate:
    return near
  return round(rate) if abs(rate - round(rate)) < 0.02 * rate else rate


def _plain_csv(path: Path, table: Table, source: SourceCfg) -> _Raw:
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
    length = _units_of(path, names[:3], _LENGTHS).over(
      path, length, "--length-unit", source.length_unit
    )
    angle = _units_of(path, names[7:], _ANGLES).over(
      path, angle, "--angle-unit", option
    )
  parts = (values[:, :3], values[:, 3:7], None, values[:, 7:])
  fps = source.fps or _rate(path, table) or CSV_FPS
  return _Raw(*parts, order, lines, fps, "xyzw", length, angle)


# Arrays.

_POS = ("root_pos", "root_trans_offset", "root_trans", "trans", "base_pos")
_ROT = ("root_rot", "root_quat", "base_quat")
_DOF = ("dof_pos", "dof", "joint_pos", "joints")
_ORDERS_OF_JOINTS = ("jointnames", "dofnames")
"""Names of the list of joints, as `_key`, whose contents must be joints."""


def _read_arrays(path: Path, source: SourceCfg) -> _Raw:
  data = _load_npz(path) if path.suffix.lower() == ".npz" else load_pickle(path)
  data = _unwrapped(path, data)
  tracking = "body_pos_w" in data and "joint_pos" in data
  if source.format == "csv" or source.format == "seed":
    raise UserError(f"{path}: --format {source.format} is of text files")
  if source.format == "mjlab" and not tracking:
    raise UserError(f"{path}: no arrays 'joint_pos' and 'body_pos_w', so not mjlab's")
  if tracking and source.format != "gmr":
    return _tracking(path, data, source)
  if _first(data, ("qpos",)) is not None and _first(data, _POS) is None:
    return _qpos(path, data, source)
  names = [_first(data, group) for group in (_POS, _ROT, _DOF)]
  for name, group in zip(names, (_POS, _ROT, _DOF), strict=True):
    if name is None:
      have = ", ".join(map(str, list(data)[:6]))
      raise UserError(
        f"{path}: no array '{group[0]}', so neither GMR's nor mjlab's (it holds {have})"
      )
  pos, rot, dof = (_array(path, data, str(name)) for name in names)
  order = _order_of(path, data, source, _width(dof))
  return _arrays(path, data, pos, rot, dof, "xyzw", order, source.fps)


def _unwrapped(path: Path, data: Any) -> dict[str, Any]:
  """Return the table of arrays; some tools nest it in a table of clips by name."""
  if isinstance(data, dict) and len(data) == 1:
    (inner,) = data.values()
    if isinstance(inner, dict):
      data = inner
  elif (
    isinstance(data, dict) and data and all(isinstance(v, dict) for v in data.values())
  ):
    raise UserError(f"{path}: holds {len(data)} clips; save each in a file of its own")
  if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
    raise UserError(f"{path}: not a table of arrays, but {type(data).__name__}")
  return data


def _load_npz(path: Path) -> dict[str, Any]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      found = {}
      for key in archive.files:
        try:
          found[key] = archive[key]
        except ValueError as error:
          if "Object arrays" not in str(error):
            raise UserError(
              f"{path}: array '{key}' is unreadable: its header contradicts its size, or "
              "is damaged; write the file again"
            ) from None
          # Reading it could run code. Most are descriptions, which nothing asks for.
          found[key] = _Objects()
      return found
  except UserError:
    raise
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
  except Exception as error:  # numpy parses headers as Python: many types of errors.
    raise UserError(f"{path}: not a readable NPZ ({type(error).__name__})") from error


class _Objects:
  """Stands for an array of Python objects, which is not read."""


def _refuse_objects(path: Path, data: Mapping[str, Any], name: str) -> None:
  """Raise ``UserError`` if an array that counts is one of Python objects."""
  if isinstance(data[name], _Objects):
    raise UserError(
      f"{path}: '{name}' is an array of Python objects, which is not read as it could run "
      "code; save it as numbers or text (without dtype=object)"
    )


def _texts(value: Any) -> list[str]:
  """Return the texts in a list or an array of text or bytes; empty: it is none."""
  if isinstance(value, (str, bytes)):
    value = [value]
  if isinstance(value, np.ndarray):
    value = value.reshape(-1).tolist()
  if not isinstance(value, (list, tuple)):
    return []
  words = [v.decode("latin-1") if isinstance(v, bytes) else v for v in value]
  if not all(isinstance(word, str) for word in words):
    return []
  # One text may list them all.
  return re.findall(r"\w+", words[0]) if len(words) == 1 else words


def _first(data: Mapping[str, Any], names: Sequence[str]) -> str | None:
  return next((name for name in names if name in data), None)


def _array(path: Path, data: Mapping[str, Any], name: str) -> np.ndarray:
  _refuse_objects(path, data, name)
  try:
    array = np.asarray(data[name])
  except ValueError:
    array = np.empty(0, object)
  if array.dtype.kind not in "fiu" or array.ndim < 1:
    raise UserError(f"{path}: '{name}' is not an array of numbers")
  return array.astype(np.float64)


_FPS = {
  *("fps", "framerate", "framespersecond", "mocapframerate", "mocapfps", "frequency"),
  *("samplerate", "samplingrate", "hz"),
}
_STEP = {"dt", "frametime", "frameduration", "stepdt"}
"""Names of a frame rate, and of the time from one frame to the next, s, as `_key`."""


def _key(name: str) -> str:
  """Return the name of an array without case and punctuation."""
  return re.sub(r"[^a-z]", "", name.lower())


def _fps(path: Path, data: Mapping[str, Any], count: int) -> float | None:
  """Return the frames per second that a file of arrays gives; None: it gives none.

  A rate counts before the time between frames, and that before the times of frames:
  these may be rounded, and a clock may have gaps.

  Args:
    path: The file.
    data: Its arrays.
    count: Number of frames.

  Raises:
    UserError: A rate is no number or impossible, two of them contradict each other, or
      times are as `_rate` refuses.
  """
  rates: dict[str, float] = {}
  for names in (_FPS, _STEP):
    for name in data:
      if _key(name) not in names or data[name] is None or not np.size(data[name]):
        continue
      _refuse_objects(path, data, name)
      try:
        values = np.asarray(data[name], float).reshape(-1)
      except (TypeError, ValueError):
        raise UserError(f"{path}: '{name}' is not a number") from None
      # Of each frame one, of which the first may be zero: from no frame before it.
      value = float(np.median(values[1:] if len(values) == count > 1 else values))
      rate = _sensible(path, f"'{name}'", value, names is _STEP)
      if _key(name) == "dt" and value <= SIMULATOR_STEP and rates:
        continue
      rates[f"'{name}'"] = rate
  for name in data:
    if _key(name) not in _CLOCKS or data[name] is None:
      continue
    _refuse_objects(path, data, name)
    if count < 3 or np.size(data[name]) != count:
      continue
    try:
      times = np.asarray(data[name], float).reshape(-1)
    except (TypeError, ValueError):
      continue
    steps = np.diff(times)
    if (steps == 1.0).all():
      continue  # Numbers of frames.
    if not rates:
      return _rate_of(path, f"'{name}'", times, np.arange(1, count + 1))
    told = [_rate_by(step) for step in (float(np.median(steps)), float(steps.mean()))]
    near = [rate for rate in told if rate is not None]
    first = next(iter(rates.values()))
    if near and not any(_agree(first, rate) for rate in near):
      rates[f"'{name}'"] = near[0]
  return _one_rate(path, rates)


SIMULATOR_STEP = 0.005
"""Longest ``dt`` beside a frame rate that may be a simulator's step, s: it takes several
from one frame to the next."""


def _rate_by(step: float) -> float | None:
  """Return the rows per second of rows a step apart, in any unit; None: no rate."""
  units = (1.0, 1e3, 1e6, 1e9)
  if not step > 0.0:
    return None
  return next(
    (u / step for u in units if CLOCK_RATES[0] <= u / step <= CLOCK_RATES[1]), None
  )


def _agree(first: float, second: float) -> bool:
  """Return whether two rates are the same, if one is rounded, or its time is to ms."""
  off = abs(first - second) / max(first, second)
  return off < 0.035 or (off < 0.15 and abs(1.0 / first - 1.0 / second) < 5.1e-4)


def _one_rate(path: Path, rates: Mapping[str, float]) -> float | None:
  """Return the first of the rates that a file gives; None: it gives none.

  Args:
    path: The file.
    rates: By what gives them.

  Raises:
    UserError: They contradict each other.
  """
  if not rates:
    return None
  (first, rate), *others = rates.items()
  for name, other in others:
    if not _agree(rate, other):
      raise UserError(
        f"{path}: {first} means {rate:.4g} rows per second, {name} {other:.4g}; give the "
        "rate (--input-fps, --fps), or remove the wrong one"
      )
  return rate


def _order_of(
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
    certain = _key(name) in _ORDERS_OF_JOINTS
    if certain or _key(name).endswith(("jointnames", "dofnames", "jointorder")):
      _refuse_objects(path, data, name)
    names = _texts(data[name])
    said = data[name] is not None and np.size(data[name])
    if not names and said and (certain or _key(name) == "jointorder"):
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


def _width(dof: np.ndarray) -> int:
  """Return the number of joints of (T, joints) or (T, joints, 1)."""
  return dof.shape[1] if dof.ndim > 1 else 0


def _arrays(
  path: Path,
  data: Mapping[str, Any],
  pos: np.ndarray,
  rot: np.ndarray,
  dof: np.ndarray,
  quaternion_order: str,
  order: tuple[str, ...],
  given_fps: float | None,
) -> _Raw:
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
  fps = given_fps or _fps(path, data, len(dof)) or CSV_FPS
  return _Raw(pos, rot, None, dof, order, lines, fps, quaternion_order)


def _qpos(path: Path, data: Mapping[str, Any], source: SourceCfg) -> _Raw:
  """Return the contents of MuJoCo's coordinates: root xyz, wxyz, joints."""
  qpos = _array(path, data, "qpos")
  if qpos.ndim != 2 or qpos.shape[1] < 8:
    raise UserError(f"{path}: 'qpos' is {qpos.shape}, expected (T, 36)")
  parts = (qpos[:, :3], qpos[:, 3:7], qpos[:, 7:])
  order = _order_of(path, data, source, qpos.shape[1] - 7)
  return _arrays(path, data, *parts, "wxyz", order, source.fps)


def _tracking(path: Path, data: Mapping[str, Any], source: SourceCfg) -> _Raw:
  """Return the contents of a tracking task's NPZ: world bodies, pelvis first."""
  joints = _array(path, data, "joint_pos")
  if "body_quat_w" not in data:
    raise UserError(f"{path}: no array 'body_quat_w'")
  pos, quat = (_array(path, data, name) for name in ("body_pos_w", "body_quat_w"))
  shapes = (pos.shape[2:], quat.shape[2:], joints.ndim)
  if shapes != ((3,), (4,), 2) or pos.shape[:2] != quat.shape[:2] or not pos.shape[1]:
    raise UserError(
      f"{path}: 'body_pos_w' is {pos.shape}, 'body_quat_w' {quat.shape} and 'joint_pos' "
      f"{joints.shape}, expected (T, bodies, 3), (T, bodies, 4) and (T, 29)"
    )
  order = _order_of(path, data, source, joints.shape[1])
  names = _body_names(path, data, pos.shape[1])
  root = names.index(g1.ROOT_BODY) if names else 0
  raw = _arrays(
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
  _refuse_objects(path, data, "body_names")
  names = [
    re.split(r"[/.:]", name.strip().lower())[-1] for name in _texts(data["body_names"])
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
  raw: _Raw,
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
  size = _METRES[source.length_unit if source.length_unit != "auto" else "m"]
  pos, there = raw.pos[some] * size, bodies[some][:, others] * size
  joints = raw.joints[some] * (np.pi / 180 if source.angle_unit == "deg" else 1.0)
  length = np.linalg.norm(quat[some], axis=1, keepdims=True)
  sound = all(np.isfinite(each).all() for each in (pos, there, joints, length))
  if not given and not np.isfinite(there).all():
    raise UserError(f"{path}: 'body_pos_w' has numbers that are not finite")
  if not sound or length.min() < 1e-3:
    return raw.order if given else g1.JOINT_NAMES
  errors: dict[str, np.ndarray] = {}
  for name, order in orders.items():
    angles = np.zeros((len(some), g1.NUM_JOINTS))
    for column, joint in enumerate(order):
      angles[:, g1.JOINT_NAMES.index(joint)] = joints[:, column]
    found = find_bodies(pos, quat[some] / length, angles)
    apart = np.linalg.norm(found[:, :, None] - there[:, None], axis=-1)
    distance = apart.min(axis=1)
    for place, body in enumerate(others):
      if names and names[body] in (known := body_names()):
        distance[:, place] = apart[:, known.index(names[body]), place]
    errors[name] = distance
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


# Conversion to metres, radians, wxyz and 29 joints.


def _to_rows(path: Path, raw: _Raw, source: SourceCfg) -> Rows:
  length = source.length_unit if source.length_unit != "auto" else raw.length_unit
  angle = source.angle_unit
  if angle == "auto" or raw.units_given:
    angle = raw.angle_unit
  pos = raw.pos * _METRES[length]
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
  out = np.zeros((len(joints), g1.NUM_JOINTS))
  for column, name in enumerate(order):
    out[:, g1.JOINT_NAMES.index(name)] = joints[:, column]
  return out, tuple(g1.JOINT_NAMES.index(name) for name in missing)


FORMATS = get_args(Format)
