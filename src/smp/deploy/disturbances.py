"""What differs from the simulated robot of training: latency, floor, load, motors, pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from smp.deploy.mujoco_robot import Robot
from smp.robots import g1, variation
from smp.robots.variation import RobotVariation

_BOUNDS = {**variation.BOUNDS, "push": (0.0, 5.0), "push_every": (0.1, 1e6)}
"""Least and largest values of the options, in their units."""


@dataclass(frozen=True, kw_only=True)
class Disturbances(RobotVariation):
  """Differences from training; the default is none."""

  push: float = 0.0
  """Speed that a push adds, m/s, in a random direction on the floor."""

  push_every: float = 5.0
  """Time between pushes, s."""


def check_bounds(cfg: Disturbances) -> None:
  """Raise an error for values that are impossible.

  Raises:
    UserError: The message names the option.
  """
  variation.check_bounds(cfg, _BOUNDS)


def disturb(robot: Robot, cfg: Disturbances) -> None:
  """Change a robot for good; pushes come from `Pusher`."""
  model = robot.model
  robot.delay_steps = round(cfg.delay / 1000.0 / model.opt.timestep)
  if cfg.friction is not None:
    collide = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    model.geom_friction[collide, 0] = cfg.friction
  robot.gain_scale = cfg.gain_scale
  if cfg.payload:
    torso = model.body(g1.HEAD_BODY).id
    model.body_mass[torso] += cfg.payload
    mujoco.mj_setConst(model, robot.data)
  robot.reset()


class Pusher:
  """Pushes at equal times, in random directions.

  Args:
    cfg: Size and time of the pushes.
    seed: Seed of the directions.
  """

  def __init__(self, cfg: Disturbances, seed: int) -> None:
    self._cfg, self._random = cfg, np.random.default_rng(seed)
    self._next = cfg.push_every

  def reset(self) -> None:
    """Begin with a time without a push."""
    self._next = self._cfg.push_every

  def __call__(self, robot: Robot) -> None:
    """Push the robot if it is time."""
    if self._cfg.push <= 0.0 or robot.data.time < self._next - 1e-9:
      return
    self._next += self._cfg.push_every
    angle = self._random.uniform(-math.pi, math.pi)
    robot.push(self._cfg.push * np.array([math.cos(angle), math.sin(angle)]))
