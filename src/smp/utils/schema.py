"""Tables from files, read as dataclasses by pydantic; mistakes become one line.

A dataclass says what a file holds: types, and constraints as annotations. Nothing is
converted on the way: text is no number, and 1 is no truth value.
"""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from smp.errors import UserError, shown

T = TypeVar("T")

MAX_SIZE = 8192
"""Sizes beyond this in a file are a mistake, not a network."""
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
"""Of a layer, a window, or anything else of a network, in a file."""


def read_as(kind: type[T], value: Any, where: object, fix: str = "", at: str = "") -> T:
  """Return plain values (of JSON, YAML) as a dataclass, and what is in it likewise.

  Args:
    kind: The dataclass. Fields without a default must be there; others than its own are
      passed over, unless its ``__pydantic_config__`` forbids them.
    value: A table of its fields.
    where: What the message begins with: the file, and the entry in it.
    fix: What the message ends with.
    at: Name of the field that ``value`` is itself, if it is one.

  Raises:
    UserError: Naming where, the field, what was found and what is expected.
  """
  end = f"; {fix}" if fix else ""
  try:
    return _adapter(kind).validate_json(json.dumps(value, default=str), strict=True)
  except ValidationError as error:
    # Of the ways to read a union the one that got furthest says most.
    wrong = max(error.errors(), key=lambda found: len(found["loc"]))
    name = _field(at, wrong["loc"])
    if wrong["type"] == "missing":
      text = f"'{name}' is missing"
    elif wrong["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
      text = f"unknown field '{name}'"
    else:
      subject = f"'{name}' is {shown(wrong['input'])}" if name else "it is"
      text = f"{subject}, expected {_expected(wrong['msg'])}"
    raise UserError(f"{where}: {text}{end}") from None
  except (TypeError, ValueError, RecursionError) as error:
    raise UserError(f"{where}: not a table of plain values ({error}){end}") from None


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
  return TypeAdapter(kind)


def _field(at: str, place: tuple[int | str, ...]) -> str:
  """Return a place as a.b[3]; which way of a union was tried is left out."""
  name = at
  for part in place:
    if isinstance(part, int):
      name += f"[{part}]"
    elif part not in ("float", "int", "str") and "[" not in part:
      name += f".{part}" if name else part
  return name


def _expected(message: str) -> str:
  for start in ("Input should be ", "Value error, "):
    message = message.removeprefix(start)
  return message.replace("an object", "a table of fields")
