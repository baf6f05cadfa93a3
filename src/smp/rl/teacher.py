"""A trained policy as the teacher of an actor that observes less, or of another task.

A teacher reads the observations of the critic, which are exact and complete, so it may
know what its pupil does not, such as the velocity of the pelvis. A policy of the same
task and observations reads what its pupil does, noise included, so that a pupil that
begins as its teacher stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import list_tasks, load_env_cfg
from torch import Tensor, nn

from smp.errors import UserError
from smp.mdp.observations import STYLE
from smp.rl.actor import Actor
from smp.rl.actor_layout import GROUP, ActorLayout
from smp.rl.command_translation import (
  VELOCITY_KINDS,
  Translation,
  find_translation,
  kinds_of_command,
)
from smp.rl.policy_file import load_trained

COMMAND = "command"


class Teacher(nn.Module):
  """An actor that reads its observations from those of a critic.

  Args:
    actor: The trained actor, without gradients.
    before, after: (O',) columns of the critic's observations that are the actor's
      before its command, and after it.
    command: Columns of the command among the critic's observations.
    translation: Makes the actor's command of it.
  """

  before: Tensor
  after: Tensor

  def __init__(
    self,
    actor: Actor,
    before: Tensor,
    after: Tensor,
    command: slice,
    translation: Translation,
  ) -> None:
    super().__init__()
    self.actor, self.command, self.translation = actor, command, translation
    self.register_buffer("before", before)
    self.register_buffer("after", after)

  def forward(self, obs: Tensor, critic_obs: Tensor) -> Tensor:
    """Return the teacher's actions (N, A) for critic observations (N, C).

    Args:
      obs: (N, O), the pupil's; not read.
      critic_obs: (N, C).
    """
    del obs
    command = self.translation.translate(critic_obs[:, self.command])
    before, after = (
      critic_obs.index_select(-1, each) for each in (self.before, self.after)
    )
    return self.actor(torch.cat((before, command, after), dim=-1))

  def suits(self, critic_obs: Tensor) -> Tensor:
    """Return in which observations (N, C) its command can be followed (N,), bool."""
    return self.translation.suits(critic_obs[:, self.command])


class Peer(nn.Module):
  """An actor that observes what its pupil does.

  Args:
    actor: The trained actor, without gradients.
  """

  def __init__(self, actor: Actor) -> None:
    super().__init__()
    self.actor = actor

  def forward(self, obs: Tensor, critic_obs: Tensor) -> Tensor:
    """Return its actions (N, A) for observations (N, O); the critic's are not read."""
    del critic_obs
    return self.actor(obs)

  def suits(self, critic_obs: Tensor) -> Tensor:
    """Return that it can follow the command in all observations (N, C) (N,), bool."""
    return torch.ones_like(critic_obs[:, 0], dtype=torch.bool)


class Limited(nn.Module):
  """A teacher that is asked for some kinds of command only.

  Args:
    teacher: Asked for what it can follow among them.
    kinds: Names of `VELOCITY_KINDS`.
    command: Columns of the velocity command among the critic's observations.
  """

  def __init__(
    self, teacher: Teacher | Peer, kinds: Sequence[str], command: slice
  ) -> None:
    super().__init__()
    self.teacher, self.command = teacher, command
    self.kinds = [VELOCITY_KINDS[kind] for kind in kinds]

  def forward(self, obs: Tensor, critic_obs: Tensor) -> Tensor:
    """Return the teacher's actions (N, A) for (N, O) and the critic's (N, C)."""
    return self.teacher(obs, critic_obs)

  def suits(self, critic_obs: Tensor) -> Tensor:
    """Return which commands of (N, C) are of its kinds and can be followed (N,)."""
    command = critic_obs[:, self.command]
    chosen = torch.stack([kind(command) for kind in self.kinds]).any(dim=0)
    return chosen & self.teacher.suits(critic_obs)


class Teachers(nn.Module):
  """Several teachers, of which the first acts that can follow the command.

  Args:
    teachers: In order; the last one acts wherever no other does.
  """

  def __init__(self, teachers: Sequence[Teacher | Peer | Limited]) -> None:
    super().__init__()
    self.teachers = nn.ModuleList(teachers)

  def forward(self, obs: Tensor, critic_obs: Tensor) -> Tensor:
    """Return the actions (N, A) of the teachers.

    Args:
      obs: (N, O), observations of their pupil.
      critic_obs: (N, C), of the critic.
    """
    *others, last = cast(list[Teacher | Peer | Limited], list(self.teachers))
    action = last(obs, critic_obs)
    for teacher in reversed(others):
      chosen = teacher.suits(critic_obs).unsqueeze(-1)
      action = torch.where(chosen, teacher(obs, critic_obs), action)
    return action


def load_teachers(paths: str, env: ManagerBasedRlEnv) -> nn.Module:
  """Return the policies of files as the teachers of an environment's actor.

  Args:
    paths: Policy files, separated by commas. Each is asked for the commands that it can
      follow and that no earlier one can; the last one for all that remain. With
      "FILE@aside+turn" a file is asked for these `VELOCITY_KINDS` only.
    env: As for `load_teacher`.

  Raises:
    UserError: As `load_teacher`; or a name is empty; or a kind is unknown, the command
      is none of velocity, or the last file is limited.
  """
  names = [name.strip() for name in paths.split(",")]
  parts = [_split_kinds(name) for name in names]
  if not all(name for name, _ in parts):
    raise UserError(f"--agent.teacher {paths}: a file's name is missing")
  for word, (_, kinds) in zip(names, parts, strict=True):
    _check_kinds(word, kinds, env)
  if parts[-1][1]:
    raise UserError(
      f"--agent.teacher {names[-1]}: the last file is asked for every command that "
      f"remains; give it without @{'+'.join(parts[-1][1])}, or another after it"
    )
  teachers: list[Teacher | Peer | Limited] = []
  for name, kinds in parts:
    teacher = load_teacher(name, env)
    if kinds:
      teachers.append(Limited(teacher, kinds, slice(*critic_columns(env)[COMMAND])))
    else:
      teachers.append(teacher)
  return teachers[0] if len(teachers) == 1 else Teachers(teachers)


def _split_kinds(name: str) -> tuple[str, list[str]]:
  """Return a file's name and the kinds of command after its "@", if there are any.

  A file whose name has an "@" of its own is taken as it is if it exists.
  """
  if "@" not in name or Path(name).exists():
    return name, []
  path, _, kinds = name.rpartition("@")
  return path.strip(), [kind.strip() for kind in kinds.split("+")]


def _check_kinds(word: str, kinds: Sequence[str], env: ManagerBasedRlEnv) -> None:
  """Raise an error for kinds of command that this task's command does not have.

  Args:
    word: File and kinds, as they were given.
    kinds: Those kinds.
    env: The environment.

  Raises:
    UserError: The message names the first, and the kinds that there are.
  """
  known = kinds_of_command(env.cfg.commands.get(COMMAND))
  if kinds and not known:
    raise UserError(
      f"--agent.teacher {word}: the command of this task has no kinds; "
      "give the file alone"
    )
  for kind in kinds:
    if kind not in known:
      raise UserError(
        f"--agent.teacher {word}: unknown kind {kind!r} of command; "
        f"there are {', '.join(known)}"
      )


def load_teacher(
  path: str | os.PathLike[str], env: ManagerBasedRlEnv
) -> Teacher | Peer:
  """Return the policy of a file as the teacher of an environment's actor.

  Args:
    path: A policy file, of this task or of one whose command can be made of this task's.
    env: The environment; its critic observes one exact frame.

  Raises:
    UserError: The file is missing or damaged; or the policy observes what the critic
      does not, or several frames but not what its pupil does; or its command cannot be
      made of this task's.
  """
  trained = load_trained(path, device=str(env.device))
  task = trained.card.get("task")
  if not isinstance(task, str):
    raise UserError(
      f"{path}: a checkpoint that does not name its task; write a policy file of it with "
      "scripts/package_policy.py"
    )
  if task not in list_tasks():
    raise UserError(f"{path}: a policy of {task}, which is no task here")
  layout = ActorLayout.read(path) or ActorLayout.of(load_env_cfg(task))
  theirs, ours = load_env_cfg(task).commands.get(COMMAND), env.cfg.commands.get(COMMAND)
  if layout == ActorLayout.of(env.cfg) and type(theirs) is type(ours):
    (width,) = cast(tuple[int], env.observation_manager.group_obs_dim[GROUP])
    _check_sizes(path, trained.actor, width, env)
    return Peer(trained.actor).to(env.device)
  if layout.history > 1:
    raise UserError(
      f"{path}: observes {layout.history} frames, which may only teach a policy of the "
      "same task that observes the same"
    )
  spans = critic_columns(env)
  missing = [name for name in layout.terms if name not in spans]
  if missing:
    raise UserError(
      f"{path}: observes '{missing[0]}', which the critic of this task does not"
    )
  if COMMAND not in layout.terms:
    raise UserError(f"{path}: observes no command, as a teacher does")
  translation = find_translation(ours, theirs)
  if translation is None:
    raise UserError(
      f"{path}: a policy of {task}, whose command cannot be made of this task's"
    )
  columns = {name: list(range(*spans[name])) for name in layout.terms}
  if STYLE in columns:
    columns[STYLE] = _style_columns(path, columns[STYLE], layout.styles, env)
  place = layout.terms.index(COMMAND)
  before, after = (
    torch.tensor([c for name in names for c in columns[name]], dtype=torch.long)
    for names in (layout.terms[:place], layout.terms[place + 1 :])
  )
  command = slice(*spans[COMMAND])
  asked = torch.zeros(1, command.stop - command.start)
  said = translation.translate(asked).shape[-1]
  _check_sizes(path, trained.actor, len(before) + said + len(after), env)
  teacher = Teacher(trained.actor, before, after, command, translation)
  return teacher.to(env.device)


def _style_columns(
  path: str | os.PathLike[str],
  columns: list[int],
  styles: Sequence[str],
  env: ManagerBasedRlEnv,
) -> list[int]:
  """Return the columns of an environment's styles in a teacher's order.

  Args:
    path: The teacher's file.
    columns: Columns of the environment's styles, in its own order.
    styles: The teacher's.
    env: The environment, which observes styles.

  Raises:
    UserError: They are not the same styles.
  """
  ours = ActorLayout.of(env.cfg).styles
  if sorted(ours) != sorted(styles):
    raise UserError(
      f"{path}: knows the styles {','.join(styles)}; give "
      f"--env.commands.smp.styles these, not {','.join(ours)}"
    )
  return [columns[ours.index(name)] for name in styles]


def _check_sizes(
  path: str | os.PathLike[str], actor: Actor, width: int, env: ManagerBasedRlEnv
) -> None:
  """Raise an error for an actor of other than ``width`` observations, or other actions.

  Raises:
    UserError: The message names both sizes.
  """
  sizes = (width, env.action_manager.total_action_dim)
  if (actor.sizes[0], actor.sizes[-1]) != sizes:
    raise UserError(
      f"{path}: has {actor.sizes[0]} observations and {actor.sizes[-1]} "
      f"actions, expected {sizes[0]} and {sizes[1]}"
    )


def critic_columns(env: ManagerBasedRlEnv) -> dict[str, tuple[int, int]]:
  """Return the first and the last column plus one of each term of the critic."""
  manager, first = env.observation_manager, 0
  spans = {}
  dims = cast(list[tuple[int, ...]], manager.group_obs_term_dim["critic"])
  for name, (width,) in zip(manager.active_terms["critic"], dims, strict=True):
    spans[name] = (first, first + width)
    first += width
  return spans
