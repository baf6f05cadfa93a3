"""Lines above the numbers of a text file: used, or refused, and never thrown away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smp.data.formats import SourceCfg, read_rows
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
