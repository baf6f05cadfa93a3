"""Drawing of a command: an arrow for a velocity or a facing, a ball for a goal."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from smp.deploy.fixed_command import Command

VELOCITY_COLOR = (0.2, 0.2, 0.9)
FACING_COLOR = (0.9, 0.5, 0.1)
GOAL_COLOR = (0.9, 0.2, 0.2)
HEIGHT, LIFT = 1.55, 0.1
"""Height of the velocity's arrow above the floor, and of each further one above it, m.
"""
LENGTH = 0.4
"""Length of an arrow, m per m/s; a direction is drawn as 1 m/s."""
WIDTH, RADIUS = 0.02, 0.15
"""Width of an arrow and radius of a goal, m."""


class Arrow(NamedTuple):
  """An arrow to draw."""

  name: str
  start: np.ndarray
  """(3,), m, world."""
  end: np.ndarray
  color: tuple[float, float, float]


def arrows(command: Command, root_xy: np.ndarray) -> list[Arrow]:
  """Return the arrows over a robot at ``root_xy`` (2,), m."""
  drawn = []
  if command.velocity_w is not None:
    drawn.append(("velocity", command.velocity_w, VELOCITY_COLOR))
  drawn += [(name, facing, FACING_COLOR) for name, facing in command.facings_w.items()]
  found = []
  for i, (name, vector, color) in enumerate(drawn):
    start = np.array([*root_xy, HEIGHT + i * LIFT])
    end = start + np.array([*(LENGTH * vector), 0.0])
    found.append(Arrow(name, start, end, color))
  return found


def balls(command: Command) -> dict[str, np.ndarray]:
  """Return the centres of the balls of places to go to (3,), m, world, by component."""
  return {name: np.array([*place, RADIUS]) for name, place in command.points_w.items()}


def draw(scene: mujoco.MjvScene, command: Command, root_xy: np.ndarray) -> None:
  """Add the command to a scene of MuJoCo's renderer or viewer."""
  for arrow in arrows(command, root_xy):
    if np.linalg.norm(arrow.end - arrow.start) < 1e-3:
      continue
    geom = _add(scene, mujoco.mjtGeom.mjGEOM_ARROW, arrow.start, arrow.color)
    kind = mujoco.mjtGeom.mjGEOM_ARROW.value
    mujoco.mjv_connector(geom, kind, WIDTH, arrow.start, arrow.end)
  for ball in balls(command).values():
    _add(scene, mujoco.mjtGeom.mjGEOM_SPHERE, ball, GOAL_COLOR)


def _add(
  scene: mujoco.MjvScene,
  kind: mujoco.mjtGeom,
  position: np.ndarray,
  color: tuple[float, float, float],
) -> mujoco.MjvGeom:
  geom = scene.geoms[scene.ngeom]
  size = np.full(3, RADIUS)
  rgba = np.array([*color, 0.8], np.float32)
  mujoco.mjv_initGeom(geom, kind.value, size, position, np.eye(3).ravel(), rgba)
  scene.ngeom += 1
  return geom
