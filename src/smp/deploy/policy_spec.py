"""What an exported policy says about itself: all that is needed to run it.

It travels as JSON in the ONNX file's metadata, under `KEY`, beside the entries that
mjlab writes. Those are rounded to three decimals, which changes the gains; these are
exact.
"""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from smp.utils.components import DIRECTION, KINDS, POINT, SCALAR, Component

KEY = "smp"
"""The metadata entry."""
FORMAT = 2
"""Raised when an older reader would misunderstand the file."""
_FORMATS = (1, FORMAT)
"""Those that can be read."""
_KINDS_OF_FORMAT_1 = {
  "direction": DIRECTION,
  "speed": SCALAR,
  "facing": DIRECTION,
  "goal": POINT,
}
"""In format 1 the name of a component said its kind."""


class SpecError(Exception):
  """The metadata is not what it should be. The message says which entry, and why."""


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
  """A part of the vector that the policy sees; the parts follow one another."""

  name: str
  source: str
  """How it is computed: see `smp.deploy.mujoco_robot.SOURCES`; or "command"."""
  size: int
  unit: str
  frame: str
  scale: tuple[float, ...]
  """Multiplies the value; one for all, or one each."""
  noise: tuple[float, float]
  """Range of the uniform noise that training added before it scaled the value."""
  sensor: str = ""
  """The model's sensor, where ``source`` is "sensor"."""


@dataclass(frozen=True)
class Physics:
  """How the simulator has to be set."""

  timestep: float
  """s."""
  decimation: int
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

  format: int
  task: str
  prior: str
  """The motion prior it was trained with."""
  iteration: int
  """Of training, when it was exported."""
  control_hz: float
  """Actions per second."""
  joints: Joints
  observations: tuple[Observation, ...]
  command: tuple[Component, ...]
  """Empty for a task that is always the same."""
  physics: Physics
  start_qpos: tuple[float, ...]
  """The default pose: root xyz (m), root wxyz, joints in the order of ``joints``."""
  fallen_below: float | None = None
  """Height of the pelvis, m, that ends an episode as a fall; None where none does."""
  clip_actions: float | None = None
  """Actions are clipped to plus or minus this before use."""

  @property
  def observation_size(self) -> int:
    return sum(part.size for part in self.observations)

  def dumps(self) -> str:
    return json.dumps(asdict(self))

  @staticmethod
  def loads(text: str) -> PolicySpec:
    """Read what `dumps` wrote.

    Raises:
      SpecError: not JSON, of another format, or an entry is missing or wrong.
    """
    try:
      table = json.loads(text)
    except ValueError as error:
      raise SpecError(f"metadata '{KEY}' is not JSON") from error
    found = table.get("format") if isinstance(table, dict) else None
    if found not in _FORMATS or isinstance(found, bool):
      known = " and ".join(map(str, _FORMATS))
      raise SpecError(
        f"metadata '{KEY}' has format {found!r}, this version reads {known}; export "
        "the policy again"
      )
    if found == 1:
      _upgrade(table)
    spec = _read(PolicySpec, table, "")
    _check(spec)
    return spec


def _upgrade(table: dict[str, Any]) -> None:
  """Add what format 1 left to the reader to know."""
  table["format"] = FORMAT
  parts = table.get("command")
  for part in parts if isinstance(parts, list) else ():
    if not isinstance(part, dict):
      continue
    name, speed = part.get("name"), part.get("name") == "speed"
    part["kind"] = _KINDS_OF_FORMAT_1.get(str(name), str(name))
    part["along"] = "direction" if speed else ""
    part["least"] = 0.0 if speed else None
    part["meaning"] = ""


def _read(hint: Any, value: Any, where: str) -> Any:
  """``value``, as JSON gives it, as a ``hint``."""
  if is_dataclass(hint):
    return _read_dataclass(hint, value, where)
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    return _read_union(arguments, value, where)
  if origin is tuple and isinstance(value, list):
    return tuple(
      _read(arguments[0], item, f"{where}[{i}]") for i, item in _items(value)
    )
  if origin is dict and isinstance(value, dict):
    return {key: _read(arguments[1], v, f"{where}.{key}") for key, v in value.items()}
  if hint is float and type(value) in (int, float) and math.isfinite(value):
    return float(value)
  if hint in (int, str, bool) and type(value) is hint:
    return value
  kind = getattr(hint, "__name__", str(hint))
  raise SpecError(f"metadata '{KEY}': '{where}' is {str(value)[:40]!r}, not a {kind}")


def _items(value: list) -> list[tuple[int, Any]]:
  return list(enumerate(value))


def _read_union(arguments: tuple, value: Any, where: str) -> Any:
  """The first of the kinds that fits: None only for None, a tuple only for a list."""
  if value is None and types.NoneType in arguments:
    return None
  kinds = [kind for kind in arguments if kind is not types.NoneType]
  tuples = [kind for kind in kinds if typing.get_origin(kind) is tuple]
  chosen = tuples if isinstance(value, list) and tuples else kinds
  return _read(chosen[0], value, where)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
  if not isinstance(value, dict):
    raise SpecError(f"metadata '{KEY}': '{where}' is not a table")
  hints, values = typing.get_type_hints(kind), {}
  for field in fields(kind):
    inside = f"{where}.{field.name}".lstrip(".")
    if field.name not in value:
      raise SpecError(f"metadata '{KEY}': '{inside}' is missing")
    values[field.name] = _read(hints[field.name], value[field.name], inside)
  return kind(**values)


def _check(spec: PolicySpec) -> None:
  """Refuse what has the right types and cannot be.

  Raises:
    SpecError: naming the entry.
  """

  def require(holds: bool, message: str) -> None:
    if not holds:
      raise SpecError(f"metadata '{KEY}': {message}")

  count = len(spec.joints.names)
  for field in fields(Joints):
    found = len(getattr(spec.joints, field.name))
    require(found == count, f"'joints.{field.name}' has {found} values, not {count}")
  found = len(spec.start_qpos)
  require(found == count + 7, f"'start_qpos' has {found} values, not {count + 7}")
  require(spec.physics.timestep > 0.0, "'physics.timestep' is not above 0")
  require(spec.physics.decimation > 0, "'physics.decimation' is not above 0")
  for part in spec.observations:
    fits = len(part.scale) in (1, part.size)
    require(fits, f"'{part.name}' has {len(part.scale)} scales, not 1 or {part.size}")
    require(len(part.noise) == 2, f"the noise of '{part.name}' is not a range")
  seen = [part.size for part in spec.observations if part.source == "command"]
  given = sum(part.size for part in spec.command)
  require(sum(seen) == given, f"the command has {given} values, observed {sum(seen)}")
  directions = {part.name for part in spec.command if part.kind == DIRECTION}
  for part in spec.command:
    known = not part.along or part.along in directions
    require(known, f"'{part.name}' goes along '{part.along}', which is no direction")
    found, count = len(part.default), part.given_size
    # What another kind needs, another version knows.
    fits = part.kind not in KINDS or found == count
    require(fits, f"the default of '{part.name}' has {found} values, not {count}")
