"""Curricula: tasks that begin easy and grow with success.

One term measures success and holds a level from 0 to 1 (`Success`). The other terms
read the level and set the quantities that grow: the speeds, the strength of pushes, the
distance of goals, costs, how often to stand. At level 1 each has its configured value, so at level 1, or
without these terms, the task is the published one.

The level changes only where mjlab resets environments.
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
from smp.mdp.commands import (
  CLIMB,
  ComponentCommand,
  ComponentCommandCfg,
  Growth,
  MovingCommand,
  MovingCommandCfg,
)
from smp.mdp.events import HELP, help_up_at_first
from smp.mdp.rewards import TaskReward
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.mdp.terminations import StandUpSuccess

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

SUCCESS = "success"
"""Name of the term that holds the level."""

RISE_ABOVE, FALL_BELOW = 0.6, 0.15
"""Thresholds of the mean success: the level rises above the first and falls below the
second. Exploration noise on the actions, which most environments have, makes robots
fall more often: 0.75 held a policy back whose noise-free episodes lasted 0.83 of the
maximum."""

STARTS_RISE_ABOVE, STARTS_FALL_BELOW = 0.7, 0.5
"""The same where starts grow downward: heights from which a robot can rise are more
than half of those it begins at, and those that it learns next are among them."""
HELP_RISE_ABOVE, HELP_FALL_BELOW = 0.58, 0.45
"""The same where robots are helped up. Half of them begin where little is left to do, and
noise makes some fall. Above 0.45 the level outran the policy: help fell to 0.08 of the
weight, success from 0.69 to 0.37, and nothing more was learned there. Above 0.58 success
stayed over 0.64 until help had vanished, and over 0.51 after that, when robots were pushed
too."""
RISING_CLIMB = 4.0
"""How many times as many episodes the level takes there: at the usual pace it had passed
all that could be learned before the mean success said so, and swung between .5 and .06.
"""
RISING_PUSHES = (0.8, 1.0)
"""Part of the level in which pushes grow there: when little is left to learn."""

MEMORY = 1.0
"""Length of the running mean of success, in episodes per environment."""

COST_START = 0.1
"""Share of the costs at level 0. A policy that has learned nothing earns little; with
all of its costs it earns most by falling soon."""

EASY_START, EASY_DURING = 0.1, (0.0, 0.2)
"""Share of the standing and slow commands at level 0, and the part of the level in which
they grow. A robot that only stands keeps standing for the whole of an episode, and fills
the buffer with that, while one that is to go falls within a second: with all of these
commands from the beginning Velocity learned to stand, and in 48 minutes not to walk; with
a tenth it walked after 20."""

MOST_EASY = 0.6
"""Largest sum of these shares that begins lower: a task of slow commands is not to begin
with fast ones."""

FIRST_LOWEST_START = 0.9
"""Lowest head of a start at level 0, m: a robot on its feet, knees bent."""

Range = tuple[float, float]


class NothingToGrow(UserError):
  """Raised for a task without anything that a curriculum could let grow."""


class Success:
  """The level of a curriculum, which follows the success of episodes.

  The success of an episode is its length divided by the maximum length; or, where
  ``success_term`` names a termination, 1 if that term ended it and 0 if not. A running
  mean over ended episodes is kept. With each ended episode the level rises a little
  while the mean is above ``rise_above``, and falls as much while it is below
  ``fall_below``.

  Episodes count only if they run from their reset to their own end: episodes that a
  call of ``env.reset`` cuts short do not count, nor do the first ones of a PPO
  training, whose step counters rsl_rl sets at random.

  Params: ``rise_above`` and ``fall_below``, shares; ``memory`` and ``climb``, in
  episodes per environment (see `MEMORY`, `CLIMB`); ``success_term``.

  Logged: ``level`` and ``mean``.
  """

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    del cfg
    self.level = 0.0
    self.mean = 0.0
    # Value of the environment's step counter at which each episode began.
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
    """Update the level by the episodes of ``env_ids`` that end; return the log."""
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
    """Return the number of episodes that ended, and the sum of their success.

    This takes one transfer from the device, in place of those that mjlab's log of a
    tensor takes.
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
    """Return the state for a checkpoint: level and mean."""
    return {"level": self.level, "mean": self.mean}

  def load_state_dict(self, state: dict[str, Any]) -> None:
    """Load the level and the mean of a checkpoint.

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
  """Base class of terms that set a value by the level.

  The param ``during`` is the part of the level in which the value grows, (0, 1) for all
  of it: below that part the value is at its start, above it at its end.
  """

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    del cfg, env

  @staticmethod
  def grown(env: ManagerBasedRlEnv, during: Range) -> float:
    """Return the progress of the growth, from 0 to 1."""
    manager = cast(CurriculumManager, env.curriculum_manager)
    success = cast(Success, manager.get_term_cfg(SUCCESS).func)
    begin, end = during
    return min(max((success.level - begin) / (end - begin), 0.0), 1.0)


class RangeTop(_Growth):
  """Term that sets the upper bound of a command's range, such as a speed.

  The bound grows from ``start`` to the configured one; with ``start_low``, the lower
  bound too.
  """

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    command_name: str,
    attribute: str,
    start: float,
    start_low: float | None = None,
    during: Range = (0.0, 1.0),
  ) -> float:
    """Set the range, and return its upper bound for the log."""
    del env_ids
    command = cast(ComponentCommand, env.command_manager.get_term(command_name))
    low, high = getattr(command.cfg, attribute)
    grown = self.grown(env, during)
    top = start + (high - start) * grown
    if start_low is not None:
      low = start_low + (low - start_low) * grown
    setattr(command, attribute, (low, top))
    return top


class EasyCommands(_Growth):
  """Term that scales how often a command is to stand or to go slowly."""

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    command_name: str,
    start: float = EASY_START,
    during: Range = EASY_DURING,
  ) -> float:
    """Set the factor on these shares, from ``start`` to 1, and return it for the log."""
    del env_ids
    command = cast(MovingCommand, env.command_manager.get_term(command_name))
    command.easy_share = start + (1.0 - start) * self.grown(env, during)
    return command.easy_share


class PushStrength(_Growth):
  """Term that scales the configured pushes by a factor from 0 to 1."""

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
    """Set the strength of the pushes, and return it for the log."""
    del env_ids
    share = self.grown(env, during)
    env.event_manager.get_term_cfg(event_name).params["velocity_range"] = {
      axis: (share * low, share * high) for axis, (low, high) in self._full.items()
    }
    return share


class LowestStart(_Growth):
  """Term that lets episodes start ever lower: near standing at first, lying at last.

  The skill of getting up grows downward: from its knees a robot learns to rise if it
  can stand, from sitting if it can rise from its knees (a reverse curriculum, Florensa
  et al., arXiv 1707.05300). Fallen states, outside of the prior, come last.
  """

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    start: float = FIRST_LOWEST_START,
    during: Range = (0.0, 0.8),
    fallen_during: Range = (0.6, 1.0),
  ) -> float:
    """Set the lowest head of a start, m, and return it for the log."""
    del env_ids
    term = SmpTerm.of(env)
    term.lowest_start = start * (1.0 - self.grown(env, during))
    share = term.cfg.fallen_init_prob * self.grown(env, fallen_during)
    term.init_states.share = share
    return term.lowest_start


class Help(_Growth):
  """Term that lets `help_up` pull with ever less: ``start`` at level 0, nothing at 1."""

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    event_name: str,
    start: float,
    during: Range = (0.0, 1.0),
  ) -> float:
    """Set the largest share of the weight, and return it for the log."""
    del env_ids
    most = start * (1.0 - self.grown(env, during))
    env.event_manager.get_term_cfg(event_name).params["most"] = most
    return most


class CostStrength(_Growth):
  """Term that scales the weights of costs by a factor from ``start`` to 1."""

  def __init__(self, cfg: CurriculumTermCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self._full: dict[str, float] = dict(cfg.params["weights"])

  def __call__(
    self,
    env: ManagerBasedRlEnv,
    env_ids: torch.Tensor | slice,
    weights: Mapping[str, float],
    start: float = COST_START,
    during: Range = (0.0, 1.0),
  ) -> float:
    """Set the weights of the costs, and return their share for the log."""
    del env_ids, weights
    share = start + (1.0 - start) * self.grown(env, during)
    for name, weight in self._full.items():
      env.reward_manager.get_term_cfg(name).weight = share * weight
    return share


def add_curriculum(
  cfg: ManagerBasedRlEnvCfg,
  starts: Mapping[str, float] | None = None,
  speed_during: Range = (0.0, 1.0),
  pushes_during: Range | None = None,
  climb: float | None = None,
  help_share: float = 0.0,
) -> None:
  """Add curriculum terms for every quantity of a task that can grow.

  A commanded speed grows to the configured one, pushes from none, costs beside the
  task's rewards and standing and slow commands from a tenth; starts whose heights are spread grow downward, and help
  vanishes. For a task that is done when the robot stands, success is to have stood up.

  Args:
    cfg: The environment to train in; changed in place.
    starts: Upper bounds at level 0 of quantities that the command may grow (`Growth`),
      such as {"speed": 2.0}. Default: the command's own; a quantity without one does
      not grow.
    speed_during: Part of the level in which these quantities grow.
    pushes_during: Part of the level in which the pushes grow. None: all of it, and
      where starts grow downward or robots are helped up `RISING_PUSHES`.
    climb: Minimum number of episodes per environment from level 0 to level 1. None: the
      largest that a command of the task asks for (``ComponentCommandCfg.climb``). Where
      starts grow downward or robots are helped up, `RISING_CLIMB` times as many.
    help_share: Largest share of its weight by which a robot is pulled up at level 0
      (`smp.mdp.events.help_up`); 0: none.

  Raises:
    NothingToGrow: The task has nothing that can.
    UserError: ``climb`` is not positive, or a start, part or ``help_share`` is out of
      range.
  """
  starts = starts or {}
  if climb is None:
    commands = cfg.commands.values()
    own = [each.climb for each in commands if isinstance(each, ComponentCommandCfg)]
    climb = max(own, default=CLIMB)
  if not climb > 0.0:
    raise UserError(f"curriculum: climb is {climb}, expected a positive number")
  if not 0.0 <= help_share < 1.0:
    raise UserError(
      f"curriculum: help is {help_share}, expected a share of the weight below 1"
    )
  terms_of_prior = [c for c in cfg.commands.values() if isinstance(c, SmpTermCfg)]
  spread = [term for term in terms_of_prior if term.spread_init_heights]
  for term in spread:
    highest = term.max_init_head_height
    if highest is not None and highest <= FIRST_LOWEST_START:
      raise UserError(
        f"--env.commands.smp.spread-init-heights: starts begin at {FIRST_LOWEST_START:g} "
        f"m and grow downward, and --env.commands.smp.max-init-head-height {highest:g} "
        "leaves none there; give 1.4"
      )
  rising = bool(spread) or help_share > 0.0
  if pushes_during is None:
    pushes_during = RISING_PUSHES if rising else (0.0, 1.0)
  for during in (speed_during, pushes_during):
    if not 0.0 <= during[0] < during[1] <= 1.0:
      raise UserError(f"curriculum: {during} is no part of the level; try (0.0, 1.0)")
  terms: dict[str, CurriculumTermCfg] = {}
  success: dict[str, Any] = {"rise_above": RISE_ABOVE, "fall_below": FALL_BELOW}
  if rising:
    climb *= RISING_CLIMB
  if spread:
    success = {"rise_above": STARTS_RISE_ABOVE, "fall_below": STARTS_FALL_BELOW}
    terms["lowest_start"] = _term(LowestStart)
  if help_share > 0.0:
    success = {"rise_above": HELP_RISE_ABOVE, "fall_below": HELP_FALL_BELOW}
    terms["help"] = _term(Help, event_name=HELP, start=help_share)
    help_up_at_first(cfg, help_share)
  for name, command in cfg.commands.items():
    if not isinstance(command, ComponentCommandCfg):
      continue
    for growth in command.growth():
      terms |= _range_top(name, command, growth, starts, speed_during)
    moving = isinstance(command, MovingCommandCfg)
    if moving and 0.0 < command.rel_standing_envs + command.rel_slow_envs <= MOST_EASY:
      terms["easy_commands"] = _term(EasyCommands, command_name=name)
  for name, event in cfg.events.items():
    if event.func is push_by_setting_velocity and event.mode == "interval":
      terms["pushes"] = _term(PushStrength, event_name=name, during=pushes_during)
  if not terms:
    raise NothingToGrow(
      "curriculum: this task has nothing that can grow (no speed above the start, no "
      "pushes); train it without a curriculum"
    )
  costs = _costs(cfg)
  if costs:
    terms["costs"] = _term(CostStrength, weights=costs)
  stood_up = [n for n, term in cfg.terminations.items() if term.func is StandUpSuccess]
  if stood_up:
    success["success_term"] = stood_up[0]
  # This term comes first, because the others read its level.
  cfg.curriculum = {
    SUCCESS: _term(Success, memory=MEMORY, climb=climb, **success),
    **terms,
    **{name: term for name, term in cfg.curriculum.items() if name != SUCCESS},
  }


def _costs(cfg: ManagerBasedRlEnvCfg) -> dict[str, float]:
  """Return the weights of the costs beside a task's rewards, by name."""
  if not any(term.func is TaskReward for term in cfg.rewards.values()):
    return {}
  return {name: term.weight for name, term in cfg.rewards.items() if term.weight < 0.0}


def _range_top(
  name: str,
  command: ComponentCommandCfg,
  growth: Growth,
  starts: Mapping[str, float],
  during: Range,
) -> dict[str, CurriculumTermCfg]:
  """Return the term that grows a command's range; empty if it starts fully grown."""
  full: Range = getattr(command, growth.attribute)
  start = growth.start
  if growth.quantity in starts:
    option = f"start of the {growth.quantity}"
    start = _start(option, starts[growth.quantity], full, growth.unit)
  elif start is None or not full[0] <= start < full[1]:
    return {}
  params = {"attribute": growth.attribute, "start": start, "during": during}
  if growth.start_low is not None:
    params["start_low"] = min(max(growth.start_low, full[0]), start)
  return {f"top_{growth.quantity}": _term(RangeTop, command_name=name, **params)}


def _start(option: str, value: float, full: Range, unit: str) -> float:
  """Return a start value, after checking that it lies in the configured range."""
  if not math.isfinite(value) or not full[0] <= value < full[1]:
    raise UserError(
      f"curriculum: {option} {value} {unit} is not in the task's range of {full[0]} to "
      f"{full[1]} {unit}"
    )
  return value


def _term(func: Callable[..., Any], **params: Any) -> CurriculumTermCfg:
  return CurriculumTermCfg(func=func, params=params)


def curriculum_state(env: ManagerBasedRlEnv) -> dict[str, Any]:
  """Return the state of all terms for a checkpoint: {name: state}, may be empty."""
  return {name: term.state_dict() for name, term in _stateful(env).items()}


def load_curriculum_state(env: ManagerBasedRlEnv, state: dict[str, Any]) -> None:
  """Restore what `curriculum_state` returned, and apply the level.

  A curriculum that the checkpoint does not have starts at level 0; a state that this
  training has no term for is ignored. Either case prints a warning.

  Raises:
    UserError: a state is malformed.
  """
  terms = _stateful(env)
  for name, term in terms.items():
    if name in state:
      term.load_state_dict(state[name])
    else:
      print(f"[WARN] checkpoint without curriculum '{name}': it starts anew")
  for name in state.keys() - terms.keys():
    print(f"[WARN] checkpoint with curriculum '{name}', which this training lacks")
  if terms:
    nobody = torch.empty(0, dtype=torch.long, device=env.device)
    env.curriculum_manager.compute(env_ids=nobody)


def _stateful(env: ManagerBasedRlEnv) -> dict[str, Any]:
  """Return the curriculum terms that have a state, by name."""
  manager = env.curriculum_manager
  if not isinstance(manager, CurriculumManager):
    return {}
  terms = {name: manager.get_term_cfg(name).func for name in manager.active_terms}
  return {name: term for name, term in terms.items() if hasattr(term, "state_dict")}
