"""deploy.yaml: what a controller needs to know of a policy, readable without this project.

The entries that the C++ controllers of unitree_rl_lab and unitree_rl_mjlab read
(joint_ids_map, step_dt, stiffness, damping, default_joint_pos, commands, actions,
observations) have their names, orders and forms; docs/deploy.md lists them. The others
say in words and numbers what those controllers leave to convention.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field

from smp.deploy.policy_spec import STYLE, Observation, PolicySpec
from smp.errors import UserError
from smp.robots import g1
from smp.utils.components import SCALAR, Component
from smp.utils.config import read_table
from smp.utils.files import atomic_path
from smp.utils.schema import read_as

SUFFIX = ".deploy.yaml"
"""End of the file's name; it begins as the ONNX file's."""
FORMAT = 1
ROBOT = "unitree_g1_29dof"
ACTION, VELOCITY = "JointPositionAction", "base_velocity"
"""Names of the action and of a velocity command in those controllers."""
Signal = Literal[
  "imu_gyro",
  "imu_quaternion",
  "motor_q",
  "motor_dq",
  "last_action",
  "command",
  "style",
  "none",
]
"""What a value is computed from; "style": 1 for the style wanted, else 0; "none": nothing
that a robot's sensors measure."""
_TERMS: dict[str, tuple[str, Signal]] = {
  "projected_gravity": ("projected_gravity", "imu_quaternion"),
  "joint_pos": ("joint_pos_rel", "motor_q"),
  "joint_vel": ("joint_vel_rel", "motor_dq"),
  "last_action": ("last_action", "last_action"),
  STYLE: ("style", "style"),
}
"""Name of the term in those controllers, and its signal, by source of an observation."""
_VELOCITY_RANGES = ("lin_vel_x", "lin_vel_y", "ang_vel_z")
_VELOCITY_UNITS = ("m/s", "m/s", "rad/s")
_HEAD = """\
# A policy for a Unitree G1 with 29 joints. Nobody has run it on a robot: docs/robot.md.
# Lists over joints follow joint_names, except stiffness, damping and effort_limit, which
# follow the motors of the SDK. Angles are in rad, torques in N m, times in s, and
# quaternions are wxyz.
"""
_STRICT: Any = {"extra": "forbid", "allow_inf_nan": False}
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Network:
  """The ONNX file."""

  __pydantic_config__ = _STRICT
  file: str
  task: str
  prior: str
  iteration: int
  input_name: str
  input_size: Count
  output_name: str
  output_size: Count
  output_clip: Positive | None
  """Outputs are clipped to plus or minus this before anything else; null: not."""


@dataclass(frozen=True)
class CommandPart:
  """A component of the command, as `smp.utils.components.Component`."""

  __pydantic_config__ = _STRICT
  name: str
  size: Count
  unit: str
  frame: str
  given_as: str
  default: tuple[float, ...]
  meaning: str


@dataclass(frozen=True)
class CommandTable:
  """A command: the ranges of training, and its components in order."""

  __pydantic_config__ = _STRICT
  ranges: dict[str, tuple[float, float]]
  components: tuple[CommandPart, ...]


@dataclass(frozen=True)
class Action:
  """Position targets: offset + scale * action, then clipped to ``clip``."""

  __pydantic_config__ = _STRICT
  clip: tuple[tuple[float, float], ...] | None
  joint_names: tuple[str, ...]
  scale: tuple[float, ...]
  offset: tuple[float, ...]
  joint_ids: None


@dataclass(frozen=True)
class Term:
  """A part of the observation: ``size`` values, ``history_length`` frames of them."""

  __pydantic_config__ = _STRICT
  params: dict[str, str]
  clip: None
  scale: tuple[float, ...]
  history_length: Count
  size: Count
  signal: Signal
  unit: str
  frame: str
  choices: tuple[str, ...] = ()
  """Names of the values of "style"; no entry for other signals."""


@dataclass(frozen=True)
class Deploy:
  """A deploy file."""

  __pydantic_config__ = _STRICT
  format: Literal[1]
  robot: Literal["unitree_g1_29dof"]
  policy: Network
  step_dt: Positive
  """Time between two actions, s."""
  joint_names: tuple[str, ...]
  """In the order of actions and observations."""
  joint_ids_map: tuple[int, ...]
  """Motor of each of ``joint_names`` in the SDK's ``motor_cmd`` and ``motor_state``."""
  default_joint_pos: tuple[float, ...]
  joint_pos_lower: tuple[float, ...]
  joint_pos_upper: tuple[float, ...]
  stiffness: tuple[float, ...]
  """kp by motor."""
  damping: tuple[float, ...]
  """kd by motor."""
  effort_limit: tuple[float, ...]
  """By motor."""
  commands: dict[str, CommandTable]
  actions: dict[str, Action]
  history_order: Literal["oldest_first"]
  history_layout: Literal["by_term"]
  """All frames of a term, then the next term."""
  history_start: Literal["repeat_first"]
  """Before there are enough frames, the first one is repeated."""
  observations: dict[str, Term]

  @property
  def action(self) -> Action:
    """Return the only action."""
    return self.actions[ACTION]

  @property
  def styles(self) -> tuple[str, ...]:
    """Return the styles that the policy tells apart; empty: it observes none."""
    return next((t.choices for t in self.observations.values() if t.choices), ())

  def by_joint(self, values: tuple[float, ...]) -> np.ndarray:
    """Return values by motor in the order of ``joint_names`` (A,)."""
    return np.array(values)[list(self.joint_ids_map)]


def deploy_path(policy: Path) -> Path:
  """Return where the deploy file of an ONNX file lies."""
  return policy.with_suffix(SUFFIX)


def describe_deploy(spec: PolicySpec, file: str = "policy.onnx") -> Deploy:
  """Describe a policy for a controller.

  Raises:
    UserError: It has a joint that is no motor of the robot.
  """
  joints, model = spec.joints, g1.load_model()
  for name in joints.names:
    if name not in g1.MOTOR_NAMES:
      raise UserError(f"{spec.task}: joint '{name}' is no motor of a {ROBOT}")
  motors = tuple(g1.MOTOR_NAMES.index(name) for name in joints.names)
  ranges = np.array([model.joint(name).range for name in joints.names])
  return Deploy(
    format=FORMAT,
    robot=ROBOT,
    policy=_network(spec, file),
    step_dt=spec.physics.timestep * spec.physics.decimation,
    joint_names=joints.names,
    joint_ids_map=motors,
    default_joint_pos=joints.default_pos,
    joint_pos_lower=tuple(ranges[:, 0].tolist()),
    joint_pos_upper=tuple(ranges[:, 1].tolist()),
    stiffness=_by_motor(joints.stiffness, motors),
    damping=_by_motor(joints.damping, motors),
    effort_limit=_by_motor(joints.effort_limit, motors),
    commands=_commands(spec.command),
    actions={ACTION: _action(spec)},
    history_order="oldest_first",
    history_layout="by_term",
    history_start="repeat_first",
    observations=dict(_term(part, spec) for part in spec.observations),
  )


def _network(spec: PolicySpec, file: str) -> Network:
  return Network(
    file=file,
    task=spec.task,
    prior=spec.prior,
    iteration=spec.iteration,
    input_name="obs",
    input_size=spec.observation_size,
    output_name="actions",
    output_size=len(spec.joints.names),
    output_clip=spec.clip_actions,
  )


def _by_motor(values: tuple[float, ...], motors: tuple[int, ...]) -> tuple[float, ...]:
  found = [0.0] * len(g1.MOTOR_NAMES)
  for motor, value in zip(motors, values, strict=True):
    found[motor] = value
  return tuple(found)


def is_velocity(parts: tuple[Component, ...]) -> bool:
  """Return whether a command is vx, vy and yaw rate, as those controllers command."""
  scalars = all(part.kind == SCALAR and part.size == 1 for part in parts)
  return scalars and tuple(part.unit for part in parts) == _VELOCITY_UNITS


def _commands(parts: tuple[Component, ...]) -> dict[str, CommandTable]:
  if not parts:
    return {}
  velocity = is_velocity(parts)
  names = _VELOCITY_RANGES if velocity else [part.name for part in parts]
  ranges = {
    name: (part.low, part.high) for name, part in zip(names, parts, strict=True)
  }
  kept = {each.name for each in fields(CommandPart)}
  components = tuple(
    CommandPart(**{key: getattr(part, key) for key in kept}) for part in parts
  )
  return {VELOCITY if velocity else "command": CommandTable(ranges, components)}


def _action(spec: PolicySpec) -> Action:
  joints, clip = spec.joints, None
  if spec.clip_actions is not None:
    reach = np.abs(joints.action_scale) * spec.clip_actions
    offset = np.array(joints.action_offset)
    pairs = np.stack((offset - reach, offset + reach), axis=1)
    clip = tuple((float(low), float(high)) for low, high in pairs)
  return Action(clip, (".*",), joints.action_scale, joints.action_offset, None)


def _term(part: Observation, spec: PolicySpec) -> tuple[str, Term]:
  """Return name and description of a part of the observation."""
  params: dict[str, str] = {}
  frame = part.frame
  if part.source == "command":
    velocity = is_velocity(spec.command)
    name = "velocity_commands" if velocity else "command"
    signal: Signal = "command"
    params = {"command_name": VELOCITY if velocity else "command"}
  elif part.source == "sensor":
    # The IMU's axes are the pelvis'.
    name, frame = part.name, "pelvis"
    signal = "imu_gyro" if part.unit == "rad/s" else "none"
  else:
    name, signal = _TERMS.get(part.source, (part.name, "none"))
  scale = part.scale if len(part.scale) == part.size else part.scale * part.size
  return name, Term(
    params,
    None,
    scale,
    part.history_length,
    part.size,
    signal,
    part.unit,
    frame,
    part.choices,
  )


def write_deploy(spec: PolicySpec, policy: Path) -> Path:
  """Write the deploy file of an ONNX file beside it, and return its path.

  Raises:
    UserError: The file cannot be written.
  """
  path = deploy_path(policy)
  table = _plain(asdict(describe_deploy(spec, policy.name)))
  for term in table["observations"].values():
    if not term["choices"]:
      del term["choices"]
  text = yaml.safe_dump(
    table,
    sort_keys=False,
    default_flow_style=None,
    width=96,
  )
  with atomic_path(path) as temporary:
    temporary.write_text(_HEAD + text)
  return path


def _plain(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _plain(each) for key, each in value.items()}
  return [_plain(each) for each in value] if isinstance(value, tuple) else value


def read_deploy(path: str | os.PathLike[str]) -> Deploy:
  """Read a deploy file.

  Raises:
    UserError: There is no such file, it is not YAML, or an entry is missing, unknown,
      or impossible.
  """
  deploy = read_as(Deploy, read_table(Path(path)), path, "export the policy again")
  _check(deploy, path)
  return deploy


def _check(deploy: Deploy, path: str | os.PathLike[str]) -> None:
  """Raise an error for values of the right types that are impossible.

  Raises:
    UserError: The message names the entry, and the joint.
  """

  def require(holds: bool, message: str) -> None:
    if not holds:
      raise UserError(f"{path}: {message}; export the policy again")

  names, count = deploy.joint_names, len(deploy.joint_names)
  for i, name in enumerate(names):
    require(name not in names[:i], f"'joint_names' has {name} twice")
    require(
      name in g1.MOTOR_NAMES, f"'joint_names[{i}]' is {name}, no joint of a {ROBOT}"
    )
  require(tuple(deploy.actions) == (ACTION,), f"'actions' is not one {ACTION}")
  for field, values, size in _lists(deploy):
    require(len(values) == size, f"'{field}' has {len(values)} values, not {size}")
  for i, (name, motor) in enumerate(zip(names, deploy.joint_ids_map, strict=True)):
    right = g1.MOTOR_NAMES.index(name)
    require(motor == right, f"'joint_ids_map[{i}]' is {motor}, {name} is motor {right}")
  _check_limits(deploy, require)
  _check_observations(deploy, require)
  found = (deploy.policy.input_size, deploy.policy.output_size)
  wanted = (sum(t.size * t.history_length for t in deploy.observations.values()), count)
  message = "'observations' have {} values for {} joints, 'policy' maps {} to {}"
  require(found == wanted, message.format(*wanted, *found))


def _lists(deploy: Deploy) -> list[tuple[str, tuple, int]]:
  """Return name, values and due size of each list over joints or motors."""
  count, motors = len(deploy.joint_names), len(g1.MOTOR_NAMES)
  joints = ("joint_ids_map", "default_joint_pos", "joint_pos_lower", "joint_pos_upper")
  found = [(name, getattr(deploy, name), count) for name in joints]
  for name in ("stiffness", "damping", "effort_limit"):
    found.append((name, getattr(deploy, name), motors))
  for name in ("scale", "offset", "clip"):
    values = getattr(deploy.action, name)
    if values is not None:
      found.append((f"actions.{ACTION}.{name}", values, count))
  return found


def _check_limits(deploy: Deploy, require: Any) -> None:
  above_zero = {
    "stiffness": deploy.by_joint(deploy.stiffness),
    "damping": deploy.by_joint(deploy.damping),
    "effort_limit": deploy.by_joint(deploy.effort_limit),
    f"actions.{ACTION}.scale": deploy.action.scale,
  }
  for field, values in above_zero.items():
    for name, value in zip(deploy.joint_names, values, strict=True):
      require(value > 0.0, f"'{field}' of {name} is {value:g}, expected above 0")
  low, high = deploy.joint_pos_lower, deploy.joint_pos_upper
  places = zip(deploy.joint_names, low, deploy.default_joint_pos, high, strict=True)
  for name, least, value, most in places:
    require(least < most, f"limits of {name} are {least:g} to {most:g}")
    fits = least <= value <= most
    require(fits, f"'default_joint_pos' of {name} is {value:g}, outside its limits")


def _check_observations(deploy: Deploy, require: Any) -> None:
  given = sum(p.size for c in deploy.commands.values() for p in c.components)
  count = len(deploy.joint_names)
  sizes = {"imu_gyro": 3, "imu_quaternion": 3, "command": given}
  sizes |= dict.fromkeys(("motor_q", "motor_dq", "last_action"), count)
  for name, term in deploy.observations.items():
    due = sizes.get(term.signal, term.size)
    field = f"observations.{name}"
    require(term.size == due, f"'{field}.size' is {term.size}, not {due}")
    found, styles = len(term.choices), due if term.signal == "style" else 0
    require(found == styles, f"'{field}.choices' has {found} names, not {styles}")
    fits = len(term.scale) == due
    require(fits, f"'{field}.scale' has {len(term.scale)} values, not {due}")
    require(all(term.scale), f"'{field}.scale' has a 0")


def check_against(
  deploy: Deploy, spec: PolicySpec, path: str | os.PathLike[str]
) -> None:
  """Raise an error unless a deploy file says what the policy was trained with.

  Args:
    deploy: The file's content.
    spec: The metadata of its ONNX file.
    path: The file, for the message.

  Raises:
    UserError: The message names the first entry that differs.
  """
  wanted = _leaves(_plain(asdict(describe_deploy(spec, deploy.policy.file))), "")
  found = _leaves(_plain(asdict(deploy)), "")
  for place in [*wanted, *found]:
    ours, theirs = wanted.get(place), found.get(place)
    if _same(ours, theirs):
      continue
    raise UserError(
      f"{path}: '{place}'{_joint_of(place, deploy)} is {_told(theirs)}, the policy was "
      f"trained with {_told(ours)}; export the policy again"
    )
  if list(wanted) != list(found):
    raise UserError(
      f"{path}: its entries stand in another order than the policy's observations; "
      "export the policy again"
    )


def _same(one: Any, other: Any) -> bool:
  if isinstance(one, float) and isinstance(other, float):
    return bool(np.isclose(one, other, rtol=1e-6, atol=1e-9))
  return one == other


def _told(value: Any) -> str:
  return "missing" if value is None else f"{value:g}" if type(value) is float else value


def _joint_of(place: str, deploy: Deploy) -> str:
  """Return the joint that an entry of a list is about, for a message."""
  name, bracket, index = place.rstrip("]").partition("[")
  if (
    not bracket or not index.isdigit() or name.startswith(("observations", "commands"))
  ):
    return ""
  by_motor = name in ("stiffness", "damping", "effort_limit")
  names = g1.MOTOR_NAMES if by_motor else deploy.joint_names
  return f" ({names[int(index)]})" if int(index) < len(names) else ""


def _leaves(value: Any, place: str) -> dict[str, Any]:
  """Return the plain values of a table by their places, such as a.b[3]."""
  if isinstance(value, dict):
    items = [(f"{place}.{key}" if place else key, each) for key, each in value.items()]
  elif isinstance(value, list):
    items = [(f"{place}[{i}]", each) for i, each in enumerate(value)]
  else:
    return {place: value}
  found: dict[str, Any] = {}
  for where, each in items:
    found |= _leaves(each, where)
  return found
