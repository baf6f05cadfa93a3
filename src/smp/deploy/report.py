"""Figures of a run that say whether a policy is fit for a robot."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from smp.deploy.deploy_file import is_velocity
from smp.deploy.fixed_command import Command, Values, in_heading_frame
from smp.deploy.mujoco_robot import Robot
from smp.deploy.rollout import Log
from smp.episodes.running_mean import STRIDE_S, running_mean
from smp.episodes.stopping import STOPPED, STOPPED_S, stop_time
from smp.robots import g1

SETTLED_S = 1.0
"""Time from the start that does not count, s."""
UNITS = {
  "seconds": "s until the end or a fall",
  "falls": "falls",
  "falls_per_hour": "falls in an hour of such time",
  "velocity_error": "m/s mean error of the velocity",
  "speed_ratio": "achieved by commanded speed",
  "yaw_rate_error": "rad/s mean error of the yaw rate",
  "mean_yaw_rate_error": f"rad/s mean error of the yaw rate's mean over {STRIDE_S:g} s",
  "drift": "m farthest from the place at 1 s, the command being zero",
  "feet_lifted": "times a foot was lifted, the command being zero",
  "stopped": f"1: told to stand, it was below {STOPPED:g} m/s for {STOPPED_S:g} s",
  "stop_time": "s from the command to stand until then",
  "joint_speed": "rad/s root mean square of the joints' speeds",
  "foot_slip": "m/s mean speed of a foot on the floor",
}
"""Figures of `report`, with their units; those of what is commanded only where it is."""


def report(
  log: Log, robot: Robot, commands: Sequence[Mapping[str, Values]] | None = None
) -> dict[str, float]:
  """Return the figures of a run, after 1 s and, if the command changes, before that.

  ``seconds`` and falls are of the whole run; whether and when the robot stopped, of the
  time after the change. A fall ends the time that counts. Velocities are the pelvis', on
  the floor, in its heading frame where the command is.

  Args:
    log: The run.
    robot: The robot of the run, whose state is left as it was.
    commands: The command's values at each step, which change once at most; None: the
      robot's present ones, all the time.
  """
  spec, command, change = robot.spec, robot.command, len(log.time)
  later = command
  if commands is not None:
    changed = (i for i, each in enumerate(commands) if each != commands[0])
    change = next(changed, change)
    command, later = (_holding(command, commands[i]) for i in (0, -1))
  low = log.qpos[:, 2] < (-np.inf if spec.fallen_below is None else spec.fallen_below)
  end = int(np.argmax(low)) if low.any() else len(log.time)
  last = min(end, change)
  begin = min(round(SETTLED_S / robot.step_s), max(0, last - 1))
  part = slice(begin, max(last, begin + 1))
  qpos, qvel = log.qpos[part], log.qvel[part]
  seconds = end * robot.step_s
  found = {"seconds": seconds, "falls": float(low.any())}
  if spec.fallen_below is not None and seconds:
    found["falls_per_hour"] = found["falls"] / (seconds / 3600.0)
  found |= _tracking(qpos, qvel, log.command[part], command, robot)
  grounded, slip = _feet(qpos, qvel, robot)
  if is_still(command):
    away = np.linalg.norm(qpos[:, :2] - qpos[0, :2], axis=1)
    found["drift"] = float(away.max())
    lifted = (grounded[:-1] & ~grounded[1:]).sum()
    found["feet_lifted"] = float(lifted)
  if change < end and is_still(later):
    found |= _stopping(log.qvel[change:end], robot)
  found["joint_speed"] = float(np.sqrt(np.mean(qvel[:, 6:] ** 2)))
  if grounded.any():
    found["foot_slip"] = float(slip[grounded].mean())
  return {name: found[name] for name in UNITS if name in found}


def _holding(command: Command, values: Mapping[str, Values]) -> Command:
  """Return a command of the same policy with other values."""
  found = copy.copy(command)
  found.values = dict(values)
  return found


def _stopping(qvel: np.ndarray, robot: Robot) -> dict[str, float]:
  """Return whether and when a robot stopped that is told to at the first row."""
  speed = np.linalg.norm(qvel[:, :2], axis=1, keepdims=True)
  (seconds,) = stop_time(speed, np.ones_like(speed, bool), 1.0 / robot.step_s)
  if np.isnan(seconds):
    return {"stopped": 0.0}
  return {"stopped": 1.0, "stop_time": float(seconds)}


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
  """Return errors of velocity and yaw rate, and the ratio of speeds, where commanded."""
  if is_velocity(command.parts):
    velocity = in_heading_frame(qvel[:, :2], qpos[:, 3:7])
    error = np.linalg.norm(velocity - seen[:, :2], axis=1)
    turning = _yaw_rate(qpos, qvel) - seen[:, 2]
    of_turns = turning[:, np.newaxis]
    every = np.ones_like(of_turns, bool)
    mean = running_mean(of_turns, every, STRIDE_S, 1.0 / robot.step_s)
    return _speed_ratio(velocity, seen[0, :2]) | {
      "velocity_error": float(error.mean()),
      "yaw_rate_error": float(np.abs(turning).mean()),
      "mean_yaw_rate_error": float(np.abs(mean).mean()),
    }
  if command.velocity_w is None:
    return {}
  error = np.linalg.norm(qvel[:, :2] - command.velocity_w, axis=1)
  ratio = _speed_ratio(qvel[:, :2], command.velocity_w)
  return ratio | {"velocity_error": float(error.mean())}


def _speed_ratio(velocity: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
  """Return the mean of velocities (T, 2) along the one wanted (2,), by its size."""
  square = float(wanted @ wanted)
  return {"speed_ratio": float((velocity @ wanted).mean() / square)} if square else {}


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
  # The velocity of the body's origin; mjOBJ_BODY is that of its centre of mass.
  moving, kind = np.zeros(6), mujoco.mjtObj.mjOBJ_XBODY
  mujoco.mj_objectVelocity(model, data, kind, body, moving, 0)
  velocity = moving[3:] + np.cross(moving[:3], points - data.xpos[body])
  return np.hypot(velocity[:, 0], velocity[:, 1])
