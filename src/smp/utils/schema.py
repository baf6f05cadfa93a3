"""Tables from files, validated as dataclasses by pydantic, with one-line errors.

A dataclass declares the contents of a file: types, and constraints as annotations. No
values are converted: text is not a number, and 1 is not a bool.
"""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from smp.errors import UserError, shown

T = TypeVar("T")

MAX_SIZE = 8192
"""Maximum size in a file; larger values are taken for mistakes."""
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
"""Size of a layer, a window, or another part of a network, in a file."""


def read_as(kind: type[T], value: Any, where: object, fix: str = "", at: str = "") -> T:
  """Return plain values (of JSON, YAML) as a dataclass, nested ones included.

  Args:
    kind: The dataclass. Fields without a default are required; unknown fields are
      ignored, unless its ``__pydantic_config__`` forbids them.
    value: A table of its fields.
    where: Beginning of the message: the file, and the entry in it.
    fix: End of the message.
    at: Name of the field that ``value`` itself is, if it is one.

  Raises:
    UserError: names the place, the field, the value found and the one expected.
  """
  end = f"; {fix}" if fix else ""
  try:
    return _adapter(kind).validate_json(json.dumps(value, default=str), strict=True)
  except ValidationError as error:
    # Of the members of a union, report the one that was validated furthest.
    wrong = max(error.errors(), key=lambda found: len(found["loc"]))
    name = _field(at, wrong["loc"])
    if wrong["type"] == "missing":
      text = f"'{name}' is missing"
    elif wrong["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
      text = f"unknown field '{name}'"
    else:
      subject = f"'{name}' is {shown(wrong['input'])}" if name else "it is"
      text = f"{subject}, expected {expected(wrong['msg'])}{_written(wrong)}"
    raise UserError(f"{where}: {text}{end}") from None
  except (TypeError, ValueError, RecursionError) as error:
    raise UserError(f"{where}: not a table of plain values ({error}){end}") from None


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
  return TypeAdapter(kind)


def _field(at: str, place: tuple[int | str, ...]) -> str:
  """Return a location as a.b[3], without the tried member of a union."""
  name = at
  for part in place:
    if isinstance(part, int):
      name += f"[{part}]"
    elif part not in ("float", "int", "str") and "[" not in part:
      name += f".{part}" if name else part
  return name


def _written(wrong: ErrorDetails) -> str:
  """Return how to write what is found as text, where its text suggests another type."""
  found, kind = wrong["input"], wrong["type"]
  if not isinstance(found, str):
    return ""
  if kind == "bool_type":
    return ", true or false"
  digits = found.lstrip("+-.")[:1].isdigit()
  return ", in plain digits" if digits and kind in ("int_type", "float_type") else ""


def expected(message: str) -> str:
  """Return what a message of pydantic says that a value should be."""
  for start in ("Input should be ", "Value error, "):
    message = message.removeprefix(start)
  return message.replace("an object", "a table of fields")
