"""Figures of a run that say whether a policy is fit for a robot."""

from __future__ import annotations

import mujoco
import numpy as np

from smp.deploy.deploy_file import is_velocity
from smp.deploy.fixed_command import Command, in_heading_frame
from smp.deploy.mujoco_robot import Robot
from smp.deploy.rollout import Log
from smp.episodes.running_mean import STRIDE_S, running_mean
from smp.robots import g1

SETTLED_S = 1.0
"""Time from the start that does not count, s."""
UNITS = {
  "seconds": "s until the end or a fall",
  "falls": "falls",
  "velocity_error": "m/s mean error of the velocity",
  "yaw_rate_error": "rad/s mean error of the yaw rate",
  "mean_yaw_rate_error": f"rad/s mean error of the yaw rate's mean over {STRIDE_S:g} s",
  "drift": "m farthest from the place at 1 s, the command being zero",
  "feet_lifted": "times a foot was lifted, the command being zero",
  "joint_speed": "rad/s root mean square of the joints' speeds",
  "foot_slip": "m/s mean speed of a foot on the floor",
}
"""Figures of `report`, with their units; those of what is commanded only where it is."""


def report(log: Log, robot: Robot) -> dict[str, float]:
  """Return the figures of a run, all but ``seconds`` and ``falls`` after 1 s.

  A fall ends the time that counts. Velocities are the pelvis', on the floor, in its
  heading frame where the command is.

  Args:
    log: The run.
    robot: The robot of the run, whose state is left as it was.
  """
  spec, command = robot.spec, robot.command
  low = log.qpos[:, 2] < (-np.inf if spec.fallen_below is None else spec.fallen_below)
  end = int(np.argmax(low)) if low.any() else len(log.time)
  begin = min(round(SETTLED_S / robot.step_s), max(0, end - 1))
  part = slice(begin, max(end, begin + 1))
  qpos, qvel = log.qpos[part], log.qvel[part]
  found = {"seconds": end * robot.step_s, "falls": float(low.any())}
  found |= _tracking(qpos, qvel, log.command[part], command, robot)
  grounded, slip = _feet(qpos, qvel, robot)
  if is_still(command):
    away = np.linalg.norm(qpos[:, :2] - qpos[0, :2], axis=1)
    found["drift"] = float(away.max())
    lifted = (grounded[:-1] & ~grounded[1:]).sum()
    found["feet_lifted"] = float(lifted)
  found["joint_speed"] = float(np.sqrt(np.mean(qvel[:, 6:] ** 2)))
  if grounded.any():
    found["foot_slip"] = float(slip[grounded].mean())
  return {name: found[name] for name in UNITS if name in found}


def is_still(command: Command) -> bool:
  """Return whether a command is to stand: its velocity is zero."""
  if is_velocity(command.parts):
    return not any(
      value for part in command.parts for value in command.values[part.name]
    )
  velocity = command.velocity_w
  return velocity is not None and not velocity.any()


def _tracking(
  qpos: np.ndarray, qvel: np.ndarray, seen: np.ndarray, command: Command, robot: Robot
) -> dict[str, float]:
  """Return errors of velocity and yaw rate, where they are commanded."""
  if is_velocity(command.parts):
    velocity = in_heading_frame(qvel[:, :2], qpos[:, 3:7])
    error = np.linalg.norm(velocity - seen[:, :2], axis=1)
    turning = _yaw_rate(qpos, qvel) - seen[:, 2]
    of_turns = turning[:, np.newaxis]
    every = np.ones_like(of_turns, bool)
    mean = running_mean(of_turns, every, STRIDE_S, 1.0 / robot.step_s)
    return {
      "velocity_error": float(error.mean()),
      "yaw_rate_error": float(np.abs(turning).mean()),
      "mean_yaw_rate_error": float(np.abs(mean).mean()),
    }
  if command.velocity_w is None:
    return {}
  error = np.linalg.norm(qvel[:, :2] - command.velocity_w, axis=1)
  return {"velocity_error": float(error.mean())}


def _yaw_rate(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
  """Return angular velocities about the vertical (T,), rad/s."""
  w, x, y, z = qpos[:, 3:7].T
  up = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
  return np.sum(np.stack(up, axis=1) * qvel[:, 3:6], axis=1)


def _feet(
  qpos: np.ndarray, qvel: np.ndarray, robot: Robot
) -> tuple[np.ndarray, np.ndarray]:
  """Return whether each foot is on the floor (T, 2), and its speed there (T, 2), m/s.

  The speed is the mean of the points that touch: a foot that rolls does not slip.
  """
  model, data = robot.model, mujoco.MjData(robot.model)
  feet = [model.body(f"{side}_ankle_roll_link").id for side in ("left", "right")]
  grounded, speed = np.zeros((len(qpos), 2), bool), np.zeros((len(qpos), 2))
  for row, (pose, velocity) in enumerate(zip(qpos, qvel, strict=True)):
    data.qpos[:], data.qvel[:] = pose, velocity
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    mujoco.mj_comVel(model, data)
    for foot, body in enumerate(feet):
      points = _touching(model, data, body)
      if len(points):
        grounded[row, foot] = True
        speed[row, foot] = _speeds(model, data, body, points).mean()
  return grounded, speed


def _touching(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
  """Return the points (P, 3) of the world where a body touches the floor."""
  geoms, floor = data.contact.geom, model.geom(g1.FLOOR).id
  other = np.where(geoms[:, 0] == floor, geoms[:, 1], geoms[:, 0])
  on_floor = (geoms == floor).any(axis=1) & (data.contact.dist <= 0.0)
  return data.contact.pos[on_floor & (model.geom_bodyid[other] == body)]


def _speeds(
  model: mujoco.MjModel, data: mujoco.MjData, body: int, points: np.ndarray
) -> np.ndarray:
  """Return the horizontal speeds (P,), m/s, of points (P, 3) of a body."""
  moving, kind = np.zeros(6), mujoco.mjtObj.mjOBJ_BODY
  mujoco.mj_objectVelocity(model, data, kind, body, moving, 0)
  velocity = moving[3:] + np.cross(moving[:3], points - data.xpos[body])
  return np.hypot(velocity[:, 0], velocity[:, 1])
