"""Rooms of the source: who imports whom."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from smp.paths import ROOT

SOURCE = ROOT / "src"
ORDER = (
  *("errors", "paths", "utils", "robots", "motion", "sim", "diffusion", "episodes"),
  *("mdp", "deploy", "rl", "tasks", "viz", "data", "evaluation", "benchmark", "cli"),
)
"""Each imports only what stands before it."""


def module_name(file: Path) -> str:
  parts = file.relative_to(SOURCE).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in SOURCE.glob("smp/**/*.py")}


def imports_of(module: str) -> set[str]:
  """Return every module that one names in an import, wherever in the file."""
  found: set[str] = set()
  for node in ast.walk(ast.parse(FILES[module].read_text())):
    if isinstance(node, ast.Import):
      found |= {each.name for each in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
      names = {f"{node.module}.{each.name}" for each in node.names}
      found |= {name if name in FILES else node.module for name in names}
  return found


GRAPH = {module: imports_of(module) for module in FILES}


def room_of(module: str) -> str | None:
  """Return the room of a module of this project; None: the package itself, or another."""
  parts = module.split(".")
  return parts[1] if parts[0] == "smp" and len(parts) > 1 else None


def test_every_room_has_its_place():
  assert {room_of(module) for module in FILES} - {None} == set(ORDER)


@pytest.mark.parametrize("module", sorted(FILES))
def test_no_arrow_points_upwards(module: str):
  room = room_of(module)
  if room is None:
    return
  allowed = {None, *ORDER[: ORDER.index(room) + 1]}
  assert not {other for other in GRAPH[module] if room_of(other) not in allowed}


def test_no_module_imports_itself_by_way_of_others():
  reached: dict[str, set[str]] = {}
  for start in FILES:
    seen, todo = set(), list(GRAPH[start] & FILES.keys())
    while todo:
      module = todo.pop()
      if module not in seen:
        seen.add(module)
        todo += GRAPH[module] & FILES.keys()
    reached[start] = seen
  assert not sorted(module for module, seen in reached.items() if module in seen)


@pytest.mark.parametrize("room", ["motion", "diffusion", "data", "episodes"])
def test_what_needs_no_simulator_imports_none(room: str):
  outside = {
    module: {name for name in GRAPH[module] if name.split(".")[0] == "mjlab"}
    for module in FILES
    if room_of(module) == room
  }
  assert not {module: names for module, names in outside.items() if names}


def test_module_names_are_unique():
  names = Counter(
    file.stem for file in FILES.values() if file.stem not in ("__init__", "__main__")
  )
  assert not sorted(name for name, count in names.items() if count > 1)
