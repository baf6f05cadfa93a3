"""Components of a command, for policies, people and plots alike, without torch.

A command term declares them (`smp.mdp.commands.ComponentCommand.components`). Sliders,
arrows, options of scripts, the metadata of exported policies and evaluations follow
from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

KINDS = SCALAR, DIRECTION, POINT = "scalar", "direction", "point"
"""Kinds of components. A scalar is observed as it is given. A direction is given as an
angle and a point as a position, both on the floor of the world, and both are observed
in the robot's heading frame."""

_MIRROR = {DIRECTION: (1.0, -1.0), POINT: (1.0, -1.0)}
_GIVEN = {DIRECTION: 1, POINT: 2}
_ANGLE_STEP, _STEP = 1.0, 0.05
"""Steps of sliders: for degrees, and for any other unit."""


class Slider(NamedTuple):
  """A number that a person sets with a slider."""

  label: str
  low: float
  high: float
  step: float
  initial: float


@dataclass(frozen=True)
class Component:
  """A part of a command; the parts follow one another in the observation.

  Make one with `scalar`, `direction` or `point`.
  """

  name: str
  size: int
  """Number of values in the observation."""
  unit: str
  """Unit of the observation; "1": a unit vector."""
  frame: str
  """Frame of the observation: "heading" (x forward, y left, flat), or "" for none."""
  given_as: str
  """The unit and frame in which a person gives it."""
  default: tuple[float, ...]
  """Default value, as a person gives it."""
  low: float
  high: float
  """Range of values in training, as a person gives them (points: distance, m)."""
  settable: bool
  """Whether a person may choose it."""
  kind: str
  """`SCALAR`, `DIRECTION` or `POINT`."""
  along: str
  """Name of the direction in which a speed is measured; "" for anything else. A
  direction without a speed is one to face."""
  least: float | None
  """Lower bound of valid values; None: no bound."""
  meaning: str
  """Description in words."""

  @property
  def given_size(self) -> int:
    """Return how many numbers a person gives: 1, 2, or the observation's size."""
    return _GIVEN.get(self.kind, self.size)

  @property
  def mirror_sign(self) -> tuple[float, ...]:
    """Return the sign of each observed number in the sagittal mirror."""
    return _MIRROR.get(self.kind, (1.0,) * self.size)

  @property
  def given_unit(self) -> str:
    """Return the unit in which a person gives it."""
    return self.given_as.split(",")[0]

  def labels(self) -> list[str]:
    """Return a name for each number that a person gives."""
    if self.given_size == 1:
      return [self.name]
    axes = "xy" if self.kind == POINT else map(str, range(1, self.given_size + 1))
    return [f"{self.name} {axis}" for axis in axes]

  def sliders(self, given: tuple[float, ...] | None = None) -> list[Slider]:
    """Return a slider for each number that a person gives; none if fixed.

    Args:
      given: Initial values. Default: the component's default.
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
  """Return a number that the policy observes as it is given.

  Args:
    name: Its name in options and sliders.
    unit: Such as "m".
    meaning: Description in words.
    low: Minimum in training.
    high: Maximum in training.
    default: Value where none is given; by default ``low``.
    least: Lower bound of valid values; None: no bound.
    along: Of a speed (m/s), the name of the direction in which it is measured.
  """
  value = (low if default is None else default,)
  return Component(
    name, 1, unit, "", unit, value, low, high, True, SCALAR, along, least, meaning
  )


def direction(name: str, meaning: str, fixed: float | None = None) -> Component:
  """Return a direction on the floor, observed as a unit vector in the heading frame.

  Args:
    name: Its name in options and sliders.
    meaning: Description in words.
    fixed: Constant angle, degrees from world x towards y. None: any angle may be set.
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
  """Return a point on the floor, observed as its offset from the pelvis, m.

  The offset is in the heading frame.

  Args:
    name: Its name in options and sliders.
    meaning: Description in words.
    low: Minimum distance in training, m.
    high: Maximum distance in training, m.
    default: x and y in the world, m.
  """
  given = "m, x and y in the world"
  return Component(
    name, 2, "m", "heading", given, default, low, high, True, POINT, "", None, meaning
  )
