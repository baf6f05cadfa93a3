"""What stands between a policy and the motors, in plain numpy.

The robot hangs on a stand. `Safety.begin` takes it in whatever pose it hangs and leads it
to the default pose; then the policy takes over. Position targets never ask for more than
the joints' ranges and the motors' torques. A robot that tilts, leaves its ranges, moves
too fast, or measures nonsense is stopped: its motors damp, until it begins again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from smp.deploy.controller import gravity
from smp.deploy.deploy_file import Deploy


@dataclass(frozen=True)
class SafetyCfg:
  """Limits and times of a safety layer."""

  start_s: float = 3.0
  """From the pose it is found in to the default pose, s."""
  hand_over_s: float = 0.2
  """From the default pose's targets to the policy's, s."""
  tilt: float = 1.0
  """Largest angle between the pelvis' axis and the vertical, rad."""
  beyond_range: float = 0.1
  """How far a joint may be beyond its range, rad."""
  joint_speed: float = 40.0
  """Largest speed of a joint, rad/s. The robot's motors end below it."""


class Phase(enum.Enum):
  """What the layer lets through."""

  START = "soft start"
  HAND_OVER = "hand-over"
  POLICY = "policy"
  STOPPED = "stopped"


class MotorCommand(NamedTuple):
  """Torque = kp * (target - q) - kd * dq, by joint of the policy."""

  target: np.ndarray
  """(A,), rad."""
  kp: np.ndarray
  """(A,), N m/rad."""
  kd: np.ndarray
  """(A,), N m s/rad."""


class Safety:
  """A safety layer.

  Args:
    deploy: The policy.
    cfg: Limits and times.

  Attributes:
    phase: What it lets through.
    reason: Why it stopped; "" if it did not.
  """

  def __init__(self, deploy: Deploy, cfg: SafetyCfg | None = None) -> None:
    self.cfg, self._step_s = cfg or SafetyCfg(), deploy.step_dt
    self._names = deploy.joint_names
    self._default = np.array(deploy.default_joint_pos)
    self._low = np.array(deploy.joint_pos_lower)
    self._high = np.array(deploy.joint_pos_upper)
    self._kp = deploy.by_joint(deploy.stiffness)
    self._kd = deploy.by_joint(deploy.damping)
    self._effort = deploy.by_joint(deploy.effort_limit)
    self.begin(self._default)

  def begin(self, joint_pos: np.ndarray) -> None:
    """Begin a soft start from a pose (A,), rad; it ends a stop."""
    self.phase, self.reason = Phase.START, ""
    self._from, self._steps = np.array(joint_pos, float), 0

  def wants_policy(self) -> bool:
    """Return whether the policy's target matters at the next step."""
    return self._phase_at(self._steps + 1) in (Phase.HAND_OVER, Phase.POLICY)

  def step(
    self,
    joint_pos: np.ndarray,
    joint_vel: np.ndarray,
    quat: np.ndarray,
    policy_target: np.ndarray | None,
  ) -> MotorCommand:
    """Return what to send to the motors for one control step.

    Args:
      joint_pos: (A,), rad.
      joint_vel: (A,), rad/s.
      quat: (4,), the pelvis in the world, wxyz.
      policy_target: (A,), rad; None during the soft start.
    """
    self.reason = self.reason or self._why_stop(joint_pos, joint_vel, quat)
    self._steps += 1
    self.phase = self._phase_at(self._steps)
    share = self._policy_share()
    if share > 0.0 and not self.reason:
      if policy_target is None or not np.isfinite(policy_target).all():
        self.reason, self.phase = "the policy's target is not a number", Phase.STOPPED
    if self.phase is Phase.STOPPED:
      still = np.nan_to_num(joint_pos, posinf=0.0, neginf=0.0)
      return MotorCommand(still, np.zeros_like(self._kp), self._kd)
    target = self._ramp()
    if policy_target is not None and share > 0.0:
      target = target + share * (policy_target - target)
    return MotorCommand(self.limited(target, joint_pos, joint_vel), self._kp, self._kd)

  def limited(
    self, target: np.ndarray, joint_pos: np.ndarray, joint_vel: np.ndarray
  ) -> np.ndarray:
    """Return targets (A,) within the joints' ranges that need no more than the torques.

    Where both cannot be, as for a joint beyond its range, the torque decides.
    """
    target = np.clip(target, self._low, self._high)
    middle = joint_pos + self._kd * joint_vel / self._kp
    reach = self._effort / self._kp
    return np.clip(target, middle - reach, middle + reach)

  def _phase_at(self, steps: int) -> Phase:
    """Return the phase at a step since `begin`, counted from 1."""
    if self.reason:
      return Phase.STOPPED
    time = (steps - 1) * self._step_s
    if time < self.cfg.start_s:
      return Phase.START
    over = time < self.cfg.start_s + self.cfg.hand_over_s
    return Phase.HAND_OVER if over else Phase.POLICY

  def _ramp(self) -> np.ndarray:
    """Return the target of the soft start: at rest at both ends, cubic between."""
    share = min(1.0, self._steps * self._step_s / max(self.cfg.start_s, self._step_s))
    return self._from + share**2 * (3.0 - 2.0 * share) * (self._default - self._from)

  def _policy_share(self) -> float:
    if self.phase in (Phase.START, Phase.STOPPED):
      return 0.0
    since = self._steps * self._step_s - self.cfg.start_s
    return min(1.0, since / self.cfg.hand_over_s) if self.cfg.hand_over_s > 0 else 1.0

  def _why_stop(
    self, joint_pos: np.ndarray, joint_vel: np.ndarray, quat: np.ndarray
  ) -> str:
    """Return why the robot must stop; "" if it need not."""
    if not all(np.isfinite(each).all() for each in (joint_pos, joint_vel, quat)):
      return "a measurement is not a number"
    size = float(np.linalg.norm(quat))
    if not 0.9 < size < 1.1:
      return f"the IMU's quaternion has length {size:.2f}"
    tilt = float(np.arccos(np.clip(-gravity(quat / size)[2], -1.0, 1.0)))
    if tilt > self.cfg.tilt:
      return f"tilted by {tilt:.2f} rad"
    beyond = np.maximum(self._low - joint_pos, joint_pos - self._high)
    worst = int(np.argmax(beyond))
    if beyond[worst] > self.cfg.beyond_range:
      return f"{self._names[worst]} is {beyond[worst]:.2f} rad beyond its range"
    worst = int(np.argmax(np.abs(joint_vel)))
    if abs(joint_vel[worst]) > self.cfg.joint_speed:
      return f"{self._names[worst]} moves at {joint_vel[worst]:.0f} rad/s"
    return ""
