"""Parsing and validation of the task id on the command line."""

from __future__ import annotations

import difflib
import inspect
import sys

from smp.errors import UserError


def check_task(task: str) -> None:
  """Raise an error for a task that is not registered.

  Raises:
    UserError: The message names similar tasks, or all of them.
  """
  tasks, ours = _tasks()
  if task not in tasks:
    close = difflib.get_close_matches(task, tasks, n=1)
    hint = f"did you mean {close[0]}?" if close else f"tasks: {', '.join(ours)}"
    raise UserError(f"no task '{task}'; {hint}")


def _tasks() -> tuple[list[str], list[str]]:
  """Return all registered tasks, and those of this project."""
  import mjlab.tasks  # noqa: F401  Fills the registry with mjlab's own tasks.
  from mjlab.tasks.registry import list_tasks

  from smp.tasks.registry import all_tasks  # Adds our own tasks.

  return list_tasks(), [spec.id for spec in all_tasks()]


def check_words(arguments: list[str]) -> None:
  """Raise an error for an option with several words: a list is written as one word.

  Raises:
    UserError: The message shows how to write the list.
  """
  option, values = "", []
  for word in [*arguments, "--"]:
    if not word.startswith("--"):
      values.append(word)
      continue
    if option and len(values) > 1:
      ends = "[]" if option == "--gpu-ids" else "()"
      joined = ",".join(value.strip(",") for value in values)
      raise UserError(
        f"{option} {' '.join(values)}: write several values as one word, "
        f'{option} "{ends[0]}{joined}{ends[1]}"'
      )
    option, values = word, []


def task_from_argv(
  program: str, about: str | None, lists_in_one_word: bool = True
) -> tuple[str, list[str]]:
  """Return the task named first on the command line, and the arguments after it.

  Args:
    program: Name of the program, for the usage.
    about: Text of ``--help`` without a task: a sentence and an example.
    lists_in_one_word: Whether options take lists as mjlab's do, "(1,2)", not 1 2.

  Raises:
    UserError: There is no task, or none of that name.
  """
  arguments, (_, ours) = sys.argv[1:], _tasks()
  if not arguments or arguments[0] in ("-h", "--help"):
    print(f"{inspect.cleandoc(about or '')}\n\nusage: {program} TASK [OPTIONS]")
    print(f"Tasks: {', '.join(ours)}")
    print(f"Options of a task: {program} {ours[0]} --help")
    sys.exit(0 if arguments else 2)
  check_task(arguments[0])
  if lists_in_one_word:
    check_words(arguments[1:])
  return arguments[0], arguments[1:]
