"""Evaluation: the same poses for every prior, and measures that mean what they say."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smp.cli import evaluate_prior as cli
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.evaluate import (
  EvaluateCfg,
  SourceWindows,
  altered_windows,
  auc,
  evaluate_prior,
  poses_shuffled,
  shrunk,
  speeds,
  time_reversed,
  time_shuffled,
  to_spec,
  window_errors,
  with_joint_noise,
)
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.motion.clips import Clip, clip_windows
from smp.motion.dataset import save_windows
from smp.motion.features import SLICES, decode, g1_spec, window_velocities
from smp.motion.rotations import HeadingKind

JOINTS = SLICES["joint_pos"]


def _clip(frames: int = 40, speed: float = 1.2) -> Clip:
  """A made-up gait that turns, sways and pitches, at 50 Hz."""
  t = np.arange(frames) / 50.0
  yaw, pitch, roll = (
    0.8 * t + 0.3 * np.sin(5 * t),
    0.4 * np.sin(7 * t),
    0.2 * np.sin(4 * t),
  )
  half = np.stack((roll, pitch, yaw), axis=-1) / 2
  cr, cp, cy = np.cos(half).T
  sr, sp, sy = np.sin(half).T
  quat = np.stack(
    (
      cr * cp * cy + sr * sp * sy,
      sr * cp * cy - cr * sp * sy,
      cr * sp * cy + sr * cp * sy,
      cr * cp * sy - sr * sp * cy,
    ),
    axis=-1,
  )
  pos = np.stack(
    (
      speed * t + 0.02 * np.sin(9 * t),
      0.1 * np.sin(6 * t),
      0.75 + 0.03 * np.sin(8 * t),
    ),
    axis=-1,
  )
  joints = 0.4 * np.sin(6.0 * t[:, None] + np.arange(29))
  return Clip("made_up", 50.0, pos, quat, joints)


def _source(
  clips: list[Clip],
  heading: HeadingKind = "twist",
  velocity: str = "window",
  stride: int = 1,
) -> SourceWindows:
  parts = [
    clip_windows(clip, stride=stride, heading=heading, velocity=velocity)
    for clip in clips
  ]
  spec = g1_spec(heading=heading, velocity=velocity)
  return SourceWindows(torch.cat(parts), spec, stride)


def _prior(**spec) -> MotionPrior:
  torch.manual_seed(0)
  denoiser = Denoiser(59, 10, d_model=16, nhead=4, num_layers=1)
  return MotionPrior(denoiser, -torch.ones(59), torch.ones(59), g1_spec(**spec), 50)


# The same poses.


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("to_velocity", ["window", "clip"])
@pytest.mark.parametrize("from_velocity", ["window", "clip"])
@pytest.mark.parametrize("to_heading", ["twist", "yaw"])
def test_conversion_equals_converting_the_clips_anew(
  to_heading: HeadingKind, from_velocity: str, to_velocity: str, stride: int
):
  clips = [_clip(), _clip(34, speed=2.0)]
  clips = [replace(clip, joint_pos=clip.joint_pos + i) for i, clip in enumerate(clips)]
  # The frames after the last window of a clip are in no window.
  used = [(len(clip) - 10) // stride * stride + 10 for clip in clips]
  clips = [clip.cut(0, frames) for clip, frames in zip(clips, used, strict=True)]
  source = _source(clips, "twist", from_velocity, stride)
  expected = _source(clips, to_heading, to_velocity, stride)
  got = to_spec(source, expected.spec)
  torch.testing.assert_close(got, expected.features, atol=2e-4, rtol=1e-4)
  if from_velocity != to_velocity:
    assert not torch.allclose(got[..., 53:], source.features[..., 53:], atol=1e-3)


def test_without_overlap_the_ends_of_windows_stay_one_sided():
  source = _source([_clip()], stride=9)
  got = to_spec(source, replace(source.spec, velocity="clip"))
  torch.testing.assert_close(got, source.features, atol=1e-4, rtol=1e-4)


def test_windows_of_another_rate_are_refused():
  source = _source([_clip()])
  with pytest.raises(UserError, match="fps"):
    to_spec(source, replace(source.spec, fps=30.0))


def test_speed_is_that_of_the_poses():
  clip = _clip(speed=3.0)
  source = _source([clip])
  moved = np.linalg.norm(clip.root_pos[9:, :2] - clip.root_pos[:-9, :2], axis=1) / 0.18
  torch.testing.assert_close(
    speeds(source.features, source.spec), torch.from_numpy(moved).float()
  )


# Altered windows.


def test_reversing_twice_changes_nothing_but_reversing_once_does():
  source = _source([_clip()])
  once = time_reversed(source.features, source.spec)
  twice = time_reversed(once, source.spec)
  torch.testing.assert_close(twice, source.features, atol=1e-4, rtol=1e-4)
  expected = _source([_reverse(_clip())]).features.flip(0)
  torch.testing.assert_close(once, expected, atol=1e-4, rtol=1e-4)


def _reverse(clip: Clip) -> Clip:
  return Clip(
    clip.name,
    clip.fps,
    clip.root_pos[::-1].copy(),
    clip.root_quat[::-1].copy(),
    clip.joint_pos[::-1].copy(),
  )


def test_shuffling_keeps_every_frame_and_moves_most():
  features = _source([_clip()]).features
  shuffled = time_shuffled(features, torch.Generator().manual_seed(0))
  torch.testing.assert_close(shuffled.sort(dim=1).values, features.sort(dim=1).values)
  assert ((shuffled - features).abs().amax(-1) > 0).float().mean() > 0.8


def test_shuffled_poses_have_the_velocities_of_their_order():
  source = _source([_clip()])
  moved = poses_shuffled(source.features, source.spec, torch.Generator().manual_seed(0))
  joints = moved[..., JOINTS]
  want = source.features[..., JOINTS]
  torch.testing.assert_close(joints.sort(dim=1).values, want.sort(dim=1).values)
  state = decode(moved.double())
  lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, 50)
  torch.testing.assert_close(state.root_lin_vel_w, lin, rtol=1e-4, atol=1e-3)
  torch.testing.assert_close(state.root_ang_vel_w, ang, rtol=1e-4, atol=1e-3)
  assert moved[:, -1, :2].abs().max() < 1e-6


def test_joint_noise_is_as_large_as_asked_and_only_on_joints():
  features = _source([_clip()]).features.repeat(20, 1, 1)
  before = features.clone()
  change = with_joint_noise(features, 0.1, torch.Generator().manual_seed(0)) - features
  assert torch.equal(features, before)
  assert change[..., JOINTS].std().item() == pytest.approx(0.1, rel=0.02)
  change[..., JOINTS] = 0.0
  assert not change.any()


def test_shrinking_halves_the_spread_and_keeps_the_mean():
  features = _source([_clip()]).features
  before = features.clone()
  small = shrunk(features)
  assert torch.equal(features, before)
  torch.testing.assert_close(
    small[..., JOINTS].std(dim=(0, 1)), 0.5 * features[..., JOINTS].std(dim=(0, 1))
  )
  torch.testing.assert_close(
    small[..., JOINTS].mean(dim=(0, 1)), features[..., JOINTS].mean(dim=(0, 1))
  )


def test_every_alteration_alters_and_repeats():
  source = _source([_clip()])
  first = altered_windows(source.features, source.spec, seed=3)
  again = altered_windows(source.features, source.spec, seed=3)
  assert len(first) == 8
  for name, windows in first.items():
    assert torch.equal(windows, again[name]), name
    assert (windows - source.features).abs().max() > 1e-3, name


# Measures.


def test_auc_of_known_cases():
  low, high = torch.arange(10.0), torch.arange(20.0, 35.0)
  assert auc(low, high) == 1.0
  assert auc(high, low) == 0.0
  assert auc(low, low) == 0.5
  assert auc(torch.zeros(5), torch.zeros(7)) == 0.5
  assert auc(torch.tensor([1.0, 3.0]), torch.tensor([2.0])) == 0.5
  assert auc(torch.tensor([1.0, 3.0, 4.0]), torch.tensor([3.0, 5.0])) == 4.5 / 6


def test_auc_equals_counting_pairs():
  generator = torch.Generator().manual_seed(0)
  real = torch.randn(60, generator=generator)
  altered = torch.randn(40, generator=generator) + 0.7
  pairs = (altered[:, None] > real[None]).float().mean()
  assert auc(real, altered) == pytest.approx(pairs.item(), abs=1e-6)


def test_errors_do_not_depend_on_what_else_is_scored():
  features = _source([_clip(60)]).features
  whole = window_errors(_prior(), features, draws=2, seed=0)
  torch.testing.assert_close(window_errors(_prior(), features, 2, 0), whole)
  assert whole.shape == (len(features),)
  fewer = window_errors(_prior(), features, draws=1, seed=0)
  assert not torch.allclose(fewer, whole)


def test_report_counts_windows_by_speed():
  # Straight lines: 1.2 m/s is in bin 2, 2.2 m/s in bin 4.
  def line(speed: float) -> Clip:
    clip = _clip()
    pos = np.zeros_like(clip.root_pos)
    pos[:, 0] = speed * np.arange(len(pos)) / 50.0
    return replace(clip, root_pos=pos)

  source = _source([line(1.2), line(2.2)])
  cfg = EvaluateCfg(windows_per_bin=5, auc_windows=20, samples=4, draws=1)
  report = evaluate_prior(
    "p", _prior(heading="yaw", velocity="clip"), {"own": source}, cfg
  )
  counts = [b.count for b in report.sets["own"].bins]
  assert counts == [0, 0, 31, 0, 31, 0, 0, 0, 0]
  medians = [b.median for b in report.sets["own"].bins]
  assert medians[0] is None and medians[2] is not None and medians[4] is not None
  assert all(0.0 <= value <= 1.0 for value in report.sets["own"].auc.values())
  assert report.samples > 0.0
  assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_a_set_without_windows_is_refused():
  source = _source([_clip()])
  empty = SourceWindows(source.features[:0], source.spec, 1)
  with pytest.raises(UserError, match="own: no windows"):
    evaluate_prior("p", _prior(), {"own": empty}, EvaluateCfg())


# The script.


def _write(path: Path, split: str, seed: int) -> Tensor:
  source = _source([_clip(30, speed=1.0 + seed)])
  save_windows(
    path,
    source.features.numpy(),
    source.spec,
    clip=path.stem,
    stride=1,
    mirrored=np.zeros(len(source.features), dtype=bool),
    split=split,  # type: ignore[arg-type]
  )
  return source.features


QUICK = [
  "--draws",
  "1",
  "--auc-windows",
  "10",
  "--windows-per-bin",
  "5",
  "--samples",
  "4",
]


def test_reads_priors_of_different_specs_side_by_side(tmp_path: Path, capsys):
  _write(tmp_path / "npz" / "a.npz", "train", 0)
  _write(tmp_path / "npz" / "b.npz", "val", 1)
  _prior().save(tmp_path / "ours.safetensors")
  _prior(heading="yaw", velocity="clip").save(tmp_path / "published.safetensors")
  out, picture = tmp_path / "out.json", tmp_path / "out.png"
  cli.main(
    [
      str(tmp_path / "ours.safetensors"),
      str(tmp_path / "published.safetensors"),
      *("--windows", str(tmp_path / "npz")),
      *("--json", str(out), "--plot", str(picture)),
      *QUICK,
    ]
  )
  content = json.loads(out.read_text())
  assert [p["prior"] for p in content["priors"]] == ["ours", "published"]
  assert [p["heading"] for p in content["priors"]] == ["twist", "yaw"]
  for prior in content["priors"]:
    assert set(prior["sets"]) == {"own", "held out"}
    assert prior["sets"]["own"]["windows"] == 21
  # Same weights, same poses: the encodings differ little, the scores too.
  ours, published = (p["sets"]["own"]["median"] for p in content["priors"])
  assert ours == pytest.approx(published, rel=0.2) and ours != published
  assert picture.stat().st_size > 10_000
  assert "time-shuffled" in capsys.readouterr().out


def test_held_out_files_can_be_named(tmp_path: Path):
  _write(tmp_path / "a.npz", "train", 0)
  _write(tmp_path / "b.npz", "train", 1)
  _prior().save(tmp_path / "p.safetensors")
  options = cli.Options(
    priors=("p",),
    windows=(tmp_path / "a.npz",),
    held_out=(tmp_path / "b.npz",),
  )
  sets = cli.load_sets(options)
  assert set(sets) == {"own", "held out"}
  assert not torch.equal(sets["own"].features, sets["held out"].features)


def test_bad_input_is_refused(tmp_path: Path):
  _write(tmp_path / "a.npz", "train", 0)
  with pytest.raises(UserError, match="neither a file nor a shipped prior"):
    cli.main(["nonesuch", "--windows", str(tmp_path / "a.npz")])
  _prior().save(tmp_path / "p.safetensors")
  prior = str(tmp_path / "p.safetensors")
  with pytest.raises(UserError, match="no such file"):
    cli.main([prior, "--windows", str(tmp_path / "b.npz")])
  with pytest.raises(UserError, match="draws is 0"):
    cli.main([prior, "--windows", str(tmp_path / "a.npz"), "--draws", "0"])
