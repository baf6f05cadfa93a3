"""Commands and task rewards at hand-computed states."""

from __future__ import annotations

import contextlib
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from smp.errors import UserError
from smp.mdp.commands import (
  LocationCommand,
  LocationCommandCfg,
  SpeedCommand,
  SpeedCommandCfg,
  SteeringCommand,
  SteeringCommandCfg,
)
from smp.mdp.metrics import facing_error, goal_distance, velocity_error
from smp.mdp.rewards import face_direction, reach_goal, track_velocity
from smp.mdp.terminations import root_too_low
from tests.fakes import fake_env


def with_command(
  num_envs: int, command_type: Any = SpeedCommand, **cfg
) -> tuple[Any, Any]:
  env = fake_env(num_envs)
  cfg_type = {
    SpeedCommand: SpeedCommandCfg,
    SteeringCommand: SteeringCommandCfg,
    LocationCommand: LocationCommandCfg,
  }[command_type]
  cfg = {"resampling_time_range": (3.0, 8.0), **cfg}
  command = command_type(cfg_type(**cfg), env)
  env.command_manager = SimpleNamespace(get_term=lambda _: command)
  return cast(Any, env), command


def facing(angle_deg: float) -> torch.Tensor:
  """An upright root (4,) that faces an angle from +x."""
  half = math.radians(angle_deg) / 2
  return torch.tensor([math.cos(half), 0.0, 0.0, math.sin(half)])


def sliders_of(command: Any, env_idx: int) -> tuple[Any, dict[str, Any]]:
  """Build the viewer's controls; the checkbox and the sliders by label."""
  handles: dict[str, Any] = {}

  def add(label: str, *_: Any, initial_value: Any, **__: Any) -> Any:
    handles[label] = SimpleNamespace(value=initial_value)
    return handles[label]

  gui = SimpleNamespace(
    add_folder=lambda *_: contextlib.nullcontext(), add_checkbox=add, add_slider=add
  )
  server = cast(Any, SimpleNamespace(gui=gui))
  command.create_gui("command", server, lambda: env_idx)
  enabled = handles.pop("Manual override")
  return enabled, handles


def test_reward_at_known_velocities():
  env, command = with_command(5)
  command.speed[:] = torch.tensor([1.0, 1.0, 2.0, 1.0, 0.0])
  velocity = [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [-0.1, 0.0], [-0.2, 0.1]]
  env.sim_data.qvel[:, :2] = torch.tensor(velocity)
  expected = [1.0, math.exp(-0.25), math.exp(-0.5), 0.0, math.exp(-0.025)]
  reward = track_velocity(env, "command", scale=0.5)
  torch.testing.assert_close(reward, torch.tensor(expected))
  error = velocity_error(env, "command")
  torch.testing.assert_close(
    error, torch.tensor([0.0, math.sqrt(0.5), 1.0, 1.1, math.sqrt(0.05)])
  )


def test_vertical_velocity_does_not_count():
  env, command = with_command(1)
  command.speed[:] = 1.0
  env.sim_data.qvel[0, :3] = torch.tensor([1.0, 0.0, 5.0])
  assert track_velocity(env, "command", scale=0.5).item() == 1.0


def test_policy_sees_the_direction_from_its_heading():
  env, command = with_command(2)
  command.speed[:] = 3.0
  half = math.pi / 4  # Facing +y: the command +x is to the right.
  env.sim_data.qpos[1, 3:7] = torch.tensor([math.cos(half), 0, 0, math.sin(half)])
  command._update_command(None)
  torch.testing.assert_close(
    command.command, torch.tensor([[1.0, 0.0, 3.0], [0.0, -1.0, 3.0]])
  )


def test_speeds_are_drawn_from_their_range():
  torch.manual_seed(0)
  env, command = with_command(4000, speed_range=(0.5, 5.0), rel_standing_envs=0.25)
  command._resample_command(torch.arange(4000))
  standing = command.speed == 0.0
  moving = command.speed[~standing]
  assert 0.22 < standing.float().mean() < 0.28
  assert moving.min() >= 0.5 and moving.max() <= 5.0
  assert abs(moving.mean() - 2.75) < 0.1


@pytest.mark.parametrize("kind", [SpeedCommand, SteeringCommand])
def test_shares_of_standing_and_slow_commands(kind: Any):
  torch.manual_seed(0)
  shares = {"rel_standing_envs": 0.2, "rel_slow_envs": 0.3, "slow_speed": 0.6}
  env, command = with_command(8000, kind, speed_range=(1.0, 2.0), **shares)
  command._resample_command(torch.arange(8000))
  speed = command.speed
  assert (speed == 0.0).float().mean() == pytest.approx(0.2, abs=0.02)
  slow = speed[(speed > 0.0) & (speed < 1.0)]
  assert len(slow) / 8000 == pytest.approx(0.3, abs=0.02)
  assert slow.max() <= 0.6 and slow.mean() == pytest.approx(0.3, abs=0.02)
  assert speed[speed >= 1.0].mean() == pytest.approx(1.5, abs=0.02)
  command.easy_share = 0.1  # As a curriculum sets it.
  command._resample_command(torch.arange(8000))
  assert (command.speed == 0.0).float().mean() == pytest.approx(0.02, abs=0.005)
  assert (command.speed < 1.0).float().mean() == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
  "shares, message",
  [
    ({"rel_standing_envs": 0.6, "rel_slow_envs": 0.6}, "rel_slow_envs 0.6"),
    ({"rel_slow_envs": -0.1}, "rel_slow_envs -0.1"),
    ({"rel_slow_envs": 0.1, "slow_speed": 0.0}, "slow_speed is 0.0"),
  ],
)
def test_shares_that_are_none_are_refused(shares: dict, message: str):
  with pytest.raises(UserError, match=message):
    with_command(1, **shares)


def test_a_speed_drawn_ahead_is_commanded_once():
  torch.manual_seed(0)
  env, command = with_command(6)
  some = torch.tensor([1, 4])
  ahead = command.draw_next(some).squeeze(-1)
  command._resample_command(torch.arange(6))
  assert torch.equal(command.speed[some], ahead)
  assert len(command.speed.unique()) == 6
  command._resample_command(torch.arange(6))
  assert not torch.isin(ahead, command.speed).any()


def test_what_counts_as_the_motion_of_a_start():
  velocity = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [3.0, 4.0]])
  turning = torch.tensor([0.0, 1.0, 2.0])
  _, along = with_command(1, direction=(0.0, 2.0))
  found = along.start_motion(velocity, turning)
  torch.testing.assert_close(found, torch.tensor([[0.0], [0.0], [4.0]]))
  _, around = with_command(1, SteeringCommand)
  found = around.start_motion(velocity, turning)
  torch.testing.assert_close(found, torch.tensor([[2.0], [1.0], [5.0]]))


def test_low_speeds_are_judged_strictly_only_where_asked():
  env, command = with_command(5)
  command.speed[:] = torch.tensor([0.0, 0.5, 0.5, 2.0, 4.0])
  env.sim_data.qvel[:, 0] = torch.tensor([0.5, 0.5, 1.0, 2.5, 4.5])
  published = track_velocity(env, "command", scale=0.5)
  strict = track_velocity(env, "command", scale=0.5, low_speed_scale=4.0, low_speed=2.0)
  half = math.exp(-0.5 * 0.25)
  torch.testing.assert_close(published, torch.tensor([half, 1.0, half, half, half]))
  assert strict[0] == pytest.approx(math.exp(-4.0 * 0.25))
  assert strict[1] == 1.0
  # 0.5 m/s too fast costs an eighth in the published reward, and half in the other.
  assert strict[2] < 0.5 < 0.85 < published[2]
  torch.testing.assert_close(strict[3:], published[3:])


def test_the_scale_grows_smoothly_as_the_command_gets_slower():
  env, command = with_command(200)
  command.speed[:] = torch.linspace(0.0, 3.0, 200)
  env.sim_data.qvel[:, 0] = command.speed + 0.5
  options = {"scale": 0.5, "low_speed_scale": 4.0, "low_speed": 2.0}
  scale = -track_velocity(env, "command", **options).log() / 0.25
  assert scale.diff().max() < 1e-3  # Never up with the speed.
  assert scale.diff().abs().max() < 0.06  # No jump.
  # At a command of zero no direction is against it.
  command.speed[:], env.sim_data.qvel[:, 0] = 0.0, -0.1
  reward = track_velocity(env, "command", **options)
  torch.testing.assert_close(reward, torch.full((200,), math.exp(-4.0 * 0.01)))


def test_resampling_times():
  torch.manual_seed(0)
  env, command = with_command(2000)
  command.compute(dt=0.02)
  assert command.time_left.min() >= 3.0 and command.time_left.max() <= 8.0
  speed = command.speed.clone()
  command.compute(dt=2.9)
  assert torch.equal(command.speed, speed)
  command.compute(dt=8.0)
  assert (command.speed != speed).float().mean() > 0.99


def test_direction_of_zero_is_refused():
  with pytest.raises(UserError, match="--env.commands.command.direction"):
    with_command(1, direction=(0.0, 0.0))


def test_slider_sets_only_the_robot_in_view():
  env, command = with_command(3)
  command._resample_command(torch.arange(3))
  before = command.speed.clone()
  enabled, sliders = sliders_of(command, env_idx=1)
  command._update_command(None)
  assert torch.equal(command.speed, before)
  enabled.value, sliders["Speed (m/s)"].value = True, 1.25
  command._update_command(None)
  assert command.speed[1] == 1.25
  assert torch.equal(command.speed[[0, 2]], before[[0, 2]])


# Steering.


def test_steering_rewards_at_known_states():
  env, command = with_command(4, SteeringCommand)
  command.speed[:] = torch.tensor([1.0, 1.0, 2.0, 1.0])
  command.direction_w[:] = torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0], [1.0, 0]])
  command.facing_w[:] = torch.tensor([[1.0, 0], [0, 1.0], [-1.0, 0], [0, 1.0]])
  velocity = [[1.0, 0.0], [0.0, 0.5], [1.0, 1.0], [-0.1, 0.0]]
  env.sim_data.qvel[:, :2] = torch.tensor(velocity)
  env.sim_data.qpos[3, 3:7] = facing(60.0)
  reward = track_velocity(env, "command", scale=1.0)
  expected = [1.0, math.exp(-0.25), math.exp(-2.0), 0.0]
  torch.testing.assert_close(reward, torch.tensor(expected))
  cosines = [1.0, 0.0, 0.0, math.sin(math.radians(60))]
  torch.testing.assert_close(face_direction(env, "command"), torch.tensor(cosines))
  strict = face_direction(env, "command", power=8.0)
  torch.testing.assert_close(strict, torch.tensor(cosines) ** 8)
  torch.testing.assert_close(
    facing_error(env, "command"), torch.tensor([0.0, 90.0, 180.0, 30.0])
  )


def test_steering_observation_turns_with_the_robot():
  env, command = with_command(1, SteeringCommand)
  command.speed[:] = 1.5
  command.direction_w[:] = torch.tensor([[1.0, 0.0]])
  command.facing_w[:] = torch.tensor([[0.0, 1.0]])
  env.sim_data.qpos[0, 3:7] = facing(90.0)
  command._update_command(None)
  torch.testing.assert_close(
    command.command, torch.tensor([[0.0, -1.0, 1.5, 1.0, 0.0]])
  )


def test_steering_draws_both_directions_all_around():
  torch.manual_seed(0)
  env, command = with_command(4000, SteeringCommand)
  command._resample_command(torch.arange(4000))
  assert command.speed.min() >= 0.5 and command.speed.max() <= 2.0
  for vector in (command.direction_w, command.facing_w):
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(4000))
    assert vector.mean(dim=0).abs().max() < 0.05
  together = (command.direction_w * command.facing_w).sum(-1)
  assert together.mean().abs() < 0.05


def test_steering_sliders():
  env, command = with_command(2, SteeringCommand)
  enabled, sliders = sliders_of(command, env_idx=0)
  enabled.value = True
  sliders["Direction (deg)"].value, sliders["Facing (deg)"].value = 90.0, 180.0
  command._update_command(None)
  torch.testing.assert_close(command.direction_w[0], torch.tensor([0.0, 1.0]))
  torch.testing.assert_close(command.facing_w[0], torch.tensor([-1.0, 0.0]))
  assert command.direction_w[1].abs().max() == 0.0


# Location.


def test_location_reward_is_of_the_distance_not_its_square():
  env, command = with_command(3, LocationCommand)
  command.goal_w[:] = torch.tensor([[0.0, 0.0], [3.0, 4.0], [2.0, 0.0]])
  env.sim_data.qpos[2, :2] = torch.tensor([1.0, 0.0])
  env.sim_data.qpos[:, 2] = torch.tensor([0.3, 0.8, 0.9])
  distances = torch.tensor([0.0, 5.0, 1.0])
  torch.testing.assert_close(goal_distance(env, "command"), distances)
  torch.testing.assert_close(
    reach_goal(env, "command", scale=0.25), torch.exp(-0.25 * distances)
  )


def test_goals_lie_around_where_the_robot_is_now():
  torch.manual_seed(0)
  env, command = with_command(4000, LocationCommand)
  env.sim_data.qpos[:, :2] = 50.0 * torch.randn(4000, 2)
  command._resample_command(torch.arange(4000))
  distance = command.offset_w.norm(dim=-1)
  assert distance.min() >= 1.0 - 1e-4 and distance.max() <= 10.0 + 1e-4
  assert abs(distance.mean() - 5.5) < 0.15
  assert command.offset_w.mean(dim=0).abs().max() < 0.3


def test_location_observation_and_sliders():
  env, command = with_command(2, LocationCommand)
  command.goal_w[:] = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
  env.sim_data.qpos[1, 3:7] = facing(90.0)
  command._update_command(None)
  torch.testing.assert_close(command.command, torch.tensor([[2.0, 0.0], [0.0, -2.0]]))
  enabled, sliders = sliders_of(command, env_idx=1)
  command._env.scene.env_origins[1, 0] = 10.0
  enabled.value = True
  sliders["Goal x (m)"].value, sliders["Goal y (m)"].value = 1.0, -3.0
  command._update_command(None)
  torch.testing.assert_close(command.goal_w[1], torch.tensor([11.0, -3.0]))
  torch.testing.assert_close(command.goal_w[0], torch.tensor([2.0, 0.0]))


def test_root_height_at_its_edge():
  env = fake_env(3)
  env.sim_data.qpos[:, 2] = torch.tensor([0.29, 0.30, 0.31])
  low = root_too_low(cast(Any, env), minimum_height=0.3)
  assert low.tolist() == [True, False, False]
