"""Clips: reading, resampling, mirroring, windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from smp.data import read_clips
from smp.errors import UserError
from smp.motion import clips
from smp.motion.features import SLICES, WINDOW, encode, mirror_features
from smp.robots import g1


def synthetic_clip(frames: int = 60, fps: float = 30, seed: int = 0) -> clips.Clip:
  """A smooth motion within the joint limits."""
  generator = np.random.default_rng(seed)
  t = np.arange(frames)[:, None] / fps
  phase, rate = generator.uniform(0, 6, 29), generator.uniform(1, 6, 29)
  limits = g1.load_model().jnt_range[1:]
  middle, half = limits.mean(axis=1), 0.3 * (limits[:, 1] - limits[:, 0])
  joints = middle + half * np.sin(rate * t + phase)
  angles = np.concatenate((0.8 * t, 0.2 * np.sin(3 * t), 0.1 * np.cos(2 * t)), axis=1)
  quat = Rotation.from_euler("zyx", angles).as_quat()[:, [3, 0, 1, 2]]
  pos = np.concatenate((1.5 * t, np.sin(t), 0.75 + 0.03 * np.sin(9 * t)), axis=1)
  return clips.Clip("synthetic", fps, pos, quat, joints)


def write_csv(path: Path, clip: clips.Clip) -> Path:
  quat = clip.root_quat[:, [1, 2, 3, 0]]
  rows = np.concatenate((clip.root_pos, quat, clip.joint_pos), axis=1)
  np.savetxt(path, rows, delimiter=",", fmt="%.8f")
  return path


def test_csv_round_trip(tmp_path):
  clip = synthetic_clip()
  read = read_clips.load_csv(write_csv(tmp_path / "a.csv", clip))
  assert read.name == "a" and read.fps == 30
  np.testing.assert_allclose(read.root_pos, clip.root_pos, atol=1e-7)
  np.testing.assert_allclose(read.joint_pos, clip.joint_pos, atol=1e-7)
  same = np.abs((read.root_quat * clip.root_quat).sum(axis=1))
  np.testing.assert_allclose(same, 1.0, atol=1e-7)


@pytest.mark.parametrize("frames, length", [(25, 40), (3945, 6574), (2, 2), (31, 50)])
def test_output_times_lie_strictly_before_the_last_input(frames, length):
  assert clips.resampled_length(frames, 30, 50) == length
  assert (length - 1) / 50 < (frames - 1) / 30 <= length / 50 + 1e-9


@pytest.mark.parametrize("method", ["spline", "linear"])
def test_resampling_passes_through_the_input(method):
  clip = synthetic_clip()
  out = clips.resample(clip, 150, method)
  np.testing.assert_allclose(
    out.joint_pos[::5],
    clip.joint_pos[: len(out) // 5 + 1][: len(out.joint_pos[::5])],
    atol=1e-9,
  )
  same = np.abs((out.root_quat[::5] * clip.root_quat[: len(out.root_quat[::5])]).sum(1))
  np.testing.assert_allclose(same, 1.0, atol=1e-12)
  np.testing.assert_allclose(np.linalg.norm(out.root_quat, axis=1), 1.0)


def test_splines_keep_accelerations_that_lines_lose():
  t = np.arange(90)[:, None] / 30
  clip = synthetic_clip(90)
  swing = 0.5 * np.sin(2 * np.pi * 2 * t)
  clip = clips.Clip("s", 30, clip.root_pos, clip.root_quat, np.repeat(swing, 29, 1))
  times = np.arange(clips.resampled_length(90, 30, 50)) / 50
  true = -0.5 * (2 * np.pi * 2) ** 2 * np.sin(2 * np.pi * 2 * times)
  middle = slice(10, -10)

  def acceleration_error(method: clips.Resampling) -> float:
    q = clips.resample(clip, 50, method).joint_pos[:, 0]
    error = np.gradient(np.gradient(q)) * 2500 - true
    return float(np.sqrt((error[middle] ** 2).mean()))

  assert acceleration_error("spline") < 0.5 * acceleration_error("linear")


def test_spline_and_slerp_survive_a_still_root_and_sign_flips():
  clip = synthetic_clip()
  still = np.tile([[0.6, 0.0, 0.0, 0.8]], (60, 1))
  still[::2] *= -1
  for method in ("spline", "linear"):
    out = clips.resample(
      clips.Clip("s", 30, clip.root_pos, still, clip.joint_pos), 50, method
    )
    np.testing.assert_allclose(np.abs(out.root_quat @ still[0]), 1.0, atol=1e-9)


def test_mirror_twice_is_the_identity_and_commutes_with_windows():
  clip = synthetic_clip()
  twice = clips.mirror_clip(clips.mirror_clip(clip))
  for name in ("root_pos", "root_quat", "joint_pos"):
    np.testing.assert_array_equal(getattr(twice, name), getattr(clip, name))
  out = clips.resample(clip)
  windows = clips.clip_windows(clips.mirror_clip(out))
  want = mirror_features(clips.clip_windows(out))
  assert (windows - want).abs().max() < 2e-3  # The two sides differ by so much, in m.


def test_windows_are_slices_and_velocities_are_theirs():
  clip = clips.resample(synthetic_clip())
  windows = clips.clip_windows(clip)
  assert windows.shape == (len(clip) - WINDOW + 1, WINDOW, 59)
  assert windows.dtype == torch.float32
  strided = clips.clip_windows(clip, stride=7)
  assert torch.equal(strided, windows[::7])
  alone = clips.clip_windows(clip.cut(20, 20 + WINDOW))
  torch.testing.assert_close(alone[0], windows[20], rtol=1e-5, atol=1e-5)


def test_velocities_of_the_whole_clip_are_close_to_those_of_its_windows():
  clip = clips.resample(synthetic_clip())
  own, whole = clips.clip_windows(clip), clips.clip_windows(clip, velocity="clip")
  velocity = slice(SLICES["root_lin_vel"].start, SLICES["root_ang_vel"].stop)
  gap = (own - whole)[..., velocity]
  assert gap[3:-3, 1:-1].abs().max() < 1e-4
  assert 1e-5 < gap[3:-3].abs().max() < 0.05
  assert torch.equal(own[..., : velocity.start], whole[..., : velocity.start])


def test_whole_clip_encodes_like_its_state():
  clip = clips.resample(synthetic_clip())
  state = clips.state_windows(clips.clip_state(clip))
  torch.testing.assert_close(
    encode(state).float(), clips.clip_windows(clip, velocity="clip")
  )


# Bad input: one line that names file and row.


def corrupt(path: Path, row: int, column: int, value: str) -> None:
  lines = path.read_text().splitlines()
  cells = lines[row].split(",")
  cells[column] = value
  lines[row] = ",".join(cells)
  path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
  "column, value, message",
  [
    (5, "abc", "row 8, column 6: 'abc' is not a number"),
    (5, "nan", "row 8, column 6: not a finite number"),
    (40, "", "row 8"),
    (10, "9.5", "row 8: left_knee_joint is 9.500 rad"),
    (10, "1,2", "row 8 has 37 columns, expected 36"),
  ],
)
def test_bad_cells_are_named(tmp_path, column, value, message):
  path = write_csv(tmp_path / "clip.csv", synthetic_clip())
  if column < 36:
    corrupt(path, 7, column, value)
  else:
    lines = path.read_text().splitlines()
    lines[7] = lines[7].rsplit(",", 1)[0]
    path.write_text("\n".join(lines))
  with pytest.raises(UserError) as error:
    read_clips.load_csv(path)
  assert "clip.csv" in str(error.value) and message in str(error.value)
  assert "\n" not in str(error.value)


def test_zero_quaternion_header_empty_and_other_tables(tmp_path):
  path = write_csv(tmp_path / "clip.csv", synthetic_clip())
  for column in range(3, 7):
    corrupt(path, 4, column, "0.0")
  with pytest.raises(UserError, match="row 5: the root quaternion"):
    read_clips.load_csv(path)
  path.write_text("x,y,z\n" + path.read_text())
  with pytest.raises(UserError, match="row 6: the root quaternion"):
    read_clips.load_csv(path)
  path.write_text("1,2,3\n4,5,6\n")
  with pytest.raises(UserError, match="3 columns, expected 36"):
    read_clips.load_csv(path)
  path.write_text(" \n")
  with pytest.raises(UserError, match="empty file"):
    read_clips.load_csv(path)
  path.write_bytes(bytes(range(256)))
  with pytest.raises(UserError, match="clip.csv"):
    read_clips.load_csv(path)
  with pytest.raises(UserError, match="missing.csv"):
    read_clips.load_csv(tmp_path / "missing.csv")


def test_real_clip(lafan_dir):
  """Lines have some percent less mean |acceleration| than splines."""
  clip = read_clips.load_csv(lafan_dir / "dance1_subject2.csv")
  assert len(clip) == 3945

  def acceleration(method: clips.Resampling) -> float:
    out = clips.resample(clip, 50, method)
    assert len(out) == 6574
    return float(np.abs(np.diff(out.joint_pos, 2, axis=0)).mean())

  loss = 1 - acceleration("linear") / acceleration("spline")
  assert 0.05 < loss < 0.2


def test_splines_restore_left_out_rows_better_than_lines(lafan_dir):
  """Real motion at 15 Hz, brought back to 30 Hz, against the rows that were left out."""
  clip = read_clips.load_csv(lafan_dir / "walk1_subject1.csv").cut(0, 2001)
  half = replace(
    clip,
    fps=clip.fps / 2,
    root_pos=clip.root_pos[::2],
    root_quat=clip.root_quat[::2],
    joint_pos=clip.joint_pos[::2],
  )
  true = np.diff(clip.joint_pos[:-1], 2, axis=0)

  def error(method: clips.Resampling) -> float:
    back = np.diff(clips.resample(half, 30, method).joint_pos, 2, axis=0)
    return float(((back - true) ** 2).mean() ** 0.5)

  assert error("spline") < 0.7 * error("linear")
