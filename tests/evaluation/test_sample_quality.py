"""Judging samples: each measure is nothing for the data itself, and grows as it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from smp import paths
from smp.diffusion.prior import MotionPrior
from smp.evaluation.prior.sample_quality import (
  UNITS,
  canonicalized,
  distances,
  end_effector_errors,
  histograms,
  judge_samples,
  likeness,
  quantities,
)
from smp.motion.clips import clip_windows
from smp.motion.dataset import NormStats, load_stats
from smp.motion.features import SLICES, g1_spec
from smp.motion.rotations import HeadingKind
from tests.cli.test_evaluate_prior import made_up_clip

EE = SLICES["ee_pos"]
STATS = load_stats(paths.NORM_STATS)


def _windows(
  frames: int = 60, heading: HeadingKind = "twist", velocity: str = "window"
) -> Tensor:
  return clip_windows(made_up_clip(frames), heading=heading, velocity=velocity)


def test_end_effectors_of_clips_are_where_the_joints_put_them():
  assert end_effector_errors(_windows()).max() < 1e-5


def test_end_effectors_moved_by_d_are_off_by_d():
  windows = _windows()
  ends = windows[..., EE].unflatten(-1, (5, 3)).clone()
  ends[..., 1, :] += 0.006 * torch.tensor([2.0, 2.0, 1.0]) / 3
  ends[..., 4, 2] -= 0.02
  moved = windows.clone()
  moved[..., EE] = ends.flatten(-2)
  off = end_effector_errors(moved)
  want = torch.tensor([0.0, 0.006, 0.0, 0.0, 0.02]).double()
  torch.testing.assert_close(off, want.expand_as(off), atol=1e-5, rtol=0.0)
  report = judge_samples(
    moved, g1_spec(), 0.1, canonicalized(windows, g1_spec()), STATS
  )
  expected = dict(zip(g1_spec().ee_body_names, (1e3 * want).tolist(), strict=True))
  assert report.ee_mm == pytest.approx(expected, abs=0.01)


def test_one_encoding_whatever_the_prior_was_made_for():
  ours = canonicalized(_windows(), g1_spec())
  theirs = canonicalized(
    _windows(60, "yaw", "clip"), g1_spec(heading="yaw", velocity="clip")
  )
  torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
  torch.testing.assert_close(ours, _windows(), atol=2e-4, rtol=1e-4)


def test_velocities_come_from_the_poses_even_of_our_own_kind():
  wrong = _windows()
  wrong[..., 53:] = 7.0
  torch.testing.assert_close(
    canonicalized(wrong, g1_spec()), _windows(), atol=2e-4, rtol=1e-4
  )


def test_the_data_itself_is_no_distance_away():
  windows = canonicalized(_windows(), g1_spec())
  same = likeness(windows, windows, g1_spec(), STATS)
  assert same.fidelity == 0.0 and same.coverage == 0.0
  assert set(same.shifts) == set(UNITS) and not any(same.shifts.values())


def test_distance_is_rms_in_normalised_features():
  windows = _windows()[:3]
  stats = NormStats(np.full(59, -0.5, np.float32), np.full(59, 3.5, np.float32))
  # Span 4, so that 1 in raw units is half of 1 in normalised ones.
  apart = distances(windows, windows + 1.0, stats)
  torch.testing.assert_close(apart.diagonal(), torch.full((3,), 0.5))
  one = windows.clone()
  one[..., 5] += 1.0
  want = torch.full((3,), 0.5 / 59**0.5)
  torch.testing.assert_close(distances(windows, one, stats).diagonal(), want)


def test_samples_of_one_place_are_faithful_and_do_not_cover():
  windows = canonicalized(_windows(), g1_spec())
  collapsed = windows[:1].repeat(20, 1, 1)
  like = likeness(collapsed, windows, g1_spec(), STATS)
  assert like.fidelity == 0.0 and like.coverage > 0.1
  assert (like.windows, like.real) == (20, len(windows))
  # The other way round: all of the data among samples of which most are far off.
  strange = torch.cat((windows, windows.repeat(3, 1, 1) + 1.0))
  like = likeness(strange, windows, g1_spec(), STATS)
  assert like.coverage == 0.0 and like.fidelity > 0.1


def test_motion_higher_up_shifts_both_heights_by_as_much():
  windows = _windows()
  raised = windows.clone()
  raised[..., 2] += 0.07
  shifts = likeness(raised, windows, g1_spec(), STATS).shifts
  want = {"speed": 0.0, "root height": 0.07, "head height": 0.07}
  assert shifts == pytest.approx(want, abs=1e-5)


def test_motion_that_goes_faster_shifts_the_speed_by_as_much():
  windows = torch.zeros(4, 10, 59)
  windows[..., SLICES["root_rot"]] = torch.tensor([1.0, 0, 0, 0, 0, 1.0])
  slow, fast = windows.clone(), windows.clone()
  time = (torch.arange(10.0) - 9.0) / 50.0
  slow[..., 1], fast[..., 0] = 0.5 * time, 2.0 * time
  shifts = likeness(fast, slow, g1_spec(), STATS).shifts
  want = {"speed": 1.5, "root height": 0.0, "head height": 0.0}
  assert shifts == pytest.approx(want, abs=1e-5)
  # The same way in half the time.
  twice = quantities(fast, replace(g1_spec(), fps=100.0))["speed"]
  assert twice == pytest.approx(4.0)


def test_heights_are_those_of_a_robot_that_stands():
  standing = torch.zeros(1, 10, 59)
  standing[..., SLICES["root_rot"]] = torch.tensor([1.0, 0, 0, 0, 0, 1.0])
  standing[..., 2] = 0.79
  found = quantities(standing, g1_spec())
  assert found["root height"] == pytest.approx(0.79, abs=1e-6)
  # The G1 is 1.3 m tall.
  assert 1.2 < found["head height"][0] < 1.35
  lying = standing.clone()
  lying[..., SLICES["root_rot"]] = torch.tensor([0, 0, -1.0, 1.0, 0, 0])
  assert quantities(lying, g1_spec())["head height"] == pytest.approx(0.79, abs=0.05)


def test_histograms_hold_every_window_once_even_far_off():
  windows = _windows()
  far = windows.clone()
  far[..., 2] += 50.0
  for name, histogram in histograms(far, windows, g1_spec()).items():
    assert sum(histogram.real) == pytest.approx(1.0)
    assert sum(histogram.sampled) == pytest.approx(1.0)
    assert histogram.real[0] == histogram.real[-1] == 0.0, name
    if name == "speed":
      assert histogram.sampled == histogram.real
    else:
      assert histogram.sampled[-1] == 1.0


def test_the_shipped_prior_generates_bodies_that_hold_together():
  prior = MotionPrior.load(paths.resolve_prior("loco"))
  samples = prior.sample(16, torch.Generator().manual_seed(0))
  own = judge_samples(
    samples, prior.spec, 0.0, canonicalized(samples, prior.spec), STATS
  )
  assert own.likeness.fidelity == 0.0
  # Some millimetres off, and far more when the ends are those of another sample.
  assert 1.0 < np.mean(list(own.ee_mm.values())) < 20.0
  mixed = samples.clone()
  mixed[..., EE] = samples[..., EE].roll(1, 0)
  assert end_effector_errors(mixed).mean() > 5 * end_effector_errors(samples).mean()
