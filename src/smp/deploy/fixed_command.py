"""What a policy is asked to do, without mjlab.

The same quantities as the command terms of `smp.mdp.commands` show to the policy:
directions and goals of the world, seen from where the robot is heading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError

COMMAND_SIZE = {"direction": 1, "speed": 1, "facing": 1, "goal": 2}
"""Numbers that a person gives: degrees from world x, m/s, degrees, m (x and y)."""


class Command:
  """The command as a person gives it; it may be changed at any time.

  Args:
    spec: The policy.
    given: Value or values by name of component; the others keep their defaults.

  Attributes:
    values: By name of component: degrees, m/s, degrees, or m (x, y in the world).

  Raises:
    UserError: the task has no such component, or a value that cannot be.
  """

  def __init__(self, spec: PolicySpec, given: Mapping[str, tuple[float, ...]]) -> None:
    self.parts = spec.command
    for part in spec.command:
      if part.name not in COMMAND_SIZE:
        raise UserError(
          f"{spec.task}: this version has no command component '{part.name}'; use the "
          "version that exported the policy"
        )
    settable = [part.name for part in spec.command if part.settable]
    self.values = {part.name: part.default for part in spec.command}
    for name, value in given.items():
      if name not in settable:
        takes = ", ".join(f"--{each}" for each in settable) or "no command"
        raise UserError(f"--{name}: {spec.task} takes {takes}")
      if not all(map(math.isfinite, value)) or (name == "speed" and value[0] < 0.0):
        words = " ".join(f"{number:g}" for number in value)
        raise UserError(f"--{name} {words}: give numbers, and a speed of 0 or more")
      self.values[name] = value

  def observe(self, qpos: np.ndarray) -> np.ndarray:
    """What the policy sees (C,) when the robot is at ``qpos`` (36,)."""
    parts = [self._observe(part.name, qpos) for part in self.parts]
    return np.concatenate(parts) if parts else np.zeros(0)

  def _observe(self, name: str, qpos: np.ndarray) -> np.ndarray:
    value = self.values[name]
    if name == "speed":
      return np.array(value)
    if name == "goal":
      return in_heading_frame(np.array(value) - qpos[:2], qpos[3:7])
    return in_heading_frame(unit_vector(value[0]), qpos[3:7])

  @property
  def velocity_w(self) -> np.ndarray | None:
    """Commanded velocity (2,), m/s, world xy; None where none is commanded."""
    if "speed" not in self.values:
      return None
    return self.values["speed"][0] * unit_vector(self.values["direction"][0])


def outside_training(spec: PolicySpec, command: Command) -> str:
  """A note on the values that training never asked for; empty if there are none."""
  notes = []
  for part in spec.command:
    value = command.values[part.name]
    size = math.hypot(*value) if part.name == "goal" else value[0]
    if not part.low - 1e-6 <= size <= part.high + 1e-6:
      notes.append(
        f"{part.name} {size:g} (trained: {part.low:g} to {part.high:g} "
        f"{part.given_as.split(',')[0]})"
      )
  return "; ".join(notes)


def unit_vector(degrees: float) -> np.ndarray:
  """World xy (2,) of an angle from world x."""
  return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def heading(quat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Cosine and sine (...) of where bodies (..., 4), wxyz, face in the xy plane.

  The turn about z of the decomposition "tilt after turn", as commands in the
  environment use it (`smp.motion.rotations.heading`, kind "twist").
  """
  w, z = quat[..., 0], quat[..., 3]
  cos, sin = w * w - z * z, 2.0 * w * z
  length = np.hypot(cos, sin)
  lost = length < 1e-8
  scale = 1.0 / np.where(lost, 1.0, length)
  return np.where(lost, 1.0, cos * scale), np.where(lost, 0.0, sin * scale)


def in_heading_frame(vector_w: np.ndarray, quat: np.ndarray) -> np.ndarray:
  """A world xy vector (..., 2) as a robot with root wxyz (..., 4) sees it (..., 2)."""
  cos, sin = heading(quat)
  x, y = vector_w[..., 0], vector_w[..., 1]
  return np.stack((cos * x + sin * y, cos * y - sin * x), axis=-1)
