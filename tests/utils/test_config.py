"""YAML as people mean it: which words are numbers, and which stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smp.utils.config import read_table


def read(path: Path, text: str) -> dict[str, Any]:
  path.write_text(text)
  return read_table(path)


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("0", 0),
    ("-12", -12),
    ("+7", 7),
    ("30_000", 30_000),
    ("0x1F", 31),
    ("1.5", 1.5),
    ("-.5", -0.5),
    (".5", 0.5),
    ("010.5", 10.5),
    ("3e-4", 3e-4),
    ("1.5e3", 1500.0),
    ("1.0e-05", 1e-5),
    (".inf", float("inf")),
    ("-.inf", float("-inf")),
    ("true", True),
    ("False", False),
    ("", None),
    ("null", None),
    ("~", None),
  ],
)
def test_numbers_and_truths(tmp_path: Path, text: str, value: object) -> None:
  found = read(tmp_path / "a.yaml", f"key: {text}")["key"]
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
  "text",
  ["010", "0100", "007", "1:30", "1:30.5", "yes", "No", "on", "OFF", "y", "2024-01-01"],
)
def test_what_is_ambiguous_is_text(tmp_path: Path, text: str) -> None:
  assert read(tmp_path / "a.yaml", f"key: [{text}]") == {"key": [text]}


def test_keys_are_text_as_they_stand(tmp_path: Path) -> None:
  words = ["yes", "true", "1", "010", "1e3", "~", "2024-01-01"]
  found = read(
    tmp_path / "a.yaml", "\n".join(f"{word}: {{{word}: 1}}" for word in words)
  )
  assert found == {word: {word: 1} for word in words}


def test_tables_are_merged(tmp_path: Path) -> None:
  text = "a: &a {yes: 1, b: 2}\nc:\n  <<: *a\n  b: 3\n"
  assert read(tmp_path / "a.yaml", text)["c"] == {"yes": 1, "b": 3}
