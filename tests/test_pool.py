"""Start states that physics can hold."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from smp import g1
from smp.mdp.pool import MAX_ROUNDS, StartPool
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

ROLL = [g1.JOINT_NAMES.index(f"{s}_shoulder_roll_joint") for s in ("left", "right")]
KINEMATICS = Kinematics(g1.load_model())


def window(height: float = 0.8, roll: float = 0.6, knee: float = 0.0) -> torch.Tensor:
  """Features (W, 59) of a robot that stands and slowly walks along x."""
  pos = torch.zeros(WINDOW, 3)
  pos[:, 0], pos[:, 2] = torch.arange(WINDOW) * 0.02, height
  quat = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(WINDOW, 4)
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


def pool_of(*windows: torch.Tensor, size: int = 12, repair: bool = True) -> StartPool:
  pool = StartPool(cast(Any, ListPrior(*windows)), KINEMATICS, size, "cpu", repair)
  pool.refresh(size)
  return pool


def everything(pool: StartPool) -> MotionState:
  return pool.draw(4 * pool.size)


COLLIDING = {"roll": -0.4}
BROKEN_KNEE = {"knee": -1.5}


def test_unsound_windows_are_drawn_again():
  pool = pool_of(window(), window(**COLLIDING), window(**BROKEN_KNEE))
  qpos = qpos_of(everything(pool))[:, -1]
  assert penetration(qpos).of_itself.max() == 0.0
  assert outside_limits(qpos[:, 7:]).max() == 0.0
  report = pool.report
  assert report.in_itself > 0 and report.outside_limits > 0 and report.unsound == 0
  assert report.sampled == 12 + report.in_itself + report.outside_limits


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


def test_a_prior_without_sound_windows_still_fills_the_pool_and_says_so():
  pool = pool_of(window(**COLLIDING), size=5)
  assert pool.report.unsound == 5
  assert pool.report.sampled == 5 * MAX_ROUNDS
  assert "unsound" in str(pool.report)
  assert pool.root_pos[:, -1, 2].min() > 0.5


def test_velocities_and_end_effectors_are_made_consistent():
  features = window()
  features[..., 53:56] += 3.0  # A velocity that the poses do not have.
  features[..., 38:53] += 0.5
  state = pool_of(features).draw(4)
  lin, _ = window_velocities(state.root_pos_w, state.root_quat_w, 50)
  torch.testing.assert_close(state.root_lin_vel_w, lin)
  assert (lin[..., 0] - 1.0).abs().max() < 1e-3
  ee = KINEMATICS.ee_positions(state.root_pos_w, state.root_quat_w, state.joint_pos)
  torch.testing.assert_close(state.ee_pos_w, ee)
