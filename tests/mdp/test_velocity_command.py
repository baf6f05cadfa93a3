"""The command of velocity and yaw rate: what is drawn, seen, rewarded and grown."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from smp.episodes.running_mean import STRIDE_S
from smp.errors import UserError
from smp.mdp.commands import VelocityCommand, VelocityCommandCfg
from smp.mdp.commands.common import from_heading_frame, in_heading_frame
from smp.mdp.metrics import velocity_error, yaw_rate_error
from smp.mdp.rewards import (
  track_velocity,
  track_velocity_and_yaw_rate,
  track_yaw_rate,
)
from tests.fakes import fake_env

MANY = 20_000
SCALES = {"scale": 1.0, "low_speed_scale": 4.0}


def with_command(num_envs: int, **cfg: Any) -> tuple[Any, VelocityCommand]:
  env = fake_env(num_envs)
  cfg = {"resampling_time_range": (3.0, 8.0), **cfg}
  command = VelocityCommand(VelocityCommandCfg(**cfg), env)
  env.command_manager = SimpleNamespace(get_term=lambda _: command)
  return env, command


def drawn(**cfg: Any) -> torch.Tensor:
  torch.manual_seed(0)
  _, command = with_command(MANY, **cfg)
  command._resample_command(torch.arange(MANY))
  return command.values


def facing(angle_deg: float) -> torch.Tensor:
  half = math.radians(angle_deg) / 2
  return torch.tensor([math.cos(half), 0.0, 0.0, math.sin(half)])


# What is drawn.


def test_a_share_of_the_commands_is_to_stand_still():
  values = drawn(rel_standing_envs=0.2, rel_slow_envs=0.0)
  standing = (values == 0.0).all(dim=-1)
  assert standing.float().mean() == pytest.approx(0.2, abs=0.01)
  assert (values[~standing] != 0.0).all()


def test_slow_commands_are_slow_in_any_direction_and_some_turn_on_the_spot():
  values = drawn(rel_standing_envs=0.0, rel_slow_envs=1.0, slow_speed=0.5)
  speed = values[:, :2].norm(dim=-1)
  assert speed.max() <= 0.5 + 1e-6
  on_the_spot = speed == 0.0
  assert on_the_spot.float().mean() == pytest.approx(0.25, abs=0.01)
  assert (values[on_the_spot, 2] != 0.0).all()
  moving = values[~on_the_spot]
  assert moving[:, :2].norm(dim=-1).mean() == pytest.approx(0.25, abs=0.01)
  assert moving.mean(dim=0).abs().max() < 0.02


def test_the_default_shares_are_a_fifth_each():
  cfg = VelocityCommandCfg(resampling_time_range=(3.0, 8.0))
  assert (cfg.rel_standing_envs, cfg.rel_slow_envs) == (0.2, 0.2)
  values = drawn()
  assert (values == 0.0).all(dim=-1).float().mean() == pytest.approx(0.2, abs=0.01)
  assert (values[:, :2].norm(dim=-1) < 0.6).float().mean() > 0.4
  _, command = with_command(MANY)
  command.easy_share = 0.1  # As a curriculum sets it.
  command._resample_command(torch.arange(MANY))
  standing = (command.values == 0.0).all(dim=-1).float().mean()
  assert standing == pytest.approx(0.02, abs=0.004)
  assert (command.values[:, :2].norm(dim=-1) < 0.6).float().mean() < 0.35


def test_commands_stay_in_their_ranges_and_reach_their_ends():
  values = drawn()
  low, high = values.amin(dim=0), values.amax(dim=0)
  torch.testing.assert_close(low, torch.tensor([-0.5, -0.6, -1.5]), atol=0.02, rtol=0)
  torch.testing.assert_close(high, torch.tensor([3.0, 0.6, 1.5]), atol=0.02, rtol=0)
  sides = values[:, 1:]
  assert sides.mean(dim=0).abs().max() < 0.02  # Left as often as right.


def test_commands_can_be_done_at_the_same_time():
  values = drawn(rel_standing_envs=0.0, rel_slow_envs=0.0, max_side_acceleration=2.0)
  vx, vy, yaw_rate = values.unbind(dim=-1)
  end = torch.where(vx < 0.0, 0.5, 3.0)
  assert ((vx / end).square() + (vy / 0.6).square()).max() <= 1.0 + 1e-5
  assert (values[:, :2].norm(dim=-1) * yaw_rate.abs()).max() <= 2.0 + 1e-5
  # At a walk all yaw rates are commanded, in a run only small ones.
  walk, run = vx.abs() < 0.8, vx > 2.5
  assert yaw_rate[walk].abs().max() > 1.45
  assert yaw_rate[run].abs().max() < 0.81 and yaw_rate[run].abs().mean() > 0.2


def test_limits_are_not_commanded_more_often_than_other_values():
  values = drawn(rel_standing_envs=0.0, rel_slow_envs=0.0)
  run = values[values[:, 0] > 2.0]
  limit = 2.0 / run[:, :2].norm(dim=-1)
  share = (run[:, 2].abs() / limit).clamp(max=1.0)
  assert (share > 0.99).float().mean() < 0.03


@pytest.mark.parametrize(
  "cfg, message",
  [
    ({"vx_range": (0.5, 2.0)}, r"vx_range is \(0.5, 2.0\)"),
    ({"vy_range": (0.6, -0.6)}, r"vy_range is \(0.6, -0.6\)"),
    ({"yaw_rate_range": (-1.0, math.inf)}, "yaw_rate_range"),
    ({"rel_turning_envs": 1.5}, "rel_turning_envs is 1.5"),
    ({"rel_slow_envs": 0.9}, "rel_slow_envs 0.9"),
    ({"max_side_acceleration": 0.0}, "max_side_acceleration is 0.0"),
  ],
)
def test_impossible_settings_are_refused(cfg: dict, message: str):
  with pytest.raises(UserError, match=message):
    with_command(1, **cfg)


def test_a_command_drawn_ahead_is_commanded_once():
  torch.manual_seed(0)
  _, command = with_command(6, rel_standing_envs=0.0, rel_slow_envs=0.0)
  some = torch.tensor([1, 4])
  ahead = command.draw_next(some)
  command._resample_command(torch.arange(6))
  given = command.values[some]
  expected = command.start_motion(given[:, :2], given[:, 2])
  torch.testing.assert_close(ahead, expected)
  command._resample_command(torch.arange(6))
  assert not torch.isin(ahead[:, 0], command.values[:, 0]).any()


def test_starts_are_compared_by_velocity_and_yaw_rate():
  """A step aside is no start for a walk ahead of the same speed, nor for standing."""
  _, command = with_command(1)
  velocity = torch.tensor([[0.0, 0.5], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0]])
  motion = command.start_motion(velocity, torch.tensor([0.0, 0.0, 0.0, 1.5]))
  apart = torch.cdist(motion, motion)
  assert (apart[~torch.eye(4, dtype=torch.bool)] > 0.4).all()


# What is seen.


def test_the_policy_sees_the_command_as_it_is_given_whatever_its_heading():
  env, command = with_command(2)
  env.sim_data.qpos[1, 3:7] = facing(90.0)
  everyone = torch.arange(2)
  command.set(everyone, {"vx": 1.5, "vy": -0.25, "yaw_rate": 0.5})
  command._update_command(None)
  torch.testing.assert_close(
    command.command, torch.tensor([[1.5, -0.25, 0.5]]).expand(2, 3)
  )
  # What changes with the heading is where the robot is to go in the world.
  torch.testing.assert_close(
    command.velocity_w, torch.tensor([[1.5, -0.25], [0.25, 1.5]])
  )


def test_heading_frames_there_and_back():
  torch.manual_seed(0)
  quat = torch.nn.functional.normalize(torch.randn(50, 4), dim=-1)
  vector = torch.randn(50, 2)
  there = in_heading_frame(from_heading_frame(vector, quat), quat)
  torch.testing.assert_close(there, vector)


def test_left_and_right_change_sides_in_the_mirror():
  _, command = with_command(1)
  assert command.mirror_sign == (1.0, -1.0, -1.0)
  assert len(command.mirror_sign) == sum(part.size for part in command.components())


def test_each_number_is_a_component_with_its_range():
  _, command = with_command(1, vx_range=(-0.3, 2.0))
  parts = {part.name: part for part in command.components()}
  assert list(parts) == ["vx", "vy", "yaw_rate"]
  assert (parts["vx"].low, parts["vx"].high) == (-0.3, 2.0)
  assert all(part.default == (0.0,) for part in parts.values())  # To stand still.


# What is rewarded.


def test_velocity_counts_in_the_heading_frame():
  env, command = with_command(3)
  command.values[:] = torch.tensor([[2.0, 0.0, 0.0]])
  env.sim_data.qpos[1:, 3:7] = facing(90.0)
  env.sim_data.qvel[:, :2] = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
  reward = track_velocity(cast(Any, env), "command", scale=1.0)
  # Facing y and going along x is going to the right, not forward.
  torch.testing.assert_close(reward, torch.tensor([1.0, 1.0, math.exp(-8.0)]))
  error = velocity_error(cast(Any, env), "command")
  torch.testing.assert_close(error, torch.tensor([0.0, 0.0, math.sqrt(8.0)]))


def test_yaw_rate_is_about_the_worlds_vertical():
  env, command = with_command(3)
  command.values[:, 0], command.values[:, 2] = 2.0, 1.0
  # Upright; tilted by 90 degrees about x, so the body's y axis points up; too fast.
  half = math.sqrt(0.5)
  env.sim_data.qpos[1, 3:7] = torch.tensor([half, half, 0.0, 0.0])
  env.sim_data.qvel[0, 5], env.sim_data.qvel[1, 4], env.sim_data.qvel[2, 5] = 1, 1, 1.5
  reward = track_yaw_rate(cast(Any, env), "command", scale=1.0)
  torch.testing.assert_close(reward, torch.tensor([1.0, 1.0, math.exp(-0.25)]))
  error = yaw_rate_error(cast(Any, env), "command")
  torch.testing.assert_close(error, torch.tensor([0.0, 0.0, 0.5]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("reward", [track_velocity, track_yaw_rate])
def test_the_same_error_costs_more_at_a_slow_command(reward: Any):
  env, command = with_command(3)
  command.values[:, 0] = torch.tensor([0.0, 1.0, 3.0])
  env.sim_data.qvel[:, 0], env.sim_data.qvel[:, 5] = command.values[:, 0] + 0.3, 0.3
  found = reward(cast(Any, env), "command", **SCALES)
  assert found[0] == pytest.approx(math.exp(-4.0 * 0.09))
  assert found[0] < found[1] < found[2]
  assert found[2] == pytest.approx(math.exp(-0.09))


def test_the_errors_of_velocity_and_yaw_rate_add_up_in_one_exponent():
  env, command = with_command(4)
  command.values[:, 0] = 3.0
  env.sim_data.qvel[:, 0] = torch.tensor([3.0, 2.5, 3.0, 2.5])
  env.sim_data.qvel[:, 5] = torch.tensor([0.0, 0.0, 0.5, 0.5])
  options = {"low_speed_scale": 6.0, "low_speed_yaw_scale": 4.0}
  reward = track_velocity_and_yaw_rate(
    cast(Any, env), "command", scale=1.0, yaw_scale=0.4, **options
  )
  expected = torch.tensor([0.0, -0.25, -0.1, -0.35]).exp()
  torch.testing.assert_close(reward, expected)
  # At a command of zero the scales are the low ones.
  command.values[:] = 0.0
  env.sim_data.qvel[:, 0], env.sim_data.qvel[:, 5] = 0.1, 0.5
  reward = track_velocity_and_yaw_rate(
    cast(Any, env), "command", scale=1.0, yaw_scale=0.4, **options
  )
  torch.testing.assert_close(reward, torch.full((4,), math.exp(-0.06 - 1.0)))


def test_a_drift_costs_and_swinging_to_and_fro_does_not():
  env, command = with_command(2)
  command.values[:, 0], command.values[:, 2] = 1.0, 0.5
  env.sim_data.qvel[:, 0] = 1.0
  moments = torch.arange(0.0, 10.0, env.step_dt)
  swing = torch.sin(2.0 * math.pi * moments / 0.5)
  beyond = torch.stack((torch.full_like(swing, 0.3), swing), dim=-1)
  means = []
  for each in beyond:
    env.sim_data.qvel[:, 5] = 0.5 + each
    torch.testing.assert_close(command.yaw_rate_error, each)
    means.append(command.mean_yaw_rate_error)
    command.time_left[:] = 1.0
    command.compute(env.step_dt)
  assert means[-1][0] == pytest.approx(0.3, abs=1e-3)
  assert torch.stack(means[-25:])[:, 1].abs().max() < 0.1
  scales = {"scale": 0.0, "yaw_scale": 0.0, "mean_yaw_scale": 4.0}
  reward = track_velocity_and_yaw_rate(cast(Any, env), "command", **scales)
  assert reward[0] == pytest.approx(math.exp(-4.0 * 0.09), abs=1e-3)
  assert reward[1] > 0.95


def test_what_was_before_a_command_or_an_episode_is_no_drift():
  env, command = with_command(2)
  command.values[:, 2] = 0.0
  env.sim_data.qvel[:, 5] = 1.0
  for _ in range(100):
    command.time_left[:] = 1.0
    command.compute(env.step_dt)
  before = command.mean_yaw_rate_error
  assert (before > 0.8).all()
  command._update_command(torch.tensor([0]))  # A reset is no step.
  torch.testing.assert_close(command.mean_yaw_rate_error, before, atol=0, rtol=0)
  command._resample_command(torch.tensor([1]))
  command.values[:, 2] = 0.0
  share = env.step_dt / STRIDE_S
  assert command.mean_yaw_rate_error[0] > 0.8
  assert command.mean_yaw_rate_error[1] == pytest.approx(share)


def test_rewards_lie_between_zero_and_one():
  torch.manual_seed(0)
  env, command = with_command(500)
  command._resample_command(torch.arange(500))
  env.sim_data.qvel[:] = 5.0 * torch.randn(500, 35)
  for reward in (track_velocity, track_yaw_rate):
    found = reward(cast(Any, env), "command", **SCALES)
    assert found.min() >= 0.0 and found.max() <= 1.0 and found.std() > 0.01


# What grows.


def test_every_range_can_grow_from_a_part_of_itself():
  cfg = VelocityCommandCfg(resampling_time_range=(3.0, 8.0))
  found = {growth.quantity: growth for growth in cfg.growth()}
  assert list(found) == ["vx", "vy", "yaw_rate"]
  for growth in found.values():
    low, high = getattr(cfg, growth.attribute)
    assert growth.start is not None and growth.start_low is not None
    assert low <= growth.start_low <= 0.0 < growth.start < high
