"""Which tasks there are, and what the rest of the program asks of them by id."""

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
  """Make a task known to this project and to mjlab.

  Raises:
    ValueError: its id is taken.
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
    UserError: there is none, though mjlab may know one.
  """
  if task not in _SPECS:
    raise UserError(f"no protocol to evaluate '{task}' by; there is one for our tasks")
  return _SPECS[task]


def protocol_of(task: str, seconds: float | None = None) -> EvalProtocol:
  """Return the protocol of a task.

  Args:
    task: Its id.
    seconds: A shorter (or longer) episode than the standard one, which is noted.

  Raises:
    UserError: no protocol for that task, or no time.
  """
  return find_task(task).protocol.lasting(seconds)


def policy_path(task: str) -> Path:
  """Return where the shipped policy of a task is, if there is one.

  For a task of mjlab's own, where one of that id would be.
  """
  name = _SPECS[task].policy if task in _SPECS else task.lower()
  return paths.POLICIES / f"{name}.pt"
