"""Logs of a controller: what it measured, and what its policy answered.

A log is a .npz file with one row per action. Joints, actions and targets have one column
per name in ``joint_names``, in any order. docs/deploy.md lists the arrays; others beside
them are ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smp.deploy.controller import Signals
from smp.deploy.deploy_file import Deploy
from smp.deploy.mujoco_robot import Robot
from smp.deploy.rollout import Log
from smp.errors import UserError
from smp.utils.files import save_arrays

FORMAT = 1
_RATE_ERROR = 0.02
"""Largest relative difference of a log's period from the policy's."""
_JOINT_ARRAYS = ("joint_pos", "joint_vel", "action")


@dataclass(frozen=True)
class RobotLog:
  """A log of T actions, its joints in the order of the policy."""

  time: np.ndarray
  """(T,), s."""
  signals: Signals
  action: np.ndarray
  """(T, A), outputs of the network."""
  target: np.ndarray | None
  """(T, A), position targets sent to the motors, rad; None: not logged."""


def write_log(path: Path, log: Log, robot: Robot) -> None:
  """Write a run in plain MuJoCo as a log; its own arrays stand beside it.

  Raises:
    UserError: The file cannot be written.
  """
  joints = robot.spec.joints
  offset, scale = np.array(joints.action_offset), np.array(joints.action_scale)
  arrays: dict[str, Any] = {
    "format": np.array(FORMAT),
    "period": np.array(robot.step_s),
    "joint_names": np.array(joints.names),
    "joint_pos": log.qpos[:, robot.joint_q],
    "joint_vel": log.qvel[:, robot.joint_v],
    "imu_quat": log.qpos[:, 3:7],
    # A free joint turns in the body's axes, which the IMU shares.
    "imu_gyro": log.qvel[:, 3:6],
    "target": offset + scale * log.action,
  }
  if robot.spec.styles:
    arrays["style"] = np.tile(robot.style_one_hot(), (len(log.time), 1))
  save_arrays(path, vars(log) | arrays, compress=True)


def read_log(path: str | os.PathLike[str], deploy: Deploy) -> RobotLog:
  """Read a log of a policy.

  Args:
    path: The file.
    deploy: The policy.

  Raises:
    UserError: There is no such file, it is unreadable, or it is not of this policy's
      robot and rate.
  """
  arrays, styles = _load(path), len(deploy.styles)
  _check_head(path, arrays, deploy)
  if arrays["time"].size == 0:
    raise UserError(f"{path}: a log without rows")
  steps = len(np.atleast_1d(arrays["time"]))
  count = len(deploy.joint_names)
  commands = sum(p.size for c in deploy.commands.values() for p in c.components)
  widths = {"imu_quat": 4, "imu_gyro": 3, "command": commands}
  widths |= dict.fromkeys((*_JOINT_ARRAYS, "target"), count)
  if styles:
    widths["style"] = styles
  for name in ("time", *widths):
    if name in arrays:
      shape = (steps,) if name == "time" else (steps, widths[name])
      _check_array(path, name, arrays[name], shape)
  names = arrays["joint_names"].tolist()
  order = [names.index(name) for name in deploy.joint_names]
  sorted_arrays = {
    name: arrays[name][:, order]
    for name in (*_JOINT_ARRAYS, "target")
    if name in arrays
  }
  action = sorted_arrays["action"]
  signals = Signals(
    sorted_arrays["joint_pos"],
    sorted_arrays["joint_vel"],
    arrays["imu_quat"].astype(float),
    arrays["imu_gyro"].astype(float),
    arrays["command"].astype(float),
    np.concatenate((np.zeros((1, count)), action[:-1])),
    arrays["style"].astype(float) if styles else np.zeros((steps, 0)),
  )
  return RobotLog(
    arrays["time"].astype(float), signals, action, sorted_arrays.get("target")
  )


def _load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  if not Path(path).is_file():
    raise UserError(f"{path}: no such log")
  try:
    with np.load(path, allow_pickle=False) as table:
      return {name: table[name] for name in table.files}
  except Exception as error:  # zipfile, zlib and numpy each raise errors of their own.
    raise UserError(
      f"{path}: not a readable .npz file ({type(error).__name__})"
    ) from error


def _check_head(
  path: str | os.PathLike[str], arrays: dict[str, np.ndarray], deploy: Deploy
) -> None:
  """Raise an error for a log of another format, robot or rate.

  Raises:
    UserError: The message names the array.
  """
  needed = ("format", "period", "joint_names", "time", *_JOINT_ARRAYS)
  style = ("style",) if deploy.styles else ()
  for name in (*needed, "imu_quat", "imu_gyro", "command", *style):
    if name not in arrays:
      raise UserError(f"{path}: no array '{name}'; docs/deploy.md lists a log's arrays")
  version, period, names = (arrays[name] for name in needed[:3])
  if version.shape or version.dtype.kind not in "iu" or int(version) != FORMAT:
    raise UserError(f"{path}: 'format' is {version}, this version reads {FORMAT}")
  if period.shape or period.dtype.kind not in "fiu":
    raise UserError(f"{path}: 'period' is {period}, expected one number, s")
  if not abs(float(period) / deploy.step_dt - 1.0) <= _RATE_ERROR:
    raise UserError(
      f"{path}: a row every {float(period):g} s, the policy acts every "
      f"{deploy.step_dt:g} s; log one row per action"
    )
  if names.ndim != 1 or names.dtype.kind != "U":
    raise UserError(f"{path}: 'joint_names' is no list of names")
  found, wanted = names.tolist(), deploy.joint_names
  if len(found) != len(wanted):
    raise UserError(
      f"{path}: {len(found)} joints, the policy has {len(wanted)}; the log is of "
      "another robot"
    )
  for name in wanted:
    if found.count(name) != 1:
      raise UserError(f"{path}: 'joint_names' has {name} {found.count(name)} times")


def _check_array(
  path: str | os.PathLike[str], name: str, value: np.ndarray, shape: tuple[int, ...]
) -> None:
  if value.shape != shape:
    raise UserError(
      f"{path}: '{name}' has shape {value.shape}, expected {shape} numbers"
    )
  if value.dtype.kind not in "fiu":
    raise UserError(f"{path}: '{name}' holds {value.dtype}, expected numbers")
  bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
  if bad.any():
    raise UserError(f"{path}: '{name}' is not a number in row {int(np.argmax(bad))}")
  if name == "imu_quat":
    length = np.linalg.norm(value.astype(float), axis=1)
    if (length < 1e-6).any():
      raise UserError(
        f"{path}: '{name}' is zero in row {int(np.argmin(length))}, which is no "
        "orientation; leave out the rows without a reading"
      )
