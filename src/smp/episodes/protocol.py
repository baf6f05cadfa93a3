"""What is asked of a policy: the same conditions, for the same time, whoever asks.

Every task has two sweeps: over what is commanded (or, where nothing is, over where it
starts), and over pushes of rising strength. A condition is one point of a sweep; the environments
are shared out evenly among all conditions and run side by side, one episode each.

No observation noise, no randomised robot, no pushes but those named, no command that
changes within an episode. Starts are drawn from the task's prior as in training, by a
pool of its own that depends on the seed alone, so every policy gets the same. The means
that r_smp is measured by are those of the checkpoint, and stand still. An episode goes
on for the full time, but what comes after a failure (pelvis under 0.3 m, or
self-collision, as in training) counts for nothing. Where nothing is a failure all of the
time is there to get up in. The conditions of a task are in its own file (`smp.tasks`).

Sources. The tasks, their returns and the maximum to divide them by: Mu et al., "SMP"
(arXiv 2512.03028). Bins of speed from 0.5 to 5 m/s by 0.5 with mean and spread of the
achieved speed, and falls per minute: customary for locomotion on the G1. Getting up has
two protocols in use beside the task's own criterion, see `smp.episodes.episode_metrics`:
"strict" (head at 1.10 m, upright by 0.85, slower than 0.5 m/s and 1 rad/s for 25 steps,
within 500 steps, by start pose) and "SR3" (standing within 20 s for 3 s, head at 1.15 m,
upright by 0.90, each foot with over 20 N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from smp.errors import UserError

VERSION = 1
"""Raised by whatever makes figures differ from those before."""
EPISODE_S = 20.0
SETTLE_S = 2.0
"""Errors of speed and facing count from here on, s: starts are of any speed."""
GSI_BUFFER_SIZES = (32, 1024)
"""Start states sampled from the prior for each seed: one for every environment, within
these bounds."""
FALLS_PER_POSE = 32
"""Dropped robots for each seed and pose."""
FALL_SEED = 1000
"""Added to the seed of an evaluation: training drops its robots with seed 0."""

COMMAND, PUSH = "command", "push"
PUSHES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""m/s."""
PUSH_TIMES = (4.0, 8.0, 12.0, 16.0)


@dataclass(frozen=True)
class EvalCondition:
  """One point of a sweep."""

  sweep: str
  """`COMMAND` or `PUSH`."""
  label: str
  value: float
  """Where it is drawn on the axis of the sweep."""
  asked: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
  """What is asked, in the words of the task: values by component, or what its protocol
  makes them of (`EvalProtocol.ask`)."""
  start: str = "prior"
  """One of `smp.mdp.init_states.INIT_MODES`."""
  push: float = 0.0
  """Horizontal velocity added to the pelvis at each time of pushing, m/s, from anywhere."""


@dataclass(frozen=True)
class Chance:
  """What is drawn for each of N environments, for tasks to make use of."""

  direction: np.ndarray
  """(N,), rad, from -pi to pi, as is ``bearing``."""
  side: np.ndarray
  """(N,), 1 or -1."""
  part: np.ndarray
  """(N,), from 0 to 1."""
  bearing: np.ndarray


Values = dict[str, np.ndarray]
"""By component, (N, G), as a person gives them (`smp.utils.components`); but points count
from where the robot starts."""
Ask = Callable[[Sequence[EvalCondition], Chance], Values]
"""From the condition of each of N environments to the values that it is asked for."""


def ask_as_given(conditions: Sequence[EvalCondition], chance: Chance) -> Values:
  """Return what conditions ask for, where that is the values of components."""
  del chance
  return {
    name: np.array([c.asked[name] for c in conditions], float).reshape(
      len(conditions), -1
    )
    for name in (conditions[0].asked if conditions else ())
  }


@dataclass(frozen=True)
class EvalProtocol:
  """How a task is evaluated."""

  task: str
  conditions: tuple[EvalCondition, ...]
  axes: dict[str, str]
  """What the values of each sweep are."""
  ask: Ask = ask_as_given
  push_times: tuple[float, ...] = PUSH_TIMES
  seconds: float = EPISODE_S
  settle: float = SETTLE_S
  stops: bool = True
  """Whether a failure, as training has it, ends what counts of an episode."""
  notes: tuple[str, ...] = ()
  """How this differs from the standard; nothing if it does not."""

  def steps(self, fps: float) -> int:
    return round(self.seconds * fps)

  def lasting(self, seconds: float | None) -> EvalProtocol:
    """Return the protocol with a shorter or longer episode, which is noted.

    Args:
      seconds: None: the standard one.

    Raises:
      UserError: no time.
    """
    if seconds is None or seconds == self.seconds:
      return self
    if not seconds >= 1.0:
      raise UserError(f"--seconds is {seconds}, expected 1 or more")
    note = f"episodes of {seconds:g} s instead of {self.seconds:g} s"
    settle = min(self.settle, seconds / 4)
    return replace(self, seconds=seconds, settle=settle, notes=(*self.notes, note))


def push_axis(what: str) -> str:
  """Return what the values of a sweep over pushes are."""
  return f"push every 4 s, at {what} (m/s)"


def pushed(**asked: float | tuple[float, ...]) -> tuple[EvalCondition, ...]:
  """Return the sweep over pushes, at one and the same command."""
  return tuple(
    EvalCondition(PUSH, f"push {push:g} m/s", push, asked, push=push) for push in PUSHES
  )


# Who gets what.


@dataclass(frozen=True)
class EvalBatch:
  """What each of N environments is asked for; a function of protocol and seed alone."""

  condition: np.ndarray
  """(N,) index into the protocol's conditions."""
  command: Values
  start: tuple[str, ...]
  """(N,)."""
  push: np.ndarray
  """(pushes, N, 2), m/s, world xy."""


def assign(protocol: EvalProtocol, num_envs: int, seed: int) -> EvalBatch:
  """Share the environments out among the conditions, and draw what is left open.

  Raises:
    UserError: fewer environments than conditions.
  """
  count = len(protocol.conditions)
  if num_envs < count:
    raise UserError(
      f"--num-envs {num_envs}: {protocol.task} has {count} conditions, give at least "
      f"{count} (a hundred for each tell much more)"
    )
  condition = np.arange(num_envs) % count
  chosen = [protocol.conditions[i] for i in condition]
  rng = np.random.default_rng(seed)
  direction = rng.uniform(-math.pi, math.pi, num_envs)
  side = rng.choice((-1.0, 1.0), num_envs)
  part, bearing = rng.uniform(size=num_envs), rng.uniform(-math.pi, math.pi, num_envs)
  kicked = rng.uniform(-math.pi, math.pi, (len(protocol.push_times), num_envs))
  strength = np.array([c.push for c in chosen])
  return EvalBatch(
    condition=condition,
    command=protocol.ask(chosen, Chance(direction, side, part, bearing)),
    start=tuple(c.start for c in chosen),
    push=strength[:, None] * unit(kicked),
  )


def unit(angle: np.ndarray) -> np.ndarray:
  """Return unit vectors (..., 2), world xy, of angles (...), rad."""
  return np.stack((np.cos(angle), np.sin(angle)), axis=-1)
