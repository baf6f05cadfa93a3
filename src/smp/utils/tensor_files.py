"""Files of tensors, numbers and plain containers: atomic writes, no code on reading."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from smp.errors import UserError
from smp.utils.files import atomic_path


def save_tensors(path: str | os.PathLike[str], content: Any) -> None:
  """Write ``content`` to ``path`` with torch, atomically.

  Raises:
    UserError: the folder cannot be written, or its disk is full.
  """
  # Write through memory: torch reports a full disk as a RuntimeError of many lines.
  buffer = io.BytesIO()
  torch.save(content, buffer)
  with atomic_path(path) as temporary:
    temporary.write_bytes(buffer.getbuffer())


def load_tensors(
  path: str | os.PathLike[str], what: str, map_location: str = "cpu"
) -> dict[Any, Any]:
  """Return the table in a file written by torch; no code in the file is run.

  Args:
    path: The file.
    what: Its expected kind, for the error: "checkpoint".
    map_location: Device of the tensors.

  Raises:
    UserError: the file is missing, damaged, holds more than tensors, numbers and plain
      containers, or is not a table.
  """
  if not Path(path).is_file():
    raise UserError(f"{path}: no such {what} file")
  try:
    _check_sums(path)
    # The loader raises a dozen kinds of errors over damaged files. It builds nothing
    # but tensors, numbers and containers.
    loaded = torch.load(path, map_location=map_location, weights_only=True)
  except Exception as error:
    raise UserError(
      f"{path}: not a readable {what} ({type(error).__name__}); it may be damaged "
      "or hold more than tensors and numbers"
    ) from error
  if not isinstance(loaded, dict):
    raise UserError(f"{path}: not a {what}: it holds no table of entries")
  return loaded


def _check_sums(path: str | os.PathLike[str]) -> None:
  """Raise if checksums show a damaged file: torch does not verify them."""
  if not zipfile.is_zipfile(path):
    return  # Torch also reads an older format, which has no checksums.
  with zipfile.ZipFile(path) as archive:
    if archive.testzip() is not None:
      raise zipfile.BadZipFile
