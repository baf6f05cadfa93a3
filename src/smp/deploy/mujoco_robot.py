"""The robot in plain MuJoCo: model, observations and steps as in the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mujoco
import numpy as np

from smp.deploy.fixed_command import Command
from smp.deploy.policy_spec import STYLE, Observation, Physics, PolicySpec
from smp.errors import UserError, one_line, shown
from smp.robots import g1


class State(NamedTuple):
  """State of the robot in generalised coordinates."""

  qpos: np.ndarray
  """(36,): root xyz, m, root wxyz, joint angles, rad, in the model's order."""
  qvel: np.ndarray
  """(35,): root velocity, m/s, world axes; angular, rad/s, body axes; joints, rad/s."""


def build_model(spec: PolicySpec, visual: bool = False) -> mujoco.MjModel:
  """Build the G1 on a plane with the actuators, contacts and solver of training.

  Args:
    spec: The policy.
    visual: Whether to add meshes, light and a chequered floor.

  Raises:
    UserError: The policy and the model do not have the same joints or geoms.
  """
  if visual:
    from smp.robots.scene import scene_spec

    model_spec = scene_spec()
  else:
    model_spec = g1.load_spec(floor=True)
  _check_joints(spec, model_spec)
  _add_actuators(spec, model_spec)
  _set_contacts(spec.physics, model_spec)
  try:
    model = model_spec.compile()
  except ValueError as error:
    raise UserError(
      f"the policy's physics make no model ({one_line(error)}); export the policy again"
    ) from error
  _set_options(spec.physics, model)
  return model


def _check_joints(spec: PolicySpec, model_spec: mujoco.MjSpec) -> None:
  hinges = [
    joint.name
    for joint in model_spec.joints
    if joint.type == mujoco.mjtJoint.mjJNT_HINGE
  ]
  for mine, theirs, whose in (
    (spec.joints.names, hinges, "the policy's joint '{}' is not in the model"),
    (hinges, spec.joints.names, "the policy does not know the model's joint '{}'"),
  ):
    for name in mine:
      if name not in theirs:
        raise UserError(
          f"{spec.task}: {whose.format(name)} {g1.model_path().name}; the policy was "
          "exported for another robot"
        )


def _add_actuators(spec: PolicySpec, model_spec: mujoco.MjSpec) -> None:
  """Add position actuators: torque = stiffness * (target - q) - damping * dq, limited."""
  joints = spec.joints
  for i, name in enumerate(joints.names):
    joint = model_spec.joint(name)
    joint.armature = joints.armature[i]
    joint.frictionloss = joints.frictionloss[i]
    joint.damping[0] = joints.passive_damping[i]
    actuator = model_spec.add_actuator(name=name, target=name)
    actuator.trntype = mujoco.mjtTrn.mjTRN_JOINT
    actuator.dyntype = mujoco.mjtDyn.mjDYN_NONE
    actuator.gaintype = mujoco.mjtGain.mjGAIN_FIXED
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.gainprm[0] = joints.stiffness[i]
    actuator.biasprm[1] = -joints.stiffness[i]
    actuator.biasprm[2] = -joints.damping[i]
    # A policy pushes against a joint's limit by targets beyond its range.
    actuator.ctrllimited = False
    actuator.forcelimited = True
    actuator.forcerange[:] = [-joints.effort_limit[i], joints.effort_limit[i]]


def _set_contacts(physics: Physics, model_spec: mujoco.MjSpec) -> None:
  geoms = {geom.name: geom for geom in model_spec.geoms if geom.name}
  for name in physics.geoms:
    if name not in geoms:
      raise UserError(
        f"the policy's contact geom '{name}' is not in the model "
        f"{g1.model_path().name}; the policy was exported for another robot"
      )
  for geom in model_spec.geoms:
    geom.contype, geom.conaffinity = 0, 0
    table = physics.floor if geom.name == g1.FLOOR else physics.geoms.get(geom.name, {})
    for field, value in table.items():
      _set(geom, field, value)


def _set_options(physics: Physics, model: mujoco.MjModel) -> None:
  for field, value in physics.options.items():
    _set(model.opt, field, value)
  model.opt.timestep = physics.timestep
  # A diverged state is kept, so that the caller can detect it.
  model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value


def _set(owner: object, field: str, value: float | tuple[float, ...]) -> None:
  """Set a field of a MuJoCo object, whether a number or an array."""
  old = getattr(owner, field, None)
  if old is None:
    raise UserError(
      f"the policy sets '{field}', which this version of MuJoCo ({mujoco.__version__}) "
      "does not have; export the policy again"
    )
  try:
    if isinstance(value, tuple):
      old[: len(value)] = value
    else:
      setattr(owner, field, type(old)(value))
  except (TypeError, ValueError) as error:
    raise UserError(
      f"the policy sets '{field}' to {shown(value)}, which it cannot be; export the "
      "policy again"
    ) from error


class Robot:
  """A robot that is controlled by a policy.

  Args:
    spec: The policy.
    command: The command of the policy.
    visual: As for `build_model`.

  Attributes:
    model, data: MuJoCo's. Body poses and sensors are those of ``data.qpos``.
    action: The last action (A,); zero at the beginning.
    delay_steps: Physics steps before targets take effect; the default pose until then.
    gain_scale: Factor on the gains that the motors are told.
    style: The style that the policy is told, one of the policy's; "" if it has none.
    held: Pose (7,) at which a stand holds the pelvis; None: it is free.
  """

  def __init__(self, spec: PolicySpec, command: Command, visual: bool = False) -> None:
    self.spec, self.command = spec, command
    self.model = build_model(spec, visual)
    self.data = mujoco.MjData(self.model)
    for warning in (
      mujoco.mjtWarning.mjWARN_BADQPOS,
      mujoco.mjtWarning.mjWARN_BADQVEL,
      mujoco.mjtWarning.mjWARN_BADQACC,
      mujoco.mjtWarning.mjWARN_BADCTRL,
    ):
      self.data.warning[warning].number = 1  # The caller reports it: no log file.
    joints = spec.joints
    each = [self.model.joint(name) for name in joints.names]
    self.joint_q = np.array([int(joint.qposadr[0]) for joint in each])
    self.joint_v = np.array([int(joint.dofadr[0]) for joint in each])
    self.ctrl = np.array([self.model.actuator(name).id for name in joints.names])
    self.root = self.model.body(g1.ROOT_BODY).id
    self._default = np.array(joints.default_pos)
    self._offset = np.array(joints.action_offset)
    self._scale = np.array(joints.action_scale)
    self.action = np.zeros(len(joints.names))
    self.style = spec.styles[0] if spec.styles else ""
    self.delay_steps, self._waiting = 0, list[tuple[int, np.ndarray]]()
    self.gain_scale = 1.0
    self.held: np.ndarray | None = None
    self._parts = [(part, self._source(part)) for part in spec.observations]
    self.reset()

  @property
  def step_s(self) -> float:
    """Return the time between two actions, s."""
    return self.spec.physics.timestep * self.spec.physics.decimation

  def default_state(self) -> State:
    """Return the pose in the policy's file, at rest."""
    qpos = np.array(self.spec.start_qpos)
    placed = qpos.copy()
    placed[self.joint_q] = qpos[7:]
    return State(placed, np.zeros(self.model.nv))

  def reset(self, start: State | None = None) -> None:
    """Begin at ``start``, by default the default pose."""
    state = start or self.default_state()
    mujoco.mj_resetData(self.model, self.data)
    self.data.qpos[:], self.data.qvel[:] = state
    self.data.ctrl[self.ctrl] = self._offset
    joints = self.spec.joints
    self.set_gains(np.array(joints.stiffness), np.array(joints.damping))
    self._waiting.clear()
    self.held = None
    self.action[:] = 0.0
    self.refresh()

  def step(self, action: np.ndarray) -> None:
    """Apply one action (A,) for one control step."""
    self.action[:] = action
    self.drive(self.targets(action))

  def targets(self, action: np.ndarray) -> np.ndarray:
    """Return the position targets (A,), rad, of an action (A,)."""
    return self._offset + self._scale * np.asarray(action, float)

  def drive(self, target: np.ndarray) -> None:
    """Apply position targets (A,), rad, for one control step."""
    self._waiting.append((self.delay_steps, target))
    left = self.spec.physics.decimation
    while left:
      while self._waiting and self._waiting[0][0] <= 0:
        self.data.ctrl[self.ctrl] = self._waiting.pop(0)[1]
      steps = min([left, *(due for due, _ in self._waiting[:1])])
      steps = steps if self.held is None else 1
      mujoco.mj_step(self.model, self.data, steps)
      if self.held is not None:
        self.data.qpos[:7], self.data.qvel[:6] = self.held, 0.0
      self._waiting = [(due - steps, each) for due, each in self._waiting]
      left -= steps
    self.refresh()

  def set_gains(self, kp: np.ndarray, kd: np.ndarray) -> None:
    """Tell the motors stiffness, N m/rad, and damping, N m s/rad (A,)."""
    self.model.actuator_gainprm[self.ctrl, 0] = self.gain_scale * kp
    self.model.actuator_biasprm[self.ctrl, 1] = -self.gain_scale * kp
    self.model.actuator_biasprm[self.ctrl, 2] = -self.gain_scale * kd

  def push(self, velocity_w: np.ndarray) -> None:
    """Add a velocity (2,), m/s, world xy, to the pelvis."""
    self.data.qvel[:2] += velocity_w
    self.refresh()

  def observe(self) -> np.ndarray:
    """Return what the policy observes at this moment: one frame (F,), float32."""
    parts = [np.array(part.scale) * value() for part, value in self._parts]
    return np.concatenate(parts).astype(np.float32)

  def state(self) -> State:
    """Return a copy of the present state."""
    return State(self.data.qpos.copy(), self.data.qvel.copy())

  def refresh(self) -> None:
    """Update body poses and velocity sensors to the state.

    A step leaves them at the state before its last physics step. The environment runs
    ``forward`` before it observes; this is the part of it that observations need.
    """
    mujoco.mj_kinematics(self.model, self.data)
    mujoco.mj_comPos(self.model, self.data)
    mujoco.mj_comVel(self.model, self.data)
    mujoco.mj_sensorVel(self.model, self.data)

  def _source(self, part: Observation) -> Callable[[], np.ndarray]:
    """Return the function that computes a part of the observation."""
    if part.source == "sensor":
      return self._sensor(part)
    if part.source == "command":
      return lambda: self.command.observe(self.data.qpos)
    if part.source not in SOURCES:
      raise UserError(
        f"{self.spec.task}: this version has no observation '{part.source}' "
        f"('{part.name}'); use the version that exported the policy"
      )
    function = SOURCES[part.source]
    return lambda: function(self)

  def _sensor(self, part: Observation) -> Callable[[], np.ndarray]:
    names = [self.model.sensor(i).name for i in range(self.model.nsensor)]
    if part.sensor not in names:
      raise UserError(
        f"{self.spec.task}: the policy's sensor '{part.sensor}' is not in the model "
        f"{g1.model_path().name}; the policy was exported for another robot"
      )
    start = int(self.model.sensor(part.sensor).adr[0])
    return lambda: self.data.sensordata[start : start + part.size]

  def projected_gravity(self) -> np.ndarray:
    """Return the direction of gravity (3,) in the root's axes."""
    return -self.data.xmat[self.root].reshape(3, 3)[2]

  def joint_pos(self) -> np.ndarray:
    """Return joint angles (A,) relative to the default pose, rad."""
    return self.data.qpos[self.joint_q] - self._default

  def joint_vel(self) -> np.ndarray:
    """Return joint velocities (A,), rad/s."""
    return self.data.qvel[self.joint_v]

  def last_action(self) -> np.ndarray:
    """Return the last action (A,)."""
    return self.action

  def style_one_hot(self) -> np.ndarray:
    """Return 1 at the place of the style, else 0 (S,)."""
    return np.array([float(name == self.style) for name in self.spec.styles])


SOURCES: dict[str, Callable[[Robot], np.ndarray]] = {
  "projected_gravity": Robot.projected_gravity,
  "joint_pos": Robot.joint_pos,
  "joint_vel": Robot.joint_vel,
  "last_action": Robot.last_action,
  STYLE: Robot.style_one_hot,
}
"""Parts of the observation by ``source``, in addition to sensor and command."""
