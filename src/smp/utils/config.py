"""Configuration files: YAML tables of the fields of a dataclass that differ."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from smp.errors import UserError, shown
from smp.paths import ROOT

Cfg = TypeVar("Cfg")


def read_table(path: Path) -> dict[str, Any]:
  """A YAML file of keys and values; an empty file has none.

  Raises:
    UserError: Naming the file: missing, not YAML, or not a table.
  """
  try:
    table = yaml.safe_load(path.read_text())
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  except Exception as error:  # Beside YAML's own: bad dates, bytes, too many brackets.
    detail = " ".join(str(error).split())[:160]
    raise UserError(f"{path}: not valid YAML ({detail})") from error
  if table is None:
    return {}
  if not isinstance(table, dict):
    raise UserError(f"{path}: expected 'key: value' lines")
  return table


def check_keys(
  path: Path, table: dict[str, Any], known: Sequence[str], where: str = ""
) -> None:
  """Refuse keys that mean nothing.

  Raises:
    UserError: Naming the file, the key, and the nearest known one.
  """
  for key in table:
    if key not in known:
      close = difflib.get_close_matches(str(key), known, n=1)
      hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
      raise UserError(f"{path}: {where}unknown key '{key}'; {hint}")


def load_config(path: Path, kind: type[Cfg]) -> Cfg:
  """Read ``path`` as a ``kind``, a dataclass of plain fields that all have defaults.

  Relative paths in it start at the checkout, so that a shipped configuration works from
  any working directory.

  Raises:
    UserError: Naming the file and the key: unreadable, unknown, or of another type.
  """
  table = read_table(path)
  hints = typing.get_type_hints(kind)
  known = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
  values: dict[str, Any] = {}
  check_keys(path, table, known)
  for key, value in table.items():
    try:
      values[key] = _convert(value, hints[key])
    except (TypeError, ValueError, OverflowError, RuntimeError):
      raise UserError(
        f"{path}: '{key}' is {shown(value)}, expected {_describe(hints[key])}"
      ) from None
  return kind(**values)


def to_plain(cfg: Any) -> dict[str, Any]:
  """The fields of a dataclass in JSON types; paths inside the checkout from there."""
  return {
    field.name: _plain(getattr(cfg, field.name)) for field in dataclasses.fields(cfg)
  }


def _plain(value: Any) -> Any:
  if isinstance(value, Path):
    absolute = value.absolute()
    return str(absolute.relative_to(ROOT) if absolute.is_relative_to(ROOT) else value)
  if isinstance(value, tuple | list):
    return [_plain(item) for item in value]
  return value


def _convert(value: Any, hint: Any) -> Any:
  """``value`` as YAML gives it, as a ``hint``; ValueError or TypeError if it cannot."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (Union, types.UnionType):
    if value is None and type(None) in arguments:
      return None
    return _convert(value, next(a for a in arguments if a is not type(None)))
  if origin is Literal:
    if value not in arguments:
      raise ValueError
    return value
  if origin is tuple:
    items = value if isinstance(value, list) else [value]
    return tuple(_convert(item, arguments[0]) for item in items)
  if hint is Path:
    if not isinstance(value, str):
      raise TypeError
    return ROOT / Path(value).expanduser()
  if hint is float and not isinstance(value, bool):
    # YAML 1.1 reads 3e-4 as text.
    return float(value)
  if type(value) is not hint:
    raise TypeError
  return value


def _describe(hint: Any) -> str:
  if typing.get_origin(hint) is Literal:
    return " or ".join(map(str, typing.get_args(hint)))
  return getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
