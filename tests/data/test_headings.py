"""Lines above the numbers of a text file: used, or refused, and never thrown away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from smp.data.formats import read_rows
from smp.data.source import SourceCfg
from smp.errors import UserError
from smp.robots import g1
from tests.standing import standing_clip, table, text

CLIP = standing_clip()
VALUES = table(CLIP)
ROOT = ("x", "y", "z", "qx", "qy", "qz", "qw")
NAMES = (*ROOT, *g1.JOINT_NAMES)
ORDER = np.random.default_rng(0).permutation(len(NAMES))
"""Of columns, unlike that of a clip without names."""
MIXED = VALUES[:, ORDER]
MIXED_NAMES = tuple(NAMES[i] for i in ORDER)
NUMBERED = np.column_stack((np.arange(600, 600 + len(VALUES)), MIXED))
UNITS = tuple("m" if i < 3 else "-" if i < 7 else "rad" for i in ORDER)


def same(path: Path, source: SourceCfg | None = None, fps: float = 30.0) -> None:
  rows = read_rows(path, source or SourceCfg())
  assert rows.fps == pytest.approx(fps)
  np.testing.assert_allclose(rows.root_pos, CLIP.root_pos, atol=1e-6)
  np.testing.assert_allclose(rows.joint_pos, CLIP.joint_pos, atol=1e-6)
  cos = np.abs((rows.root_quat * CLIP.root_quat).sum(axis=1))
  np.testing.assert_allclose(cos, 1.0, atol=1e-6)


def refused(path: Path, message: str, source: SourceCfg | None = None) -> None:
  with pytest.raises(UserError, match=message) as error:
    read_rows(path, source or SourceCfg())
  assert path.name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
  "lines, separator, values",
  [
    ([",".join(MIXED_NAMES) + ","], ",", MIXED),
    ([",".join(MIXED_NAMES) + ",,"], ",", MIXED),
    ([",".join(MIXED_NAMES)], ",", NUMBERED),
    ([",".join(MIXED_NAMES) + ","], ",", NUMBERED),
    (["," + ",".join(MIXED_NAMES)], ",", NUMBERED),
    ([" ".join(f'"{name}"' for name in MIXED_NAMES)], " ", NUMBERED),
    ([";".join(MIXED_NAMES)], ",", MIXED),
    (["\t".join(MIXED_NAMES)], ",", MIXED),
    ([", ".join(MIXED_NAMES)], " ", MIXED),
    (["# columns: " + " ".join(MIXED_NAMES)], ",", MIXED),
    ([",".join(MIXED_NAMES), ",".join(UNITS)], ",", MIXED),
    ([",".join(f"[{unit}]" for unit in UNITS), ",".join(MIXED_NAMES)], ",", MIXED),
    ([",".join(MIXED_NAMES), ",".join(["float64"] * 36)], ",", MIXED),
    ([",".join(MIXED_NAMES), ",".join(MIXED_NAMES)], ",", MIXED),
    ([",".join(MIXED_NAMES), "# recorded by x, y and z"], ",", MIXED),
    (["# joints: " + ", ".join(g1.JOINT_NAMES)], ",", VALUES),
  ],
)
def test_a_heading_that_is_written_otherwise_is_used(
  tmp_path, lines, separator, values
):
  path = tmp_path / "walk.csv"
  path.write_text(text(values, separator, "\n".join(lines) + "\n"))
  same(path)


@pytest.mark.parametrize(
  "lines, values, message",
  [
    ([",".join(MIXED_NAMES[:-1])], MIXED, "row 1 names 35 columns, .* below have 36"),
    ([",".join((*MIXED_NAMES, "mass"))], MIXED, "row 1 names 37 columns"),
    # Numbers that do not count rows are no row names.
    (["note", ",".join(MIXED_NAMES)], NUMBERED * 2, "row 2 names 36 columns"),
    ([",".join(MIXED_NAMES), ",".join(NAMES)], MIXED, "rows 1 and 2 name the columns"),
    ([",".join(MIXED_NAMES), ",".join(UNITS[:-1])], MIXED, "row 2 has 35 units"),
    (
      ["# joints: " + " ".join(sorted(g1.JOINT_NAMES))],
      VALUES,
      "lists 29 joints over 36 columns.*--joint-order",
    ),
    # Few names of joints, but some of the root.
    (
      ["x,y,z,qw,qx,qy,qz," + ",".join(f"motor_{i}" for i in range(28))],
      VALUES,
      "row 1 names 35 columns",
    ),
    (
      [
        "x,y,z,qw,qx,qy,qz," + ",".join(f"motor_{i}" for i in range(29)),
        ",".join(["float"] * 36),
      ],
      VALUES,
      "column 4 'qw'",
    ),
  ],
)
def test_a_heading_that_does_not_fit_is_refused(tmp_path, lines, values, message):
  path = tmp_path / "walk.csv"
  path.write_text(text(values, ",", "\n".join(lines) + "\n"))
  refused(path, message)


def test_a_list_of_joints_may_be_answered_by_the_order(tmp_path):
  path = tmp_path / "walk.csv"
  order = sorted(g1.JOINT_NAMES)
  columns = [7 + g1.JOINT_NAMES.index(name) for name in order]
  values = np.column_stack((VALUES[:, :7], VALUES[:, columns]))
  path.write_text(text(values, ",", "# " + ",".join(order) + "\n"))
  same(path, SourceCfg(joint_order=tuple(order)))


@pytest.mark.parametrize(
  "content",
  [
    ",".join(MIXED_NAMES) + "\n",
    ",".join(MIXED_NAMES) + "\n" + ",".join(UNITS) + "\n\n",
    ",".join(f"c{i}" for i in range(36)),
  ],
)
def test_a_heading_without_rows(tmp_path, content):
  path = tmp_path / "walk.csv"
  path.write_text(content)
  refused(path, "row 1 is a heading, but no row of numbers follows it; expected")
  path.write_text(content + "\nwalked,,\n")
  refused(path, "columns|not a number|ends with|is empty")


ARMS = [f"motor_{i}" for i in range(29)]
EULER = Rotation.from_quat(VALUES[:, 3:7]).as_euler("xyz")
QUATERNION = ["qx", "qy", "qz", "qw"]


def with_units(path: Path, root: list[str], joints: list[str], *parts) -> Path:
  values = np.column_stack(parts)
  path.write_text(text(values, ",", ",".join((*root, *joints)) + "\n"))
  return path


def angles(unit: str = "", joints: str = "") -> tuple[list[str], list[str]]:
  root = [f"{name}{unit}" for name in ("roll", "pitch", "yaw")]
  return ["x", "y", "z", *root], [f"{name}{joints}" for name in g1.JOINT_NAMES]


@pytest.mark.parametrize(
  "unit, joints, option",
  [
    (" (rad)", " (deg)", "auto"),
    (" (deg)", " (rad)", "auto"),
    ("_deg", "", "auto"),
    (".deg", "_degrees", "auto"),
    (" [\u00b0]", "/rad", "auto"),
    ("", " (deg)", "rad"),
    ("_rad", "", "deg"),
  ],
)
def test_units_are_read_for_each_kind_of_angle(tmp_path, unit, joints, option):
  default = "rad" if option == "auto" else option
  turned, bent = (
    any(word in (each or default) for word in ("deg", "\u00b0"))
    for each in (unit, joints)
  )
  path = with_units(
    tmp_path / "walk.csv",
    *angles(unit, joints),
    CLIP.root_pos,
    np.degrees(EULER) if turned else EULER,
    np.degrees(CLIP.joint_pos) if bent else CLIP.joint_pos,
  )
  same(path, SourceCfg(angle_unit=option))


def test_euler_angles_without_a_unit_beside_joints_with_one(tmp_path):
  parts = (CLIP.root_pos, np.degrees(EULER), np.degrees(CLIP.joint_pos))
  path = with_units(tmp_path / "walk.csv", *angles("", "_deg"), *parts)
  same(path)  # 17 degrees are no radians.
  small = with_units(path, *angles("", "_deg"), CLIP.root_pos, EULER, parts[2])
  refused(small, "'left_hip_pitch_joint_deg' is in deg, but 'roll' gives no unit")
  with_units(path, *angles("_deg", "_rad"), *parts)
  refused(path, "--angle-unit deg: the heading has", SourceCfg(angle_unit="deg"))
  # Where all names say the same, the option corrects them.
  with_units(path, *angles("_rad", "_rad"), *parts)
  same(path, SourceCfg(angle_unit="deg"))


def test_one_unit_is_not_taken_for_that_of_others(tmp_path):
  path = tmp_path / "walk.csv"
  names = list(g1.JOINT_NAMES)
  root = ["x", "y", "z", *QUATERNION]
  parts = (VALUES[:, :7], np.degrees(CLIP.joint_pos))
  some = [names[0] + "_deg", *names[1:]]
  with_units(path, root, some, *parts)
  refused(path, "'left_hip_pitch_joint_deg' is in deg, but 'left_hip_roll_joint' gives")
  same(path, SourceCfg(angle_unit="deg"))
  with_units(
    path, root, [names[0] + "_deg", *(f"{n} (rad)" for n in names[1:])], *parts
  )
  refused(
    path, "'left_hip_pitch_joint_deg' and 'left_hip_roll_joint .rad.' are in diff"
  )
  with_units(path, ["x (cm)", "y (cm)", "z (m)", *QUATERNION], names, VALUES)
  refused(path, "'x .cm.' and 'z .m.' are in different units")
  with_units(path, ["x (cm)", "y", "z", *QUATERNION], names, VALUES)
  refused(path, "'x .cm.' is in cm, but 'y' gives no unit.*--length-unit")
  with_units(path, ["x (ft)", "y (ft)", "z (ft)", *QUATERNION], names, VALUES)
  refused(path, "column 'x .ft.': its unit must be one of m, cm, mm, in")
  with_units(
    path, ["x", "y", "z", *QUATERNION], [n + " (turns)" for n in names], VALUES
  )
  refused(path, "its unit must be one of rad, deg")
  # What the names say of some is what is taken for the others.
  with_units(
    path, ["x (m)", "y", "z", *QUATERNION], [f"{names[0]}_rad", *names[1:]], VALUES
  )
  same(path)


def test_units_of_columns_that_are_read_by_place(tmp_path):
  path = tmp_path / "walk.csv"
  parts = (CLIP.root_pos / 0.0254, VALUES[:, 3:7], np.degrees(CLIP.joint_pos))
  root = [f"{name} (in)" for name in "xyz"] + QUATERNION
  same(with_units(path, root, [f"{name} (deg)" for name in ARMS], *parts))
  units = ["in"] * 3 + ["-"] * 4 + ["deg"] * 29
  same(with_units(path, units[:7], units[7:], *parts))
  refused(with_units(path, root, ["a (deg)", *ARMS[1:]], *parts), "'motor_1' gives no")
