"""Values in files of arrays: numbers and texts, whatever wrote them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smp.errors import UserError


class Objects:
  """Stands for an array of Python objects, which is not read."""


def refuse_objects(path: Path, data: Mapping[str, Any], name: str) -> None:
  """Raise ``UserError`` if an array that counts is one of Python objects."""
  if isinstance(data[name], Objects):
    raise UserError(
      f"{path}: '{name}' is an array of Python objects, which is not read as it could run "
      "code; save it as numbers or text (without dtype=object)"
    )


def texts_of(value: Any) -> list[str]:
  """Return the texts in a list or an array of text or bytes; empty: it is none."""
  if isinstance(value, (str, bytes)):
    value = [value]
  if isinstance(value, np.ndarray):
    value = value.reshape(-1).tolist()
  if not isinstance(value, (list, tuple)):
    return []
  words = [v.decode("latin-1") if isinstance(v, bytes) else v for v in value]
  if not all(isinstance(word, str) for word in words):
    return []
  # One text may list them all.
  return re.findall(r"\w+", words[0]) if len(words) == 1 else words


def first_of(data: Mapping[str, Any], names: Sequence[str]) -> str | None:
  """Return the first of ``names`` that a file has; None: it has none."""
  return next((name for name in names if name in data), None)


def array_of(path: Path, data: Mapping[str, Any], name: str) -> np.ndarray:
  """Return an array of numbers as float64.

  Raises:
    UserError: It is none; the message names the file and the array.
  """
  refuse_objects(path, data, name)
  try:
    array = np.asarray(data[name])
  except ValueError:
    array = np.empty(0, object)
  if array.dtype.kind not in "fiu" or array.ndim < 1:
    raise UserError(f"{path}: '{name}' is not an array of numbers")
  return array.astype(np.float64)


def key_of(name: str) -> str:
  """Return the name of an array without case and punctuation."""
  return re.sub(r"[^a-z]", "", name.lower())
