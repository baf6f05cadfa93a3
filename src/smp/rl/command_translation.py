"""Commands of one task said in the words of another: what a teacher of it is told.

Commands are those in the environment's observations, in the present heading frame. The
bounds and times belong to the shipped policies: measure them again when those change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from smp.mdp.commands import (
  ComponentCommandCfg,
  LocationCommandCfg,
  SpeedCommandCfg,
  SteeringCommandCfg,
  VelocityCommandCfg,
)

GOAL_TIME = 1.2
"""Time ahead, s: the goal of a teacher of Smp-Location-G1 is where the commanded motion
leads in this time. The shipped policy walks in about this time to where a goal is that
stays ahead of it."""

LEAD_TIME = 0.4
"""Time ahead, s: a teacher of Smp-Forward-G1 is to go where the commanded yaw rate has
turned the heading to in this time. The shipped policy lags about so far behind."""
STRAIGHT, GENTLE, MIN_SPEED = math.radians(12.0), 0.6, 0.15
"""What such a teacher is asked for if there is another one: at most the first angle
between heading and travel, rad, of which it knows nothing, and the second yaw rate, rad/s,
at which it still does not fall; and at least the third speed, m/s."""
AHEAD = math.radians(20.0)
"""Largest angle between heading and travel that a teacher of Smp-Location-G1, which faces
where it goes, is asked for if there is another teacher."""
FACING_TIME = 1.2
"""Time ahead, s: a teacher of Smp-Steering-G1 is to face where the commanded yaw rate leads
in this time. The shipped policy lags about so far behind at slow turns."""
MAX_FACING = 0.95
"""Largest angle between heading and facing of such a teacher, rad, at which the shipped
policy turns by about 1.4 rad/s."""
ASIDE = math.radians(60.0)
"""Smallest angle between heading and travel that such a teacher is asked for if there is
a later one."""
FAST_SPEED = 2.25
"""Least speed of a fast velocity command, m/s."""
TURN_TIME = 0.2
"""Time ahead, s, at whose heading the velocity of such a teacher is commanded."""

MAX_TURN = math.radians(30.0)
"""Largest angle between heading and travel that a teacher of Smp-Forward-G1 is told on the
way to a goal, rad, so that it turns in an arc. The policy of several styles never fell at
30 degrees after its first second, and at 60 it did in nine of ten episodes."""
APPROACH, ARC_SPEED, TOP_SPEED = 1.0, 1.0, 2.0
"""Speed of such a teacher for each metre to the goal, 1/s; its largest speed in an arc and
straight ahead, m/s: the second is the largest that it was trained at."""
LEAST_SPEED, AT_GOAL = 0.5, 0.4
"""Its least speed, m/s, likewise, and the distance from the goal, m, within which it is
told to stand."""


@dataclass(frozen=True)
class Translation:
  """How a teacher is told a command of another task."""

  translate: Callable[[Tensor], Tensor]
  """Returns the commands of the teacher's task (N, D) for commands (N, C)."""

  suits: Callable[[Tensor], Tensor] = lambda command: torch.ones_like(
    command[:, 0], dtype=torch.bool
  )
  """Returns which commands (N, C) the teacher can follow (N,), bool."""


def travel_of_velocity(command: Tensor) -> Tensor:
  """Return the direction and the speed that make a forward velocity and a yaw rate.

  Args:
    command: (N, 3), vx, vy, m/s, heading frame, and yaw rate, rad/s. Of vy nothing but
      the speed is kept: whoever is told to go sideways turns there.

  Returns:
    (N, 3): direction of travel, unit vector in the present heading frame; speed, m/s.
  """
  vx, vy, yaw_rate = command.unbind(dim=-1)
  angle = LEAD_TIME * yaw_rate
  return torch.stack((angle.cos(), angle.sin(), torch.hypot(vx, vy)), dim=-1)


def leads_straight(command: Tensor) -> Tensor:
  """Return which velocity commands (N, 3) lead nearly straight ahead (N,), bool."""
  vx, vy, yaw_rate = command.unbind(dim=-1)
  straight = (vx >= MIN_SPEED) & (vy.abs() <= math.tan(STRAIGHT) * vx)
  return straight & (yaw_rate.abs() <= GENTLE)


def goal_of_velocity(command: Tensor) -> Tensor:
  """Return where a constant velocity and yaw rate lead in `GOAL_TIME`.

  It is the end of the chord of a circular arc, which leaves the present heading by half
  of the angle that is turned through.

  Args:
    command: (N, 3), vx, vy, m/s, heading frame, and yaw rate, rad/s.

  Returns:
    (N, 2), m, in the present heading frame. The arc is taken to be as long as its chord.
  """
  vx, vy, yaw_rate = command.unbind(dim=-1)
  angle = 0.5 * GOAL_TIME * yaw_rate
  cos, sin = angle.cos(), angle.sin()
  return GOAL_TIME * torch.stack((cos * vx - sin * vy, sin * vx + cos * vy), dim=-1)


def leads_ahead(command: Tensor) -> Tensor:
  """Return which velocity commands (N, 3) lead ahead, or are zero (N,), bool."""
  vx, vy, yaw_rate = command.unbind(dim=-1)
  ahead = (vx > 0.0) & (vy.abs() <= math.tan(AHEAD) * vx)
  return ahead | ((vx == 0.0) & (vy == 0.0) & (yaw_rate == 0.0))


def steering_of_velocity(command: Tensor) -> Tensor:
  """Return a direction, a speed and a facing that make a velocity and a yaw rate.

  Args:
    command: (N, 3), vx, vy, m/s, heading frame, and yaw rate, rad/s.

  Returns:
    (N, 5): direction of travel, unit vector; speed, m/s; facing, unit vector; both in
    the present heading frame.
  """
  vx, vy, yaw_rate = command.unbind(dim=-1)
  speed = torch.hypot(vx, vy)
  direction = torch.atan2(vy, vx) + TURN_TIME * yaw_rate
  facing = (FACING_TIME * yaw_rate).clamp(-MAX_FACING, MAX_FACING)
  return torch.stack(
    (direction.cos(), direction.sin(), speed, facing.cos(), facing.sin()), dim=-1
  )


def goal_of_speed(command: Tensor) -> Tensor:
  """Return where a speed in a direction leads in `GOAL_TIME`.

  Args:
    command: (N, 3), direction, unit vector in the present heading frame; speed, m/s.

  Returns:
    (N, 2), m, in the present heading frame.
  """
  return GOAL_TIME * command[:, 2:] * command[:, :2]


def travel_of_goal(command: Tensor) -> Tensor:
  """Return the direction and the speed that lead to a goal.

  Args:
    command: (N, 2), the goal, m, in the present heading frame.

  Returns:
    (N, 3): direction of travel, unit vector in the present heading frame, at most
    `MAX_TURN` aside; speed, m/s. At the goal: ahead, and zero.
  """
  distance = command.norm(dim=-1)
  aside = torch.atan2(command[:, 1], command[:, 0])
  arrived = distance < AT_GOAL
  angle = aside.clamp(-MAX_TURN, MAX_TURN).masked_fill(arrived, 0.0)
  speed = (APPROACH * distance).clamp(LEAST_SPEED, TOP_SPEED)
  speed = torch.where(aside.abs() > MAX_TURN, speed.clamp(max=ARC_SPEED), speed)
  speed = speed.masked_fill(arrived, 0.0)
  return torch.stack((angle.cos(), angle.sin(), speed), dim=-1)


def stands(command: Tensor) -> Tensor:
  """Return which directions and speeds (N, 3) have a speed of zero (N,), bool."""
  return command[:, 2] == 0.0


def leads_aside(command: Tensor) -> Tensor:
  """Return which velocity commands (N, 3) lead sideways or backward (N,), bool."""
  vx, vy, _ = command.unbind(dim=-1)
  moves = torch.hypot(vx, vy) >= MIN_SPEED
  return moves & (vx <= math.cos(ASIDE) * torch.hypot(vx, vy))


def turns_on_the_spot(command: Tensor) -> Tensor:
  """Return which velocity commands (N, 3) are to turn and not to go (N,), bool."""
  vx, vy, yaw_rate = command.unbind(dim=-1)
  return (torch.hypot(vx, vy) < MIN_SPEED) & (yaw_rate != 0.0)


def is_fast(command: Tensor) -> Tensor:
  """Return which velocity commands (N, 3) ask for `FAST_SPEED` or more (N,), bool."""
  return torch.hypot(command[:, 0], command[:, 1]) >= FAST_SPEED


VELOCITY_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
  "stand": lambda command: (command == 0.0).all(dim=-1),
  "turn": turns_on_the_spot,
  "aside": leads_aside,
  "straight": leads_straight,
  "fast": is_fast,
}
"""Kinds of a velocity command, for which one of several teachers can be asked: each
returns which commands (N, 3) are of it (N,), bool. A command may be of several or none."""


def kinds_of_command(cfg: object) -> dict[str, Callable[[Tensor], Tensor]]:
  """Return the kinds that commands with the settings ``cfg`` have; none: an empty one."""
  return _KINDS.get(type(cfg), {})


_KINDS: dict[type, dict[str, Callable[[Tensor], Tensor]]] = {
  VelocityCommandCfg: VELOCITY_KINDS,
}
"""By the class of the command."""


_TRANSLATIONS: dict[tuple[type, type], Translation] = {
  (VelocityCommandCfg, SpeedCommandCfg): Translation(
    travel_of_velocity, leads_straight
  ),
  (VelocityCommandCfg, LocationCommandCfg): Translation(goal_of_velocity, leads_ahead),
  (VelocityCommandCfg, SteeringCommandCfg): Translation(
    steering_of_velocity, leads_aside
  ),
  (SpeedCommandCfg, LocationCommandCfg): Translation(goal_of_speed, stands),
  (LocationCommandCfg, SpeedCommandCfg): Translation(travel_of_goal),
}
"""By the class of the pupil's command and that of the teacher's."""


def find_translation(ours: object, theirs: object) -> Translation | None:
  """Return how a teacher whose command has the settings ``theirs`` is told ``ours``.

  None: its command cannot be made of ours.
  """
  if isinstance(theirs, ComponentCommandCfg) and type(ours) is type(theirs):
    return Translation(lambda command: command)
  return _TRANSLATIONS.get((type(ours), type(theirs)))
