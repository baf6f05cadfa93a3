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
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError, run
from smp.evaluation.prior.comparison import markdown
from smp.evaluation.prior.eval_windows import (
  EvalWindows,
  convert_features,
  kind_of,
  rows_to_spec,
  speeds,
)
from smp.evaluation.prior.judge import (
  EvaluateCfg,
  EvaluationData,
  altered_windows,
  auc,
  evaluate_prior,
  held_out_reference,
  poses_shuffled,
  seen_clips,
  shrunk,
  time_reversed,
  time_shuffled,
  window_errors,
  with_joint_noise,
)
from smp.evaluation.style_classifier import PARTS, StyleClassifier
from smp.motion.clips import Clip, clip_windows
from smp.motion.dataset import load_stats, save_windows
from smp.motion.features import SLICES, VelocityKind, decode, g1_spec, window_velocities
from smp.motion.rotations import HeadingKind
from smp.paths import NORM_STATS
from smp.utils.rows import evenly_spaced
from tests.diffusion.test_styles import make_prior as make_styled_prior
from tests.diffusion.test_styles import windows as styled_windows

JOINTS = SLICES["joint_pos"]


def made_up_clip(frames: int = 40, speed: float = 1.2) -> Clip:
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
  velocity: VelocityKind = "window",
  stride: int = 1,
) -> EvalWindows:
  parts = [
    clip_windows(clip, stride=stride, heading=heading, velocity=velocity)
    for clip in clips
  ]
  spec = g1_spec(heading=heading, velocity=velocity)
  names = tuple(clip.name for clip in clips)
  return EvalWindows(torch.cat(parts), spec, stride, names)


def _data(own: EvalWindows, held_out: EvalWindows | None = None, **others):
  sets = {"own": own} if held_out is None else {"own": own, "held out": held_out}
  return EvaluationData(sets, load_stats(NORM_STATS), others)


def _prior(info: dict | None = None, **spec) -> MotionPrior:
  torch.manual_seed(0)
  denoiser = Denoiser(59, 10, d_model=16, nhead=4, num_layers=1)
  return MotionPrior(
    denoiser, -torch.ones(59), torch.ones(59), g1_spec(**spec), 50, info
  )


FEW = EvaluateCfg(
  windows_per_bin=5, auc_windows=20, samples=4, real_windows=16, draws=1
)


# The same poses.


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("to_velocity", ["window", "clip"])
@pytest.mark.parametrize("from_velocity", ["window", "clip"])
@pytest.mark.parametrize("to_heading", ["twist", "yaw"])
def test_conversion_equals_converting_the_clips_anew(
  to_heading: HeadingKind,
  from_velocity: VelocityKind,
  to_velocity: VelocityKind,
  stride: int,
):
  clips = [made_up_clip(), made_up_clip(34, speed=2.0)]
  clips = [replace(clip, joint_pos=clip.joint_pos + i) for i, clip in enumerate(clips)]
  # The frames after the last window of a clip are in no window.
  used = [(len(clip) - 10) // stride * stride + 10 for clip in clips]
  clips = [clip.cut(0, frames) for clip, frames in zip(clips, used, strict=True)]
  source = _source(clips, "twist", from_velocity, stride)
  expected = _source(clips, to_heading, to_velocity, stride)
  got = convert_features(source, expected.spec)
  torch.testing.assert_close(got, expected.features, atol=2e-4, rtol=1e-4)
  if from_velocity != to_velocity:
    assert not torch.allclose(got[..., 53:], source.features[..., 53:], atol=1e-3)


def test_without_overlap_the_ends_of_windows_stay_one_sided():
  source = _source([made_up_clip()], stride=9)
  got = convert_features(source, replace(source.spec, velocity="clip"))
  torch.testing.assert_close(got, source.features, atol=1e-4, rtol=1e-4)


def test_windows_of_another_rate_are_refused():
  source = _source([made_up_clip()])
  with pytest.raises(UserError, match="fps"):
    convert_features(source, replace(source.spec, fps=30.0))


def test_converting_some_rows_equals_converting_all():
  source = _source([made_up_clip(), made_up_clip(34, speed=2.0)], stride=3)
  spec = g1_spec(heading="yaw", velocity="clip")
  rows = torch.tensor([0, 4, 5, 10, 11, len(source.features) - 1])
  some = rows_to_spec(source, rows, spec)
  torch.testing.assert_close(some, convert_features(source, spec)[rows])
  # Not for want of neighbours: those give the ends their velocities.
  alone = convert_features(replace(source, features=source.features[4:5]), spec)
  assert not torch.allclose(some[1:2], alone, atol=1e-3)


def test_kinds_are_the_letters_a_name_begins_with():
  names = {
    "dance2_subject1": "dance",
    "fallAndGetUp1_subject4": "fallAndGetUp",
    "fightAndSports1_subject1": "fightAndSports",
    "ground_x": "ground",
    "walk": "walk",
    "07_boxing": "07_boxing",
  }
  assert {name: kind_of(name) for name in names} == names


def test_speed_is_that_of_the_poses():
  clip = made_up_clip(speed=3.0)
  source = _source([clip])
  moved = np.linalg.norm(clip.root_pos[9:, :2] - clip.root_pos[:-9, :2], axis=1) / 0.18
  torch.testing.assert_close(
    speeds(source.features, source.spec), torch.from_numpy(moved).float()
  )


# Altered windows.


def test_reversing_twice_changes_nothing_but_reversing_once_does():
  source = _source([made_up_clip()])
  once = time_reversed(source.features, source.spec)
  twice = time_reversed(once, source.spec)
  torch.testing.assert_close(twice, source.features, atol=1e-4, rtol=1e-4)
  expected = _source([_reverse(made_up_clip())]).features.flip(0)
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
  features = _source([made_up_clip()]).features
  shuffled = time_shuffled(features, torch.Generator().manual_seed(0))
  torch.testing.assert_close(shuffled.sort(dim=1).values, features.sort(dim=1).values)
  assert ((shuffled - features).abs().amax(-1) > 0).float().mean() > 0.8


def test_shuffled_poses_have_the_velocities_of_their_order():
  source = _source([made_up_clip()])
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
  features = _source([made_up_clip()]).features.repeat(20, 1, 1)
  before = features.clone()
  change = with_joint_noise(features, 0.1, torch.Generator().manual_seed(0)) - features
  assert torch.equal(features, before)
  assert change[..., JOINTS].std().item() == pytest.approx(0.1, rel=0.02)
  change[..., JOINTS] = 0.0
  assert not change.any()


def test_shrinking_halves_the_spread_and_keeps_the_mean():
  features = _source([made_up_clip()]).features
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
  source = _source([made_up_clip()])
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
  features = _source([made_up_clip(60)]).features
  whole = window_errors(_prior(), features, draws=2, seed=0)
  torch.testing.assert_close(window_errors(_prior(), features, 2, 0), whole)
  assert whole.shape == (len(features),)
  fewer = window_errors(_prior(), features, draws=1, seed=0)
  assert not torch.allclose(fewer, whole)


def test_report_counts_windows_by_speed():
  # Straight lines: 1.2 m/s is in bin 2, 2.2 m/s in bin 4.
  def line(speed: float) -> Clip:
    clip = made_up_clip()
    pos = np.zeros_like(clip.root_pos)
    pos[:, 0] = speed * np.arange(len(pos)) / 50.0
    return replace(clip, root_pos=pos)

  source = _source([line(1.2), line(2.2)])
  report = evaluate_prior(
    "p", _prior(heading="yaw", velocity="clip"), _data(source), FEW
  )
  counts = [b.count for b in report.sets["own"].bins]
  assert counts == [0, 0, 31, 0, 31, 0, 0, 0, 0]
  medians = [b.median for b in report.sets["own"].bins]
  assert medians[0] is None and medians[2] is not None and medians[4] is not None
  assert report.held_out_auc is None and report.held_out_reference is None
  assert json.loads(json.dumps(report.to_dict())) == report.to_dict()


def test_report_tells_kinds_of_locomotion_apart_when_asked():
  def way(x: float, y: float) -> Clip:
    clip = made_up_clip()
    pos = np.zeros_like(clip.root_pos)
    pos[:, :2] = np.outer(np.arange(len(pos)) / 50.0, (x, y))
    upright = np.tile([1.0, 0.0, 0.0, 0.0], (len(pos), 1))
    return replace(clip, root_pos=pos, root_quat=upright)

  source = _source([way(1.5, 0.0), way(-0.8, 0.0), way(0.0, 0.8), way(0.0, -0.8)])
  asked = replace(FEW, by_kind=True)
  report = evaluate_prior("p", _prior(), _data(source), asked)
  found = {k.kind: k for k in report.sets["own"].kinds}
  counts = {kind: each.count for kind, each in found.items() if each.count}
  assert counts == {"forward 1-2 m/s": 31, "sideways": 62, "backward": 31}
  assert found["standing still"].median is None
  assert found["backward"].median is not None
  assert not evaluate_prior("p", _prior(), _data(source), FEW).sets["own"].kinds
  table = markdown([report.to_dict()])
  assert "Own windows by kind of motion" in table and "| sideways |" in table


def test_every_altered_kind_has_its_own_error():
  source = _source([made_up_clip(60)])
  prior = _prior()
  report = evaluate_prior("p", prior, _data(source), FEW)
  rows = torch.linspace(0, len(source.features) - 1, FEW.auc_windows).round().long()
  real = source.features[rows]
  real_errors = window_errors(prior, real, FEW.draws, FEW.seed)
  assert report.sets["own"].median == real_errors.median()
  altered = report.sets["own"].altered
  for name, windows in altered_windows(real, prior.spec, FEW.seed).items():
    errors = window_errors(prior, windows, FEW.draws, FEW.seed)
    assert altered[name].median == errors.median(), name
    assert altered[name].auc == auc(real_errors, errors), name
  medians = [separability.median for separability in altered.values()]
  assert len(set(medians)) == len(medians) == 8


def test_other_kinds_are_told_from_the_held_out_windows():
  own = _source([made_up_clip()])
  held_out = EvalWindows(own.features + 3.0, own.spec, 1)
  # Windows far from what the normalisation expects have a high error.
  data = _data(own, held_out, same=held_out, near=own)
  report = evaluate_prior("p", _prior(), data, FEW)
  assert report.others["same"].auc == 0.5
  assert report.others["same"].median == report.sets["held out"].median
  assert report.others["near"].median == report.sets["own"].median
  assert report.held_out_auc is not None
  assert report.others["near"].auc == pytest.approx(1.0 - report.held_out_auc)
  assert report.others["near"].auc != 0.5
  without = evaluate_prior("p", _prior(), _data(own, near=own), FEW)
  assert without.others["near"].auc == 0.5


def test_held_out_windows_are_the_yardstick_of_samples():
  own = _source([made_up_clip(80)])
  same = held_out_reference(
    _data(own, own), replace(FEW, samples=200, real_windows=200)
  )
  assert same is not None and same.fidelity == same.coverage == 0.0
  other = _source([made_up_clip(80, speed=3.0)])
  cfg = replace(FEW, samples=7, real_windows=9)
  like = held_out_reference(_data(own, other), cfg)
  assert like is not None and (like.windows, like.real) == (7, 9)
  assert like.fidelity > 0.0
  assert like.shifts["speed"] == pytest.approx(1.8, abs=0.2)
  report = evaluate_prior("p", _prior(), _data(own, other), cfg)
  assert report.held_out_reference == like
  assert (report.samples.likeness.windows, report.samples.likeness.real) == (7, 9)


def test_windows_are_spread_evenly_and_none_is_taken_twice():
  assert evenly_spaced(9, 5).tolist() == [0, 2, 4, 6, 8]
  assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
  assert evenly_spaced(1, 1).tolist() == [0]


def test_clips_that_a_prior_was_trained_on_are_found():
  def named(*clips: str) -> EvalWindows:
    return replace(_source([made_up_clip()]), clips=clips)

  data = _data(named("a", "b"), named("c", "d"), walk=named("e"), run=named("f"))
  entries = [{"clip": clip, "split": "train"} for clip in "abce"]
  entries.append({"clip": "d", "split": "val"})
  assert seen_clips(_prior({"data": entries}), data) == {
    "held out": ["c"],
    "walk": ["e"],
  }
  for unknown in ({}, {"data": "a folder"}, {"data": ["c"]}, {"data": None}):
    assert seen_clips(_prior(unknown), data) == {}


def test_a_set_that_does_not_fit_is_refused_by_name():
  source = _source([made_up_clip()])
  empty = EvalWindows(source.features[:0], source.spec, 1)
  with pytest.raises(UserError, match="own: no windows"):
    evaluate_prior("p", _prior(), _data(empty), EvaluateCfg())
  slow = EvalWindows(source.features, replace(source.spec, fps=30.0), 1)
  with pytest.raises(UserError, match="'dance' do not fit the prior: .*fps"):
    evaluate_prior("p", _prior(), _data(source, dance=slow), EvaluateCfg())


# The script.


def _write(path: Path, split: str, seed: int) -> Tensor:
  source = _source([made_up_clip(30, speed=1.0 + seed)])
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
  names = ("a", "dance1_subject1", "dance2_subject1", "jumps1_subject2")
  for seed, name in enumerate(names, start=2):
    _write(tmp_path / "others" / f"{name}.npz", "train", seed)
  trained = [{"clip": clip, "split": "train"} for clip in ("a", "b")]
  _prior({"data": trained}).save(tmp_path / "ours.safetensors")
  _prior(heading="yaw", velocity="clip").save(tmp_path / "published.safetensors")
  out, picture, table = (tmp_path / f"out.{end}" for end in ("json", "png", "md"))
  arguments = [
    str(tmp_path / "ours.safetensors"),
    str(tmp_path / "published.safetensors"),
    *("--windows", str(tmp_path / "npz"), "--others", str(tmp_path / "others")),
    *("--json", str(out), "--plot", str(picture), "--markdown", str(table)),
    *QUICK,
  ]
  cli.main(arguments)
  content = json.loads(out.read_text())
  assert [p["prior"] for p in content["priors"]] == ["ours", "published"]
  assert [p["heading"] for p in content["priors"]] == ["twist", "yaw"]
  for prior in content["priors"]:
    assert set(prior["sets"]) == {"own", "held out"}
    assert prior["sets"]["own"]["windows"] == 21
    # The clip that is an own one is no other kind.
    found = {
      kind: separability["windows"] for kind, separability in prior["others"].items()
    }
    assert found == {"dance": 42, "jumps": 21}
  # Same weights, same poses: the encodings differ little, the scores too.
  ours, published = (p["sets"]["own"]["median"] for p in content["priors"])
  assert ours == pytest.approx(published, rel=0.2) and ours != published
  assert picture.stat().st_size > 10_000
  printed = capsys.readouterr()
  assert "time-shuffled" in printed.out and "fightAndSports" not in printed.out
  assert "warning: ours was trained on b, held out here" in printed.err
  assert "published was" not in printed.err
  assert table.read_text().startswith("|  | ours | published |\n")

  # A later run joins its column to these.
  shorter = [*arguments[1:], "--names", "theirs", "--join", str(out)]
  cli.main(shorter)
  assert table.read_text().startswith("|  | ours | published | theirs |\n")
  rows = [line.split(" | ") for line in table.read_text().splitlines()[2:]]
  assert all(row[-2] == row[-1].removesuffix(" |") for row in rows if len(row) == 4)


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
  assert {name: source.clips for name, source in sets.items()} == {
    "own": ("a",),
    "held out": ("b",),
  }
  assert not torch.equal(sets["own"].features, sets["held out"].features)


def test_clips_that_are_all_held_out_are_a_set(tmp_path: Path):
  features = _write(tmp_path / "a.npz", "val", 0)
  options = cli.Options(priors=("p",), windows=(tmp_path / "a.npz",))
  sets = cli.load_sets(options)
  assert set(sets) == {"held out"}
  data = EvaluationData(sets, load_stats(NORM_STATS))
  report = evaluate_prior("p", _prior(), data, FEW)
  assert report.samples.likeness.real == min(FEW.real_windows, len(features))
  assert "held-out clips" in markdown([report.to_dict()])


def test_bad_input_is_refused(tmp_path: Path):
  windows = ("--windows", str(tmp_path / "a.npz"))
  _write(tmp_path / "a.npz", "train", 0)
  with pytest.raises(UserError, match="neither a file nor a shipped prior"):
    cli.main(["nonesuch", *windows])
  _prior().save(tmp_path / "p.safetensors")
  prior = str(tmp_path / "p.safetensors")
  (tmp_path / "bad.json").write_text('{"priors": [{"prior": "x"}]}')
  (tmp_path / "worse.json").write_text("[1")
  (tmp_path / "deep.json").write_text("[" * 100_000)
  for arguments, message in (
    (["--windows", str(tmp_path / "b.npz")], "no such file"),
    ([*windows, "--draws", "0"], "--draws 0: must be"),
    ([*windows, "--real-windows", "0"], "--real-windows 0: must be"),
    ([*windows, "--others", str(tmp_path / "none.npz")], "no such file"),
    ([*windows, "--others", str(tmp_path)], "every clip there is among"),
    ([*windows, "--names", "x", "y"], "2 for 1 priors"),
    ([*windows, "--stats", str(tmp_path / "none.npz")], "no such file"),
    ([*windows, "--join", str(tmp_path / "none.json")], "none.json: cannot read"),
    ([*windows, "--join", str(tmp_path / "bad.json")], "bad.json: not a report"),
    ([*windows, "--join", str(tmp_path / "worse.json")], "worse.json: not a JSON"),
    ([*windows, "--join", str(tmp_path / "deep.json")], "deep.json: not a JSON"),
    ([*windows, "--plot", "errors.txt"], "--plot errors.txt: give a name that ends"),
    ([*windows, "--device", "foo"], "device 'foo' cannot be used"),
  ):
    with pytest.raises(UserError, match=message):
      cli.main([prior, *arguments])


def test_bad_input_ends_with_code_2_and_one_line(tmp_path: Path, capsys):
  _write(tmp_path / "a.npz", "train", 0)
  path = str(tmp_path / "a.npz")
  with pytest.raises(SystemExit) as ended:
    run(lambda: cli.main(["loco", "--windows", path, "--others", path]))
  assert ended.value.code == 2
  error = capsys.readouterr().err
  assert error.startswith("error: --others") and error.count("\n") == 1


# Styles.


def test_by_style_prints_and_writes_the_confusion_matrix(tmp_path, capsys):
  path, folder = tmp_path / "p.safetensors", tmp_path / "npz"
  make_styled_prior().save(path)
  folder.mkdir()
  for split, seed in (("train", 1), ("val", 2)):
    save_windows(
      folder / f"{split}.npz",
      styled_windows(12, seed).numpy(),
      g1_spec(),
      clip=split,
      stride=1,
      mirrored=np.zeros(12, bool),
      split=split,  # type: ignore[arg-type]
      styles=["run", "walk", ""] * 4,
    )
  out = tmp_path / "styles.json"
  words = f"{path} --by-style --windows {folder} --json {out} --draws 1"
  cli.main(words.split())
  (report,) = json.loads(out.read_text())["styles"]
  assert [each["style"] for each in report["styles"]] == ["run", "walk"]
  assert [each["windows"] for each in report["styles"]] == [4, 4]
  printed = capsys.readouterr().out
  assert "held-out clips" in printed and "own label lowest" in printed
  judge = tmp_path / "c.safetensors"
  StyleClassifier(("run", "swim", "walk"), g1_spec(), hidden=4).save(judge)
  cli.main([*words.split(), "--style-classifier", str(judge), "--samples", "8"])
  (report,) = json.loads(out.read_text())["styles"]
  assert [(each["style"], each["part"]) for each in report["samples"]] == [
    (style, part) for style in ("run", "walk") for part in PARTS
  ]
  assert all(each["windows"] == 8 for each in report["samples"])
  assert "Samples of p" in capsys.readouterr().out
  cli.main([*words.split(), "--style-weight", "0"])
  (report,) = json.loads(out.read_text())["styles"]
  for each in report["styles"]:
    assert set(each["medians"].values()) == {each["unlabelled"]}
  with pytest.raises(UserError, match="--style-weight: needs --by-style"):
    cli.main(f"{path} --windows {folder} --style-weight 2".split())
  with pytest.raises(UserError, match="--style-classifier: needs --by-style"):
    cli.main(f"{path} --windows {folder} --style-classifier {judge}".split())
