"""What a command is made of: for policies, people and pictures alike, without torch.

A command term says it (`smp.mdp.commands.ComponentCommand.components`). Sliders, arrows,
options of scripts, the metadata of exported policies and evaluations follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

KINDS = SCALAR, DIRECTION, POINT = "scalar", "direction", "point"
"""What components can be. A scalar is seen as it is given. A direction is given as an angle
and a point as a place, both on the floor of the world, and both are seen from where the
robot is heading."""

_MIRROR = {DIRECTION: (1.0, -1.0), POINT: (1.0, -1.0)}
_GIVEN = {DIRECTION: 1, POINT: 2}
_ANGLE_STEP, _STEP = 1.0, 0.05
"""Of sliders: degrees, and anything else."""


class Slider(NamedTuple):
  """A number that a person sets by hand."""

  label: str
  low: float
  high: float
  step: float
  initial: float


@dataclass(frozen=True)
class Component:
  """A part of the command; the parts follow one another in the observation.

  Make one with `scalar`, `direction` or `point`.
  """

  name: str
  size: int
  """Numbers that the policy sees."""
  unit: str
  """Of what the policy sees; "1": a unit vector."""
  frame: str
  """Of what the policy sees: "heading" (x forward, y left, flat), or "" for none."""
  given_as: str
  """The unit and frame in which a person gives it."""
  default: tuple[float, ...]
  """As a person gives it."""
  low: float
  high: float
  """What training asked for, as a person gives it (points: distance, m)."""
  settable: bool
  """Whether a person may choose it."""
  kind: str
  """`SCALAR`, `DIRECTION` or `POINT`."""
  along: str
  """Of a speed: the direction that it goes along, by name; else "". A direction that
  nothing goes along is one to face."""
  least: float | None
  """Nothing below it makes sense; None: no bound."""
  meaning: str
  """What it asks for, in words."""

  @property
  def given_size(self) -> int:
    """Numbers that a person gives: an angle, a place, or as many as are seen."""
    return _GIVEN.get(self.kind, self.size)

  @property
  def mirror_sign(self) -> tuple[float, ...]:
    """What each number seen is multiplied by in the sagittal mirror."""
    return _MIRROR.get(self.kind, (1.0,) * self.size)

  @property
  def given_unit(self) -> str:
    """The unit in which a person gives it."""
    return self.given_as.split(",")[0]

  def labels(self) -> list[str]:
    """Return a name for each number that a person gives."""
    if self.given_size == 1:
      return [self.name]
    axes = "xy" if self.kind == POINT else map(str, range(1, self.given_size + 1))
    return [f"{self.name} {axis}" for axis in axes]

  def sliders(self, given: tuple[float, ...] | None = None) -> list[Slider]:
    """Return a slider for each number that a person gives; none if nobody may.

    Args:
      given: Where they stand at first. Default: the component's default.
    """
    if not self.settable:
      return []
    low = self.low if self.least is None else self.least
    low = -self.high if self.kind == POINT else low
    step = _ANGLE_STEP if self.kind == DIRECTION else _STEP
    return [
      Slider(
        f"{label.capitalize()} ({self.given_unit})",
        min(low, value),
        max(self.high, value),
        step,
        value,
      )
      for label, value in zip(self.labels(), given or self.default, strict=True)
    ]


def scalar(
  name: str,
  unit: str,
  meaning: str,
  low: float,
  high: float,
  default: float | None = None,
  least: float | None = None,
  along: str = "",
) -> Component:
  """Return a number that the policy sees as it is given.

  Args:
    name: How options and sliders call it.
    unit: Such as "m".
    meaning: What it asks for, in words.
    low: Lowest that training asks for.
    high: Highest that training asks for.
    default: Where nothing is asked for; by default ``low``.
    least: Nothing below it makes sense; None: no bound.
    along: Of a speed (m/s), the direction that it goes along, by name.
  """
  value = (low if default is None else default,)
  return Component(
    name, 1, unit, "", unit, value, low, high, True, SCALAR, along, least, meaning
  )


def direction(name: str, meaning: str, fixed: float | None = None) -> Component:
  """Return a direction on the floor, seen as a unit vector in the heading frame.

  Args:
    name: How options and sliders call it.
    meaning: What it asks for, in words.
    fixed: Always this angle, degrees from world x towards y. None: any, of choice.
  """
  given = "deg, from world x towards world y"
  default = 0.0 if fixed is None else fixed
  low, high = (-180.0, 180.0) if fixed is None else (fixed, fixed)
  free = fixed is None
  return Component(
    name,
    2,
    "1",
    "heading",
    given,
    (default,),
    low,
    high,
    free,
    DIRECTION,
    "",
    None,
    meaning,
  )


def point(
  name: str,
  meaning: str,
  low: float,
  high: float,
  default: tuple[float, float] = (2.0, 0.0),
) -> Component:
  """Return a place on the floor, seen as its offset from the pelvis, heading frame, m.

  Args:
    name: How options and sliders call it.
    meaning: What it asks for, in words.
    low: Nearest that training asks for, m.
    high: Farthest that training asks for, m.
    default: x and y in the world, m.
  """
  given = "m, x and y in the world"
  return Component(
    name, 2, "m", "heading", given, default, low, high, True, POINT, "", None, meaning
  )
