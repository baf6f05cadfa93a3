"""Motion files in a folder: which there are, and what their clips are called."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from smp.errors import UserError

SUFFIXES = (".csv", ".txt", ".tsv", ".npz", ".pkl", ".pickle")


def find_files(folder: Path) -> dict[str, Path]:
  """Return the motion files in a folder and its sub-folders by clip name.

  ``folder`` may also be one file. The name of ``a/walk.csv`` is ``a__walk``. Hidden
  files, and files of windows that csv_to_npz.py wrote, are skipped.

  Raises:
    UserError: two files have the same name, or one is a link to nothing. (A link that
      may have been a folder gives a warning.)
  """
  if folder.is_file():
    return {folder.stem: folder}
  found: dict[str, Path] = {}
  for path in _walk(folder):
    inner = path.relative_to(folder)
    motion = path.suffix.lower() in SUFFIXES
    if path.is_symlink() and not path.exists():
      gone = f"{path}: a link to {os.readlink(path)}, which is not there"
      if motion:
        raise UserError(f"{gone}; fetch it, or remove the link")
      print(f"[WARN] {gone}: skipped, and all in it if it was a folder")
    if not motion or not path.is_file():
      continue
    if path.suffix.lower() not in (".csv", ".txt", ".tsv") and not _is_motion(path):
      continue
    if path.suffix.lower() == ".txt" and not _is_table(path):
      continue
    name = "__".join(inner.with_suffix("").parts)
    if name in found:
      raise UserError(
        f"{path} and {found[name]} have the same name; rename one, or leave it out"
      )
    found[name] = path
  return found


_HIDDEN = (".", "__MACOSX")
"""Beginnings of the names of hidden files and folders."""


def _walk(folder: Path) -> list[Path]:
  """Return the files in a folder and its sub-folders, without hidden ones, sorted.

  Links to folders are followed after all real folders, each folder once, and not those
  that lead back to the folder itself or above it.
  """
  top = os.path.realpath(folder)
  found: list[Path] = []
  seen: set[str] = set()
  pending = [str(folder)]
  while pending:
    start = pending.pop(0)
    if os.path.realpath(start) in seen:
      continue
    for parent, folders, names in os.walk(start):
      seen.add(os.path.realpath(parent))
      inner = sorted(name for name in folders if not name.startswith(_HIDDEN))
      paths = {name: os.path.join(parent, name) for name in inner}
      links = [path for path in paths.values() if os.path.islink(path)]
      above = os.path.join(top, "")
      pending += [
        path
        for path in links
        if not above.startswith(os.path.join(os.path.realpath(path), ""))
      ]
      folders[:] = [
        name
        for name, path in paths.items()
        if path not in links and os.path.realpath(path) not in seen
      ]
      found += [Path(parent, name) for name in names if not name.startswith(_HIDDEN)]
  return sorted(found)


def _is_motion(path: Path) -> bool:
  """Return whether an archive may hold motion, not windows or statistics."""
  if path.suffix.lower() != ".npz":
    return True
  try:
    with np.load(path, allow_pickle=False) as data:
      return not {"windows", "q_low"} & set(data.files)
  except Exception:  # The reader reports what is wrong with it.
    return True


def _is_table(path: Path) -> bool:
  """Return whether a .txt holds numbers; folders of motion also hold read-me files."""
  try:
    with open(path, "rb") as file:
      head = file.read(4000).decode("latin-1")
  except OSError:
    return False
  lines = [line for line in head.splitlines()[:-1] if line.strip()]
  return bool(lines) and len(re.findall(r"[-+]?\d+\.\d+", lines[-1])) >= 20
