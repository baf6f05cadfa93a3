"""Terminations of episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity
from mjlab.managers.termination_manager import TerminationTermCfg

from smp.mdp import robot_state
from smp.mdp.init_states import INIT_MODES
from smp.mdp.metrics import head_height
from smp.mdp.smp_term import SmpTerm

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


class PhysicsDiverged:
  """Termination of environments whose simulation diverged.

  It returns whether (N,) a number is not finite, or a speed of a joint or the pelvis is
  above ``maximum_speed`` (rad/s, m/s), which happens first. The episode ends there, so
  that no such number reaches another environment, the running means or the policy. The
  number of such episodes since the start of the run is logged.
  """

  def __init__(self, cfg: TerminationTermCfg, env: ManagerBasedRlEnv):
    del cfg
    self.count = torch.zeros((), dtype=torch.long, device=env.device)
    """Number of diverged episodes so far."""

  def __call__(self, env: ManagerBasedRlEnv, maximum_speed: float) -> torch.Tensor:
    """Return which environments diverged (N,), bool."""
    data = env.sim.data
    # The comparison is False for NaN, too.
    sound = data.qvel.abs().amax(dim=-1) <= maximum_speed
    for part in (data.qpos, data.qacc, data.sensordata):
      sound &= part.isfinite().all(dim=-1)
    self.count += (~sound).sum()
    env.extras["log"]["Smp/diverged"] = self.count
    return ~sound


def root_too_low(
  env: ManagerBasedRlEnv, minimum_height: float, entity_name: str = "robot"
) -> torch.Tensor:
  """Return whether the pelvis is below ``minimum_height`` m above its floor (N,)."""
  robot = cast(Entity, env.scene[entity_name])
  return robot_state.above_floor(env, robot_state.root_pos_w(robot)) < minimum_height


def out_of_distribution(
  env: ManagerBasedRlEnv, sds_scale: float, minimum: float, grace_steps: int
) -> torch.Tensor:
  """Return whether exp(-sds_scale * SDS loss) is below ``minimum`` (N,).

  The first ``grace_steps`` steps of an episode are exempt. The SDS loss is the current
  step's, mean over the timesteps. Source: the get-up task of the G1 reproduction of
  SMP.
  """
  smp_term = SmpTerm.of(env)
  familiar = torch.exp(-sds_scale * smp_term.sds_loss().mean(dim=-1))
  return (familiar < minimum) & (env.episode_length_buf > grace_steps)


class StandUpSuccess:
  """Termination that ends an episode as a success once the robot stands.

  The robot has stood up after ``stand_steps`` steps in a row with the head at
  ``height`` m or above and the pelvis slower than ``speed`` m/s. It then has to keep
  the head up, even if pushed, until ``hold_s`` seconds after it stood up. A lower head
  restarts the count. Source of the first part: the get-up task of the G1 reproduction
  of SMP.

  The share of episodes that end in success is logged separately for each kind of
  initial state, over the last few hundred: generated states are easier than fallen
  states, which the prior has not seen.
  """

  MEMORY = 200
  """Length of the running mean of each logged share, in episodes."""

  def __init__(self, cfg: TerminationTermCfg, env: ManagerBasedRlEnv):
    self._smp_term = SmpTerm.of(env)
    shape, device = env.num_envs, env.device
    self.steps = torch.zeros(shape, dtype=torch.long, device=device)
    """(N,) number of consecutive steps of standing."""
    self._done = torch.zeros(shape, dtype=torch.bool, device=device)
    # Modes of the last step: at a reset those of the next episodes are already drawn.
    self._kind = torch.full((shape,), -1, dtype=torch.long, device=device)
    self._share = torch.zeros(len(INIT_MODES), device=device)
    self._seen = torch.zeros(len(INIT_MODES), device=device)

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    height: float,
    speed: float,
    stand_steps: int,
    hold_s: float,
    entity_name: str = "robot",
  ) -> torch.Tensor:
    """Return which environments have succeeded (N,), bool."""
    robot = cast(Entity, env.scene[entity_name])
    still = robot_state.root_lin_vel_w(robot).norm(dim=-1) < speed
    up = (head_height(env, entity_name) >= height) & (
      still | (self.steps >= stand_steps)
    )
    self.steps.add_(1).mul_(up)
    hold_steps = round(hold_s / env.step_dt)
    torch.ge(self.steps, stand_steps + hold_steps, out=self._done)
    self._kind.copy_(self._smp_term.init_mode)
    log = env.extras["log"]
    for i, name in enumerate(INIT_MODES):
      log[f"Success/{name}"] = self._share[i]
    return self._done

  def reset(self, env_ids: torch.Tensor | slice) -> None:
    """Record how the episodes of ``env_ids`` ended, and restart their counts."""
    kind, done = self._kind[env_ids], self._done[env_ids]
    for i in range(len(INIT_MODES)):
      ended = kind == i
      count = ended.sum()
      share = (done & ended).sum() / count.clamp(min=1)
      self._seen[i] += count
      # A plain mean until there are MEMORY episodes, then an exponential one.
      weight = count / self._seen[i].clamp(min=1.0, max=float(self.MEMORY))
      self._share[i] += weight.clamp(max=1.0) * (share - self._share[i])
    self.steps[env_ids] = 0
    self._kind[env_ids] = -1
