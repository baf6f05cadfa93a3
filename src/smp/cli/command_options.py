"""Command options of a policy, generated from its own metadata."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, cast

import tyro

from smp.cli.options import parse
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError
from smp.utils.components import Component

_ONNX = ".onnx"


class CommandArgs(Protocol):
  """Options of a script that runs a policy."""

  @property
  def command(self) -> tuple[str, ...]:
    """Return the words of the form NAME=VALUE."""
    ...


Options = TypeVar("Options", bound=CommandArgs)


def parse_options(kind: type[Options]) -> Options:
  """Parse the command line as a ``kind``, which is a dataclass.

  Each component of the named policy has an option: --speed 1.5 is another form of
  --command speed=1.5.

  Raises:
    UserError: The policy cannot be read.
  """
  words, known = sys.argv[1:], {each.name for each in fields(cast(Any, kind))}
  spec = _policy(words)
  parts = [
    part
    for part in (spec.command if spec else ())
    if part.settable and part.name not in known
  ]
  if spec is not None:
    _refuse_unknown(words, spec.task, [part.name for part in parts], known)
  options: list[Any] = [
    (part.name, _option(part), field(default=None)) for part in parts
  ]
  full = make_dataclass(
    kind.__name__, options, bases=(kind,), frozen=True, kw_only=True
  )
  found = parse(full, words, description=kind.__doc__)
  values = {each: getattr(found, each) for each in known}
  named = {part.name: getattr(found, part.name) for part in parts}
  values["command"] += tuple(
    f"{name}={','.join(map(repr, _floats(value)))}"
    for name, value in named.items()
    if value is not None
  )
  return kind(**values)


def given_values(words: Iterable[str]) -> dict[str, tuple[float, ...]]:
  """Return the values by component of words like "speed=1.5" and "goal=2,3".

  Raises:
    UserError: A word has another form, or a component is given twice.
  """
  given: dict[str, tuple[float, ...]] = {}
  for word in words:
    name, equals, numbers = word.partition("=")
    try:
      values = tuple(float(number) for number in numbers.split(","))
    except ValueError:
      equals, values = "", ()
    if not equals or not name:
      raise UserError(
        f"--command {word}: write NAME=VALUE, as in speed=1.5 or goal=2,3"
      )
    if name in given:
      raise UserError(f"--command {word}: {name} is given twice")
    given[name] = values
  return given


def _policy(words: list[str]) -> PolicySpec | None:
  """Return the metadata of the policy among the words; None if none is named."""
  files = [word for word in words if Path(word).suffix == _ONNX]
  return OnnxPolicy(Path(files[0]).expanduser()).spec if files else None


def _refuse_unknown(
  words: list[str], task: str, parts: list[str], known: set[str]
) -> None:
  """Raise an error for an unknown option that lists what the task takes.

  Raises:
    UserError: The message names the option.
  """
  for word in words:
    name = word[2:].partition("=")[0].replace("-", "_")
    if not word.startswith("--") or name in {"help", *parts, *known}:
      continue
    close = difflib.get_close_matches(name, [*parts, *known], n=1)
    hint = f"; did you mean --{close[0].replace('_', '-')}?" if close else ""
    takes = ", ".join(f"--{part}" for part in parts) or "no command"
    raise UserError(f"--{name.replace('_', '-')}: {task} takes {takes}{hint}")


def _option(part: Component) -> Any:
  value = float if part.given_size == 1 else tuple[(float,) * part.given_size]
  text = f"{part.meaning.capitalize() or 'Commanded'}, {part.given_as}."
  return Annotated[value | None, tyro.conf.arg(help=text)]


def _floats(value: float | tuple[float, ...]) -> tuple[float, ...]:
  return value if isinstance(value, tuple) else (value,)
