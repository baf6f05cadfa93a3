"""Costs outside of the composition: what the prior and the task reward do not say.

They are plain terms of mjlab's reward with a negative weight, so the prior does not
multiply them, and each can be switched off by a weight of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity
from mjlab.managers.scene_entity_config import SceneEntityCfg
from mjlab.sensor import ContactSensor

from smp.mdp.commands import VelocityCommand

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


def on_floor(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
  """Return whether each foot touches the floor (N, 2), bool; left first."""
  found = cast(ContactSensor, env.scene[sensor_name]).data.found
  assert found is not None
  return found > 0


def foot_slip(
  env: ManagerBasedRlEnv, sensor_name: str, asset_cfg: SceneEntityCfg
) -> torch.Tensor:
  """Return the sum over feet on the floor of |v_xy|^2 (N,), m^2/s^2.

  Args:
    env: The environment.
    sensor_name: Contacts of the feet with the floor.
    asset_cfg: The sites of the left and the right sole.
  """
  robot = cast(Entity, env.scene[asset_cfg.name])
  # One site at a time: a list as an index would be copied to the device in every step.
  soles = cast(list[int], asset_cfg.site_ids)
  velocity = torch.stack([robot.data.site_lin_vel_w[:, i, :2] for i in soles], dim=1)
  slip = velocity.square().sum(dim=-1)
  return (slip * on_floor(env, sensor_name)).sum(dim=-1)


def joint_speed_at_rest(
  env: ManagerBasedRlEnv, command_name: str, scale: float
) -> torch.Tensor:
  """Return 1 - exp(-rms / scale) of the joint speeds (N,); 0 unless the command is zero.

  The root mean square over joints and ``scale`` are in rad/s. The cost is steepest near
  rest, where trembling begins, and bounded, so that a robot that has just been told to
  stop never earns more by falling.
  """
  command = cast(VelocityCommand, env.command_manager.get_term(command_name))
  robot = command.robot
  speed = robot.data.joint_vel.square().mean(dim=-1).sqrt()
  return (1.0 - torch.exp(-speed / scale)) * command.standing


def feet_up_at_rest(
  env: ManagerBasedRlEnv, command_name: str, sensor_name: str
) -> torch.Tensor:
  """Return the number of feet off the floor (N,); 0 unless the command is zero."""
  command = cast(VelocityCommand, env.command_manager.get_term(command_name))
  return (~on_floor(env, sensor_name)).sum(dim=-1) * command.standing
