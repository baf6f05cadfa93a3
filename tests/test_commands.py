"""Commands and task rewards at hand-computed states."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from smp.mdp.commands import SpeedCommand, SpeedCommandCfg
from smp.mdp.metrics import velocity_error
from smp.mdp.rewards import track_velocity
from smp.mdp.terminations import root_too_low


def fake_env(num_envs: int) -> Any:
  """As much of an environment as commands and rewards read: one free joint."""
  qpos = torch.zeros(num_envs, 36)
  qpos[:, 2], qpos[:, 3] = 0.8, 1.0
  data = SimpleNamespace(qpos=qpos, qvel=torch.zeros(num_envs, 35))
  indexing = SimpleNamespace(
    free_joint_q_adr=torch.arange(7), free_joint_v_adr=torch.arange(6)
  )
  robot = SimpleNamespace(indexing=indexing, data=SimpleNamespace(data=data))

  class Scene(dict):
    env_origins = torch.zeros(num_envs, 3)

  return SimpleNamespace(
    num_envs=num_envs, device="cpu", scene=Scene(robot=robot), sim_data=data
  )


def with_command(num_envs: int, **cfg) -> tuple[Any, SpeedCommand]:
  env = fake_env(num_envs)
  cfg = {"resampling_time_range": (3.0, 8.0), **cfg}
  command = SpeedCommand(SpeedCommandCfg(**cfg), env)
  env.command_manager = SimpleNamespace(get_term=lambda _: command)
  return cast(Any, env), command


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
  with pytest.raises(ValueError, match="direction"):
    with_command(1, direction=(0.0, 0.0))


def test_slider_sets_only_the_robot_in_view():
  env, command = with_command(3)
  command._resample_command(torch.arange(3))
  before = command.speed.clone()
  handles: list[Any] = []

  def add(*_: Any, initial_value: Any, **__: Any) -> Any:
    handles.append(SimpleNamespace(value=initial_value))
    return handles[-1]

  class Folder:
    def __enter__(self):
      return self

    def __exit__(self, *_):
      return None

  gui = SimpleNamespace(
    add_folder=lambda *_: Folder(), add_checkbox=add, add_slider=add
  )
  command.create_gui("command", cast(Any, SimpleNamespace(gui=gui)), lambda: 1)
  command._update_command(None)
  assert torch.equal(command.speed, before)
  enabled, slider = handles
  enabled.value, slider.value = True, 1.25
  command._update_command(None)
  assert command.speed[1] == 1.25
  assert torch.equal(command.speed[[0, 2]], before[[0, 2]])


def test_root_height_at_its_edge():
  env = fake_env(3)
  env.sim_data.qpos[:, 2] = torch.tensor([0.29, 0.30, 0.31])
  low = root_too_low(cast(Any, env), minimum_height=0.3)
  assert low.tolist() == [True, False, False]
