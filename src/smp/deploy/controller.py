"""A robot's controller in plain numpy: raw signals and a deploy file, no simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from smp.deploy.deploy_file import Deploy
from smp.deploy.history import History
from smp.errors import UserError
from smp.utils.names import check_style


class Signals(NamedTuple):
  """What a controller has at hand at T moments; joints in the policy's order."""

  joint_pos: np.ndarray
  """(T, A), rad."""
  joint_vel: np.ndarray
  """(T, A), rad/s."""
  quat: np.ndarray
  """(T, 4), the pelvis' orientation in the world by the IMU, wxyz."""
  gyro: np.ndarray
  """(T, 3), angular velocity in the pelvis' axes, rad/s."""
  command: np.ndarray
  """(T, C), as the policy observes it, without scale."""
  last_action: np.ndarray
  """(T, A), the network's previous output, after its clip; zero at first."""
  style: np.ndarray
  """(T, S), 1 for the style wanted, else 0; S is 0 for a policy that observes none."""


def observed(deploy: Deploy, signals: Signals) -> dict[str, np.ndarray]:
  """Return the unscaled values (T, size) of each term of the observation.

  Raises:
    UserError: As `refuse_unmeasured`.
  """
  refuse_unmeasured(deploy, "a controller")
  sources = {
    "imu_gyro": signals.gyro,
    "imu_quaternion": gravity(signals.quat),
    "motor_q": signals.joint_pos - np.array(deploy.default_joint_pos),
    "motor_dq": signals.joint_vel,
    "last_action": signals.last_action,
    "command": signals.command,
    "style": signals.style,
  }
  return {name: sources[term.signal] for name, term in deploy.observations.items()}


def refuse_unmeasured(deploy: Deploy, whom: str) -> None:
  """Raise an error for a policy that observes what a robot does not measure.

  Raises:
    UserError: The message names the policy and the term.
  """
  for name, term in deploy.observations.items():
    if term.signal == "none":
      raise UserError(
        f"{deploy.policy.file}: observes {name}, which joint encoders and an IMU do not "
        f"measure, so {whom} cannot compute it; take a policy trained without it"
      )


def gravity(quat: np.ndarray) -> np.ndarray:
  """Return the direction of gravity (..., 3) in the axes of bodies (..., 4), wxyz."""
  w, x, y, z = np.moveaxis(quat, -1, 0)
  return np.stack(
    (2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1), axis=-1
  )


def scaled(deploy: Deploy, values: dict[str, np.ndarray]) -> np.ndarray:
  """Return frames (T, F) of observation from the values of `observed`."""
  parts = [
    values[name] * np.array(term.scale) for name, term in deploy.observations.items()
  ]
  return np.concatenate(parts, axis=1)


def targets(deploy: Deploy, action: np.ndarray) -> np.ndarray:
  """Return the position targets (..., A), rad, of actions (..., A)."""
  table = deploy.action
  target = np.array(table.offset) + np.array(table.scale) * action
  if table.clip is None:
    return target
  low, high = np.array(table.clip).T
  return np.clip(target, low, high)


class Controller:
  """A policy on a robot, step by step.

  Args:
    deploy: The deploy file.
    act: The network, from an observation (O,) to an action (A,).
    style: Of a policy that observes one; None: the first.

  Attributes:
    observation: The last one (O,).
    action: The last one (A,); zero at the beginning.

  Raises:
    UserError: As `refuse_unmeasured`, or the policy does not know the style.
  """

  def __init__(
    self,
    deploy: Deploy,
    act: Callable[[np.ndarray], np.ndarray],
    style: str | None = None,
  ) -> None:
    refuse_unmeasured(deploy, "a controller")
    self.deploy, self._act = deploy, act
    self._style = np.eye(len(deploy.styles))[:1].reshape(-1)
    if style is not None:
      self.choose_style(style)
    self._history = History(list(deploy.observations.values()))
    self._motors = list(deploy.joint_ids_map)
    self.reset()

  def choose_style(self, style: str) -> None:
    """Take another style from the next step on.

    Raises:
      UserError: The policy does not know it.
    """
    check_style(style, self.deploy.styles, self.deploy.policy.file)
    self._style = np.array([float(name == style) for name in self.deploy.styles])

  def reset(self) -> None:
    """Begin anew: no history, and a last action of zero."""
    self._history.clear()
    self.observation = np.zeros(self.deploy.policy.input_size, np.float32)
    self.action = np.zeros(len(self._motors))

  def step(
    self,
    motor_q: np.ndarray,
    motor_dq: np.ndarray,
    quat: np.ndarray,
    gyro: np.ndarray,
    command: np.ndarray,
  ) -> np.ndarray:
    """Return the position targets (M,) of the motors, rad; NaN where there is no joint.

    Args:
      motor_q: (M,) by motor of the SDK, rad.
      motor_dq: (M,), rad/s.
      quat: (4,), wxyz, as `Signals`.
      gyro: (3,), as `Signals`.
      command: (C,), as `Signals`.
    """
    measured = (motor_q[self._motors], motor_dq[self._motors], quat, gyro, command)
    told = (*measured, self.action, self._style)
    signals = Signals(*(np.asarray(each)[None] for each in told))
    frame = scaled(self.deploy, observed(self.deploy, signals))[0]
    self.observation = self._history.push(frame.astype(np.float32))
    self.action = np.asarray(self._act(self.observation), float)
    if (limit := self.deploy.policy.output_clip) is not None:
      self.action = self.action.clip(-limit, limit)
    target = np.full(len(motor_q), np.nan)
    target[self._motors] = targets(self.deploy, self.action)
    return target
