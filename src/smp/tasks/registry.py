"""Registry of the tasks, and what the rest of the program asks of them by id."""

from __future__ import annotations

from pathlib import Path

from mjlab.tasks.registry import register_mjlab_task

from smp import paths
from smp.episodes.protocol import EvalProtocol
from smp.errors import UserError
from smp.rl.learners import runner_for
from smp.rl.ppo import ppo_cfg
from smp.tasks.spec import TaskSpec

_SPECS: dict[str, TaskSpec] = {}


def register_task(spec: TaskSpec) -> None:
  """Register a task with this project and with mjlab.

  Raises:
    ValueError: Its id is taken.
  """
  register_mjlab_task(
    task_id=spec.id,
    env_cfg=spec.env_cfg(),
    play_env_cfg=spec.env_cfg(play=True),
    rl_cfg=ppo_cfg(spec.experiment),
    runner_cls=runner_for(spec.id),
  )
  _SPECS[spec.id] = spec


def all_tasks() -> tuple[TaskSpec, ...]:
  """Return this project's tasks in the order in which they were registered."""
  return tuple(_SPECS.values())


def find_task(task: str) -> TaskSpec:
  """Return a task of this project by its id.

  Raises:
    UserError: There is none, though mjlab may know one.
  """
  if task not in _SPECS:
    raise UserError(
      f"no protocol to evaluate '{task}'; only tasks of this project have one"
    )
  return _SPECS[task]


def discount_of(task: str) -> float:
  """Return the off-policy learner's discount; a task without a specification's own."""
  return _SPECS[task].discount if task in _SPECS else TaskSpec.discount


def learned_after(task: str) -> float | None:
  """Return after how many environment steps a task is learned; None: not known."""
  return _SPECS[task].learned_after if task in _SPECS else None


def protocol_of(task: str, seconds: float | None = None) -> EvalProtocol:
  """Return the protocol of a task.

  Args:
    task: Id of the task.
    seconds: A shorter (or longer) episode than the standard one, which is noted.

  Raises:
    UserError: The task has no protocol, or the time is too short.
  """
  return find_task(task).protocol.lasting(seconds)


def policy_path(task: str) -> Path:
  """Return the path of the shipped policy of a task, whether or not it exists.

  For a task of mjlab's own it is the path of a file named by the task's id.
  """
  name = _SPECS[task].policy if task in _SPECS else task.lower()
  return paths.POLICIES / f"{name}.pt"
