"""Limits of options: annotations, and one check of all.

A field is annotated with one of the kinds below, or with a kind of its own
(``Annotated[int, Field(ge=2)]``). Numbers must be finite without being annotated;
infinity is what a maximum (``max_...``) may be, and a number whose default it is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from smp.errors import UserError, shown
from smp.utils.schema import expected

Count = Annotated[int, Field(ge=1)]
"""How many of something there are."""
WholeNumber = Annotated[int, Field(ge=0)]
SEEDS = 2**32
"""Number of seeds that numpy and torch both take."""
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
"""Seed of random numbers."""
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
RATES = (1.0, 1000.0)
"""Limits of frame rates, Hz; a rate in a file has the same."""


def _rate(value: float) -> float:
  if not RATES[0] <= value <= RATES[1]:
    raise ValueError(
      f"{RATES[0]:g} to {RATES[1]:g}: give rows per second, not seconds per row"
    )
  return value


FrameRate = Annotated[float, Field(), AfterValidator(_rate)]
"""Rows, or frames, per second."""
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Port = Annotated[int, Field(ge=0, le=65535)]
"""Port of a page; 0: any that is free."""

T = TypeVar("T")
_MAXIMUM = re.compile(r"(^|\.)max_[^.]*$")
"""Names of options that are a maximum."""
_TOP = re.compile(
  r"(^|[._])(max|maximum|limit)_[^.]*$|_(threshold|limit|after_samples)$"
)
"""The same in configurations of others, where infinity means that there is none."""
_BOTTOM = re.compile(r"(^|[._])(min|minimum)_[^.]*$")
_CLIP = re.compile(r"(^|\.)clip(\.|$)")
"""Names of pairs whose ends may be open."""
_RANGE = re.compile(r"(^|[._])ranges?(_s)?(\.[^.]*)?$")
"""Names of options, or of a table of options, that are the two ends of a range."""
_OMITTED = get_args(tyro.conf.OmitArgPrefixes[int])[1]
"""How tyro marks a dataclass whose name is no part of its options' names."""


@dataclasses.dataclass(frozen=True)
class Ending:
  """Annotation of a path to write: what its name may end in."""

  suffixes: tuple[str, ...]
  """In lower case, with the dot."""

  def check(self, path: Path, option: str) -> None:
    """Raise ``UserError`` for a path that ends in none of them."""
    if path.suffix.lower() not in self.suffixes:
      ends = " or ".join(self.suffixes)
      raise UserError(f"{option} {path}: give a name that ends in {ends}")


PictureFile = Annotated[Path, Ending((".png", ".pdf", ".svg"))]
TensorFile = Annotated[Path, Ending((".safetensors",))]
ArrayFile = Annotated[Path, Ending((".npz",))]
TableFile = Annotated[Path, Ending((".yaml", ".yml"))]
VideoFile = Annotated[Path, Ending((".mp4", ".gif"))]


def check_limits(options: Any, prefix: str = "") -> None:
  """Raise an error for the first option outside its limits, or a number that is not finite.

  Args:
    options: A dataclass; nested ones are checked too.
    prefix: Beginning of its options' names, as in "agent.".

  Raises:
    UserError: The message names the option, its value and what it must be.
  """
  for name, value, hint, usual in _fields(options, prefix):
    called = f"--{name.replace('_', '-')}"
    for number in value if isinstance(value, tuple | list) else (value,):
      endless = number == math.inf and _MAXIMUM.search(name) or value == usual
      if isinstance(number, float) and not math.isfinite(number) and not endless:
        raise UserError(f"{called} {number}: must be a finite number")
    if isinstance(value, Path):
      for ending in _find(hint, Ending):
        ending.check(value, called)
    if not _find(hint, FieldInfo):
      continue
    try:
      _adapter(hint).validate_python(value)
    except ValidationError as error:
      found = error.errors()[0]
      what = _in_short(expected(found["msg"]))
      raise UserError(f"{called} {shown(found['input'])}: must be {what}") from None


def check_rate(rate: float | None, option: str) -> None:
  """Raise ``UserError`` for a frame rate outside its limits; None is none."""
  try:
    if rate is not None:
      _rate(rate)
  except ValueError as error:
    raise UserError(f"{option} {rate}: must be {error}") from None


def check_changes(options: Any, usual: Any, prefix: str) -> None:
  """Raise an error for the first changed number that is none, or range that is reversed.

  For configurations of others, whose fields have no limits of ours.

  Args:
    options: Dataclasses and dicts within each other, as an environment's configuration.
    usual: The same before the change, in which all numbers are allowed.
    prefix: Beginning of its options' names, as in "env.".

  Raises:
    UserError: The message names the option, its value and what it must be.
  """
  for parts, value, before in _leaves(options, usual, (prefix.removesuffix("."),)):
    if repr(value) == repr(before):
      continue
    # Keys that are patterns of names stay as they are.
    dashed = (p.replace("_", "-") if p.isidentifier() else p for p in parts)
    called, name = f"--{'.'.join(dashed)}", ".".join(parts)
    several = isinstance(value, tuple | list)
    numbers = [each for each in (value if several else (value,)) if _is_number(each)]
    for index, number in enumerate(numbers):
      if isinstance(number, float) and not math.isfinite(number):
        open_end = several and len(value) == 2 and _CLIP.search(name)
        if open_end and number == (-math.inf, math.inf)[index]:
          continue
        if number != math.inf or not _TOP.search(name):
          if number != -math.inf or not _BOTTOM.search(name):
            raise UserError(f"{called} {number}: must be a finite number")
    if several and len(numbers) == len(value) == 2 and _RANGE.search(name):
      low, high = numbers
      if low > high:
        raise UserError(f"{called} ({low},{high}): give the lower end first")


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(
  options: Any, usual: Any, name: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
  """Yield name, value and former value of whatever holds no fields, keys or entries.

  A tuple of numbers or words is one value.
  """
  parts: dict[str, Any] | None = None
  if dataclasses.is_dataclass(options) and not isinstance(options, type):
    parts = {
      each.name: getattr(options, each.name) for each in dataclasses.fields(options)
    }
  elif isinstance(options, dict):
    parts = {str(key): value for key, value in options.items()}
  elif isinstance(options, tuple | list) and any(
    isinstance(each, dict) or dataclasses.is_dataclass(each) for each in options
  ):
    parts = {str(index): each for index, each in enumerate(options)}
    usual = dict(enumerate(usual)) if isinstance(usual, tuple | list) else {}
    usual = {str(index): each for index, each in usual.items()}
  if parts is None:
    yield name, options, usual
    return
  for key, value in parts.items():
    before = usual.get(key) if isinstance(usual, dict) else getattr(usual, key, None)
    yield from _leaves(value, before, (*name, key))


def _in_short(limit: str) -> str:
  """Return a limit in words: "at least 1" for "greater than or equal to 1"."""
  for long, short in (
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "above"),
    ("less than", "below"),
  ):
    limit = limit.replace(long, short)
  return limit


def _fields(options: Any, prefix: str) -> Iterator[tuple[str, Any, Any, Any]]:
  """Yield name, value, type and default of all fields, nested dataclasses included."""
  hints = get_type_hints(type(options), include_extras=True)
  for field in dataclasses.fields(options):
    value, hint = getattr(options, field.name), hints[field.name]
    if dataclasses.is_dataclass(value):
      flat = _OMITTED in get_args(hint) or any(
        getattr(each, "name", None) == "" for each in get_args(hint)
      )
      yield from _fields(value, prefix if flat else f"{prefix}{field.name}.")
    else:
      yield f"{prefix}{field.name}", value, hint, field.default


def _find(hint: Any, kind: type[T]) -> list[T]:
  """Return the annotations of a kind in a type and in its parts."""
  found = [hint] if isinstance(hint, kind) else []
  return found + [each for part in get_args(hint) for each in _find(part, kind)]


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
  return TypeAdapter(hint)
