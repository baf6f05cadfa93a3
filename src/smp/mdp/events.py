"""Events that make robots differ, as those that are built do, or that help them."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity, EntityCfg
from mjlab.envs.mdp import dr
from mjlab.managers.event_manager import (
  EventTermCfg,
  RecomputeLevel,
  requires_model_fields,
)
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.managers.scene_entity_config import SceneEntityCfg

from smp.errors import UserError
from smp.mdp.symmetry import register_invariant
from smp.robots import g1

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg


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


HELP = "help_up"
"""Name of the event that pulls robots up, and of the critic's observation of it."""
HELPED_BODY = "torso_link"


def help_up(
  env: ManagerBasedRlEnv,
  env_ids: torch.Tensor | None,
  most: float,
  asset_cfg: SceneEntityCfg,
) -> None:
  """Pull robots straight up, each by a share of its weight that stays for its episode.

  A share is ``most * (1 - u^3)``, u uniform: half of them are above 0.87 of ``most``,
  where a robot learns, and some near none. The force acts at the centre of mass of the
  body in ``asset_cfg``. With a share of 0.7 at the torso a G1 whose motors hold the
  default pose rises from lying by itself; with half of its weight it sits. So it learns
  to stand with much help first, and then with ever less, as in HoST (Huang et al.,
  arXiv 2502.08378).
  """
  robot = cast(Entity, env.scene[asset_cfg.name])
  if env_ids is None:
    env_ids = torch.arange(env.num_envs, device=env.device)
  force = torch.zeros(len(env_ids), 1, 3, device=env.device)
  share = most * (1.0 - torch.rand(len(env_ids), device=env.device) ** 3)
  force[:, 0, 2] = share * _weight(env)
  robot.write_external_wrench_to_sim(
    force, torch.zeros_like(force), env_ids=env_ids, body_ids=asset_cfg.body_ids
  )


@register_invariant
def help_share(env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg) -> torch.Tensor:
  """Return the share of its weight by which each robot is pulled up (N, 1)."""
  robot = cast(Entity, env.scene[asset_cfg.name])
  # One number: a list as an index would be copied to the device in every step.
  (body,) = cast(list[int], asset_cfg.body_ids)
  return robot.data.body_external_force[:, body, 2].unsqueeze(-1) / _weight(env)


def _weight(env: ManagerBasedRlEnv) -> float:
  """Return the weight, N, of a robot as it is modelled."""
  model = env.sim.mj_model
  root = model.body(f"robot/{g1.ROOT_BODY}").id
  return float(model.body_subtreemass[root] * -model.opt.gravity[2])


def help_up_at_first(cfg: ManagerBasedRlEnvCfg, most: float) -> None:
  """Add `help_up` by the torso to an environment, in place; the critic observes it."""
  helped = SceneEntityCfg("robot", body_names=(HELPED_BODY,))
  cfg.events[HELP] = EventTermCfg(
    func=help_up, mode="reset", params={"asset_cfg": helped, "most": most}
  )
  cfg.observations["critic"].terms[HELP] = ObservationTermCfg(
    func=help_share, params={"asset_cfg": replace(helped)}
  )
