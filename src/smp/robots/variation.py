"""How a robot differs from the one that policies are made for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from smp.errors import UserError

BOUNDS = {
  "delay": (0.0, 200.0),
  "friction": (0.01, 5.0),
  "payload": (-5.0, 50.0),
  "gain_scale": (0.1, 10.0),
}
"""Least and largest values of the options, in their units."""
UNITS = {"delay": " ms", "payload": " kg"}


@dataclass(frozen=True, kw_only=True)
class RobotVariation:
  """Differences from the nominal robot; the default is none."""

  delay: float = 0.0
  """Time from a measurement to its action at the motors, ms, in physics steps of 5 ms."""

  friction: float | None = None
  """Coefficient of sliding friction of feet and floor. Default: that of training."""

  payload: float = 0.0
  """Mass added to the torso, kg."""

  gain_scale: float = 1.0
  """Factor on stiffness and damping of the motors."""

  def differences(self) -> dict[str, float]:
    """Return the options that differ from the nominal robot, by name."""
    options = ((f.name, f.default) for f in fields(RobotVariation))
    return {
      name: getattr(self, name)
      for name, nominal in options
      if getattr(self, name) != nominal
    }


def check_bounds(
  cfg: RobotVariation, bounds: Mapping[str, tuple[float, float]] = BOUNDS
) -> None:
  """Raise an error for values that are impossible.

  Args:
    cfg: The options.
    bounds: Least and largest value of each.

  Raises:
    UserError: The message names the option.
  """
  for name, (low, high) in bounds.items():
    value = getattr(cfg, name)
    if value is not None and not (math.isfinite(value) and low <= value <= high):
      option = name.replace("_", "-")
      raise UserError(f"--{option} {value:g}: give {low:g} to {high:g}")
