"""Options of scripts: parsed by tyro, then checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import tyro

from smp.utils.limits import check_limits

T = TypeVar("T")


def parse(kind: type[T], args: Sequence[str] | None = None, **tyro_options: Any) -> T:
  """Return the command line as a ``kind``, which is a dataclass.

  In options that are a `Path`, ``~/`` is the home folder, also where no shell saw it.

  Args:
    kind: The dataclass.
    args: Words; None: those of the command line.
    tyro_options: As for ``tyro.cli``. The description is the docstring of ``kind``
      unless another is given.

  Raises:
    UserError: A number is not finite or outside its limits. The message names the option.
    SystemExit: With code 2, for all that tyro refuses.
  """
  options = tyro.cli(kind, args=args, **{"description": kind.__doc__, **tyro_options})
  check_limits(options)
  return expand_home(options)


def expand_home(options: T) -> T:
  """Return a dataclass, and those in it, with ``~/`` at the beginning of paths expanded."""
  table, found = cast(Any, options), {}
  for field in dataclasses.fields(table):
    value = getattr(table, field.name)
    if dataclasses.is_dataclass(value):
      found[field.name] = expand_home(value)
    elif isinstance(value, Path):
      found[field.name] = _expanded(value)
    elif isinstance(value, tuple) and any(isinstance(each, Path) for each in value):
      found[field.name] = tuple(
        _expanded(each) if isinstance(each, Path) else each for each in value
      )
  return dataclasses.replace(table, **found)


def _expanded(path: Path) -> Path:
  """Return a path without ``~/``; ``~name`` stays, as a file may be called so."""
  return path.expanduser() if path.parts[:1] == ("~",) else path
