"""Metadata of an exported policy: all that is needed to run it.

It is stored as JSON in the ONNX file's metadata, under `KEY`, beside the entries that
mjlab writes. Those are rounded to three decimals, which changes the gains; these are
exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from pydantic import Field

from smp.errors import UserError
from smp.utils.components import DIRECTION, KINDS, POINT, SCALAR, Component
from smp.utils.schema import read_as

STYLE = "style"
"""Source of the observation of a style."""
KEY = "smp"
"""Name of the metadata entry."""
FORMAT = 3
"""Increased when an older reader would misunderstand the file."""
_FORMATS = (1, 2, FORMAT)
"""Formats that can be read."""
_KINDS_OF_FORMAT_1 = {
  "direction": DIRECTION,
  "speed": SCALAR,
  "facing": DIRECTION,
  "goal": POINT,
}
"""Kinds by name: in format 1 the name of a component determined its kind."""


@dataclass(frozen=True)
class Joints:
  """The actuated joints in the order of actions and observations; one value each."""

  names: tuple[str, ...]
  default_pos: tuple[float, ...]
  """rad; observed positions are relative to these."""
  action_scale: tuple[float, ...]
  """rad. The position target is offset + scale * action."""
  action_offset: tuple[float, ...]
  stiffness: tuple[float, ...]
  """N m/rad, of the position actuator."""
  damping: tuple[float, ...]
  """N m s/rad, of the position actuator."""
  effort_limit: tuple[float, ...]
  """N m."""
  armature: tuple[float, ...]
  """kg m^2."""
  frictionloss: tuple[float, ...]
  """N m."""
  passive_damping: tuple[float, ...]
  """N m s/rad, of the joint itself."""


@dataclass(frozen=True)
class Observation:
  """A part of the observation vector; the parts are concatenated in order.

  With a history the frames of a part follow one another, then comes the next part.
  """

  name: str
  source: str
  """Origin of the value: see `smp.deploy.mujoco_robot.SOURCES`; or "command"."""
  size: Annotated[int, Field(gt=0)]
  """Number of values of one frame."""
  unit: str
  frame: str
  scale: tuple[float, ...]
  """Factor on the value; one for all, or one each."""
  noise: tuple[float, float]
  """Range of the uniform noise that training added before scaling the value."""
  sensor: str = ""
  """Name of the model's sensor, where ``source`` is "sensor"."""
  history_length: Annotated[int, Field(gt=0)] = 1
  """Frames in the vector, one per control step, oldest first, this step's last. Before
  there are as many, the first one is repeated."""
  choices: tuple[str, ...] = ()
  """Meaning of the values where one is 1 and the others are 0: the policy's styles."""

  @property
  def width(self) -> int:
    """Return the number of values in the observation vector, all frames together."""
    return self.size * self.history_length


@dataclass(frozen=True)
class Physics:
  """Settings of the simulator."""

  timestep: Annotated[float, Field(gt=0)]
  """s."""
  decimation: Annotated[int, Field(gt=0)]
  """Physics steps per action."""
  options: dict[str, float | tuple[float, ...]]
  """Fields of MuJoCo's ``mjOption``; enums by number."""
  geoms: dict[str, dict[str, float | tuple[float, ...]]]
  """Contact parameters of the robot's geoms that collide; the others do not."""
  floor: dict[str, float | tuple[float, ...]]
  """Contact parameters of the floor, a plane at z = 0."""


@dataclass(frozen=True)
class PolicySpec:
  """An exported policy: its task and prior, and everything between it and the physics."""

  __pydantic_config__ = {"allow_inf_nan": False}

  format: int
  task: str
  prior: str
  """Motion prior that the policy was trained with."""
  iteration: int
  """Iteration of training at the time of export."""
  control_hz: float
  """Actions per second."""
  joints: Joints
  observations: tuple[Observation, ...]
  command: tuple[Component, ...]
  """Components of the command; empty for a task without one."""
  physics: Physics
  start_qpos: tuple[float, ...]
  """Default pose: root xyz (m), root wxyz, joints in the order of ``joints``."""
  fallen_below: float | None = None
  """Height of the pelvis, m, below which the robot has fallen; None for no such limit.
  """
  clip_actions: float | None = None
  """Actions are clipped to plus or minus this before use."""

  @property
  def observation_size(self) -> int:
    """Return the size of the observation vector."""
    return sum(part.width for part in self.observations)

  @property
  def styles(self) -> tuple[str, ...]:
    """Return the styles that the policy tells apart; empty: it observes none."""
    found = [part.choices for part in self.observations if part.source == STYLE]
    return found[0] if found else ()

  def dumps(self) -> str:
    """Return the metadata as JSON."""
    return json.dumps(asdict(self))

  @staticmethod
  def loads(text: str) -> PolicySpec:
    """Read the output of `dumps`.

    Raises:
      UserError: The text is not JSON, is of another format, or an entry is missing or
        wrong.
    """
    try:
      table = json.loads(text)
    except (ValueError, RecursionError) as error:
      raise UserError(f"metadata '{KEY}' is not JSON") from error
    found = table.get("format") if isinstance(table, dict) else None
    if found not in _FORMATS or isinstance(found, bool):
      known = ", ".join(map(str, _FORMATS))
      raise UserError(
        f"metadata '{KEY}' has format {found!r}, this version reads {known}; export "
        "the policy again"
      )
    if found == 1:
      _upgrade(table)
    table["format"] = FORMAT
    spec = read_as(PolicySpec, table, f"metadata '{KEY}'")
    _check(spec)
    return spec


def _upgrade(table: dict[str, Any]) -> None:
  """Add the entries that format 1 left implicit."""
  parts = table.get("command")
  for part in parts if isinstance(parts, list) else ():
    if not isinstance(part, dict):
      continue
    name, speed = part.get("name"), part.get("name") == "speed"
    part["kind"] = _KINDS_OF_FORMAT_1.get(str(name), str(name))
    part["along"] = "direction" if speed else ""
    part["least"] = 0.0 if speed else None
    part["meaning"] = ""


def _require_each(
  spec: PolicySpec, name: str, expected: str, holds: Callable[[float], bool]
) -> None:
  """Raise an error for a joint whose number of some kind is impossible.

  Raises:
    UserError: The message names the joint.
  """
  for joint, value in zip(spec.joints.names, getattr(spec.joints, name), strict=True):
    if not holds(value):
      raise UserError(
        f"metadata '{KEY}': 'joints.{name}' of {joint} is {value:g}, expected {expected}"
      )


def _check(spec: PolicySpec) -> None:
  """Raise an error for values of the right types that are impossible.

  Raises:
    UserError: The message names the entry.
  """

  def require(holds: bool, message: str) -> None:
    if not holds:
      raise UserError(f"metadata '{KEY}': {message}")

  count = len(spec.joints.names)
  for field in fields(Joints):
    found = len(getattr(spec.joints, field.name))
    require(found == count, f"'joints.{field.name}' has {found} values, not {count}")
  twice = [name for name in spec.joints.names if spec.joints.names.count(name) > 1]
  require(not twice, f"'joints.names' has '{twice[0] if twice else ''}' twice")
  for name in ("stiffness", "effort_limit"):
    _require_each(spec, name, "above 0", lambda value: value > 0.0)
  for name in ("damping", "armature", "frictionloss", "passive_damping"):
    _require_each(spec, name, "0 or more", lambda value: value >= 0.0)
  step = spec.physics.timestep * spec.physics.decimation
  require(
    math.isclose(spec.control_hz * step, 1.0, rel_tol=1e-3),
    f"'control_hz' is {spec.control_hz:g}, but an action lasts {step:g} s of physics",
  )
  for name in ("clip_actions", "fallen_below"):
    value = getattr(spec, name)
    require(value is None or value > 0.0, f"'{name}' is {value}, expected above 0")
  found = len(spec.start_qpos)
  require(found == count + 7, f"'start_qpos' has {found} values, not {count + 7}")
  norm = math.hypot(*spec.start_qpos[3:7])
  require(abs(norm - 1.0) < 1e-2, f"'start_qpos' has a quaternion of length {norm:g}")
  for part in spec.observations:
    require(all(part.scale), f"'{part.name}' has a scale of 0")
    low, high = part.noise
    require(low <= high, f"the noise of '{part.name}' is from {low:g} to {high:g}")
    fits = len(part.scale) in (1, part.size)
    require(fits, f"'{part.name}' has {len(part.scale)} scales, not 1 or {part.size}")
    found, due = len(part.choices), part.size if part.source == STYLE else 0
    require(found == due, f"'{part.name}' has {found} choices, not {due}")
  seen = [part.size for part in spec.observations if part.source == "command"]
  given = sum(part.size for part in spec.command)
  require(sum(seen) == given, f"the command has {given} values, observed {sum(seen)}")
  directions = {part.name for part in spec.command if part.kind == DIRECTION}
  for part in spec.command:
    known = not part.along or part.along in directions
    require(known, f"'{part.name}' goes along '{part.along}', which is not a direction")
    found, count = len(part.default), part.given_size
    # Kinds of another version may need another number of values.
    fits = part.kind not in KINDS or found == count
    require(fits, f"the default of '{part.name}' has {found} values, not {count}")
