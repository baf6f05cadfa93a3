"""Events that make robots differ, as those that are built do."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity, EntityCfg
from mjlab.envs.mdp import dr
from mjlab.managers.event_manager import RecomputeLevel, requires_model_fields
from mjlab.managers.scene_entity_config import SceneEntityCfg

from smp.errors import UserError

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@requires_model_fields("body_mass", recompute=RecomputeLevel.set_const)
def add_payload(
  env: ManagerBasedRlEnv,
  env_ids: torch.Tensor | None,
  mass_range: tuple[float, float],
  asset_cfg: SceneEntityCfg,
) -> None:
  """Add a random mass, kg, at the centre of mass of bodies.

  It is a point: the inertia about the centre of mass does not change.
  """
  with warnings.catch_warnings():
    # mjlab warns that the inertia stays; here that is meant.
    warnings.simplefilter("ignore", UserWarning)
    dr.body_mass(env, env_ids, mass_range, asset_cfg=asset_cfg, operation="add")


def delayable(robot: EntityCfg, seconds: float, timestep: float) -> EntityCfg:
  """Return a robot whose motors can get their targets up to ``seconds`` late.

  Without the event `actuator_delay` they get them at once.
  """
  assert robot.articulation is not None
  lag = math.ceil(seconds / timestep - 1e-6)
  actuators = tuple(
    # With this probability the lag is always kept: only the event changes it.
    replace(actuator, delay_max_lag=lag, delay_hold_prob=1.0)
    for actuator in robot.articulation.actuators
  )
  return replace(robot, articulation=replace(robot.articulation, actuators=actuators))


def actuator_delay(
  env: ManagerBasedRlEnv,
  env_ids: torch.Tensor | None,
  delay_range: tuple[float, float],
  asset_cfg: SceneEntityCfg,
) -> None:
  """Draw the time, s, by which all motors of a robot get their targets late.

  It is drawn for each episode, in whole physics steps. Until the first target arrives,
  the motors hold the default pose.

  Raises:
    UserError: The range is no range of times, or longer than the robot was made for
      (`delayable`).
  """
  robot = cast(Entity, env.scene[asset_cfg.name])
  low, high = (round(seconds / env.physics_dt) for seconds in delay_range)
  most = min(actuator.cfg.delay_max_lag for actuator in robot.actuators)
  if not 0 <= low <= high <= most:
    raise UserError(
      f"events: a delay of {delay_range} s; expected a range from 0 to "
      f"{most * env.physics_dt:g} s"
    )
  if env_ids is None:
    env_ids = torch.arange(env.num_envs, device=env.device)
  lags = torch.randint(low, high + 1, (len(env_ids),), device=env.device)
  for actuator in robot.actuators:
    actuator.set_lags(lags, env_ids)
  robot.data.joint_pos_target[env_ids] = robot.data.default_joint_pos[env_ids]
