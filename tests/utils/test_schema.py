"""What is wrong with a table is said in one line: where, which field, what it takes."""

from dataclasses import dataclass
from typing import Any

import pytest

from smp.errors import UserError
from smp.utils.schema import Size, read_as


@dataclass(frozen=True)
class Part:
  size: Size
  scale: float | tuple[float, ...] = 1.0


@dataclass(frozen=True)
class Whole:
  __pydantic_config__ = {"extra": "forbid"}

  name: str
  parts: tuple[Part, ...] = ()
  flag: bool = False


def test_a_table_becomes_the_dataclass():
  table = {"name": "a", "parts": [{"size": 2, "scale": [1, 2.5]}, {"size": 1}]}
  assert read_as(Whole, table, "f") == Whole("a", (Part(2, (1.0, 2.5)), Part(1)))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"parts": [{"size": 1}, {}]}, "'top.parts[1].size' is missing"),
    ({"parts": [{"size": 0}]}, "'top.parts[0].size' is 0, expected greater than"),
    ({"parts": [{"size": True}]}, "'top.parts[0].size' is True, expected a valid int"),
    ({"parts": [{"size": 1, "scale": [1, "x"]}]}, "'top.parts[0].scale[1]' is 'x'"),
    ({"parts": 3}, "'top.parts' is 3, expected a valid array"),
    ({"name": 3}, "'top.name' is 3, expected a valid string"),
    ({"flag": 1}, "'top.flag' is 1, expected a valid boolean"),
    ({"more": "x" * 500}, "unknown field 'top.more'"),
    ({"name": [["x" * 500]]}, "..."),
  ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str):
  with pytest.raises(UserError) as error:
    read_as(Whole, {"name": "a"} | change, "file", "write it anew", at="top")
  line = str(error.value)
  assert line.startswith("file: ") and line.endswith("; write it anew")
  assert message in line and "\n" not in line and len(line) < 200


def test_what_is_no_table_is_refused():
  knot: list[Any] = []
  knot.append(knot)
  for value in (3, None, [], "text", {"name": knot}, {(1, 2): 3}, {"name": "\ud800"}):
    with pytest.raises(UserError, match="^file: "):
      read_as(Whole, value, "file")
