"""Metrics in SI units, logged as means over the episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity

from smp.mdp import robot_state
from smp.mdp.commands import (
  LocationCommand,
  MovingCommand,
  SteeringCommand,
  VelocityCommand,
)
from smp.mdp.smp_term import SmpTerm
from smp.motion.rotations import heading

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


def velocity_error(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
  """Return |v_cmd - v_xy| (N,), m/s, world frame, of the pelvis."""
  command = cast(MovingCommand, env.command_manager.get_term(command_name))
  robot = command.robot
  velocity = robot_state.root_lin_vel_w(robot)[:, :2]
  return _finite_or_zero((command.velocity_w - velocity).norm(dim=-1))


def yaw_rate_error(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
  """Return |w_cmd - w_z| (N,), rad/s, of the pelvis about world z."""
  command = cast(VelocityCommand, env.command_manager.get_term(command_name))
  return _finite_or_zero(command.yaw_rate_error.abs())


def facing_error(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
  """Return the angle between commanded facing and heading (N,), degrees, 0 to 180."""
  command = cast(SteeringCommand, env.command_manager.get_term(command_name))
  robot = cast(Entity, env.scene[command.cfg.entity_name])
  cos, sin = heading(robot_state.root_quat_w(robot))
  x, y = command.facing_w.unbind(-1)
  return _finite_or_zero(
    torch.atan2(cos * y - sin * x, cos * x + sin * y).abs().rad2deg()
  )


def goal_distance(env: ManagerBasedRlEnv, command_name: str) -> torch.Tensor:
  """Return |goal - xy| (N,), m, of the pelvis."""
  command = cast(LocationCommand, env.command_manager.get_term(command_name))
  return _finite_or_zero(command.offset_w.norm(dim=-1))


def head_height(env: ManagerBasedRlEnv, entity_name: str = "robot") -> torch.Tensor:
  """Return the head's height above the floor of its environment (N,), m."""
  position, _ = robot_state.head_w(cast(Entity, env.scene[entity_name]))
  return _finite_or_zero(robot_state.above_floor(env, position))


def r_smp(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Return r_smp (N,), 0 to 1."""
  return SmpTerm.of(env).r_smp()


def sds_loss(env: ManagerBasedRlEnv, index: int) -> torch.Tensor:
  """Return the SDS loss (N,) at the timestep with this index."""
  smp_term = SmpTerm.of(env)
  return _finite_or_zero(smp_term.sds_loss()[:, index])


def _finite_or_zero(value: torch.Tensor) -> torch.Tensor:
  """Return 0 for diverged environments: a NaN would spoil the mean over all."""
  return value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
