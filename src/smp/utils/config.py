"""Configuration files: YAML tables of dataclass fields that differ from the default."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from smp.errors import UserError, one_line
from smp.paths import ROOT
from smp.utils.schema import read_as

Cfg = TypeVar("Cfg")


class _Loader(yaml.SafeLoader):
  """YAML loader that reads words and numbers as people mean them.

  YAML 1.1 takes 010 as eight, 1:30 as ninety, no as false, 2024-01-01 as a date, 3e-4 as
  text. Here keys are text as they stand; true and false alone are no text, and numbers
  are decimal (or 0x...), with e or without. All else is text, which is refused where a
  number is expected.

  A key that stands twice in a table is an error: readers differ in which they take.
  """

  # By the first character; null and the merge of tables stay as they are.
  yaml_implicit_resolvers = {
    first: [
      (tag, pattern)
      for tag, pattern in known
      if tag.rpartition(":")[2] not in ("bool", "int", "float", "timestamp")
    ]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
  }

  def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
    """Return a table; raise an error for a key that stands in it twice."""
    seen: set[str] = set()
    for key, _ in node.value:
      if isinstance(key, yaml.ScalarNode):
        if key.value in seen:
          raise yaml.constructor.ConstructorError(
            None, None, f"'{key.value}' stands twice", key.start_mark
          )
        seen.add(key.value)
    self.flatten_mapping(node)
    for key, _ in node.value:
      if isinstance(key, yaml.ScalarNode):
        key.tag = "tag:yaml.org,2002:str"
    return super().construct_mapping(node, deep)


_DIGITS = [*"+-0123456789"]
for _kind, _pattern, _first in (
  ("bool", r"(true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
  ("int", r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$", _DIGITS),
  ("float", r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$", _DIGITS),
  ("float", r"[-+]?(\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$", ["."]),
  ("float", r"[-+]?\.(inf|Inf|INF)$", ["+", "-"]),
  ("float", r"\.(nan|NaN|NAN)$", ["."]),
  ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+$", _DIGITS),
):
  _Loader.add_implicit_resolver(
    f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first
  )


def read_table(path: Path) -> dict[str, Any]:
  """Return the table in a YAML file of keys and values; an empty file has none.

  Raises:
    UserError: names the file: missing, not YAML, or not a table.
  """
  try:
    table = yaml.load(path.read_text(), _Loader)
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  except Exception as error:  # Also errors of bad dates, bytes, too many brackets.
    raise UserError(f"{path}: not valid YAML ({one_line(error)})") from error
  if table is None:
    return {}
  if not isinstance(table, dict):
    raise UserError(f"{path}: expected 'key: value' lines")
  return table


def check_keys(
  path: Path, table: dict[str, Any], known: Sequence[str], where: str = ""
) -> None:
  """Raise unless all keys are known.

  Raises:
    UserError: names the file, the key, and the nearest known one.
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
    UserError: names the file and the key: unreadable, unknown, or of another type.
  """
  table = read_table(path)
  hints = typing.get_type_hints(kind)
  check_keys(path, table, list(hints))
  for key, value in table.items():
    if typing.get_origin(hints[key]) is tuple and not isinstance(value, list):
      table[key] = [value]
  cfg = read_as(kind, table, path)
  found = {key: _from_checkout(getattr(cfg, key)) for key in table}
  return dataclasses.replace(typing.cast(Any, cfg), **found)


def _from_checkout(value: Any) -> Any:
  if isinstance(value, tuple):
    return tuple(map(_from_checkout, value))
  return ROOT / value.expanduser() if isinstance(value, Path) else value


def to_plain(cfg: Any) -> dict[str, Any]:
  """Return the fields of a dataclass in JSON types.

  Paths inside the checkout become relative to it.
  """
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
