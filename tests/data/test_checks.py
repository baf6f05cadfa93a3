"""What a motion means: real motion passes, damage is noticed, the hint is the remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smp.cli.inspect_clips import summarise
from smp.cli.measure_checks import noticed, rows_of
from smp.data.checks import ISAAC, Finding, Rows, judge, report
from smp.data.damage import DAMAGE, change, resampling_change, table_of
from smp.data.familiar import Gaussian, _Fit
from smp.data.read_clips import load_clip, load_csv
from smp.data.source import SourceCfg
from smp.errors import UserError
from smp.robots import g1
from tests.standing import standing_clip, table, text


def findings(values: np.ndarray, fps: float = 30.0) -> list[Finding]:
  return judge(rows_of(values, fps))


def refusal(values: np.ndarray, fps: float = 30.0) -> str:
  found = findings(values, fps)
  assert found and found[0].refuse
  return found[0].text


def test_nothing_is_said_of_a_robot_that_stands():
  assert findings(table(standing_clip())) == []


def test_lengths_of_quaternions():
  values = table(standing_clip())
  values[7, 3:7] *= 1.5
  assert "length 1.500" in refusal(values)
  assert findings(values)[0].rows == (7,)
  values[7, 3:7] *= 1.005 / 1.5
  found = findings(values)
  assert found and not found[0].refuse


@pytest.mark.parametrize("unit, size", [("cm", 100.0), ("mm", 1000.0), ("in", 39.37)])
def test_units_of_length(unit, size):
  values = table(standing_clip())
  values[:, :3] *= size
  text = refusal(values)
  # One advice, and not another unit beside it.
  assert f"--length-unit {unit}" in text and text.count("--length-unit") == 1


def test_degrees():
  values = table(standing_clip())
  values[:, 7:] = np.degrees(values[:, 7:])
  assert "--angle-unit deg" in refusal(values)


def test_order_of_the_quaternion():
  values = table(standing_clip())
  values[:, 3:7] = values[:, [6, 3, 4, 5]]
  text = refusal(values)
  assert "upside down" in text and "--quaternion-order wxyz" in text


@pytest.mark.parametrize(
  "order, other, index",
  [("xyzw", "wxyz", [3, 0, 1, 2]), ("wxyz", "xyzw", [1, 2, 3, 0])],
)
def test_the_order_that_a_file_was_read_with_is_not_proposed(order, other, index):
  rows = rows_of(table(standing_clip(yaw=2.0)))
  rows = replace(rows, root_quat=rows.root_quat[:, index], quaternion_order=order)
  assert f"--quaternion-order {other} it" in judge(rows)[0].text
  for tried in (other, ""):
    text = judge(replace(rows, quaternion_order=tried))[0].text
    assert f"read with --quaternion-order {other}" not in text


def test_up_is_y():
  values = table(standing_clip())
  turned = values.copy()
  turned[:, 1], turned[:, 2] = values[:, 2], -values[:, 1]
  from scipy.spatial.transform import Rotation

  turn = Rotation.from_euler("x", -90, degrees=True)
  turned[:, 3:7] = (turn * Rotation.from_quat(values[:, 3:7])).as_quat()
  assert any("--up-axis y" in each.text for each in findings(turned))


@pytest.mark.parametrize("lift, refuse", [(0.1, False), (0.6, True), (-0.25, False)])
def test_heights(lift, refuse):
  values = table(standing_clip())
  values[:, 2] += lift
  found = findings(values)
  assert found and found[0].refuse == refuse and "floor" in found[0].text


@pytest.mark.parametrize("lift", [1.0, 0.3, 0.1, -0.3])
def test_another_floor_is_told_with_its_height(lift):
  values = table(standing_clip())
  values[:, 2] += lift
  found = findings(values)
  how = "lower" if lift > 0 else "higher"
  assert f"read with z {abs(lift):.2f} m {how} it looks right" in found[0].text
  assert found[0].refuse == (lift == 1.0), "a height may be meant"


def test_jumps_name_the_second_row_and_ranges_leave_them_out():
  values = table(standing_clip())
  values[20:, 0] += 3.0
  rows = rows_of(values)
  found = judge(rows)
  with pytest.raises(UserError, match="row 21: the root moves 3"):
    report(rows, found)
  assert report(rows, found, accept=True)
  assert report(rows, found, ranges=[(0, 20), (20, 36)]) == []
  with pytest.raises(UserError):
    report(rows, found, ranges=[(10, 30)])


def test_a_pelvis_under_the_floor():
  values = table(standing_clip())
  values[9, 2] = -0.9
  assert "the pelvis is at z = -0.90 m" in refusal(values)


def test_turns_of_the_root_and_of_joints():
  values = table(standing_clip())
  values[20:, 3:7] = table(standing_clip(yaw=1.3))[20:, 3:7]
  assert "the root turns 57 degrees" in refusal(values)
  values = table(standing_clip())
  elbow = 7 + g1.JOINT_NAMES.index("left_elbow_joint")
  values[:20, elbow], values[20:, elbow] = -0.5, 1.7
  assert "left_elbow_joint turns 2.20 rad" in refusal(values)


def test_a_row_that_is_elsewhere():
  values = table(standing_clip())
  values[20, 0] += 0.25
  found = findings(values)
  assert "the bodies jump" in found[0].text and not found[0].refuse
  values[20, 0] -= 0.15
  assert findings(values) == [], "what a fast motion may do"


def test_rows_repeated_at_a_standstill_are_none():
  values = np.repeat(table(standing_clip())[:1], 36, axis=0)
  values[:, 0] += 1e-4 * np.arange(36)
  values[20:23] = values[20]
  assert findings(values) == []


def test_speeds_are_by_the_frame_rate():
  """What is possible at 30 rows a second is not at 6000."""
  values = table(standing_clip())
  assert findings(values) == []
  assert findings(values, 6000.0)


def test_repeated_rows():
  values = table(standing_clip())
  found = findings(np.repeat(values, 2, axis=0)[:39])
  assert "the others are 15 a second" in found[0].text and not found[0].refuse
  moving = values.copy()
  moving[:, 0] += np.arange(len(values)) / 30
  found = findings(np.insert(moving, 20, moving[20], axis=0))
  assert any(each.rows == (21,) and "repeats" in each.text for each in found)
  held = np.repeat(values[:1], 36, axis=0)
  assert findings(held) == [], "a pose that is held is no motion with rows missing"


def test_a_missing_row():
  values = table(standing_clip(39))
  values[:, 0] += np.arange(len(values)) / 30
  assert findings(values) == []
  found = findings(np.delete(values, 20, axis=0))
  assert [each.rows for each in found] == [(20,)] and "missing" in found[0].text


def test_likelihoods_of_exchanges_are_those_of_exchanged_motions():
  """The closed forms against the motion itself, exchanged."""
  rng = np.random.default_rng(0)
  size = g1.NUM_JOINTS + 4
  root = rng.normal(size=(size, size))
  model = Gaussian(rng.normal(size=size), root @ root.T)
  x = rng.normal(size=(50, size))
  fit = _Fit.of(x, model)
  order = np.arange(size)
  order[[3, 8]] = (8, 3)
  rise = _Fit.of(x[:, order], model).rarity - fit.rarity
  assert fit.swaps()[3, 8] == pytest.approx(rise)
  flipped = x.copy()
  flipped[:, 5] *= -1
  assert fit.flips()[5] == pytest.approx(_Fit.of(flipped, model).rarity - fit.rarity)
  part = tuple(range(12))
  order = np.arange(size)
  order[list(part)] = [g1.MIRROR_INDEX[j] for j in part]
  rise = _Fit.of(x[:, order], model).rarity - fit.rarity
  assert fit.sides(part) == pytest.approx(rise)


def test_a_summary_says_what_a_motion_does():
  values = table(standing_clip())
  plain = summarise(rows_of(values))
  assert (plain.rows, plain.seconds) == (36, pytest.approx(1.2))
  assert (plain.upright, plain.lying, plain.jumps, plain.over) == (1.0, 0.0, 0, 0.0)
  assert plain.depth < 0.02 and plain.speed[1] == pytest.approx(0.1, abs=0.02)
  assert plain.height == pytest.approx(np.quantile(values[:, 2], (0, 0.5, 1)))
  values[:18, 2] -= 0.1
  values[20, 0] += 0.25
  knee = 7 + g1.JOINT_NAMES.index("left_knee_joint")
  values[30, knee] = -0.5
  worse = summarise(rows_of(values), every=1)
  assert worse.depth - plain.depth == pytest.approx(0.1, abs=0.02)
  assert worse.jumps > 0 and worse.over == pytest.approx(0.5 - 0.087, abs=0.01)
  values[:, 3:7] = (0.5, 0.5, 0.5, 0.5)
  assert (summarise(rows_of(values)).lying, summarise(rows_of(values)).upright) == (
    1,
    0,
  )


# Real clips.


@pytest.fixture(scope="module")
def walk(lafan_dir: Path):
  return load_csv(lafan_dir / "walk1_subject1.csv")


@pytest.mark.slow
def test_real_clips_pass(lafan_dir):
  for path in sorted(lafan_dir.glob("*.csv")):
    assert load_clip(path, SourceCfg())[1] == [], path.name


def test_cuts_of_real_clips_pass(walk):
  for start in (600, 3000):
    assert not noticed(table_of(walk.cut(start, start + 90)))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_or_harmless(walk, kind):
  """Most of it: docs/motion-formats.md has the shares."""
  rng = np.random.default_rng(1)
  seen = []
  for _ in range(4):
    damaged = DAMAGE[kind](table_of(walk), rng)
    seen.append(
      noticed(damaged.table) or change(walk, damaged) <= resampling_change(walk)
    )
  assert sum(seen) >= (2 if kind in ("scale_column", "shift_column") else 3)


def test_joints_of_another_order(walk):
  values = table_of(walk.cut(600, 900))
  order = [g1.JOINT_NAMES.index(name) for name in ISAAC]
  values[:, 7:] = values[:, 7:][:, order]
  assert "--joint-order isaac" in refusal(values)


def test_what_looks_right_otherwise_is_no_doubt_any_more(walk):
  values = table_of(walk.cut(600, 690))
  values[:, 3:7] = values[:, [6, 3, 4, 5]]
  with pytest.raises(UserError, match="--quaternion-order wxyz it looks right"):
    report(rows_of(values), judge(rows_of(values)))
  assert not any(f.refuse for f in judge(rows_of(values), explain=False))


def test_made_up_joints_are_no_exchange(walk, tmp_path):
  path = tmp_path / "walk.csv"
  names = [j for j in range(29) if j not in (13, 14, 20, 21, 27, 28)]
  values = table_of(walk.cut(600, 1200))
  path.write_text(text(values[:, [*range(7), *(7 + j for j in names)]]))
  clip, doubts = load_clip(path, SourceCfg(fill_missing_joints=True))
  assert not np.any(clip.joint_pos[:, 13]) and doubts == []


def test_rows_are_lines_of_the_file(tmp_path):
  values = table(standing_clip())
  values[9, 10] = 7.0
  rows = replace(rows_of(values), lines=np.arange(3, 39), path=tmp_path / "a.csv")
  assert isinstance(rows, Rows)
  with pytest.raises(UserError, match="row 12: left_knee_joint is 7.000 rad"):
    report(rows, judge(rows))
