"""Evaluation protocols: the same conditions and the same time for every policy.

Every task has two sweeps: over its command (or, where there is none, over the initial
state), and over pushes of rising strength. A condition is one point of a sweep; the
environments are divided evenly among all conditions and run side by side, one episode
each.

There is no observation noise, no randomisation of the robot, and no push or change of
the command but those named; another robot (`smp.robots.variation`) is the same in all
environments, and noted. Initial states are drawn from the task's
prior as in training, from a separate GSI buffer that depends on the seed alone, so
every policy gets the same. The means that normalise r_smp are those of the checkpoint,
and stay fixed. An episode lasts the full time, but nothing after a failure (pelvis
under 0.3 m, or self-collision, as in training) counts. In a task without failures all
of the time is available for getting up. The conditions of a task are in its own file
(`smp.tasks`).

Sources. The tasks, their returns and the maximum to divide them by: Mu et al., "SMP"
(arXiv 2512.03028). Bins of speed from 0.5 to 5 m/s by 0.5 with mean and spread of the
achieved speed, and falls per minute: customary for locomotion on the G1. Getting up has
two customary protocols beside the task's own criterion, see
`smp.episodes.episode_metrics`: "strict" (head at 1.10 m, upright by 0.85, slower than
0.5 m/s and 1 rad/s for 25 steps, within 500 steps, by initial pose) and "SR3" (standing
within 20 s for 3 s, head at 1.15 m, upright by 0.90, each foot with over 20 N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from smp.errors import UserError
from smp.robots.variation import UNITS, RobotVariation, check_bounds

VERSION = 1
"""Increased by every change that makes metrics differ from earlier ones."""
EPISODE_S = 20.0
SETTLE_S = 2.0
"""Time from which errors of speed and facing count, s: initial states have any speed.
"""
GSI_BUFFER_SIZES = (32, 1024)
"""Size of the GSI buffer for each seed: one state for every environment, within these
bounds."""
FALLS_PER_POSE = 32
"""Fallen states for each seed and pose."""
FALL_SEED = 1000
"""Added to the seed of an evaluation: training creates its fallen states with seed 0.
"""

COMMAND, PUSH = "command", "push"
PUSHES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Strengths of pushes, m/s."""
PUSH_TIMES = (4.0, 8.0, 12.0, 16.0)
CHANGE_AT = 8.0


@dataclass(frozen=True)
class EvalCondition:
  """One point of a sweep."""

  sweep: str
  """`COMMAND` or `PUSH`."""
  label: str
  value: float
  """Position on the axis of the sweep."""
  asked: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
  """Command of the condition: values by component, or whatever the task's protocol
  converts to them (`EvalProtocol.ask`)."""
  start: str = "prior"
  """One of `smp.mdp.init_states.INIT_MODES`."""
  push: float = 0.0
  """Horizontal velocity added to the pelvis at each push, m/s, in a random direction.
  """
  then: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
  """Command from the protocol's ``change_at`` on, as ``asked``; empty: the same."""


@dataclass(frozen=True)
class Chance:
  """Random numbers of each of N environments, for the tasks to use."""

  direction: np.ndarray
  """(N,), rad, from -pi to pi, as is ``bearing``."""
  side: np.ndarray
  """(N,), 1 or -1."""
  part: np.ndarray
  """(N,), from 0 to 1."""
  bearing: np.ndarray


Values = dict[str, np.ndarray]
"""Values by component, (N, G), in a person's units (`smp.utils.components`); points are
relative to the robot's initial position."""
Ask = Callable[[Sequence[EvalCondition], Chance], Values]
"""Maps the condition of each of N environments to its command."""


def ask_as_given(conditions: Sequence[EvalCondition], chance: Chance) -> Values:
  """Return the commands of conditions that give the values of components."""
  del chance
  return {
    name: np.array([c.asked[name] for c in conditions], float).reshape(
      len(conditions), -1
    )
    for name in (conditions[0].asked if conditions else ())
  }


@dataclass(frozen=True)
class EvalProtocol:
  """The evaluation of a task."""

  task: str
  conditions: tuple[EvalCondition, ...]
  axes: dict[str, str]
  """Axis title of each sweep."""
  ask: Ask = ask_as_given
  push_times: tuple[float, ...] = PUSH_TIMES
  change_at: float = CHANGE_AT
  """Time at which commands change, in conditions in which they do, s."""
  seconds: float = EPISODE_S
  settle: float = SETTLE_S
  stops: bool = True
  """Whether nothing counts after a failure, as defined in training."""
  robot: RobotVariation = RobotVariation()
  """The robot that is judged."""
  notes: tuple[str, ...] = ()
  """Differences from the standard protocol; empty if there are none."""

  def steps(self, fps: float) -> int:
    """Return the number of steps of an episode."""
    return round(self.seconds * fps)

  def lasting(self, seconds: float | None) -> EvalProtocol:
    """Return the protocol with a shorter or longer episode, which is noted.

    Args:
      seconds: Length of an episode; None: the standard one.

    Raises:
      UserError: The length is below 1 s.
    """
    if seconds is None or seconds == self.seconds:
      return self
    if not seconds >= 1.0:
      raise UserError(f"--seconds is {seconds}, expected 1 or more")
    note = f"episodes of {seconds:g} s instead of {self.seconds:g} s"
    settle = min(self.settle, seconds / 4)
    return replace(self, seconds=seconds, settle=settle, notes=(*self.notes, note))

  def on(self, robot: RobotVariation) -> EvalProtocol:
    """Return the protocol with another robot, which is noted.

    Raises:
      UserError: One of its values is impossible.
    """
    check_bounds(robot)
    differences = robot.differences()
    if not differences:
      return self
    note = "another robot: " + ", ".join(
      f"{name.replace('_', ' ')} {value:g}{UNITS.get(name, '')}"
      for name, value in differences.items()
    )
    changed = RobotVariation(**differences)
    return replace(self, robot=changed, notes=(*self.notes, note))


def push_axis(what: str) -> str:
  """Return the axis title of a sweep over pushes."""
  return f"push every 4 s, at {what} (m/s)"


def pushed(**asked: float | tuple[float, ...]) -> tuple[EvalCondition, ...]:
  """Return the conditions of the sweep over pushes, all with the same command."""
  return tuple(
    EvalCondition(PUSH, f"push {push:g} m/s", push, asked, push=push) for push in PUSHES
  )


# Assignment to environments.


@dataclass(frozen=True)
class EvalBatch:
  """Conditions and commands of N environments; a function of protocol and seed alone."""

  condition: np.ndarray
  """(N,) index into the protocol's conditions."""
  command: Values
  start: tuple[str, ...]
  """(N,), kinds of the initial states."""
  push: np.ndarray
  """(pushes, N, 2), m/s, world xy."""
  changes: np.ndarray
  """(N,) bool: whether the command changes during the episode."""
  later: Values
  """Commands after that change; as ``command`` where there is none."""


def assign(protocol: EvalProtocol, num_envs: int, seed: int) -> EvalBatch:
  """Divide the environments among the conditions, and draw what these leave open.

  Raises:
    UserError: There are fewer environments than conditions.
  """
  count = len(protocol.conditions)
  if num_envs < count:
    raise UserError(
      f"--num-envs {num_envs}: {protocol.task} has {count} conditions, give at least "
      f"{count} (a hundred for each give much narrower intervals)"
    )
  condition = np.arange(num_envs) % count
  chosen = [protocol.conditions[i] for i in condition]
  rng = np.random.default_rng(seed)
  direction = rng.uniform(-math.pi, math.pi, num_envs)
  side = rng.choice((-1.0, 1.0), num_envs)
  part, bearing = rng.uniform(size=num_envs), rng.uniform(-math.pi, math.pi, num_envs)
  kicked = rng.uniform(-math.pi, math.pi, (len(protocol.push_times), num_envs))
  strength = np.array([c.push for c in chosen])
  chance = Chance(direction, side, part, bearing)
  after = [replace(c, asked=c.then or c.asked) for c in chosen]
  return EvalBatch(
    condition=condition,
    command=protocol.ask(chosen, chance),
    start=tuple(c.start for c in chosen),
    push=strength[:, None] * unit(kicked),
    changes=np.array([bool(c.then) for c in chosen]),
    later=protocol.ask(after, chance),
  )


def unit(angle: np.ndarray) -> np.ndarray:
  """Return unit vectors (..., 2), world xy, of angles (...), rad."""
  return np.stack((np.cos(angle), np.sin(angle)), axis=-1)
