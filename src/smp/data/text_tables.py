"""Tables of numbers in text files of any origin.

A byte order mark, another separator than a comma, decimal commas, quotes and lines
above the numbers are accepted. Files that are no tables are refused with a description
of their contents.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
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


UNITS: dict[str, str] = {
  **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "m"),
  **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre"), "cm"),
  **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), "mm"),
  **dict.fromkeys(("in", "inch", "inches"), "in"),
  **dict.fromkeys(("rad", "radian", "radians"), "rad"),
  **dict.fromkeys(("deg", "degree", "degrees", "\u00b0"), "deg"),
}
"""Units of lengths and angles by their names in a heading."""
_NO_UNITS = (
  "",
  "-",
  "--",
  "1",
  "s",
  "ms",
  "us",
  "ns",
  "sec",
  "none",
  "n/a",
  "unitless",
)
"""What else may stand in a line of units: of times, quaternions and row numbers."""
_HEADING = 10
"""Known names in a line above the numbers that make it a heading for certain."""
_SOME_NAMES = 4
"""Known names in a line that make it one if it has as many cells as a heading."""


@dataclass(frozen=True)
class Table:
  """Numbers of a text file."""

  values: np.ndarray
  """(T, C)"""
  names: tuple[str, ...]
  """Names of the columns, from a line above the numbers, each with the unit that a line
  of units gives it, as ``x (cm)``; may be empty."""
  lines: np.ndarray
  """(T,) line of the file of each row, from 1."""
  above: tuple[str, ...] = ()
  """The lines above the numbers."""
  unplaced: tuple[int, tuple[str, ...]] | None = None
  """Line, from 1, and cells of a heading that cannot be matched with the columns."""


def read_table(
  path: Path, expected: str, part_of: Callable[[str], str | None] = lambda _: None
) -> Table:
  """Return the table of numbers in a text file.

  Args:
    path: A text file.
    expected: Expected contents, for messages.
    part_of: Returns what a column of that name holds; None: the name is not known. A
      line with known names is never taken for a remark.

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
  first, separator = _first_row(lines)
  if first == len(lines):
    headed = _heading_only(lines, part_of)
    if headed:
      raise UserError(
        f"{path}: row {headed} is a heading, but no row of numbers follows it; expected "
        f"{expected}"
      )
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
  above = tuple(lines[:first])
  names, unplaced = _names(path, above, separator, values, part_of)
  return Table(values, names, np.arange(first + 1, len(lines) + 1), above, unplaced)


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


def _first_row(lines: list[str]) -> tuple[int, str | None]:
  """Return the first line of numbers, and their separator."""
  for first, line in enumerate(lines[:50]):
    cells, separator = _cells(line)
    # A line with one or two cells of text is a damaged row, not a heading.
    if cells and sum(map(is_number, cells)) > len(cells) / 2:
      return first, separator
  return len(lines), _cells(lines[0])[1]


def _heading_only(lines: list[str], part_of: Callable[[str], str | None]) -> int:
  """Return the line, from 1, of a heading with nothing below it; 0: there is none."""
  found = 0
  for number, line in enumerate(lines, start=1):
    separator = _cells(line)[1]
    cells, known = _heading_cells(line, separator, part_of)
    if any(map(is_number, cells)):
      return 0
    if known >= _SOME_NAMES or (separator and len(cells) >= _HEADING):
      found = found or number
    elif found and not _are_units(cells):
      return 0
  return found


def _names(
  path: Path,
  above: Sequence[str],
  separator: str | None,
  values: np.ndarray,
  part_of: Callable[[str], str | None],
) -> tuple[tuple[str, ...], tuple[int, tuple[str, ...]] | None]:
  """Return the names of the columns, and a heading that does not fit them.

  Of several lines that fit, that with the most known names is the heading, or the last.

  Args:
    path: The file.
    above: Lines above the numbers.
    separator: Of the numbers.
    values: (T, C), the numbers.
    part_of: As in `read_table`.

  Raises:
    UserError: Two headings differ, or a line of units does not fit the columns.
  """
  names: tuple[str, ...] = ()
  units: tuple[str, ...] | None = None
  unplaced: tuple[int, tuple[str, ...]] | None = None
  most, at, other = 0, 0, 0
  for number, line in enumerate(above, start=1):
    cells, known = _heading_cells(line, separator, part_of)
    placed = _placed(cells, values, part_of)
    if _are_units(cells):
      if placed is None and len(cells) >= _HEADING:
        raise UserError(
          f"{path}: row {number} has {len(cells)} units, but the rows below have "
          f"{values.shape[1]} columns; give each its unit, or remove that line"
        )
      units = placed or units
    elif placed is None:
      wide = len(cells) >= values.shape[1] // 2 and known >= _SOME_NAMES
      if known >= _HEADING or (wide and _cells(line)[1] is not None):
        unplaced, other = (number, tuple(cells)), max(other, known)
    elif known >= most:
      if min(known, most) >= _HEADING and _differ(names, placed, part_of):
        raise UserError(
          f"{path}: rows {at} and {number} name the columns in different ways; remove one"
        )
      names, most, at = placed, known, number
  if unplaced and (most < _HEADING or not names) and other > most:
    return (), unplaced
  if units:
    bare = names or ("",) * len(units)
    names = tuple(
      f"{name} ({unit})" if (unit := cell.strip("[](){} ").lower()) in UNITS else name
      for name, cell in zip(bare, units, strict=True)
    )
  return names, None


def _differ(
  first: Sequence[str], second: Sequence[str], part_of: Callable[[str], str | None]
) -> bool:
  return [part_of(name) for name in first] != [part_of(name) for name in second]


def _heading_cells(
  line: str, separator: str | None, part_of: Callable[[str], str | None]
) -> tuple[list[str], int]:
  """Return the cells of a line above the numbers, and how many are known names.

  It may have another separator than the numbers, if that finds more known names.
  """
  line = line.strip(" ").lstrip("#/%").lstrip(" ")
  best: list[str] = []
  most = -1
  for each in (separator, *SEPARATORS, None):
    cells = [cell.strip().strip("\"'# ") for cell in line.split(each)]
    # A remark such as "columns: x, y".
    if each is None and len(cells) > 1 and cells[0].endswith(":"):
      cells.pop(0)
    rest = cells[0].rpartition(":")[2].strip() if cells else ""
    if rest and part_of(rest) and not part_of(cells[0]):
      cells[0] = rest
    known = sum(part_of(cell) is not None for cell in cells)
    enough = 0 if each == separator else _SOME_NAMES if each else _HEADING
    if known > most and known >= enough:
      best, most = cells, known
  return best, most


def _placed(
  cells: Sequence[str], values: np.ndarray, part_of: Callable[[str], str | None]
) -> tuple[str, ...] | None:
  """Return the name of each column; None: the cells do not fit the columns.

  A separator may end the heading, and row numbers may have no name, as R writes them.
  """
  cells, width = list(cells), values.shape[1]
  while len(cells) > width and not cells[-1]:
    cells.pop()
  if len(cells) == width and not cells[-1] and counts(values[:, 0]):
    if part_of(cells[0]):
      cells.pop()
  if len(cells) == width - 1 and all(cells) and counts(values[:, 0]):
    cells = ["", *cells]
  return tuple(cells) if len(cells) == width else None


def _are_units(cells: Sequence[str]) -> bool:
  """Return whether cells are units, and not names."""
  words = [cell.strip("[](){} ").lower() for cell in cells]
  return any(word in UNITS for word in words) and all(
    word in UNITS or word in _NO_UNITS for word in words
  )


def counts(values: np.ndarray) -> bool:
  """Return whether a column (T,) counts rows."""
  return len(values) > 1 and bool((np.diff(values) == 1).all())


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
