"""Get-ups cut out of long clips, and the poses they start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from smp.data.read_clips import load_csv
from smp.data.select_getups import (
  Getup,
  SelectGetupsCfg,
  counts,
  find_getups,
  measure,
  rises,
  select,
  start_pose,
  without_t_poses,
)
from smp.data.select_locomotion import SelectCfg
from smp.data.select_locomotion import select as select_locomotion
from smp.data.source import SourceCfg
from smp.errors import UserError
from smp.motion.clips import Clip, mirror_clip
from smp.motion.dataset import load_motions
from smp.paths import MOTIONS
from tests.motion.test_clips import write_csv

FPS = 30
CFG = SelectGetupsCfg(output=Path("unused"))

# Last row with the pelvis below 0.35 m, first later row above 0.68 m; found by hand.
CANDIDATES = {
  "fallAndGetUp1_subject4": (
    "286-305 484-503 752-786 1110-1179 1531-1552 1807-1839 2058-2100 2403-2422 "
    "2710-2730 3056-3077 3373-3389 3756-3774 4236-4278 4630-4652 4855-4870"
  ),
  "fallAndGetUp2_subject2": (
    "452-502 897-1004 1276-1328 1534-1565 1821-1859 2122-2150 2625-2667 2926-2965 "
    "3480-3498 3814-3875 4035-4056 4254-4278 4430-4461 4585-4608 4754-4784"
  ),
}

STANDING = (0.0, 0.0, 0.0)
POSES = {
  # Turns about the robot's x, y and z (degrees), in that order about fixed axes.
  "supine": (0.0, -90.0, 0.0),
  "prone": (0.0, 90.0, 0.0),
  "left": (-90.0, 0.0, 0.0),
  "right": (90.0, 0.0, 0.0),
  "other": STANDING,
}


def moved(keys: list[tuple[float, float, tuple[float, float, float]]]) -> Clip:
  """A clip through (seconds, pelvis height, turns), by straight lines between them."""
  times = np.array([key[0] for key in keys])
  rows = np.arange(round(times[-1] * FPS) + 1) / FPS
  height = np.interp(rows, times, [key[1] for key in keys])
  turns = np.stack(
    [np.interp(rows, times, [key[2][i] for key in keys]) for i in range(3)], axis=1
  )
  quat = Rotation.from_euler("xyz", turns, degrees=True).as_quat()[:, [3, 0, 1, 2]]
  place = np.stack((0 * rows, 0 * rows, height), axis=1)
  return Clip("c", FPS, place, quat, np.zeros((len(rows), 29)))


def fall_and_rise(turns=POSES["supine"], lying=0.1, rise_s=1.0) -> Clip:
  """Stand 5 s, fall within 1 s, lie 3 s, rise, stand 5 s."""
  return moved(
    [
      (0.0, 0.78, STANDING),
      (5.0, 0.78, STANDING),
      (6.0, lying, turns),
      (9.0, lying, turns),
      (9.0 + rise_s, 0.78, STANDING),
      (14.0 + rise_s, 0.78, STANDING),
    ]
  )


def only(clip: Clip, cfg: SelectGetupsCfg = CFG) -> Getup:
  (getup,) = find_getups(clip, cfg)
  return getup


def with_t_pose(clip: Clip, rows: slice) -> Clip:
  joints = clip.joint_pos.copy()
  joints[rows, 15 + 1], joints[rows, 22 + 1] = 1.5, -1.5  # Shoulder rolls.
  joints[rows, 15 + 3] = joints[rows, 22 + 3] = np.pi / 2  # Elbows.
  return Clip(clip.name, clip.fps, clip.root_pos, clip.root_quat, joints)


# Rows.


def test_rises_count_from_the_last_low_row():
  height = np.array([0.8, 0.3, 0.1, 0.5, 0.3, 0.5, 0.7, 0.5, 0.7, 0.2, 0.5])
  assert rises(height, 0.35, 0.68) == [(1, 4, 6)]
  assert rises(height[6:9], 0.35, 0.68) == []


def test_a_known_fall_and_rise_is_found_at_its_rows():
  getup = only(fall_and_rise())
  assert not getup.fault and getup.pose == "supine"
  # 0.1 to 0.78 m in 30 rows from row 270: 0.35 m in row 281, 0.68 m in row 295.6.
  assert (getup.low, getup.stood) == (281, 296)
  # The rest ends with the lying, give or take what the smoothing sees ahead.
  assert abs(getup.rest - 270) <= 6
  assert getup.start == getup.rest - FPS
  assert getup.stop == getup.stood + FPS + 1


def test_the_second_before_leaves_the_fall_out():
  clip = fall_and_rise()
  cfg = SelectGetupsCfg(output=Path("unused"), before_s=20.0)
  getup = only(clip, cfg)
  assert (clip.root_pos[getup.start : getup.low, 2] < cfg.low).all()
  assert clip.root_pos[getup.start - 1, 2] >= cfg.low


def test_the_second_after_leaves_the_next_fall_out():
  clip = moved(
    [
      (0.0, 0.1, POSES["prone"]),
      (3.0, 0.1, POSES["prone"]),
      (4.0, 0.78, STANDING),
      (4.1, 0.78, STANDING),
      (4.6, 0.1, POSES["prone"]),
      (6.0, 0.1, POSES["prone"]),
    ]
  )
  getup = only(clip)
  assert not getup.fault
  assert getup.stop - getup.stood < FPS
  assert (clip.root_pos[getup.stood : getup.stop, 2] >= CFG.sink).all()
  assert clip.root_pos[getup.stop, 2] < CFG.sink


def test_the_rest_is_the_last_low_and_still_moment_not_the_lowest_ever():
  """Lying long, then sitting still: the get-up is from sitting."""
  sitting = 0.13
  clip = moved(
    [
      (0.0, 0.1, POSES["left"]),
      (10.0, 0.1, POSES["left"]),
      (12.0, sitting, STANDING),
      (20.0, sitting, STANDING),
      (21.0, 0.78, STANDING),
      (23.0, 0.78, STANDING),
    ]
  )
  getup = only(clip)
  assert getup.pose == "other" and abs(getup.rest - 600) <= 6


@pytest.mark.parametrize(
  "clip, fault",
  [
    (fall_and_rise(lying=0.3, turns=STANDING), "not on the ground"),
    (fall_and_rise(rise_s=20.0), "takes"),
    (
      moved(
        [(0, 0.78, STANDING), (0.4, 0.1, (0, -90, 0)), (0.8, 0.78, (0, -180, 0))]
        + [(1.2, 0.78, (0, -360, 0)), (3, 0.78, (0, -360, 0))]
      ),
      "never at rest",
    ),
    (
      moved([(0, 0.1, POSES["prone"]), (3, 0.1, (0, 90, 0)), (4, 0.78, (0, 60, 0))]),
      "does not end upright",
    ),
    (with_t_pose(fall_and_rise(), slice(290, None)), "T-pose"),
  ],
  ids=["squat", "slow", "roll", "bent", "t-pose"],
)
def test_what_is_no_getup_is_left_out_and_says_why(clip, fault):
  assert fault in only(clip).fault


def test_t_poses_at_both_ends_are_left_out():
  clip = fall_and_rise()
  assert without_t_poses(measure(clip), FPS) == (0, len(clip))
  ends = with_t_pose(with_t_pose(clip, slice(0, 60)), slice(310, None))
  assert without_t_poses(measure(ends), FPS) == (75, 295)
  cut = only(with_t_pose(clip, slice(320, None)))
  assert not cut.fault and cut.stop == 305
  # Arms that are stretched out between are a person keeping their balance.
  assert only(with_t_pose(clip, slice(300, 310))).stop == only(clip).stop
  always = with_t_pose(moved([(0, 0.78, STANDING), (2, 0.78, STANDING)]), slice(None))
  assert find_getups(always, CFG) == []


# Start poses.


@pytest.mark.parametrize("turn", [0.0, 70.0, 200.0])
@pytest.mark.parametrize("pose", POSES)
def test_start_poses_whatever_the_heading(pose, turn):
  x, y, _ = POSES[pose]
  # A tilt off the exact pose, and any heading, change nothing.
  clip = fall_and_rise(turns=(x + 10.0, y + 10.0, turn))
  getup = only(clip)
  assert not getup.fault and getup.pose == pose


def test_a_raised_torso_does_not_lie():
  for raise_deg, lies in ((20.0, True), (40.0, False)):
    angle = np.radians(raise_deg)
    up = np.array([np.cos(angle), 0.0, np.sin(angle)])
    assert (start_pose(up) == "supine") is lies
    assert (start_pose(up * [-1, 1, -1]) == "prone") is lies


def test_the_waist_counts_not_the_pelvis_alone():
  """A pelvis on its back with the torso turned up to sit is not supine."""
  clip = fall_and_rise(turns=(0.0, -70.0, 0.0))
  joints = clip.joint_pos.copy()
  assert only(clip).pose == "supine"
  joints[:, 14] = 0.52  # Waist pitch, forward.
  bent = Clip(clip.name, clip.fps, clip.root_pos, clip.root_quat, joints)
  assert only(bent).pose == "other"


def test_mirrors_swap_the_sides():
  clip = fall_and_rise(turns=POSES["left"])
  plain, mirrored = only(clip), only(mirror_clip(clip))
  assert (plain.pose, mirrored.pose) == ("left", "right")
  assert plain.rest == mirrored.rest
  both = counts([plain, only(fall_and_rise())], mirror=True)
  assert both == {"prone": 0, "supine": 2, "left": 1, "right": 1, "other": 0}


# The motion set.


def test_writes_a_motion_set_table_and_picture(tmp_path, capsys):
  (tmp_path / "csv").mkdir()
  for name, pose in (("a", "left"), ("b", "prone"), ("c", "supine")):
    write_csv(tmp_path / "csv" / f"{name}.csv", fall_and_rise(turns=POSES[pose]))
  out, plot = tmp_path / "m.yaml", tmp_path / "m.png"
  cfg = SelectGetupsCfg(
    output=out, input_dir=tmp_path / "csv", clips=("*",), val=("b",), plot=plot
  )
  found = select(cfg)
  motions = load_motions(out)
  assert {e.clip: e.split for e in motions.clips} == {
    "a": "train",
    "b": "val",
    "c": "train",
  }
  for entry, getup in zip(motions.clips, found, strict=True):
    assert entry.mirror and entry.ranges == ((getup.start, getup.stop),)
  assert plot.stat().st_size > 5_000
  text = capsys.readouterr().out
  assert "no train get-up starts prone" in text and "with mirrors" in text


def test_the_picture_has_a_row_of_rest_poses_per_kind(tmp_path, monkeypatch):
  drawn = {}

  def film_strip(rows, path, labels) -> None:
    drawn.update(zip(labels, rows, strict=True))

  monkeypatch.setattr("smp.viz.offscreen.film_strip", film_strip)
  clip = fall_and_rise(turns=POSES["left"])
  write_csv(tmp_path / "a.csv", clip)
  options = {"output": tmp_path / "m.yaml", "input_dir": tmp_path, "clips": ("a",)}
  (getup,) = select(SelectGetupsCfg(**options, poses=tmp_path / "p.png"))
  assert list(drawn) == ["left, 1-1 of 1"]
  (qpos,) = drawn["left, 1-1 of 1"]
  np.testing.assert_allclose(qpos[:3], clip.root_pos[getup.rest], atol=1e-6)
  np.testing.assert_allclose(np.abs(qpos[3:7] @ clip.root_quat[getup.rest]), 1.0)
  assert qpos.shape == (36,)


def test_files_of_one_name_in_two_folders_are_two_clips(tmp_path):
  for folder, pose in (("x", "left"), ("y", "prone")):
    (tmp_path / folder).mkdir()
    write_csv(tmp_path / folder / "a.csv", fall_and_rise(turns=POSES[pose]))

  def chosen(*val: str) -> dict[str, str]:
    options = {"output": tmp_path / "m.yaml", "input_dir": tmp_path, "clips": ("a",)}
    select(SelectGetupsCfg(**options, val=val, overwrite=True))
    return {e.clip: e.split for e in load_motions(tmp_path / "m.yaml").clips}

  assert chosen() == {"x__a": "train", "y__a": "train"}
  assert chosen("y__a") == {"x__a": "train", "y__a": "val"}
  with pytest.raises(UserError, match="--val a: several clips .x__a, y__a"):
    chosen("a")
  (tmp_path / "z").mkdir()
  write_csv(tmp_path / "y" / "b.csv", fall_and_rise())
  (tmp_path / "y" / "a.csv").unlink()
  with pytest.raises(UserError, match="--val x__a: nothing is left to train on"):
    chosen("a")
  write_csv(tmp_path / "z" / "a.csv", fall_and_rise())
  assert chosen("x__a") == {"x__a": "val", "z__a": "train"}


def test_times_may_be_endless():
  clip = fall_and_rise()
  cfg = SelectGetupsCfg(output=Path("unused"))
  (usual,) = find_getups(clip, cfg)
  endless = replace(cfg, max_rise_s=np.inf, before_s=1e308, after_s=1e308)
  (whole,) = find_getups(clip, endless)
  assert whole.rest == usual.rest and whole.stop == len(clip)


def test_clips_are_judged_before_anything_is_chosen(tmp_path, capsys):
  clip = fall_and_rise()
  clip.root_pos[60:, 0] += 5.0
  write_csv(tmp_path / "a.csv", clip)
  options = {"output": tmp_path / "m.yaml", "input_dir": tmp_path, "clips": ("a",)}
  with pytest.raises(UserError, match="a.csv: row 61: the root moves 5"):
    select(SelectGetupsCfg(**options))
  assert not (tmp_path / "m.yaml").exists()
  with pytest.raises(UserError, match="a.csv: row 61"):
    select_locomotion(SelectCfg(**options))
  assert select(SelectGetupsCfg(**options, accept_doubtful=True))
  assert "warning: " in capsys.readouterr().err


def test_clips_are_read_by_the_options(tmp_path):
  clip = fall_and_rise()
  write_csv(tmp_path / "a.csv", clip)
  options = {"output": tmp_path / "m.yaml", "input_dir": tmp_path, "clips": ("a",)}
  (getup,) = select(SelectGetupsCfg(**options))
  (other,) = select(
    SelectGetupsCfg(**options, source=SourceCfg(fps=60.0), overwrite=True)
  )
  # The second before and the second after are 60 rows each.
  assert other.rows > getup.rows + 1.8 * FPS


def test_bad_options(tmp_path):
  write_csv(tmp_path / "a.csv", moved([(0, 0.78, STANDING), (2, 0.78, STANDING)]))

  def attempt(**options) -> None:
    select(SelectGetupsCfg(output=tmp_path / "m", input_dir=tmp_path, **options))

  with pytest.raises(UserError, match="no clip matches"):
    attempt()
  with pytest.raises(UserError, match="--val nobody"):
    attempt(clips=("a",), val=("nobody",))
  with pytest.raises(UserError, match="no get-up in a"):
    attempt(clips=("a",))
  assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", CANDIDATES)
def test_real_getups_are_found(name, lafan_dir):
  clip = load_csv(lafan_dir / f"{name}.csv")
  found = find_getups(clip, CFG)
  want = {tuple(map(int, pair.split("-"))) for pair in CANDIDATES[name].split()}
  assert {(g.low, g.stood) for g in found} == want
  kept = [g for g in found if not g.fault]
  assert len(kept) >= 0.85 * len(want)
  assert all(a.stop <= b.start for a, b in zip(kept, kept[1:], strict=False))
  for getup in kept:
    assert clip.root_pos[getup.start, 2] < CFG.low
    assert clip.root_pos[getup.stop - 1, 2] >= CFG.sink


def test_shipped_set_has_every_start_pose_in_both_splits(lafan_dir):
  motions = load_motions(MOTIONS / "getup.yaml")
  assert {entry.split for entry in motions.clips} == {"train", "val"}
  chosen: dict[str, list[Getup]] = {"train": [], "val": []}
  for entry in motions.clips:
    clip = load_csv(lafan_dir / f"{entry.clip}.csv")
    kept = [g for g in find_getups(clip, CFG) if not g.fault]
    # The set is what the script's defaults choose.
    assert entry.mirror and entry.ranges == tuple((g.start, g.stop) for g in kept)
    chosen[entry.split] += kept
  for getups in chosen.values():
    assert min(counts(getups, mirror=True).values()) > 0
