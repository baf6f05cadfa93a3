"""What is asked of a policy: the same conditions, for the same time, whoever asks.

Every task has two sweeps: over what is commanded (or, for Getup, over where it starts),
and over pushes of rising strength. A condition is one point of a sweep; the environments
are shared out evenly among all conditions and run side by side, one episode each.

No observation noise, no randomised robot, no pushes but those named, no command that
changes within an episode. Starts are drawn from the task's prior as in training, by a
pool of its own that depends on the seed alone, so every policy gets the same. The means
that r_smp is measured by are those of the checkpoint, and stand still. An episode goes
on for the full time, but what comes after a failure (pelvis under 0.3 m, or
self-collision, as in training) counts for nothing. In Getup nothing is a failure: all of
the time is there to get up in.

Sources. The tasks, their returns and the maximum to divide them by: Mu et al., "SMP"
(arXiv 2512.03028). Bins of speed from 0.5 to 5 m/s by 0.5 with mean and spread of the
achieved speed, and falls per minute: customary for locomotion on the G1. Getting up has
two protocols in use beside the task's own criterion, see `smp.evaluation.policy.episode_metrics`:
"strict" (head at 1.10 m, upright by 0.85, slower than 0.5 m/s and 1 rad/s for 25 steps,
within 500 steps, by start pose) and "SR3" (standing within 20 s for 3 s, head at 1.15 m,
upright by 0.90, each foot with over 20 N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
FORWARD_SPEEDS = tuple(0.5 * i for i in range(1, 11))
FORWARD_PUSH_SPEED = 1.5
STEERING_SPEED = 1.25
"""The middle of what is trained, m/s."""
STEERING_ANGLES = (0.0, 45.0, 90.0, 135.0, 180.0)
RINGS = ((1.0, 2.5), (2.5, 5.0), (5.0, 7.5), (7.5, 10.0))
PUSH_RING = (5.0, 5.0)
PUSHES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""m/s."""
PUSH_TIMES = (4.0, 8.0, 12.0, 16.0)
GETUP_PUSH_TIMES = (12.0,)
"""When a robot that gets up at all stands, s."""


@dataclass(frozen=True)
class EvalCondition:
  """One point of a sweep."""

  sweep: str
  """`COMMAND` or `PUSH`."""
  label: str
  value: float
  """Where it is drawn on the axis of the sweep."""
  speed: float = 0.0
  """Commanded, m/s."""
  angle: float = 0.0
  """Between direction of travel and facing, degrees, to either side."""
  ring: tuple[float, float] = (0.0, 0.0)
  """Distance of the goal at the start, m."""
  start: str = "prior"
  """One of `smp.mdp.init_states.INIT_MODES`."""
  push: float = 0.0
  """Horizontal velocity added to the pelvis at each time of pushing, m/s, from anywhere."""


@dataclass(frozen=True)
class EvalProtocol:
  """How a task is evaluated."""

  task: str
  conditions: tuple[EvalCondition, ...]
  axes: dict[str, str]
  """What the values of each sweep are."""
  push_times: tuple[float, ...] = PUSH_TIMES
  seconds: float = EPISODE_S
  settle: float = SETTLE_S
  stops: bool = True
  """Whether a failure, as training has it, ends what counts of an episode."""
  notes: tuple[str, ...] = field(default=())
  """How this differs from the standard; nothing if it does not."""

  def steps(self, fps: float) -> int:
    return round(self.seconds * fps)


def protocol_of(task: str, seconds: float | None = None) -> EvalProtocol:
  """The protocol of a task.

  Args:
    task: Such as ``Smp-Forward-G1``.
    seconds: A shorter (or longer) episode than the standard one, which is noted.

  Raises:
    UserError: no protocol for that task, or no time.
  """
  make = {
    "Smp-Forward-G1": _forward,
    "Smp-Steering-G1": _steering,
    "Smp-Location-G1": _location,
    "Smp-Getup-G1": _getup,
  }.get(task)
  if make is None:
    raise UserError(f"no protocol to evaluate '{task}' by; there is one for our tasks")
  if seconds is None or seconds == EPISODE_S:
    return make(EPISODE_S, SETTLE_S, ())
  if not seconds >= 1.0:
    raise UserError(f"--seconds is {seconds}, expected 1 or more")
  note = f"episodes of {seconds:g} s instead of {EPISODE_S:g} s"
  return make(seconds, min(SETTLE_S, seconds / 4), (note,))


def _forward(seconds: float, settle: float, notes: tuple[str, ...]) -> EvalProtocol:
  bins = [
    EvalCondition(COMMAND, f"{speed:g} m/s", speed, speed=speed)
    for speed in FORWARD_SPEEDS
  ]
  axes = {COMMAND: "commanded speed (m/s)", PUSH: _push_axis("1.5 m/s")}
  conditions = (*bins, *_pushed(speed=FORWARD_PUSH_SPEED))
  return EvalProtocol(
    "Smp-Forward-G1", conditions, axes, seconds=seconds, settle=settle, notes=notes
  )


def _steering(seconds: float, settle: float, notes: tuple[str, ...]) -> EvalProtocol:
  bins = [
    EvalCondition(COMMAND, f"{angle:g}°", angle, speed=STEERING_SPEED, angle=angle)
    for angle in STEERING_ANGLES
  ]
  axes = {
    COMMAND: "angle between direction and facing (°)",
    PUSH: _push_axis("1.25 m/s"),
  }
  conditions = (*bins, *_pushed(speed=STEERING_SPEED))
  return EvalProtocol(
    "Smp-Steering-G1", conditions, axes, seconds=seconds, settle=settle, notes=notes
  )


def _location(seconds: float, settle: float, notes: tuple[str, ...]) -> EvalProtocol:
  bins = [
    EvalCondition(
      COMMAND, f"{low:g} to {high:g} m", 0.5 * (low + high), ring=(low, high)
    )
    for low, high in RINGS
  ]
  axes = {COMMAND: "goal at the start (m)", PUSH: _push_axis("a goal 5 m away")}
  conditions = (*bins, *_pushed(ring=PUSH_RING))
  return EvalProtocol(
    "Smp-Location-G1", conditions, axes, seconds=seconds, settle=settle, notes=notes
  )


def _getup(seconds: float, settle: float, notes: tuple[str, ...]) -> EvalProtocol:
  kinds = ("prior", "prone", "supine", "left", "right")
  bins = [
    EvalCondition(COMMAND, kind, float(i), start=kind) for i, kind in enumerate(kinds)
  ]
  axes = {
    COMMAND: "start pose",
    PUSH: "push 12 s after a start from the prior (m/s)",
  }
  return EvalProtocol(
    "Smp-Getup-G1",
    (*bins, *_pushed()),
    axes,
    push_times=GETUP_PUSH_TIMES,
    seconds=seconds,
    settle=settle,
    stops=False,
    notes=notes,
  )


def _push_axis(what: str) -> str:
  return f"push every 4 s, at {what} (m/s)"


def _pushed(
  speed: float = 0.0, ring: tuple[float, float] = (0.0, 0.0)
) -> list[EvalCondition]:
  return [
    EvalCondition(PUSH, f"push {push:g} m/s", push, speed=speed, ring=ring, push=push)
    for push in PUSHES
  ]


# Who gets what.


@dataclass(frozen=True)
class EvalBatch:
  """What each of N environments is asked for; a function of protocol and seed alone."""

  condition: np.ndarray
  """(N,) index into the protocol's conditions."""
  speed: np.ndarray
  """(N,), m/s."""
  direction: np.ndarray
  """(N, 2), unit vectors, world xy: along x for Forward, any way for Steering."""
  facing: np.ndarray
  """(N, 2)."""
  goal: np.ndarray
  """(N, 2), m, from where the robot starts."""
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
  heading = rng.uniform(-math.pi, math.pi, num_envs)
  side = rng.choice((-1.0, 1.0), num_envs)
  angle = np.radians([c.angle for c in chosen]) * side
  part, bearing = rng.uniform(size=num_envs), rng.uniform(-math.pi, math.pi, num_envs)
  low, high = np.array([c.ring for c in chosen]).T
  kicked = rng.uniform(-math.pi, math.pi, (len(protocol.push_times), num_envs))
  if protocol.task == "Smp-Forward-G1":
    heading = np.zeros(num_envs)
  strength = np.array([c.push for c in chosen])
  return EvalBatch(
    condition=condition,
    speed=np.array([c.speed for c in chosen]),
    direction=_unit(heading),
    facing=_unit(heading + angle),
    goal=(low + (high - low) * part)[:, None] * _unit(bearing),
    start=tuple(c.start for c in chosen),
    push=strength[:, None] * _unit(kicked),
  )


def _unit(angle: np.ndarray) -> np.ndarray:
  return np.stack((np.cos(angle), np.sin(angle)), axis=-1)
