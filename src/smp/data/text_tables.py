"""Tables of numbers in text files of any origin.

A byte order mark, another separator than a comma, decimal commas, quotes and lines
above the numbers are accepted. Files that are no tables are refused with a description
of their contents.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smp.errors import UserError

SEPARATORS = (",", ";", "\t", "|")
_MARKS = (
  (b"\xef\xbb\xbf", "utf-8"),
  (b"\xff\xfe", "utf-16-le"),
  (b"\xfe\xff", "utf-16-be"),
)
_STARTS = (
  (b"version https://git-lfs", "a Git LFS pointer, not the file itself: git lfs pull"),
  (b"/annex/objects/", "a git-annex pointer, not the file itself: git annex get"),
  (b"<!doctype", "a web page, not a motion: download the file itself"),
  (b"<html", "a web page, not a motion: download the file itself"),
  (b"<?xml", "XML, not a motion"),
  (b"hierarchy", "a BVH file of a human skeleton: retarget it to the G1 first"),
  (b"\x1f\x8b", "compressed by gzip: unpack it first"),
  (b"PK\x03\x04", "a ZIP archive (or an Excel or NPZ file): unpack or rename it"),
  (b"\x93NUMPY", "a numpy array: rename it to .npy, or save it as CSV"),
  (b"\x80", "a pickle: rename it to .pkl"),
  (b"{", "JSON, not a table of numbers"),
)


@dataclass(frozen=True)
class Table:
  """Numbers of a text file."""

  values: np.ndarray
  """(T, C)"""
  names: tuple[str, ...]
  """Names of the columns, from the last line above the numbers; may be empty."""
  lines: np.ndarray
  """(T,) line of the file of each row, from 1."""


def read_table(path: Path, expected: str) -> Table:
  """Return the table of numbers in a text file.

  Args:
    path: A text file.
    expected: Expected contents, for messages.

  Raises:
    UserError: names the file, the row (1 is the first line) and the column.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  text = _decode(path, data)
  lines = text.split("\n")
  while lines and not lines[-1].strip():
    lines.pop()
  if not lines:
    raise UserError(f"{path}: empty file; expected {expected}")
  first, separator, names = _heading(lines)
  if first == len(lines):
    raise UserError(
      _bad_row(path, lines, 0, separator, len(lines[0].split(separator)), expected)
    )
  body = lines[first:]
  decimal = separator == ";" and "," in body[0] and "." not in body[0]
  if decimal:
    body = [line.replace(",", ".") for line in body]
  if '"' in body[0]:
    body = [line.replace('"', "") for line in body]
  try:
    values = np.loadtxt(
      io.StringIO("\n".join(body)), delimiter=separator, ndmin=2, comments=None
    )
  except ValueError:
    values = np.empty((0, 0))
  # numpy skips empty lines, which would hide a gap and misnumber the later rows.
  if len(values) != len(body):
    columns = len(body[0].split(separator))
    raise UserError(_bad_row(path, body, first, separator, columns, expected))
  if names and len(names) != values.shape[1]:
    names = ()
  return Table(values, names, np.arange(first + 1, len(lines) + 1))


def _decode(path: Path, data: bytes) -> str:
  encoding = "utf-8"
  for mark, name in _MARKS:
    if data.startswith(mark):
      data, encoding = data[len(mark) :], name
      break
  else:
    start = data[:200].lstrip().lower()
    for signature, what in _STARTS:
      if start.startswith(signature.lower()):
        raise UserError(f"{path}: {what}")
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError:
    # Tolerate a stray byte in a heading, but not in the numbers.
    text = data.decode("latin-1")
  if "\0" in text[:1000]:
    raise UserError(f"{path}: not a text file; expected a table of numbers")
  return text.replace("\r\n", "\n").replace("\r", "\n")


def _heading(lines: list[str]) -> tuple[int, str | None, tuple[str, ...]]:
  """Return the first line of numbers, their separator, and the names above them."""
  for first, line in enumerate(lines):
    cells, separator = _cells(line)
    # A line with one or two cells of text is a damaged row, not a heading.
    if cells and sum(map(is_number, cells)) > len(cells) / 2:
      break
    if first == 50:
      first = len(lines)
      break
  else:
    first = len(lines)
  if first == len(lines):
    return first, _cells(lines[0])[1], ()
  separator = _cells(lines[first])[1]
  width = len(lines[first].split(separator))
  names: tuple[str, ...] = ()
  for line in lines[:first]:
    cells = [cell.strip().strip("\"'# ") for cell in line.split(separator)]
    if len(cells) == width:
      names = tuple(cells)
  if first and not names and width > 1:
    above = lines[first - 1].lstrip("#/ ").split(separator)
    names = tuple(cell.strip() for cell in above)
  return first, separator, names


def _cells(line: str) -> tuple[list[str], str | None]:
  """Return the cells of a line and their separator, None for blanks."""
  counts = {s: line.count(s) for s in SEPARATORS}
  separator: str | None = max(counts, key=lambda s: counts[s])
  if counts[";"] >= 5:
    separator = ";"  # Then commas are decimal points.
  elif not counts[separator or ","]:
    separator = None if len(line.split()) > 1 else ","
  cells = [cell.strip().strip('"') for cell in line.split(separator)]
  if separator == ";":
    cells = [cell.replace(",", ".") for cell in cells]
  return cells, separator


def is_number(cell: str) -> bool:
  """Return whether numpy reads a cell; Python also takes 1_000 and foreign digits."""
  try:
    float(cell)
  except ValueError:
    return False
  return cell.isascii() and "_" not in cell


def _bad_row(
  path: Path,
  lines: list[str],
  offset: int,
  separator: str | None,
  columns: int,
  expected: str,
) -> str:
  """Return the message for the first line that is no row of numbers."""
  wanted = {36, columns} if offset else {36}
  for number, line in enumerate(lines, start=offset + 1):
    if not line.strip():
      return f"{path}: row {number} is empty; remove it, or restore what it held"
    cells = [cell.strip() for cell in line.split(separator)]
    if not cells[-1] and len(cells) > 1:
      return (
        f"{path}: row {number} ends with a separator ('{separator or ' '}'), so that its "
        f"last column, {len(cells)}, is empty; remove it at the end of each line"
      )
    if len(cells) not in wanted:
      return f"{path}: row {number} has {len(cells)} columns, expected {columns if offset else 36}"
    for column, cell in enumerate(cells, start=1):
      if not is_number(cell):
        return (
          f"{path}: row {number}, column {column}: '{cell[:20]}' is not a number "
          "(lines of text may stand above the numbers only)"
        )
  return f"{path}: not a table of numbers; expected {expected}"
