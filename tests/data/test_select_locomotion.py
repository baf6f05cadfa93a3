"""Locomotion selected and balanced by kind of motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smp.data.convert import ConvertCfg, convert
from smp.data.select_locomotion import (
  Piece,
  SelectCfg,
  balance,
  going_of,
  is_locomotion,
  measure,
  pieces_of,
  repeated,
  select,
)
from smp.data.source import SourceCfg
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.motion.dataset import load_clip_windows, load_motions
from smp.motion.kinds import STANDING, is_still
from smp.paths import MOTIONS
from tests.motion.test_clips import write_csv

FPS = 30
WIDE = SelectCfg(
  output=Path("unused"),
  skip_s=0.0,
  balance_by="kind",
  max_turn=np.inf,
  max_drift=181.0,
  max_quiet=np.inf,
  chunk_s=0.5,
  min_s=0.3,
)
SHOULDER_PITCH, SHOULDER_ROLL, ELBOW = [15, 22], [16, 23], [18, 25]


def gait(seconds: float, speed: float, angle: float = 0.0) -> Clip:
  """A clip that faces x, moves at an angle (degrees) to it, and swings a knee."""
  t = np.arange(round(seconds * FPS)) / FPS
  course = np.radians(angle)
  way = speed * t
  pos = np.stack((way * np.cos(course), way * np.sin(course), 0.76 + 0 * t), axis=1)
  joints = np.zeros((len(t), 29))
  joints[:, SHOULDER_ROLL] = 0.3, -0.3
  joints[:, ELBOW] = 1.0
  joints[:, 3] = 0.3 + (0.2 * np.sin(9 * t) if speed else 0.0)
  return Clip("c", FPS, pos, np.tile([1.0, 0.0, 0.0, 0.0], (len(t), 1)), joints)


def joined(*clips: Clip) -> Clip:
  """The motion of one clip after the other, from where that one ends."""
  parts, end = [], np.zeros(3)
  for clip in clips:
    parts.append(clip.root_pos + end)
    end = parts[-1][-1] * [1, 1, 0]
  return Clip(
    "c",
    FPS,
    np.concatenate(parts),
    np.concatenate([clip.root_quat for clip in clips]),
    np.concatenate([clip.joint_pos for clip in clips]),
  )


def with_joints(clip: Clip, **places: float) -> Clip:
  joints = clip.joint_pos.copy()
  for name, angle in places.items():
    joints[:, {"shoulder_pitch": SHOULDER_PITCH, "hip_pitch": [0]}[name]] = angle
  return replace(clip, joint_pos=joints)


@pytest.mark.parametrize(
  ("angle", "kind"), [(0, "forward 1-2 m/s"), (90, "sideways"), (180, "backward")]
)
def test_every_direction_is_taken_with_wide_limits(angle: float, kind: str):
  clip = gait(4, 1.5, angle)
  assert {piece.kind for piece in pieces_of(clip, WIDE)} == {kind}
  narrow = SelectCfg(output=Path("unused"), skip_s=0.0)
  assert bool(pieces_of(clip, narrow)) == (angle == 0)


def test_standing_is_cut_out_of_the_motion_around_it():
  clip = joined(gait(2.2, 1.5), gait(0.93, 0.0), gait(2.2, 1.5))
  (piece,) = (piece for piece in pieces_of(clip, WIDE) if piece.kind == STANDING)
  still = is_still(going_of(measure(clip)))
  assert list(range(piece.start, piece.stop)) == np.flatnonzero(still).tolist()


def test_plain_standing_has_hanging_arms_and_both_feet_on_the_floor():
  plain = replace(WIDE, plain_standing=True)
  stand = gait(2, 0.0)
  assert is_locomotion(measure(stand), plain).all()
  for pose in ({"shoulder_pitch": -1.5}, {"hip_pitch": -1.0}):
    other = with_joints(stand, **pose)
    assert is_locomotion(measure(other), WIDE).all()
    assert not is_locomotion(measure(other), plain).any()
  # Standing alone is meant.
  walk = with_joints(gait(2, 1.5), shoulder_pitch=-1.5)
  assert is_locomotion(measure(walk), plain).all()


def test_hands_have_a_limit():
  high = with_joints(gait(2, 1.5), shoulder_pitch=-2.5)
  assert measure(high).hands.min() > measure(gait(2, 1.5)).hands.max() + 0.3
  assert is_locomotion(measure(high), WIDE).all()
  assert not is_locomotion(measure(high), replace(WIDE, max_hands=0.25)).any()


def pieces(**seconds: float) -> list[Piece]:
  """Pieces of half a second of kinds."""
  return [
    Piece("c", 15 * i, 15 * i + 15, 1.0, 0.5, kind)
    for kind, amount in seconds.items()
    for i in range(round(2 * amount))
  ]


def test_common_kinds_are_cut_and_rare_ones_repeated():
  cfg = replace(WIDE, max_bin_s=10.0, min_bin_s=10.0, max_repeats=4)
  found = pieces(common=30.0, fair=9.0, rare=3.5, hardly=1.0)
  layers = repeated(balance(found, cfg), cfg)
  seconds = {
    kind: sum(p.seconds for layer in layers for p in layer if p.kind == kind)
    for kind in ("common", "fair", "rare", "hardly")
  }
  assert seconds == {"common": 10.0, "fair": 9.0, "rare": 10.5, "hardly": 4.0}
  assert len(repeated(found, WIDE)) == 1


def test_a_range_listed_twice_counts_twice(tmp_path: Path):
  folder, out = tmp_path / "csv", tmp_path / "set.yaml"
  folder.mkdir()
  write_csv(folder / "walk.csv", joined(gait(6, 1.5), gait(2, 0.0)))
  write_csv(folder / "jump.csv", joined(gait(6, 1.5), gait(2, 0.0)))
  cfg = replace(
    WIDE,
    output=out,
    input_dir=folder,
    clips=("walk",),
    standing_clips=("jump",),
    max_bin_s=7.0,
    min_bin_s=7.0,
    max_repeats=2,
  )
  select(cfg)
  entries = {entry.clip: entry.ranges for entry in load_motions(out).clips}
  # Of the further clip, standing alone; that is rare, so everything of it twice.
  assert min(start for start, _ in entries["jump"]) >= 6 * FPS - 8
  assert {entries["jump"].count(r) for r in entries["jump"]} == {2}
  convert(ConvertCfg(tmp_path / "npz", folder, out, workers=1))
  windows = load_clip_windows(tmp_path / "npz" / "jump.npz").windows
  assert len(np.unique(windows.round(6), axis=0)) * 2 <= len(windows)


@pytest.mark.parametrize("fps", [1e-9, 0.0333, 1e6])
def test_rates_that_cannot_be_are_refused(tmp_path: Path, fps: float):
  write_csv(tmp_path / "walk.csv", gait(2, 1.5))
  cfg = replace(WIDE, output=tmp_path / "m.yaml", input_dir=tmp_path)
  with pytest.raises(UserError, match="--fps .*: must be 1 to 1000"):
    select(replace(cfg, source=SourceCfg(fps=fps)))


def test_pieces_have_a_row_at_least():
  found = pieces_of(gait(2, 1.5), replace(WIDE, chunk_s=0.01, skip_s=0.0))
  assert len(found) == 2 * FPS and all(p.stop == p.start + 1 for p in found)
  assert not pieces_of(gait(2, 1.5), replace(WIDE, skip_s=1e308))


def test_an_unknown_word_to_balance_by_is_refused():
  with pytest.raises(
    UserError, match="--balance-by speeds: must be one of speed, kind"
  ):
    select(replace(WIDE, balance_by="speeds"))  # type: ignore[arg-type]


def test_the_shipped_set_holds_its_clips_out_and_repeats_none_of_theirs():
  motions = load_motions(MOTIONS / "walk_run.yaml")
  for entry in motions.clips:
    if entry.split == "val":
      assert len(set(entry.ranges)) == len(entry.ranges)
  held_out = {entry.clip for entry in motions.clips if entry.split == "val"}
  assert held_out >= {"run2_subject4", "walk1_subject5"}


@pytest.mark.parametrize("limits", [{"max_bin_s": 0.0}, {"val": ("walk",)}])
def test_a_set_with_nothing_to_train_on_is_not_written(tmp_path: Path, limits):
  folder, out = tmp_path / "csv", tmp_path / "set.yaml"
  folder.mkdir()
  write_csv(folder / "walk.csv", joined(gait(6, 1.5), gait(2, 0.0)))
  cfg = replace(WIDE, output=out, input_dir=folder, clips=("walk",), **limits)
  with pytest.raises(UserError, match="nothing is left to train on"):
    select(cfg)
  assert not out.exists()
