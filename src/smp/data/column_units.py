"""Units in the names of columns, such as ``x (cm)``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smp.data.source import SourceCfg
from smp.data.text_tables import UNITS
from smp.errors import UserError

LENGTHS = ("m", "cm", "mm", "in")

ANGLES = ("rad", "deg")

_OTHER_UNITS = ("ft", "feet", "foot", "dm", "km", "um", "mrad", "turn", "turns", "rev")
"""Units that are not read."""


def _unit_of(path: Path, name: str, known: Sequence[str]) -> str:
  """Return the unit in the name of a column, as ``x (cm)`` or ``x_cm``; empty: none.

  Raises:
    UserError: It names two units, or one that is not among ``known``.
  """
  text = name.strip().lower()
  words = re.findall(r"[\(\[](.*?)[\)\]]", text)
  bare = re.sub(r"[\s./:\-]+", "_", re.sub(r"[\(\[].*?[\)\]]", "", text)).strip("_")
  words += re.findall(r"_(deg|degrees|rad|radians|cm|mm|m)$", bare)
  words = [word.strip() for word in words]
  found: set[str] = {UNITS[word] for word in words if word in UNITS}
  found |= {word for word in words if word in _OTHER_UNITS}
  wrong = sorted(found - {*known})
  if wrong or len(found) > 1:
    raise UserError(
      f"{path}: column '{name[:60]}': its unit must be one of {', '.join(known)}"
    )
  return found.pop() if found else ""


def units_of(path: Path, names: Sequence[str], known: Sequence[str]) -> Units:
  """Return the unit that the names of a group of columns give.

  Args:
    path: The file.
    names: Of columns of one kind.
    known: Units that may be.

  Raises:
    UserError: They give several units, or one that cannot be.
  """
  units = {name: _unit_of(path, name, known) for name in names}
  first: dict[str, str] = {}
  for name, unit in units.items():
    first.setdefault(unit, name)
  bare = first.pop("", None)
  if len(first) > 1:
    one, two = list(first.values())[:2]
    raise UserError(
      f"{path}: '{one[:60]}' and '{two[:60]}' are in different units; write all columns "
      "of a kind in one unit"
    )
  return Units(*next(iter(first.items()), ("", "")), bare or "")


@dataclass(frozen=True)
class Units:
  """The unit of a group of columns by their names."""

  unit: str
  """Empty: no name gives one."""
  named: str
  """A name that gives it."""
  bare: str
  """A name that gives none; empty: all do."""

  def over(self, path: Path, default: str, option: str, given: str) -> str:
    """Return the unit: by the names, or ``default``.

    Args:
      path: The file.
      default: The unit of the format.
      option: Name of the option that gives the unit.
      given: Its value.

    Raises:
      UserError: Some names give a unit other than ``default``, and some give none.
    """
    if self.unit and self.bare and self.unit != default and given == "auto":
      raise UserError(
        f"{path}: '{self.named[:60]}' is in {self.unit}, but '{self.bare[:60]}' gives no "
        f"unit; name it for each column of the kind, or give {option}"
      )
    return self.unit or default


def angle_units(
  path: Path,
  source: SourceCfg,
  default: str,
  turns: Units | None,
  joints: Units,
  largest: float,
) -> tuple[str, str]:
  """Return the units of the root's Euler angles and of the joints, each by its names.

  Args:
    path: The file.
    source: The options; the unit that it gives counts where the names give none.
    default: The unit of the format.
    turns: Unit of the Euler angles; None: there are none.
    joints: Unit of the joints.
    largest: Largest Euler angle.

  Raises:
    UserError: The names give no unit of the Euler angles, but one of the joints that is
      not certain to be theirs, or the units contradict the option.
  """
  option = source.angle_unit
  joint = joints.over(path, default, "--angle-unit", option)
  if turns is None:
    return joint, joint if option == "auto" else option
  turn = turns.over(path, default, "--angle-unit", option)
  if option != "auto":
    if turns.unit and joints.unit and turns.unit != joints.unit:
      raise UserError(
        f"{path}: --angle-unit {option}: the heading has '{turns.named[:60]}' and "
        f"'{joints.named[:60]}'; leave the option out, or mend the heading"
      )
    if turns.unit and joints.unit:
      return option, option
    return turns.unit or option, joints.unit or option
  if joints.unit and not turns.unit and joint != turn:
    # Angles beyond a full turn are no radians.
    if joint == "deg" and largest > 7.0:
      return joint, joint
    raise UserError(
      f"{path}: '{joints.named[:60]}' is in {joint}, but '{turns.bare[:60]}' gives no unit; "
      "name it for each angle, or give --angle-unit"
    )
  return turn, joint
