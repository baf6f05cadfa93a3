"""The table of several priors: every figure in its place, and none that misleads."""

import pytest

from smp.errors import UserError
from smp.evaluation.prior.comparison import (
  ALTERED_HELD_OUT,
  ALTERED_OWN,
  KINDS_HELD_OUT,
  KINDS_OWN,
  NOTE,
  OTHERS,
  REAL,
  SAMPLES,
  SEEN,
  markdown,
  side_by_side,
  three_digits,
)


def _report(name: str, **changes) -> dict:
  separability = {"windows": 9, "median": 0.5, "auc": 0.25}
  real = {
    "windows": 9,
    "bins": [],
    "median": 0.125,
    "altered": {"mirrored": separability},
  }
  like = {
    "windows": 4,
    "real": 8,
    "shifts": {"speed": 0.1, "root height": 0.2, "head height": 0.3},
    "fidelity": 0.4,
    "coverage": 0.6,
  }
  return {
    "prior": name,
    "sets": {"own": real, "held out": {**real, "median": 0.25}},
    "held_out_auc": 0.75,
    "others": {"dance": separability, "walk": separability},
    "seen": {},
    "samples": {
      "error": 0.0625,
      "ee_mm": {"a": 1.0, "b": 3.0},
      "likeness": like,
      "histograms": {},
    },
    "held_out_reference": {**like, "fidelity": 0.7},
    **changes,
  }


def test_kinds_of_motion_are_rows_where_a_report_has_them():
  kinds = [
    {"kind": "backward", "count": 7, "median": 0.5},
    {"kind": "sideways", "count": 0, "median": None},
  ]
  sets = _report("a")["sets"]
  sets["held out"] = {**sets["held out"], "kinds": kinds}
  cells = _cells(_report("a", sets=sets, seen={"held out": ["c"]}), _report("b"))
  rows = {
    label: row for (title, label), row in cells.items() if title == KINDS_HELD_OUT
  }
  assert rows == {"backward": [f"0.500{SEEN}", "-"]}
  assert not any(title == KINDS_OWN for title, _ in cells)


def _cells(*reports: dict) -> dict[tuple[str, str], list[str]]:
  return {
    (title, label): cells
    for title, rows in side_by_side(reports)
    for label, cells in rows
  }


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0.0, "0.00"),
    (1.0, "1.00"),
    (0.9996, "1.00"),
    (0.012345, "0.0123"),
    (12.345, "12.3"),
    (99.96, "100"),
    (123.4, "123"),
    (4321.0, "4321"),
  ],
)
def test_numbers_have_three_digits(value: float, text: str):
  assert three_digits(value) == text


def test_each_prior_has_a_column_and_each_figure_a_row():
  cells = _cells(_report("ours"), _report("theirs", held_out_auc=0.5))
  assert cells[REAL, "own clips"] == ["0.125", "0.125"]
  assert cells[REAL, "held-out clips"] == ["0.250 (0.750)", "0.250 (0.500)"]
  assert cells[REAL, "own samples"] == ["0.0625", "0.0625"]
  for section, label in (
    (ALTERED_OWN, "mirrored"),
    (ALTERED_HELD_OUT, "mirrored"),
    (OTHERS, "dance"),
  ):
    assert cells[section, label] == ["0.500 (0.250)"] * 2
  samples = {label: row[0] for (title, label), row in cells.items() if title == SAMPLES}
  assert samples == {
    "end effectors off their joints, mean of five (mm)": "2.00",
    "end effectors off their joints, worst of five (mm)": "3.00",
    "speed, shift of the histogram (m/s)": "0.100; 0.100",
    "root height, shift of the histogram (m)": "0.200; 0.200",
    "head height, shift of the histogram (m)": "0.300; 0.300",
    "distance to the nearest own window (fidelity)": "0.400; 0.700",
    "distance of own windows to the nearest (coverage)": "0.600; 0.600",
  }


def test_figures_that_one_prior_lacks_leave_a_gap():
  separability = {"windows": 9, "median": 0.5, "auc": 0.25}
  own = {"own": _report("x")["sets"]["own"]}
  bare = _report(
    "bare",
    sets=own,
    held_out_auc=None,
    others={"fight": separability},
    held_out_reference=None,
  )
  cells = _cells(_report("ours"), bare)
  assert cells[REAL, "held-out clips"][1] == "-"
  assert cells[ALTERED_HELD_OUT, "mirrored"][1] == "-"
  kinds = [label for title, label in cells if title == OTHERS]
  assert kinds == ["dance", "fight", "walk"]
  assert cells[OTHERS, "fight"] == ["-", "0.500 (0.250)"]
  fidelity = "distance to the nearest own window (fidelity)"
  assert cells[SAMPLES, fidelity] == ["0.400; 0.700", "0.400"]


def test_what_a_prior_has_seen_is_marked_and_nothing_else():
  ours = _report("ours", seen={"walk": ["walk1"]})
  theirs = _report("theirs", seen={"held out": ["run2"]})
  marked = {
    (title, label): [SEEN in cell for cell in row]
    for (title, label), row in _cells(ours, theirs).items()
    if SEEN in "".join(row)
  }
  assert marked == {
    (REAL, "held-out clips"): [False, True],
    (ALTERED_HELD_OUT, "mirrored"): [False, True],
    (OTHERS, "dance"): [False, True],
    (OTHERS, "walk"): [True, True],
  }
  assert markdown([ours]).endswith(f"\n\n{NOTE}\n")
  assert NOTE not in markdown([_report("ours")])


def test_markdown_is_a_table_of_as_many_cells_in_every_line():
  lines = markdown([_report("a|b"), _report("c")]).splitlines()
  assert lines[0] == "|  | a\\|b | c |"
  assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_what_is_no_report_is_refused():
  for wrong in ({}, {"sets": 3}, {**_report("x"), "samples": 0.1}):
    with pytest.raises(UserError, match="not a report of this version"):
      side_by_side([wrong])
