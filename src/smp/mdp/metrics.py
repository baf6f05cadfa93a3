"""What is measured in SI units and logged as a mean over the episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity

from smp.mdp import state
from smp.mdp.commands import SpeedCommand

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


def velocity_error(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
  """|v_cmd - v_xy| (N,), m/s, world frame, of the pelvis."""
  command = cast(SpeedCommand, env.command_manager.get_term(command_name))
  robot = cast(Entity, env.scene[command.cfg.entity_name])
  velocity = state.root_lin_vel_w(robot)[:, :2]
  return (command.velocity_w - velocity).norm(dim=-1)
