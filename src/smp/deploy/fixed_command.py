"""The command of a policy, without mjlab.

The policy observes the same quantities as from the command terms of `smp.mdp.commands`:
directions and points of the world, in the robot's heading frame. The metadata of the
policy list them, so a new kind of command needs no change here unless it is observed in
a new frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError
from smp.utils.components import DIRECTION, POINT, SCALAR, Component

Values = tuple[float, ...]
_SEEN: dict[str, Callable[[Values, np.ndarray], np.ndarray]] = {
  SCALAR: lambda value, qpos: np.array(value),
  DIRECTION: lambda value, qpos: in_heading_frame(unit_vector(value[0]), qpos[3:7]),
  POINT: lambda value, qpos: in_heading_frame(np.array(value) - qpos[:2], qpos[3:7]),
}
"""Functions from a component's value and the robot's qpos (36,) to its observation."""


class Command:
  """A command in a person's units; it may be changed at any time.

  Args:
    spec: The policy.
    given: Value or values by name of component; the others keep their defaults.

  Attributes:
    values: Values by name of component: degrees for directions, m (x, y in the world)
      for points, each scalar in its own unit.

  Raises:
    UserError: The task has no such component, or a value is impossible.
  """

  def __init__(self, spec: PolicySpec, given: Mapping[str, Values]) -> None:
    self.parts = spec.command
    for part in spec.command:
      if part.kind not in _SEEN:
        raise UserError(
          f"{spec.task}: this version has no command component of kind '{part.kind}' "
          f"('{part.name}'); use the version that exported the policy"
        )
    self._task = spec.task
    self.values = {part.name: part.default for part in spec.command}
    self.values = self.changed(given)

  def changed(self, given: Mapping[str, Values]) -> dict[str, Values]:
    """Return the values by name of component with those of ``given`` in their place.

    Raises:
      UserError: The task has no such component, or a value is impossible.
    """
    settable = {part.name: part for part in self.parts if part.settable}
    for name, value in given.items():
      if name not in settable:
        takes = ", ".join(f"--{each}" for each in settable) or "no command"
        raise UserError(f"--{name}: {self._task} takes {takes}")
      _check(settable[name], value)
    return {**self.values, **given}

  def observe(self, qpos: np.ndarray) -> np.ndarray:
    """Return the policy's observation (C,) of the command at ``qpos`` (36,)."""
    parts = [_SEEN[part.kind](self.values[part.name], qpos) for part in self.parts]
    return np.concatenate(parts) if parts else np.zeros(0)

  @property
  def velocity_w(self) -> np.ndarray | None:
    """Return the commanded velocity (2,), m/s, world xy; None if there is none."""
    for part in self.parts:
      if part.along:
        return self.values[part.name][0] * unit_vector(self.values[part.along][0])
    return None

  @property
  def facings_w(self) -> dict[str, np.ndarray]:
    """Return the directions to face, unit vectors (2,), world xy, by component."""
    followed = {part.along for part in self.parts}
    return {
      part.name: unit_vector(self.values[part.name][0])
      for part in self.parts
      if part.kind == DIRECTION and part.name not in followed
    }

  @property
  def points_w(self) -> dict[str, np.ndarray]:
    """Return the places to go to (2,), m, world xy, by component."""
    return {
      part.name: np.array(self.values[part.name])
      for part in self.parts
      if part.kind == POINT
    }


def _check(part: Component, value: Values) -> None:
  """Raise an error for impossible values.

  Raises:
    UserError: The message names the component.
  """
  words = " ".join(f"{number:g}" for number in value)
  count, least = part.given_size, part.least
  if len(value) != count:
    raise UserError(f"--{part.name} {words}: give {count} numbers ({part.given_as})")
  if not all(map(math.isfinite, value)) or (least is not None and min(value) < least):
    bound = "" if least is None else f", and a {part.name} of {least:g} or more"
    raise UserError(f"--{part.name} {words}: give numbers{bound}")


def outside_training(spec: PolicySpec, command: Command) -> str:
  """Describe the values outside the range of training; empty if there are none."""
  notes = []
  for part in spec.command:
    value = command.values[part.name]
    for size in [math.hypot(*value)] if part.kind == POINT else value:
      if not part.low - 1e-6 <= size <= part.high + 1e-6:
        notes.append(
          f"{part.name} {size:g} (trained: {part.low:g} to {part.high:g} "
          f"{part.given_unit})"
        )
  return "; ".join(notes)


def unit_vector(degrees: float) -> np.ndarray:
  """Return the world xy unit vector (2,) at an angle from world x, degrees."""
  return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def heading(quat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return cosine and sine (...) of the heading of bodies (..., 4), wxyz.

  The heading is the turn about z of the decomposition "tilt after turn", as commands in
  the environment use it (`smp.motion.rotations.heading`, kind "twist").
  """
  w, z = quat[..., 0], quat[..., 3]
  cos, sin = w * w - z * z, 2.0 * w * z
  length = np.hypot(cos, sin)
  lost = length < 1e-8
  scale = 1.0 / np.where(lost, 1.0, length)
  return np.where(lost, 1.0, cos * scale), np.where(lost, 0.0, sin * scale)


def in_heading_frame(vector_w: np.ndarray, quat: np.ndarray) -> np.ndarray:
  """Return a world xy vector (..., 2) in the heading frame of roots (..., 4), wxyz."""
  cos, sin = heading(quat)
  x, y = vector_w[..., 0], vector_w[..., 1]
  return np.stack((cos * x + sin * y, cos * y - sin * x), axis=-1)
