"""A trained policy as the teacher of an actor that observes less, or of another task.

The teacher reads the observations of the critic, which are exact and complete, so it may
know what its pupil does not, such as the velocity of the pelvis.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg
from torch import Tensor, nn

from smp.errors import UserError
from smp.mdp.commands import (
  ComponentCommandCfg,
  LocationCommandCfg,
  SpeedCommandCfg,
  SteeringCommandCfg,
  VelocityCommandCfg,
)
from smp.rl.actor import Actor
from smp.rl.actor_layout import ActorLayout
from smp.rl.policy_file import load_trained

COMMAND = "command"
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
TURN_TIME = 0.2
"""Time ahead, s, at whose heading the velocity of such a teacher is commanded."""


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


_TRANSLATIONS: dict[tuple[type, type], Translation] = {
  (VelocityCommandCfg, SpeedCommandCfg): Translation(
    travel_of_velocity, leads_straight
  ),
  (VelocityCommandCfg, LocationCommandCfg): Translation(goal_of_velocity, leads_ahead),
  (VelocityCommandCfg, SteeringCommandCfg): Translation(steering_of_velocity),
}
"""By the class of the pupil's command and that of the teacher's."""


class Teacher(nn.Module):
  """An actor that reads its observations from those of a critic.

  Args:
    actor: The trained actor, without gradients.
    columns: (O',) columns of the critic's observations that are the actor's before its
      command.
    command: Columns of the command among the critic's observations.
    translation: Makes the actor's command of it.
  """

  columns: Tensor

  def __init__(
    self, actor: Actor, columns: Tensor, command: slice, translation: Translation
  ) -> None:
    super().__init__()
    self.actor, self.command, self.translation = actor, command, translation
    self.register_buffer("columns", columns)

  def forward(self, critic_obs: Tensor) -> Tensor:
    """Return the teacher's actions (N, A) for critic observations (N, C)."""
    command = self.translation.translate(critic_obs[:, self.command])
    seen = critic_obs.index_select(-1, self.columns)
    return self.actor(torch.cat((seen, command), dim=-1))

  def suits(self, critic_obs: Tensor) -> Tensor:
    """Return in which observations (N, C) its command can be followed (N,), bool."""
    return self.translation.suits(critic_obs[:, self.command])


class Teachers(nn.Module):
  """Several teachers, of which the first acts that can follow the command.

  Args:
    teachers: In order; the last one acts wherever no other does.
  """

  def __init__(self, teachers: Sequence[Teacher]) -> None:
    super().__init__()
    self.teachers = nn.ModuleList(teachers)

  def forward(self, critic_obs: Tensor) -> Tensor:
    """Return the actions (N, A) of the teachers for critic observations (N, C)."""
    *others, last = cast(list[Teacher], list(self.teachers))
    action = last(critic_obs)
    for teacher in reversed(others):
      chosen = teacher.suits(critic_obs).unsqueeze(-1)
      action = torch.where(chosen, teacher(critic_obs), action)
    return action


def load_teachers(paths: str, env: ManagerBasedRlEnv) -> nn.Module:
  """Return the policies of files as the teachers of an environment's actor.

  Args:
    paths: Policy files, separated by commas. Each is asked for the commands that it can
      follow and that no earlier one can; the last one for all that remain.
    env: As for `load_teacher`.

  Raises:
    UserError: As `load_teacher`; or a name is empty.
  """
  names = [name.strip() for name in paths.split(",")]
  if not all(names):
    raise UserError(f"--agent.teacher {paths}: a file's name is missing")
  teachers = [load_teacher(name, env) for name in names]
  return teachers[0] if len(teachers) == 1 else Teachers(teachers)


def load_teacher(path: str | os.PathLike[str], env: ManagerBasedRlEnv) -> Teacher:
  """Return the policy of a file as the teacher of an environment's actor.

  Args:
    path: A policy file, of this task or of one whose command can be made of this task's.
    env: The environment; its critic observes one exact frame.

  Raises:
    UserError: The file is missing or damaged; or the policy observes what the critic
      does not, or several frames; or its command cannot be made of this task's.
  """
  trained = load_trained(path, device=str(env.device))
  task = trained.card.get("task")
  if not isinstance(task, str):
    raise UserError(
      f"{path}: a checkpoint, which does not name its task; write a policy file of it "
      "with scripts/package_policy.py"
    )
  layout = ActorLayout.read(path) or ActorLayout.of(load_env_cfg(task))
  if layout.history > 1:
    raise UserError(
      f"{path}: observes {layout.history} frames; a teacher may observe one"
    )
  spans = critic_columns(env)
  missing = [name for name in layout.terms if name not in spans]
  if missing:
    raise UserError(
      f"{path}: observes '{missing[0]}', which the critic of this task does not"
    )
  if layout.terms[-1] != COMMAND:
    raise UserError(f"{path}: its last observation is not a command, as a teacher's is")
  translation = _translation(path, task, env)
  columns = [c for name in layout.terms[:-1] for c in range(*spans[name])]
  command = slice(*spans[COMMAND])
  asked = torch.zeros(1, command.stop - command.start)
  said = translation.translate(asked).shape[-1]
  sizes = (len(columns) + said, env.action_manager.total_action_dim)
  if (trained.actor.sizes[0], trained.actor.sizes[-1]) != sizes:
    raise UserError(
      f"{path}: has {trained.actor.sizes[0]} observations and {trained.actor.sizes[-1]} "
      f"actions, expected {sizes[0]} and {sizes[1]}"
    )
  teacher = Teacher(trained.actor, torch.tensor(columns), command, translation)
  return teacher.to(env.device)


def critic_columns(env: ManagerBasedRlEnv) -> dict[str, tuple[int, int]]:
  """Return the first and the last column plus one of each term of the critic."""
  manager, first = env.observation_manager, 0
  spans = {}
  dims = cast(list[tuple[int, ...]], manager.group_obs_term_dim["critic"])
  for name, (width,) in zip(manager.active_terms["critic"], dims, strict=True):
    spans[name] = (first, first + width)
    first += width
  return spans


def _translation(
  path: str | os.PathLike[str], task: str, env: ManagerBasedRlEnv
) -> Translation:
  theirs = load_env_cfg(task).commands.get(COMMAND)
  ours = env.cfg.commands.get(COMMAND)
  if isinstance(theirs, ComponentCommandCfg) and type(ours) is type(theirs):
    return Translation(_the_same)
  found = _TRANSLATIONS.get((type(ours), type(theirs)))
  if found is None:
    raise UserError(
      f"{path}: a policy of {task}, whose command cannot be made of this task's"
    )
  return found


def _the_same(command: Tensor) -> Tensor:
  return command
