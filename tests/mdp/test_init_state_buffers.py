"""Start states that physics can hold."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from smp.errors import UserError
from smp.mdp.init_state_buffers import MAX_DRAWS, FallenStateBuffer, GsiBuffer
from smp.mdp.init_states import (
  INIT_MODES,
  NEAREST,
  InitStateSampler,
  init_height_weights,
  init_motion_weights,
)
from smp.motion.contact import outside_limits, penetration
from smp.motion.features import (
  WINDOW,
  MotionState,
  encode,
  g1_spec,
  qpos_of,
  window_velocities,
)
from smp.motion.kinematics import Kinematics
from smp.robots import g1

ROLL = [g1.JOINT_NAMES.index(f"{s}_shoulder_roll_joint") for s in ("left", "right")]
KINEMATICS = Kinematics(g1.load_model())


def window(
  height: float = 0.8,
  roll: float = 0.6,
  knee: float = 0.0,
  speed: float = 1.0,
  turn: float = 0.0,
) -> torch.Tensor:
  """Features (W, 59) of a robot that moves along world x, at 1 m/s by default.

  It turns by ``turn`` rad/s.
  """
  pos = torch.zeros(WINDOW, 3)
  pos[:, 0], pos[:, 2] = torch.arange(WINDOW) * 0.02 * speed, height
  half = 0.5 * 0.02 * turn * torch.arange(WINDOW)
  quat = torch.zeros(WINDOW, 4)
  quat[:, 0], quat[:, 3] = half.cos(), half.sin()
  joints = torch.zeros(WINDOW, 29)
  joints[:, ROLL[0]], joints[:, ROLL[1]] = roll, -roll
  joints[:, 3] = knee
  lin, ang = window_velocities(pos, quat, 50)
  ee = KINEMATICS.ee_positions(pos, quat, joints)
  return encode(MotionState(pos, quat, lin, ang, joints, ee))


class ListPrior:
  """Samples the given windows in turn."""

  spec = g1_spec()

  def __init__(self, *windows: torch.Tensor):
    self.windows, self.count = windows, 0

  def sample(self, n: int) -> torch.Tensor:
    picks = [(self.count + i) % len(self.windows) for i in range(n)]
    self.count += n
    return torch.stack([self.windows[i] for i in picks])


def pool_of(*windows: torch.Tensor, size: int = 12, **options) -> GsiBuffer:
  prior = cast(Any, ListPrior(*windows))
  pool = GsiBuffer(prior, KINEMATICS, size, "cpu", **options)
  pool.refresh(size)
  return pool


def everything(pool: GsiBuffer | FallenStateBuffer) -> MotionState:
  return pool.windows(torch.arange(pool.size))


COLLIDING = {"roll": -0.4}
BROKEN_KNEE = {"knee": -1.5}


def test_unsound_windows_are_drawn_again():
  pool = pool_of(window(), window(**COLLIDING), window(**BROKEN_KNEE))
  qpos = qpos_of(everything(pool))[:, -1]
  assert penetration(qpos).of_itself.max() == 0.0
  assert outside_limits(qpos[:, 7:]).max() == 0.0
  report = pool.report
  assert report.in_itself > 0 and report.outside_limits > 0
  assert report.kept == 12 and report.copied == 0
  assert (pool.root_quat.norm(dim=-1) - 1.0).abs().max() < 1e-5  # No place is empty.


def test_windows_are_lifted_out_of_the_floor_as_a_whole():
  sunk, high = window(height=0.7), window(height=0.95)
  pool = pool_of(sunk, high)
  state = everything(pool)
  assert penetration(qpos_of(state)[:, -1]).of_floor.max() < 1e-5
  heights = state.root_pos_w[..., 2]
  torch.testing.assert_close(heights, heights[:, :1].expand_as(heights))
  assert (heights - 0.95).abs().min() < 1e-5  # What stands above is left alone.
  depth = float(penetration(standing_qpos(0.7)).of_floor[0])
  assert pool.report.lifted == 6
  assert pool.report.lift_max == pytest.approx(depth, abs=1e-5)
  # End effectors go up with the rest.
  ee = KINEMATICS.ee_positions(state.root_pos_w, state.root_quat_w, state.joint_pos)
  torch.testing.assert_close(state.ee_pos_w, ee)


def standing_qpos(height: float) -> np.ndarray:
  pose = np.zeros((1, 36))
  pose[0, 2], pose[0, 3] = height, 1.0
  pose[0, [7 + j for j in ROLL]] = 0.6, -0.6
  return pose


def test_without_repair_everything_is_taken_as_it_comes():
  pool = pool_of(window(), window(**COLLIDING), repair=False)
  assert pool.report.sampled == 12
  assert penetration(qpos_of(everything(pool))[:, -1]).of_itself.max() > 0.0


def test_a_prior_without_sound_windows_is_refused_with_the_reasons():
  with pytest.raises(UserError, match="150 are in self-collision.*filter-init-states"):
    pool_of(window(**COLLIDING), size=5)
  assert MAX_DRAWS == 30


def test_rare_sound_windows_fill_the_pool_with_copies():
  pool = pool_of(window(height=0.95), *[window(**COLLIDING)] * 99, size=12)
  assert pool.report.sampled == 12 * MAX_DRAWS
  assert pool.report.kept == 4 and pool.report.copied == 8
  assert (everything(pool).root_pos_w[..., 2] - 0.95).abs().max() < 1e-5
  assert "copies" in str(pool.report)


def test_an_episode_on_the_ground_does_not_start_standing():
  low, high = window(height=0.1), window(height=0.8)
  pool = pool_of(low, high, max_head_height=0.9, repair=False)
  assert (everything(pool).root_pos_w[..., 2] - 0.1).abs().max() < 1e-5
  assert pool.report.standing > 0 and "not on the ground" in str(pool.report)
  # The robot counts as it will start: after the lift.
  with pytest.raises(UserError, match="not on the ground"):
    pool_of(low, max_head_height=0.6 + 0.1)


def test_refreshing_replaces_the_oldest():
  heights = [0.80 + 0.01 * i for i in range(12)]
  pool = pool_of(*(window(height=h) for h in heights), repair=False)
  before = pool.root_pos.clone()
  cast(Any, pool)._prior.windows = (window(height=0.5),)
  pool.refresh(5)
  assert (pool.root_pos[:5, :, 2] - 0.5).abs().max() < 1e-5
  torch.testing.assert_close(pool.root_pos[5:], before[5:])
  pool.refresh(9)
  assert (pool.root_pos[..., 2] - 0.5).abs().max() < 1e-5
  # No slot is written twice at once.
  pool.report.kept = 0
  pool.refresh(30)
  assert pool.report.kept == 12


def test_falls_are_shared_out_evenly_and_stand_on_the_anchor():
  pool = FallenStateBuffer(8, g1_spec(), KINEMATICS, "cpu")
  assert pool.pose.bincount().tolist() == [2, 2, 2, 2]
  uneven = FallenStateBuffer(6, g1_spec(), KINEMATICS, "cpu").pose.bincount(minlength=4)
  assert uneven.min() == 1 and uneven.max() == 2
  state = everything(pool)
  assert state.root_pos_w[:, -1, :2].abs().max() < 1e-6
  assert penetration(qpos_of(state)[:, -1]).of_floor.max() < 1e-3
  ee = KINEMATICS.ee_positions(state.root_pos_w, state.root_quat_w, state.joint_pos)
  torch.testing.assert_close(state.ee_pos_w, ee)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_falls(share: float):
  torch.manual_seed(0)
  fallen = FallenStateBuffer(4, g1_spec(), KINEMATICS, "cpu")
  starts = InitStateSampler(pool_of(window(height=0.95)), fallen, share)
  state, kind = starts.draw(1000)
  assert (kind > 0).float().mean() == pytest.approx(share, abs=0.05)
  low = state.root_pos_w[:, -1, 2] < 0.4
  assert torch.equal(low, kind > 0)
  if share:  # The kind says how it lies.
    names = [INIT_MODES[k] for k in kind[low].unique()]
    assert names == ["prone", "supine", "left", "right"]
    matching = fallen.root_pos[kind[low] - 1]
    torch.testing.assert_close(state.root_pos_w[low], matching)


def test_velocities_and_end_effectors_are_made_consistent():
  features = window()
  features[..., 53:56] += 3.0  # A velocity that the poses do not have.
  features[..., 38:53] += 0.5
  state = everything(pool_of(features))
  lin, _ = window_velocities(state.root_pos_w, state.root_quat_w, 50)
  torch.testing.assert_close(state.root_lin_vel_w, lin)
  assert (lin[..., 0] - 1.0).abs().max() < 1e-3
  ee = KINEMATICS.ee_positions(state.root_pos_w, state.root_quat_w, state.joint_pos)
  torch.testing.assert_close(state.ee_pos_w, ee)


# Starts of a speed.


def test_windows_know_how_fast_they_go():
  speeds = [0.0, 0.5, 2.0, 4.0]
  pool = pool_of(*(window(height=0.95, speed=v) for v in speeds))
  expected = torch.tensor(speeds * 3)
  torch.testing.assert_close(pool.velocity[:, 0], expected, atol=1e-3, rtol=0.0)
  assert pool.velocity[:, 1].abs().max() < 1e-3
  lin = everything(pool).root_lin_vel_w[:, -1, :2]
  torch.testing.assert_close(pool.velocity, lin, atol=1e-2, rtol=0.0)
  other = pool_of(window(height=0.95))
  assert other.load_state_dict(pool.state_dict())
  torch.testing.assert_close(other.velocity, pool.velocity)
  # Copies too.
  copied = pool_of(window(height=0.95, speed=2.0), *[window(**COLLIDING)] * 99, size=12)
  assert (copied.velocity[:, 0] - 2.0).abs().max() < 1e-3


def test_windows_know_how_fast_they_turn():
  turns = [0.0, 1.5, -1.5, 0.4]
  pool = pool_of(*(window(height=0.95, turn=rate) for rate in turns))
  expected = torch.tensor(turns * 3)
  torch.testing.assert_close(pool.yaw_rate, expected, atol=1e-3, rtol=0.0)
  spin = everything(pool).root_ang_vel_w[:, -1, 2]
  torch.testing.assert_close(pool.yaw_rate, spin, atol=1e-2, rtol=0.0)


def test_windows_know_how_high_their_head_is():
  heights = pool_of(window(0.8), window(0.9), size=2, repair=False).head_height
  assert float(heights[1] - heights[0]) == pytest.approx(0.1, abs=1e-5)
  assert 1.1 < float(heights[0]) < 1.4  # Some 0.4 m above the pelvis.


def test_heights_of_the_head_are_drawn_equally_often():
  heights = torch.tensor([0.25] * 90 + [0.75] * 9 + [1.15, 1.3])
  shares = init_height_weights(heights, 0.0)
  lying, kneeling, standing = shares[:90], shares[90:99], shares[99:]
  for part in (lying, kneeling, standing):
    torch.testing.assert_close(part, torch.full_like(part, 1 / len(part)))
  shares = init_height_weights(heights, 0.6)
  assert not shares[:90].any() and shares[90:].gt(0.0).all()
  # Somebody must start, where nobody is so high.
  assert init_height_weights(heights, 2.0).nonzero().tolist() == [[100]]


def test_weights_prefer_near_motions():
  speed, bandwidth = torch.linspace(0.0, 4.0, 401), 0.3
  wanted = torch.tensor([0.5, 1.0, 3.2])
  weights = init_motion_weights(speed.unsqueeze(-1), wanted.unsqueeze(-1), bandwidth)
  at = (wanted / 0.01).round().long()
  rows, nearest = torch.arange(3), int(NEAREST * len(speed))
  assert weights[rows, at].tolist() == [1.0] * 3
  assert (weights == 1.0).sum(dim=-1).sub(nearest).abs().max() <= 1  # Rounded ties.
  # Beyond the nearest they fall as a Gaussian: their ratios are those of one.
  ratio = weights[rows, at + 30] / weights[rows, at + 15]
  expected = torch.full((3,), math.exp(-0.5 * (0.3**2 - 0.15**2) / bandwidth**2))
  torch.testing.assert_close(ratio, expected)
  mean = (weights * speed).sum(-1) / weights.sum(-1)
  assert (mean - wanted).abs().max() < 0.05
  # In several numbers it is the distance that counts.
  torch.manual_seed(0)
  motion, aim = torch.randn(500, 3), torch.tensor([[0.0, 0.5, -0.2]])
  weights = init_motion_weights(motion, aim, 0.1)[0]
  by_distance = (motion - aim).norm(dim=-1).argsort()
  assert (weights[by_distance].diff() <= 0.0).all()
  assert int((weights == 1.0).sum()) == 10
  turned = motion[:, [1, 2, 0]]
  torch.testing.assert_close(
    init_motion_weights(turned, aim[:, [1, 2, 0]], 0.1)[0], weights
  )


def test_weights_where_nothing_is_near():
  speed = torch.cat((torch.linspace(0.0, 2.0, 199), torch.tensor([9.0])))
  wanted = torch.tensor([[6.0], [-3.0], [1e6]])
  weights = init_motion_weights(speed.unsqueeze(-1), wanted, 0.1)
  # Neither one window nor a few start all of these episodes.
  assert weights.isfinite().all() and (weights.sum(dim=-1) >= 4.0).all()
  effective = weights.sum(-1).square() / weights.square().sum(-1)
  assert (effective >= 4.0).all()
  assert (weights[0] @ speed) / weights[0].sum() > 1.8
  one = init_motion_weights(torch.ones(1, 1), torch.tensor([[3.0]]), 0.1)
  assert one.tolist() == [[1.0]]
  # Standing and running windows alone, and a walk that is wanted.
  three = torch.tensor([[0.0], [4.0], [4.0]])
  weights = init_motion_weights(three, torch.tensor([[1.5]]), 0.05)
  assert weights.tolist() == [[1.0, 0.0, 0.0]]


def test_draws_follow_the_weights(monkeypatch):
  torch.manual_seed(0)
  pool = pool_of(window(height=0.95), size=4)
  weights = torch.tensor([[0.0, 1.0, 3.0, 0.0]]).expand(4000, 4)
  share = pool.draw(4000, weights).bincount(minlength=4) / 4000
  torch.testing.assert_close(
    share, torch.tensor([0.0, 0.25, 0.75, 0.0]), atol=0.03, rtol=0.0
  )
  edges = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1e-20]])
  assert pool.draw(2, edges).tolist() == [0, 3]
  monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(shape))
  assert pool.draw(2, edges).tolist() == [0, 3]


def test_falls_are_as_likely_whatever_the_windows_weigh():
  torch.manual_seed(0)
  fallen = FallenStateBuffer(4, g1_spec(), KINEMATICS, "cpu")
  starts = InitStateSampler(
    pool_of(window(height=0.95), window(height=0.9)), fallen, 0.5
  )
  weights = torch.zeros(1000, 12)
  weights[:, 1] = 1.0
  state, kind = starts.draw(1000, weights)
  assert (kind > 0).float().mean() == pytest.approx(0.5, abs=0.06)
  assert (state.root_pos_w[kind == 0, -1, 2] - 0.9).abs().max() < 1e-5
