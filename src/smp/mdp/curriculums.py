"""What to learn first: tasks that begin gently and grow with success.

One term measures success and holds a level from 0 to 1 (`Success`). The others read it
and set what grows: the top speed, the strength of pushes, the distance of goals. Each
ends at level 1 with what the task's configuration says, so without these terms, or at
level 1, the task is the published one.

The level moves where mjlab resets environments, at no other time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.envs.mdp import push_by_setting_velocity
from mjlab.managers.curriculum_manager import CurriculumManager, CurriculumTermCfg

from smp.errors import UserError, shown
from smp.mdp.commands import ComponentCommand, ComponentCommandCfg, Growth
from smp.mdp.terminations import StandUpSuccess

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

SUCCESS = "success"
"""Name of the term that holds the level."""

RISE_ABOVE, FALL_BELOW = 0.6, 0.15
"""Means of success beyond which the level moves. Robots fall more often with exploration
noise on their actions, which most have, than without: 0.75 held a policy back whose
episodes without noise lasted 0.83 of the longest."""

MEMORY = 1.0
"""Episodes of each environment that the mean reaches back."""

CLIMB = 5.0
"""Episodes of each environment from level 0 to level 1, at the fastest."""

Range = tuple[float, float]


class Success:
  """The level, which follows how well episodes go.

  An episode's success is its length, as a share of the longest possible; or, where
  ``success_term`` names a termination, 1 if that ended it and 0 if not. Of the episodes
  that end a running mean is kept, and with each of them the level rises a little while
  the mean is above ``rise_above``, and falls as much while it is below ``fall_below``.

  Episodes count only from their reset to their own end: not those that a call of
  ``env.reset`` cuts short, nor the first ones of a PPO training, whose step counters
  rsl_rl sets at random.

  Params: ``rise_above`` and ``fall_below``, shares; ``memory`` and ``climb``, in episodes
  of each environment (see `MEMORY`, `CLIMB`); ``success_term``.

  Logged: ``level`` and ``mean``.
  """

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    del cfg
    self.level = 0.0
    self.mean = 0.0
    # Steps of the environment at which each episode began.
    self._began = torch.full((env.num_envs,), -1, dtype=torch.long, device=env.device)

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    rise_above: float = RISE_ABOVE,
    fall_below: float = FALL_BELOW,
    memory: float = MEMORY,
    climb: float = CLIMB,
    success_term: str | None = None,
  ) -> dict[str, float]:
    ends, total = self._ended(env, env_ids, success_term)
    self._began[env_ids] = env.common_step_counter
    if ends > 0:
      keep = (1.0 - 1.0 / max(memory * env.num_envs, 1.0)) ** ends
      self.mean = keep * self.mean + (1.0 - keep) * total / ends
      up = (self.mean > rise_above) - (self.mean < fall_below)
      self.level += up * ends / (climb * env.num_envs)
      self.level = min(max(self.level, 0.0), 1.0)
    return {"level": self.level, "mean": self.mean}

  def _ended(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    success_term: str | None,
  ) -> tuple[int, float]:
    """How many episodes ended, and the sum of their success.

    One transfer from the device, in place of those that mjlab's log of a tensor takes.
    """
    length = env.episode_length_buf[env_ids]
    whole = length == env.common_step_counter - self._began[env_ids]
    ended = env.termination_manager.dones[env_ids] & whole & (length > 0)
    if success_term is not None:
      success = env.termination_manager.get_term(success_term)[env_ids].float()
    else:
      success = length / env.max_episode_length
    ends, total = torch.stack((ended.sum(), (success * ended).sum())).tolist()
    return int(ends), total

  def state_dict(self) -> dict[str, float]:
    """What a checkpoint keeps."""
    return {"level": self.level, "mean": self.mean}

  def load_state_dict(self, state: dict[str, Any]) -> None:
    """Take the level and the mean of a checkpoint.

    Raises:
      UserError: one is missing, or not a share.
    """
    for name in ("level", "mean"):
      value = state.get(name) if isinstance(state, dict) else None
      if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise UserError(
          f"curriculum.{SUCCESS}.{name} is {shown(value)}, expected a share from 0 to "
          "1; use another checkpoint, or train without a curriculum"
        )
    self.level, self.mean = float(state["level"]), float(state["mean"])


class _Growth:
  """What a term sets by the level.

  The param ``during`` is the part of the level in which it grows, (0, 1) for all of it:
  below it is at its start, above at its end.
  """

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    del cfg, env

  @staticmethod
  def grown(env: ManagerBasedRlEnv, during: Range) -> float:
    """How much has grown, from 0 to 1."""
    manager = cast(CurriculumManager, env.curriculum_manager)
    success = cast(Success, manager.get_term_cfg(SUCCESS).func)
    begin, end = during
    return min(max((success.level - begin) / (end - begin), 0.0), 1.0)


class RangeTop(_Growth):
  """The top of a command's range (a speed, a distance): from ``start`` to the configured
  one."""

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    command_name: str,
    attribute: str,
    start: float,
    during: Range = (0.0, 1.0),
  ) -> float:
    del env_ids
    command = cast(ComponentCommand, env.command_manager.get_term(command_name))
    low, high = getattr(command.cfg, attribute)
    top = start + (high - start) * self.grown(env, during)
    setattr(command, attribute, (low, top))
    return top


class PushStrength(_Growth):
  """The share of the configured pushes, 0 to 1, that robots get."""

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    event = env.event_manager.get_term_cfg(cfg.params["event_name"])
    self._full: dict[str, Range] = dict(event.params["velocity_range"])

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    event_name: str,
    during: Range = (0.0, 1.0),
  ) -> float:
    del env_ids
    share = self.grown(env, during)
    env.event_manager.get_term_cfg(event_name).params["velocity_range"] = {
      axis: (share * low, share * high) for axis, (low, high) in self._full.items()
    }
    return share


def add_curriculum(
  cfg: ManagerBasedRlEnvCfg,
  starts: Mapping[str, float] | None = None,
  speed_during: Range = (0.0, 1.0),
  pushes_during: Range = (0.0, 1.0),
) -> None:
  """Let a task begin gently: add the terms for what it has that can grow.

  A commanded speed grows to the configured one, pushes from none. For a task that is
  done when the robot stands, success is to have stood up.

  Args:
    cfg: The environment to train in; changed in place.
    starts: Tops at level 0 of what the command may let grow (`Growth`), such as
      {"speed": 2.0}. Default: the command's own; what has none does not grow.
    speed_during: Part of the level in which these grow.
    pushes_during: The same for pushes.

  Raises:
    UserError: nothing in this task can grow, or a start or part that makes no sense.
  """
  starts = starts or {}
  for during in (speed_during, pushes_during):
    if not 0.0 <= during[0] < during[1] <= 1.0:
      raise UserError(f"curriculum: {during} is no part of the level; try (0.0, 1.0)")
  terms: dict[str, CurriculumTermCfg] = {}
  for name, command in cfg.commands.items():
    if not isinstance(command, ComponentCommandCfg):
      continue
    for growth in command.growth():
      terms |= _range_top(name, command, growth, starts, speed_during)
  for name, event in cfg.events.items():
    if event.func is push_by_setting_velocity and event.mode == "interval":
      terms["pushes"] = _term(PushStrength, event_name=name, during=pushes_during)
  if not terms:
    raise UserError(
      "curriculum: this task has nothing that can grow (no speed above the start, no "
      "pushes); train it without a curriculum"
    )
  success: dict[str, Any] = {"rise_above": RISE_ABOVE, "fall_below": FALL_BELOW}
  stood_up = [n for n, term in cfg.terminations.items() if term.func is StandUpSuccess]
  if stood_up:
    success["success_term"] = stood_up[0]
  # First: the others read its level.
  cfg.curriculum = {
    SUCCESS: _term(Success, memory=MEMORY, climb=CLIMB, **success),
    **terms,
    **{name: term for name, term in cfg.curriculum.items() if name != SUCCESS},
  }


def _range_top(
  name: str,
  command: ComponentCommandCfg,
  growth: Growth,
  starts: Mapping[str, float],
  during: Range,
) -> dict[str, CurriculumTermCfg]:
  """The term for a range of a command; none if it is as low from the beginning."""
  full: Range = getattr(command, growth.attribute)
  start = growth.start
  if growth.quantity in starts:
    option = f"start of the {growth.quantity}"
    start = _start(option, starts[growth.quantity], full, growth.unit)
  elif start is None or not full[0] <= start < full[1]:
    return {}
  params = {"attribute": growth.attribute, "start": start, "during": during}
  return {f"top_{growth.quantity}": _term(RangeTop, command_name=name, **params)}


def _start(option: str, value: float, full: Range, unit: str) -> float:
  """A start that lies in what is configured."""
  if not math.isfinite(value) or not full[0] <= value < full[1]:
    raise UserError(
      f"curriculum: {option} {value} {unit} is not in the task's range of {full[0]} to "
      f"{full[1]} {unit}"
    )
  return value


def _term(func: Callable[..., Any], **params: Any) -> CurriculumTermCfg:
  return CurriculumTermCfg(func=func, params=params)


def curriculum_state(env: ManagerBasedRlEnv) -> dict[str, Any]:
  """Return what a checkpoint keeps: {name of the term: its state}; {} without any."""
  return {name: term.state_dict() for name, term in _stateful(env).items()}


def load_curriculum_state(env: ManagerBasedRlEnv, state: dict[str, Any]) -> None:
  """Restore what `curriculum_state` returned, and set what grows by it.

  A curriculum that the checkpoint does not know starts anew; one that this training
  lacks is left out. Either is said.

  Raises:
    UserError: a state that is none.
  """
  terms = _stateful(env)
  for name, term in terms.items():
    if name in state:
      term.load_state_dict(state[name])
    else:
      print(f"[WARN] checkpoint without curriculum '{name}': it starts anew")
  for name in state.keys() - terms.keys():
    print(f"[WARN] checkpoint with curriculum '{name}', which this training has not")
  if terms:
    nobody = torch.empty(0, dtype=torch.long, device=env.device)
    env.curriculum_manager.compute(env_ids=nobody)


def _stateful(env: ManagerBasedRlEnv) -> dict[str, Any]:
  """The curriculum's terms that have a state, by name."""
  manager = env.curriculum_manager
  if not isinstance(manager, CurriculumManager):
    return {}
  terms = {name: manager.get_term_cfg(name).func for name in manager.active_terms}
  return {name: term for name, term in terms.items() if hasattr(term, "state_dict")}
