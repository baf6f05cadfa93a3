"""Task rewards, and the terms that combine them with r_smp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from mjlab.entity import Entity
from mjlab.managers.reward_manager import RewardTermCfg

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


class TaskReward:
  """A task reward combined with r_smp.

  ``r = (sum of w_j * task_j) * r_smp`` is the sum of ``w_j * (task_j * r_smp)``, so
  each task reward stays a term of its own, with its own weight and log, and only
  asks the SMP term how it enters (`SmpTermCfg.reward_mode`).

  Params of the term: ``task``, the plain task reward ``f(env, **params) -> (N,)``, and
  its params.
  """

  def __init__(self, cfg: RewardTermCfg, env: ManagerBasedRlEnv):
    self._cfg = cfg
    self._smp_term = SmpTerm.of(env)

  def __call__(
    self, env: ManagerBasedRlEnv, task: Callable[..., torch.Tensor], **params: Any
  ) -> torch.Tensor:
    """Return the task reward (N,) as it enters the reward."""
    return self._smp_term.compose_task(task(env, **params), self._cfg.weight)


def smp_reward(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Return r_smp's own summand (N,): zero unless the reward mode has one."""
  return SmpTerm.of(env).compose_prior()


LOW_SPEED = 2.0
"""Commanded speed, m/s, below which ``low_speed_scale`` takes part."""


def task_weight(env: ManagerBasedRlEnv) -> float:
  """Return the sum of the weights of the task rewards: the most that a step earns."""
  manager = env.reward_manager
  terms = (manager.get_term_cfg(name) for name in manager.active_terms)
  return sum(term.weight for term in terms if isinstance(term.func, TaskReward))


def track_velocity(
  env: ManagerBasedRlEnv,
  command_name: str,
  scale: float,
  low_speed_scale: float | None = None,
  low_speed: float = LOW_SPEED,
) -> torch.Tensor:
  """Return exp(-scale * |v_cmd - v_xy|^2) (N,); 0 while moving against the command.

  Velocities in m/s, world frame, of the pelvis. At a commanded speed of zero there is
  no direction to move against. Source: the target-speed and steering tasks of SMP (Mu
  et al., arXiv 2512.03028) as the G1 reproduction states them.

  An addition to the published reward: with a scale of 0.5, walking at twice a commanded
  0.5 m/s still earns 0.88. ``low_speed_scale`` (None: off) is the scale at a command of
  zero; from there the scale changes smoothly to ``scale`` at ``low_speed`` m/s.
  """
  command = cast(MovingCommand, env.command_manager.get_term(command_name))
  robot = command.robot
  velocity = robot_state.root_lin_vel_w(robot)[:, :2]
  target = command.velocity_w
  scales = _scales(command.speed, scale, low_speed_scale, low_speed)
  reward = torch.exp(-scales * (target - velocity).square().sum(dim=-1))
  backwards = (velocity * target).sum(dim=-1) < 0.0
  return torch.where(backwards, torch.zeros_like(reward), reward)


def track_yaw_rate(
  env: ManagerBasedRlEnv,
  command_name: str,
  scale: float,
  low_speed_scale: float | None = None,
  low_speed: float = LOW_SPEED,
) -> torch.Tensor:
  """Return exp(-scale * (w_cmd - w_z)^2) (N,), of the pelvis about world z, rad/s.

  The form is that of `track_velocity`, ``low_speed_scale`` included: a pelvis that runs
  turns to and fro with every step, one that stands need not.
  """
  command = cast(VelocityCommand, env.command_manager.get_term(command_name))
  scales = _scales(command.speed, scale, low_speed_scale, low_speed)
  return torch.exp(-scales * command.yaw_rate_error.square())


def track_velocity_and_yaw_rate(
  env: ManagerBasedRlEnv,
  command_name: str,
  scale: float,
  yaw_scale: float,
  low_speed_scale: float | None = None,
  low_speed_yaw_scale: float | None = None,
  mean_yaw_scale: float = 0.0,
) -> torch.Tensor:
  """Return `track_velocity` times `track_yaw_rate` (N,): all errors in one exponent.

  In a sum, a robot that stands earns all of the yaw rate's part under most commands.
  The scales without ``yaw`` are those of the velocity. ``mean_yaw_scale`` is that of
  the yaw rate's mean over a stride, squared (`VelocityCommand.mean_yaw_rate_error`): a
  runner whose pelvis turns to and fro by 1 rad/s need not drift to one side.
  """
  velocity = track_velocity(env, command_name, scale, low_speed_scale)
  turning = track_yaw_rate(env, command_name, yaw_scale, low_speed_yaw_scale)
  command = cast(VelocityCommand, env.command_manager.get_term(command_name))
  mean = command.mean_yaw_rate_error
  return velocity * turning * torch.exp(-mean_yaw_scale * mean.square())


def _scales(
  speed: torch.Tensor, scale: float, low_speed_scale: float | None, low_speed: float
) -> float | torch.Tensor:
  """Return the scale of the error at commanded speeds (N,), m/s: see `track_velocity`."""
  if low_speed_scale is None:
    return scale
  # Smoothstep 3 x^2 - 2 x^3 between the two scales.
  x = (speed / low_speed).clamp(max=1.0)
  return low_speed_scale + (scale - low_speed_scale) * x.square() * (3.0 - 2.0 * x)


def face_direction(
  env: ManagerBasedRlEnv, command_name: str, power: float = 1.0
) -> torch.Tensor:
  """Return max(facing . heading, 0)^power (N,): of the cosine of the angle between them.

  The cosine hardly tells 20 degrees from none: it is 0.94 there. A power of 8 makes 0.61
  of that. Source: the steering task of SMP (Mu et al., arXiv 2512.03028), with a power of
  1.
  """
  command = cast(SteeringCommand, env.command_manager.get_term(command_name))
  robot = cast(Entity, env.scene[command.cfg.entity_name])
  cos, sin = heading(robot_state.root_quat_w(robot))
  facing = command.facing_w
  return (facing[:, 0] * cos + facing[:, 1] * sin).clamp(min=0.0) ** power


def reach_goal(env: ManagerBasedRlEnv, command_name: str, scale: float) -> torch.Tensor:
  """Return exp(-scale * |goal - xy|) (N,), the distance in m.

  The distance is not squared. Source: the location task of SMP (Mu et al., arXiv
  2512.03028).
  """
  command = cast(LocationCommand, env.command_manager.get_term(command_name))
  return torch.exp(-scale * command.offset_w.norm(dim=-1))


def raise_head(
  env: ManagerBasedRlEnv,
  height: float,
  speed: float,
  scale: float,
  entity_name: str = "robot",
) -> torch.Tensor:
  """Return 1 with the head at ``height`` m or above; below, reward its rise (N,).

  Below, the reward is exp(-scale * max(speed - v_head_z, 0)^2), velocities in m/s.
  Source: the get-up task of SMP (Mu et al., arXiv 2512.03028) as the G1 reproduction
  states it.
  """
  robot = cast(Entity, env.scene[entity_name])
  position, velocity = robot_state.head_w(robot)
  rising = torch.exp(-scale * (speed - velocity[:, 2]).clamp(min=0.0).square())
  above = robot_state.above_floor(env, position)
  return torch.where(above >= height, torch.ones_like(rising), rising)


def hold_head_high(
  env: ManagerBasedRlEnv, height: float, scale: float, entity_name: str = "robot"
) -> torch.Tensor:
  """Return exp(-scale * max(height - z_head, 0)^2) (N,), heights in m above the floor.

  Source: as `raise_head`.
  """
  position, _ = robot_state.head_w(cast(Entity, env.scene[entity_name]))
  below = height - robot_state.above_floor(env, position)
  return torch.exp(-scale * below.clamp(min=0.0).square())
