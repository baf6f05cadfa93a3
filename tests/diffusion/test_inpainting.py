"""Motions longer than a window."""

from __future__ import annotations

import math

import pytest
import torch

from smp.diffusion.inpainting import (
  cut,
  expected_turn,
  extend_motion,
  fit_anchor,
  generate_motion,
  with_velocities,
)
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.errors import UserError
from smp.motion.features import MotionState, decode, encode
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import quat_conj, quat_log, quat_mul
from smp.paths import resolve_prior
from smp.robots import g1

WINDOW = 10
OVERLAP = 6
FRAMES = 34  # A window and six continuations.


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
  return MotionPrior.load(resolve_prior("loco"))


@pytest.fixture(scope="module")
def motion(prior) -> MotionState:
  return generate_motion(prior, 12, FRAMES, OVERLAP, generator=seeded(0))


def seeded(seed: int) -> torch.Generator:
  return torch.Generator().manual_seed(seed)


def start_of(prior: MotionPrior, n: int = 3) -> MotionState:
  return decode(prior.sample(n, seeded(3)))


def moved(state: MotionState, angle: float, x: float, y: float) -> MotionState:
  """The motion turned about the origin, then shifted."""
  half = torch.tensor([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])

  def carried(points: torch.Tensor) -> torch.Tensor:
    a, b, z = points.unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack((cos * a - sin * b + x, sin * a + cos * b + y, z), dim=-1)

  return state._replace(
    root_pos_w=carried(state.root_pos_w),
    root_quat_w=quat_mul(half.expand_as(state.root_quat_w), state.root_quat_w),
    ee_pos_w=carried(state.ee_pos_w),
  )


def turns(state: MotionState) -> torch.Tensor:
  """Angles (n, T - 1) between the roots of successive frames, rad."""
  before, after = state.root_quat_w[:, :-1], state.root_quat_w[:, 1:]
  return quat_log(quat_mul(after, quat_conj(before))).norm(dim=-1)


def changes(state: MotionState) -> dict[str, torch.Tensor]:
  """How much changes from frame to frame, (n, T - 1) each."""
  return {
    "root position": state.root_pos_w.diff(dim=1).norm(dim=-1),
    "root orientation": turns(state),
    "joint angles": state.joint_pos.diff(dim=1).abs().amax(dim=-1),
  }


def test_known_frames_stay_as_they_are(prior):
  start = moved(start_of(prior), 1.0, 5.0, -7.0)
  longer = extend_motion(prior, start, 7, OVERLAP, generator=seeded(1))
  assert longer.joint_pos.shape == (3, WINDOW + 7, g1.NUM_JOINTS)
  for name in ("root_pos_w", "root_quat_w", "joint_pos"):
    assert torch.equal(getattr(longer, name)[:, :WINDOW], getattr(start, name))


def test_nothing_jumps_where_windows_meet(motion):
  first = WINDOW - 1
  for name, change in changes(motion).items():
    at_seam = torch.zeros(FRAMES - 1, dtype=torch.bool)
    at_seam[first :: WINDOW - OVERLAP] = True
    seams, usual = change[:, at_seam], change[:, ~at_seam]
    assert seams.mean() < 2.0 * usual.mean(), name
    assert seams.max() < 2.0 * usual.max(), name


def test_motion_goes_on_at_the_speed_it_had(prior):
  start = start_of(prior, 24)

  def speed(state: MotionState) -> torch.Tensor:
    xy = state.root_pos_w[..., :2]
    return (xy[:, -1] - xy[:, 0]).norm(dim=-1) * prior.spec.fps / (xy.shape[1] - 1)

  longer = extend_motion(prior, start, WINDOW, OVERLAP, generator=seeded(1))
  before, after = speed(start), speed(cut(longer, WINDOW, 2 * WINDOW))
  assert before.std() > 0.5  # Some stand, some run.
  assert (after - before).abs().median() < 0.15
  assert (after - before).abs().max() < 1.0


def test_windows_of_a_long_motion_are_familiar(prior, motion):
  score = prior.sds_loss_at(SCORED_TIMESTEPS)

  def error(windows: MotionState) -> torch.Tensor:
    windows = with_velocities(windows, prior.spec.fps)
    features = encode(windows, prior.spec.heading)
    noise = torch.randn((3, *features.shape), generator=seeded(2))
    return score(features, noise).mean(dim=1)

  sampled = error(decode(prior.sample(64, seeded(4))))
  late = error(cut(motion, FRAMES - WINDOW, FRAMES))
  assert late.median() < 1.5 * sampled.median()


def test_the_world_does_not_matter(prior):
  start = start_of(prior)
  place = (2.5, 30.0, -4.0)
  here = extend_motion(prior, start, 12, OVERLAP, generator=seeded(1))
  there = extend_motion(prior, moved(start, *place), 12, OVERLAP, generator=seeded(1))
  expected = moved(here, *place)
  assert torch.allclose(there.root_pos_w, expected.root_pos_w, atol=1e-3)
  assert torch.allclose(there.joint_pos, expected.joint_pos, atol=1e-3)
  difference = quat_mul(quat_conj(there.root_quat_w), expected.root_quat_w)
  assert quat_log(difference).norm(dim=-1).max() < 1e-3


def test_a_seed_gives_the_same_motion(prior):
  runs = [
    generate_motion(prior, 2, 13, OVERLAP, generator=seeded(seed)) for seed in (5, 5, 6)
  ]
  assert torch.equal(runs[0].joint_pos, runs[1].joint_pos)
  assert not torch.allclose(runs[0].joint_pos, runs[2].joint_pos, atol=1e-2)


@pytest.mark.parametrize("frames", [4, 10, 11, 17])
@pytest.mark.parametrize("overlap", [1, 9])
def test_lengths_and_derived_values(prior, frames, overlap):
  motion = generate_motion(prior, 2, frames, overlap, 1, seeded(0))
  assert {part.shape[:2] for part in motion} == {(2, frames)}
  assert all(bool(part.isfinite().all()) for part in motion)
  feet = Kinematics(g1.load_model()).ee_positions(
    motion.root_pos_w, motion.root_quat_w, motion.joint_pos
  )
  assert torch.allclose(motion.ee_pos_w, feet, atol=1e-5)


@pytest.mark.parametrize("overlap", [0, -1, 10, 99])
def test_impossible_overlaps(prior, overlap):
  with pytest.raises(UserError, match=f"overlap is {overlap}, expected 1 to 9"):
    generate_motion(prior, 1, 20, overlap)


def test_too_little_to_continue(prior):
  with pytest.raises(UserError, match="5 frames with an overlap of 6"):
    extend_motion(prior, cut(start_of(prior), 0, 5), 3, OVERLAP)


def test_fitting_finds_the_way_back(prior):
  target = start_of(prior)
  motion = moved(target, -2.0, 1.0, 3.0)
  anchor = fit_anchor(motion, target, torch.zeros(3), torch.tensor(0.0))
  x, y, _ = motion.root_pos_w.unbind(-1)
  cos, sin = anchor.cos[:, None], anchor.sin[:, None]
  back = torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)
  back = back + anchor.pos_xy[:, None]
  assert torch.allclose(back, target.root_pos_w[..., :2], atol=1e-4)
  assert torch.allclose(torch.atan2(anchor.sin, anchor.cos), torch.tensor(2.0))


def test_a_guess_counts_by_its_weight(prior):
  target = start_of(prior)
  motion = moved(target, -1.0, 1.0, 3.0)
  guess = torch.tensor([0.0, 0.5, 3.0])
  for weight, share in ((0.0, 0.0), (1.0, 0.5), (1e6, 1.0)):
    anchor = fit_anchor(motion, target, guess, torch.tensor(weight))
    turn = torch.atan2(anchor.sin, anchor.cos)
    assert torch.allclose(turn, 1.0 + share * (guess - 1.0), atol=1e-3)


def test_turning_goes_on(prior):
  """Frames on a circle: the window ends as much farther round as it is longer."""
  start = start_of(prior, 1)
  steps = [
    cut(moved(cut(start, 0, 1), 0.1 * t, 0.0, 0.0), 0, 1) for t in range(OVERLAP)
  ]
  known = MotionState(*(torch.cat(parts, dim=1) for parts in zip(*steps, strict=True)))
  turn = expected_turn(known, WINDOW, "twist")
  assert turn == pytest.approx(0.1 * (WINDOW - OVERLAP), abs=1e-4)
  assert expected_turn(cut(known, 0, 1), WINDOW, "twist") == 0.0


@pytest.mark.slow
@pytest.mark.slow
def test_who_lies_is_not_turned_around():
  """Little tells which way one faces who lies still: noise alone must not decide."""
  getup = MotionPrior.load(resolve_prior("getup"))
  windows = decode(getup.sample(256, seeded(0)))
  lying = windows.root_pos_w[:, -1, 2].argsort()[:48]
  start = MotionState(*(part[lying].repeat_interleave(8, dim=0) for part in windows))
  longer = extend_motion(getup, start, 4, OVERLAP, generator=seeded(1))
  assert turns(longer)[:, WINDOW - 1 :].max() < 0.3
