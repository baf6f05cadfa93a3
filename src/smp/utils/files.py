"""Files that are never half-written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smp.errors import UserError

try:
  import fcntl
except ImportError:  # Without Unix file locks, the leftovers of killed programs stay.
  fcntl = None


def save_arrays(
  path: str | os.PathLike[str], arrays: Mapping[str, Any], compress: bool = False
) -> None:
  """Write arrays by name as NPZ; all of them, or nothing.

  The name of the file is as given: numpy itself adds .npz to one without it.

  Raises:
    UserError: the folder cannot be written, or its disk is full.
  """
  write = np.savez_compressed if compress else np.savez
  with atomic_path(path) as temporary, open(temporary, "wb") as file:
    write(file, **arrays)


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp(\.[^.]+)?")
"""Names of the temporary files of `atomic_path`: hidden, unlike any finished file."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
  """Yield a temporary path beside ``path`` that becomes ``path`` on success.

  The temporary file keeps the suffix of ``path`` (some writers add one if it is
  missing). On any failure, Ctrl-C included, it is removed and ``path`` is left as it
  was. If the process is killed, the hidden temporary file remains, and the next write
  to that folder removes it (`remove_leftovers`).

  Raises:
    UserError: the folder cannot be written, or its disk is full.
  """
  path = Path(path)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    handle, temporary = _create_locked(path)
  except OSError as error:
    raise UserError(
      f"{path}: cannot write here ({error.strerror}); choose another output folder"
    ) from error
  try:
    yield temporary
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    # Temporary files are private; the result should have the usual permissions.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    os.replace(temporary, path)
  except OSError as error:
    raise UserError(
      f"{path}: cannot write ({error.strerror}); free some space or choose another "
      "output folder"
    ) from error
  finally:
    temporary.unlink(missing_ok=True)
    os.close(handle)


@contextlib.contextmanager
def work_folder(parent: Path, prefix: str) -> Iterator[Path]:
  """Yield a new temporary folder in ``parent``, and remove it afterwards.

  If the process is killed, the folder remains; the next call with the same prefix, in
  ``parent`` or in a folder beside it, removes it. As with `atomic_path` a folder is
  locked while its process lives, so that no folder in use is removed. Where the file
  system has no locks, leftovers stay.

  Args:
    parent: Where to make the folder.
    prefix: Beginning of its name; starts with a dot, and no other folder there has it.

  Raises:
    UserError: ``parent`` cannot be made or written.
  """
  try:
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.parent.glob(f"*/{prefix}*"):
      _remove_if_left(leftover)
    handle, folder = _create_locked_folder(parent, prefix)
  except OSError as error:
    raise UserError(
      f"{parent}: cannot write here ({error.strerror}); choose another output folder"
    ) from error
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    if handle is not None:
      os.close(handle)


def check_folder(folder: Path) -> None:
  """Raise ``UserError`` unless ``folder`` is writable; make it if needed."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as error:
    raise UserError(
      f"{folder}: cannot write here ({error.strerror}); choose another output folder"
    ) from error


def check_file(path: Path) -> None:
  """Raise ``UserError`` unless a file can be written at ``path``; make its folder."""
  if path.is_dir():
    raise UserError(f"{path}: is a folder; give the name of a file")
  check_folder(path.parent)


def check_new(path: Path, overwrite: bool) -> None:
  """Raise ``UserError`` for an output that exists, unless it is to be replaced."""
  if path.exists() and not overwrite:
    raise UserError(
      f"{path}: exists; replace it with --overwrite, or give another --output"
    )


def remove_leftovers(folder: Path) -> list[Path]:
  """Remove temporary files in ``folder`` of killed processes; return their paths.

  A process holds a lock on its file while it lives, so that only the files of killed
  processes can be locked, and removed, here.
  """
  removed: list[Path] = []
  if fcntl is None:
    return removed
  for path in folder.glob(".*.tmp*"):
    if not _TEMPORARY.fullmatch(path.name):
      continue
    # Errors mean that it belongs to another user, is in use, or is gone.
    with contextlib.suppress(OSError):
      handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        removed.append(path)
      finally:
        os.close(handle)
  return removed


def _create_locked(path: Path) -> tuple[int, Path]:
  """Return descriptor and path of a new, locked temporary file beside ``path``."""
  while True:
    handle, name = tempfile.mkstemp(
      prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
    )
    if fcntl is not None:
      with contextlib.suppress(OSError):  # The file system may have no locks.
        fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink > 0:
      return handle, Path(name)
    # Another process took it for a leftover before it was locked, and removed it.
    os.close(handle)


def _create_locked_folder(parent: Path, prefix: str) -> tuple[int | None, Path]:
  """Return descriptor, if there are locks, and path of a new, locked folder."""
  while True:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    if fcntl is None:
      return None, folder
    # Another process may take it for a leftover before it is locked, and remove it.
    with contextlib.suppress(FileNotFoundError):
      handle = os.open(folder, os.O_RDONLY)
      with contextlib.suppress(OSError):  # The file system may have no locks.
        fcntl.flock(handle, fcntl.LOCK_EX)
      if folder.exists():
        return handle, folder
      os.close(handle)


def _remove_if_left(folder: Path) -> None:
  """Remove a folder unless a living process holds a lock on it."""
  if fcntl is None:
    return
  # Errors mean that it belongs to another user, is in use, or is gone.
  with contextlib.suppress(OSError):
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      shutil.rmtree(folder, ignore_errors=True)
    finally:
      os.close(handle)
