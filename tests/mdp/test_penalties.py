"""Costs beside the composition, at hand-made states."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mjlab.managers.scene_entity_config import SceneEntityCfg

from smp.mdp.commands import VelocityCommand, VelocityCommandCfg
from smp.mdp.observations import foot_contact
from smp.mdp.penalties import feet_up_at_rest, foot_slip, joint_speed_at_rest
from tests.fakes import fake_env

FEET = "foot_contact"


def with_feet(found: list[list[float]]) -> tuple[Any, VelocityCommand]:
  """An environment per row, with the number of contacts of the left and right foot."""
  env = fake_env(len(found))
  env.scene[FEET] = SimpleNamespace(data=SimpleNamespace(found=torch.tensor(found)))
  command = VelocityCommand(VelocityCommandCfg(resampling_time_range=(3.0, 8.0)), env)
  env.command_manager = SimpleNamespace(get_term=lambda _: command)
  env.scene["robot"].data.site_lin_vel_w = torch.zeros(len(found), 2, 3)
  return env, command


def test_only_feet_on_the_floor_slip():
  env, _ = with_feet([[3.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
  env.scene["robot"].data.site_lin_vel_w[:] = torch.tensor(
    [[0.3, 0.4, 9.0], [1.0, 0.0, 0.0]]
  )
  soles = SceneEntityCfg("robot")
  soles.site_ids = [0, 1]
  found = foot_slip(env, FEET, soles)
  torch.testing.assert_close(found, torch.tensor([0.25, 0.0, 1.25]))


def test_joints_cost_nothing_while_the_robot_is_to_move():
  env, command = with_feet([[1.0, 1.0]] * 3)
  command.values[1, 2] = 0.1
  env.sim_data.qvel[:2, 6:] = 1.0
  found = joint_speed_at_rest(env, "command", scale=0.5)
  expected = [1.0 - math.exp(-2.0), 0.0, 0.0]
  torch.testing.assert_close(found, torch.tensor(expected))


def test_the_cost_of_joints_is_bounded_and_steepest_at_rest():
  env, _ = with_feet([[1.0, 1.0]] * 100)
  env.sim_data.qvel[:, 6:] = torch.linspace(0.0, 30.0, 100).unsqueeze(-1)
  found = joint_speed_at_rest(env, "command", scale=0.5)
  steps = found.diff()
  assert found[0] == 0.0 and found.max() <= 1.0
  assert (steps >= 0.0).all() and steps.argmax() == 0


def test_feet_off_the_floor_are_counted_only_at_rest():
  env, command = with_feet([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
  command.values[3, 0] = 0.5
  found = feet_up_at_rest(env, "command", FEET)
  assert found.tolist() == pytest.approx([0.0, 1.0, 2.0, 0.0])


def test_the_critic_sees_which_feet_are_on_the_floor():
  env, _ = with_feet([[3.0, 0.0]])
  assert foot_contact(env, FEET).tolist() == [[1.0, 0.0]]
