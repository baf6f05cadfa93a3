"""Pickles of arrays and plain values, read without running any other code.

Loading a pickle can run arbitrary code. This reader accepts the few names that numpy
arrays need and refuses every other.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from smp.errors import UserError, shown

MAX_BYTES = 2 << 30
_CORE = ("numpy.core", "numpy._core")
"""Modules of numpy 1 and numpy 2 with the functions that rebuild arrays."""


def _array(*_arguments: Any) -> np.ndarray:
  """Return an empty array, which the pickle then fills; arguments are ignored."""
  return np.empty(0)


def _allowed() -> dict[tuple[str, str], Any]:
  table: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
  }
  for core in _CORE:
    table[f"{core}.multiarray", "_reconstruct"] = _array
    table[f"{core}.multiarray", "scalar"] = _scalar
    table[f"{core}.numeric", "_frombuffer"] = _from_buffer
  return table


def _encode(text: object, encoding: object = "latin1") -> bytes:
  """Return text as bytes, as protocol 2 stores them."""
  if not isinstance(text, str) or encoding != "latin1":
    raise pickle.UnpicklingError("bytes of another encoding")
  return text.encode("latin1")


def _scalar(kind: object, data: object = None) -> Any:
  """Return a numpy number."""
  if not isinstance(kind, np.dtype) or kind.hasobject or not isinstance(data, bytes):
    raise pickle.UnpicklingError("a number that is none")
  return np.frombuffer(data, kind, 1)[0]


def _from_buffer(buffer: Any, kind: object, shape: Any, order: Any) -> np.ndarray:
  """Return an array, as protocol 5 stores it."""
  if not isinstance(kind, np.dtype) or kind.hasobject:
    raise pickle.UnpicklingError("an array of objects")
  return np.frombuffer(buffer, kind).reshape(shape, order=order)


class _Reader(pickle.Unpickler):
  allowed = _allowed()

  def find_class(self, module_name: str, global_name: str, /) -> Any:
    """Return an allowed function or class; refuse any other."""
    try:
      return self.allowed[module_name, global_name]
    except KeyError:
      name = f"{module_name}.{global_name}"
      raise pickle.UnpicklingError(f"it asks for {name[:60]}") from None

  def persistent_load(self, pid: Any, /) -> Any:
    """Refuse references to external objects."""
    raise pickle.UnpicklingError("it refers to other files")


def load_pickle(path: Path) -> Any:
  """Return the contents of a pickle: dicts, lists, numbers, text, numpy arrays.

  Raises:
    UserError: the file cannot be read, is damaged, or asks for anything else.
  """
  try:
    if path.stat().st_size > MAX_BYTES:
      raise UserError(f"{path}: larger than {MAX_BYTES >> 30} GiB; split it")
    with open(path, "rb") as file:
      return _Reader(file).load()
  except UserError:
    raise
  except pickle.UnpicklingError as error:
    raise UserError(
      f"{path}: not read: {' '.join(str(error).split())[:160]}; only numpy arrays, "
      "numbers and text are read from a pickle: save it as NPZ"
    ) from None
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  except Exception as error:  # A damaged pickle can raise any error.
    raise UserError(
      f"{path}: not a readable pickle ({type(error).__name__}: {shown(str(error))})"
    ) from None
