"""Mistakes that controllers and logs make, each as a change that can be made on purpose.

A mistake changes one stage on the way from a log to actions: the raw ``signals``, the
``values`` of the terms of the observation, the ``layout`` of these in the vector, or the
``output``. Whether the controller or the log made it does not show in the difference, so
changes are listed both ways where that matters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from smp.deploy.controller import Signals, targets
from smp.deploy.deploy_file import Deploy, Signal
from smp.deploy.robot_log import RobotLog
from smp.robots import g1

Stage: TypeAlias = Literal["signals", "values", "layout", "output"]
Values: TypeAlias = Mapping[str, np.ndarray]
FARTHEST_STEP = 25
"""Largest delay that is tried, steps."""
_DELAYS = (1, 2, 3, 4, 5)
_FAR_DELAYS = (*_DELAYS, 7, 10, 15, FARTHEST_STEP)
"""Of the command, which a person gives."""
_SCALES = tuple(np.linspace(math.log(0.008), math.log(120.0), 25).tolist())
"""Logarithms of the scales that are tried first."""
_ANGLES = tuple(math.radians(each) for each in range(-180, 181, 15))
_MOST_PERMUTED = 5
"""Values of a command up to which all orders are tried."""
ISAAC_LAB = (0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17, 24)
ISAAC_LAB += (18, 25, 19, 26, 20, 27, 21, 28)
"""Motors in the order of Isaac Lab's joints: by distance from the pelvis."""
_ORDERS: dict[str, tuple[int, ...]] = {
  "Isaac Lab (by distance from the pelvis)": ISAAC_LAB,
  "the SDK with left and right exchanged": g1.MIRROR_INDEX,
  "arms before legs": (*range(15, 29), *range(12, 15), *range(12)),
}
_DEGREES = math.degrees(1.0)


@dataclass(frozen=True)
class Mistake:
  """A change of one stage."""

  kind: str
  text: str
  stage: Stage
  change: Callable[..., Any]
  """From the stage's value to the wrong one; ``layout``: as `gather`."""
  undo: Callable[[np.ndarray], np.ndarray] | None = None
  """Of ``output``: from the logged actions to the network's."""


@dataclass(frozen=True)
class Fit:
  """A mistake of unknown size."""

  at: Callable[[float], Mistake]
  grid: tuple[float, ...]
  """Increasing."""


def gather(
  deploy: Deploy, frames: np.ndarray, rows: np.ndarray, pick: Callable | None = None
) -> np.ndarray:
  """Return the observations (R, O) at ``rows`` of ``frames`` (T, F).

  Args:
    deploy: The policy.
    frames: One row per step.
    rows: Steps, each with all of its history in ``frames``.
    pick: From a length to the steps of a history, ending at 0; by default the last ones,
      oldest first.
  """
  blocks, start = [], 0
  for term in deploy.observations.values():
    n = term.history_length
    past = np.arange(1 - n, 1) if pick is None else pick(n)
    block = frames[rows[:, None] + past][..., start : start + term.size]
    blocks.append(block.reshape(len(rows), -1))
    start += term.size
  return np.concatenate(blocks, axis=1)


def action_mistakes(deploy: Deploy, log: RobotLog) -> Iterator[Mistake | Fit]:
  """Yield mistakes that change actions, the more special before the more general."""
  terms = _terms(deploy)
  yield from _units(terms)
  yield from _offsets(deploy, terms)
  yield from _imu(deploy, terms)
  yield from _signs(deploy, terms)
  yield from _orders(deploy)
  yield from _layouts(deploy)
  yield from _last_action(deploy, terms)
  yield from _command(deploy, terms)
  yield from _style(deploy, terms)
  yield from _delays(deploy, terms)
  yield from _outputs(deploy, log)
  yield from _scales(deploy)
  yield from _mounting(terms)


def _terms(deploy: Deploy) -> dict[Signal, str]:
  """Return the name of the term of each signal that the policy observes."""
  return {term.signal: name for name, term in deploy.observations.items()}


def _with(
  **changes: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Signals], Signals]:
  """Return a change of some of the signals."""

  def change(signals: Signals) -> Signals:
    return signals._replace(
      **{name: each(getattr(signals, name)) for name, each in changes.items()}
    )

  return change


def _value(
  name: str, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Values], Values]:
  """Return a change of one term's values."""
  return lambda values: {**values, name: change(values[name])}


def _times(factor: Any) -> Callable[[np.ndarray], np.ndarray]:
  return lambda value: value * factor


def _order(index: Any) -> Callable[[np.ndarray], np.ndarray]:
  index = list(index)
  return lambda value: value[:, index]


def _later(steps: int) -> Callable[[np.ndarray], np.ndarray]:
  """Return the change to the values of some steps before, or after if negative."""

  def shift(value: np.ndarray) -> np.ndarray:
    index = np.clip(np.arange(len(value)) - steps, 0, len(value) - 1)
    return value[index]

  return shift


def _units(terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  for field, what in (
    ("joint_pos", "joint positions"),
    ("joint_vel", "joint velocities"),
    ("gyro", "the gyroscope"),
  ):
    for factor in (_DEGREES, 1.0 / _DEGREES):
      yield Mistake(
        f"{what.removeprefix('the ')} in degrees",
        f"{what}: degrees where radians are due",
        "signals",
        _with(**{field: _times(factor)}),
      )


def _offsets(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  if "motor_q" not in terms:
    return
  default, name = np.array(deploy.default_joint_pos), terms["motor_q"]
  yield Mistake(
    "default position not subtracted",
    f"{name}: absolute joint positions; subtract default_joint_pos",
    "values",
    _value(name, lambda value: value + default),
  )
  yield Mistake(
    "default position subtracted twice",
    f"{name}: the joint positions are relative already, default_joint_pos is "
    "subtracted twice",
    "values",
    _value(name, lambda value: value - default),
  )


def _imu(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  if "imu_quaternion" in terms:
    for index in ((3, 0, 1, 2), (1, 2, 3, 0)):
      yield Mistake(
        "quaternion order",
        "the IMU's quaternion: xyzw where wxyz is due, or the reverse",
        "signals",
        _with(quat=_order(index)),
      )
    yield Mistake(
      "quaternion inverted",
      "the IMU's quaternion: from world to body where body to world is due",
      "signals",
      _with(quat=_times(np.array([1.0, -1.0, -1.0, -1.0]))),
    )
    yield Mistake(
      "gravity sign",
      f"{terms['imu_quaternion']}: points up; gravity points down, (0, 0, -1) upright",
      "values",
      _value(terms["imu_quaternion"], np.negative),
    )
  if "imu_gyro" in terms:
    for inverse in (False, True):
      yield Mistake(
        "gyroscope frame",
        "the gyroscope: in the world's axes where the pelvis' are due",
        "signals",
        lambda signals, inverse=inverse: signals._replace(
          gyro=_rotated(signals.quat, signals.gyro, inverse)
        ),
      )
  if set(g1.MOTOR_NAMES) <= set(deploy.joint_names):
    yield Mistake(
      "IMU of the torso",
      "the IMU: the torso's where the pelvis' is due",
      "signals",
      lambda signals: _torso_imu(deploy, signals),
    )


def _rotated(quat: np.ndarray, vector: np.ndarray, inverse: bool = False) -> np.ndarray:
  """Return vectors (T, 3) turned by quaternions (T, 4), wxyz."""
  w, axis = quat[:, :1], quat[:, 1:] * (-1.0 if inverse else 1.0)
  twice = 2.0 * np.cross(axis, vector)
  return vector + w * twice + np.cross(axis, twice)


def _product(one: np.ndarray, two: np.ndarray) -> np.ndarray:
  """Return products of quaternions (T, 4), wxyz."""
  w, v, u, x = one[:, :1], one[:, 1:], two[:, :1], two[:, 1:]
  real = w * u - np.sum(v * x, axis=1, keepdims=True)
  return np.concatenate((real, w * x + u * v + np.cross(v, x)), axis=1)


def _turn(axis: int, angle: np.ndarray) -> np.ndarray:
  """Return turns (T, 4), wxyz, about x, y or z."""
  quat = np.zeros((len(angle), 4))
  quat[:, 0], quat[:, 1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
  return quat


def _torso_imu(deploy: Deploy, signals: Signals) -> Signals:
  """Return the signals with the torso's orientation and angular velocity."""
  quat, gyro = signals.quat, signals.gyro
  for name, axis in (("waist_yaw", 2), ("waist_roll", 0), ("waist_pitch", 1)):
    joint = deploy.joint_names.index(f"{name}_joint")
    turn = _turn(axis, signals.joint_pos[:, joint])
    quat, gyro = _product(quat, turn), _rotated(turn, gyro, inverse=True)
    gyro[:, axis] += signals.joint_vel[:, joint]
  return signals._replace(quat=quat, gyro=gyro)


def _signs(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  for fields, kind, what in (
    (("joint_vel",), "joint velocity sign", "joint velocities"),
    (("joint_pos",), "joint position sign", "joint positions"),
    (
      ("joint_pos", "joint_vel"),
      "sign of all joints",
      "joint positions and velocities",
    ),
    (("gyro",), "gyroscope sign", "the gyroscope"),
  ):
    change = _with(**dict.fromkeys(fields, np.negative))
    yield Mistake(kind, f"{what}: the sign is reversed", "signals", change)
  for fields, what in (
    (("joint_pos", "joint_vel"), ""),
    (("joint_pos",), ", of its position alone"),
    (("joint_vel",), ", of its velocity alone"),
  ):
    for i, name in enumerate(deploy.joint_names):
      sign = np.ones(len(deploy.joint_names))
      sign[i] = -1.0
      yield Mistake(
        "joint sign",
        f"{name}: the sign is reversed{what}",
        "signals",
        _with(**dict.fromkeys(fields, _times(sign))),
      )
  for signal in ("imu_gyro", "imu_quaternion"):
    for axis in range(3) if signal in terms else ():
      sign = np.ones(3)
      sign[axis] = -1.0
      yield Mistake(
        "IMU axis sign",
        f"{terms[signal]}: the sign of {'xyz'[axis]} is reversed",
        "values",
        _value(terms[signal], _times(sign)),
      )


def _orders(deploy: Deploy) -> Iterator[Mistake]:
  """Yield joints in the orders of other software, both ways."""
  if set(deploy.joint_names) != set(g1.MOTOR_NAMES):
    return
  motors = np.array(deploy.joint_ids_map)
  place = np.argsort(motors)
  for name, order in _ORDERS.items():
    for index in (np.array(order), np.argsort(order)):
      mixed = _order(place[index][motors])
      for fields, what in (
        (("joint_pos", "joint_vel"), "joint positions and velocities"),
        (("joint_pos",), "joint positions"),
        (("joint_vel",), "joint velocities"),
        (("last_action",), "the last action"),
      ):
        yield Mistake(
          "joint order",
          f"{what}: in the order of {name}, not in that of joint_names",
          "signals",
          _with(**dict.fromkeys(fields, mixed)),
        )
      yield Mistake(
        "order of actions",
        f"actions: in the order of {name}, not in that of joint_names",
        "output",
        mixed,
        _order(np.argsort(place[index][motors])),
      )


def joint_swaps(deploy: Deploy) -> Iterator[Mistake]:
  """Yield every exchange of two joints."""
  names = deploy.joint_names
  for fields, what in (
    (("joint_pos", "joint_vel"), ""),
    (("joint_pos",), ", in position alone"),
    (("joint_vel",), ", in velocity alone"),
  ):
    for i, j in itertools.combinations(range(len(names)), 2):
      index = np.arange(len(names))
      index[[i, j]] = j, i
      yield Mistake(
        "joints exchanged",
        f"{names[i]} and {names[j]} are exchanged{what}",
        "signals",
        _with(**dict.fromkeys(fields, _order(index))),
      )


def _layouts(deploy: Deploy) -> Iterator[Mistake]:
  """Yield other orders of the observation vector."""
  lengths = {term.history_length for term in deploy.observations.values()}
  if max(lengths) > 1:
    for kind, text, pick in (
      (
        "history order",
        "the history: newest first, where the oldest is due first",
        lambda n: np.arange(0, -n, -1),
      ),
      (
        "no history",
        "the history: the present frame, repeated",
        lambda n: np.zeros(n, int),
      ),
      (
        "rate of the history",
        "the history: every second step, where every step is due",
        lambda n: np.arange(2 - 2 * n, 1, 2),
      ),
      (
        "history without the present",
        "the history: ends a step early, without the present frame",
        lambda n: np.arange(-n, 0) if n > 1 else np.zeros(1, int),
      ),
    ):
      yield Mistake(kind, text, "layout", _gatherer(pick))
    yield Mistake(
      "layout of the history",
      "the history: frame by frame, where all frames of a term are due before the next",
      "layout",
      _by_frame,
    )
  for one, other in itertools.combinations(deploy.observations, 2):
    yield Mistake(
      "order of terms",
      f"observations: {one} and {other} stand in each other's place",
      "layout",
      _exchanger(one, other),
    )


def _gatherer(pick: Callable[[int], np.ndarray]) -> Callable:
  return lambda deploy, frames, rows: gather(deploy, frames, rows, pick)


def _blocks(deploy: Deploy, observations: np.ndarray) -> dict[str, np.ndarray]:
  """Return the parts of observations (R, O), each (R, frames, size), by term."""
  found, start = {}, 0
  for name, term in deploy.observations.items():
    end = start + term.size * term.history_length
    block = observations[:, start:end]
    found[name] = block.reshape(len(block), term.history_length, term.size)
    start = end
  return found


def _by_frame(deploy: Deploy, frames: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Arrange frame by frame; terms with a shorter history only in the last ones."""
  blocks = _blocks(deploy, gather(deploy, frames, rows)).values()
  longest = max(block.shape[1] for block in blocks)
  return np.concatenate(
    [
      block[:, block.shape[1] - longest + i]
      for i in range(longest)
      for block in blocks
      if block.shape[1] - longest + i >= 0
    ],
    axis=1,
  )


def _exchanger(one: str, other: str) -> Callable:
  def arrange(deploy: Deploy, frames: np.ndarray, rows: np.ndarray) -> np.ndarray:
    blocks = _blocks(deploy, gather(deploy, frames, rows))
    swap = {one: other, other: one}
    parts = [blocks[swap.get(name, name)] for name in blocks]
    return np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)

  return arrange


def _last_action(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  if "last_action" not in terms:
    return
  name = terms["last_action"]
  scale, offset = np.array(deploy.action.scale), np.array(deploy.action.offset)
  for kind, text, change in (
    ("last action missing", "always 0", np.zeros_like),
    (
      "last action scaled",
      "in rad, scale * action; the network's output is due",
      _times(scale),
    ),
    (
      "last action is the target",
      "the position target; the network's output is due",
      lambda value: offset + scale * value,
    ),
    (
      "last action clipped",
      "clipped to 1; the network's output is due",
      lambda value: np.clip(value, -1.0, 1.0),
    ),
  ):
    yield Mistake(kind, f"{name}: {text}", "values", _value(name, change))


def _command(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake | Fit]:
  if "command" not in terms:
    return
  name = terms["command"]
  size = deploy.observations[name].size
  parts = [p for c in deploy.commands.values() for p in c.components]
  labels = [part.name for part in parts for _ in range(part.size)]
  orders = itertools.permutations(range(size)) if size <= _MOST_PERMUTED else ()
  for index in orders:
    if index != tuple(range(size)):
      told = ", ".join(labels[i] for i in index)
      text = f"{name}: in the order {told}"
      yield Mistake("command order", text, "values", _value(name, _order(index)))
  for i in range(size):
    sign = np.ones(size)
    sign[i] = -1.0
    text = f"{name}: the sign of {labels[i]} is reversed"
    yield Mistake("command sign", text, "values", _value(name, _times(sign)))
  yield Mistake(
    "command missing", f"{name}: always 0", "values", _value(name, np.zeros_like)
  )
  for steps in (-1, *_FAR_DELAYS):
    yield Mistake(
      "command delay", f"{name}: {_told(steps)}", "values", _value(name, _later(steps))
    )
  for i in range(size if size > 1 else 0):
    yield Fit(_scaler("command scale", name, labels[i], size, i), _SCALES)


def _style(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  if "style" not in terms:
    return
  name = terms["style"]
  zero = _value(name, np.zeros_like)
  yield Mistake("style missing", f"{name}: always 0", "values", zero)
  for row, style in zip(np.eye(len(deploy.styles)), deploy.styles, strict=True):
    text = f"{name}: always {style}, whatever the log says"
    fixed = _value(name, lambda value, row=row: np.zeros_like(value) + row)
    yield Mistake("style ignored", text, "values", fixed)


def _told(steps: int) -> str:
  late = "late" if steps > 0 else "early (or logged too late)"
  return f"{abs(steps)} step{'s' if abs(steps) > 1 else ''} {late}"


def _delays(deploy: Deploy, terms: Mapping[Signal, str]) -> Iterator[Mistake]:
  joints = [terms[s] for s in ("motor_q", "motor_dq") if s in terms]
  imu = [terms[s] for s in ("imu_gyro", "imu_quaternion") if s in terms]
  groups = [(joints + imu, "observation delay", "joints and IMU")]
  if "last_action" in terms:
    groups.append(([terms["last_action"]], "last action delay", "the last action"))
  groups += [(joints, "joint delay", "joints"), (imu, "IMU delay", "the IMU")]
  groups += [([name], "delay of a term", name) for name in deploy.observations]
  for names, kind, what in groups:
    for steps in (*_DELAYS, -1, -2):

      def change(values: Values, names=names, steps=steps) -> Values:
        return {**values, **{name: _later(steps)(values[name]) for name in names}}

      yield Mistake(kind, f"{what}: {_told(steps)}", "values", change)


def _outputs(deploy: Deploy, log: RobotLog) -> Iterator[Mistake]:
  scale, offset = np.array(deploy.action.scale), np.array(deploy.action.offset)
  most = float(np.abs(log.action).max())
  for kind, text, change, undo in (
    (
      "actions scaled",
      "in rad, scale * action; the network's output is due",
      _times(scale),
      _times(1.0 / scale),
    ),
    (
      "actions are targets",
      "the position targets; the network's output is due",
      lambda action: offset + scale * action,
      lambda target: (target - offset) / scale,
    ),
    ("sign of actions", "the sign is reversed", np.negative, np.negative),
    (
      "actions clipped",
      f"clipped to {most:.3g}",
      lambda action: np.clip(action, -most, most),
      None,
    ),
  ):
    yield Mistake(kind, f"actions: {text}", "output", change, undo)


def _scales(deploy: Deploy) -> Iterator[Fit]:
  for name, term in deploy.observations.items():
    kind = "command scale" if term.signal == "command" else "scale of a term"
    yield Fit(_scaler(kind, name, "", term.size, slice(None)), _SCALES)


def _scaler(
  kind: str, name: str, label: str, size: int, part: Any
) -> Callable[[float], Mistake]:
  """Return the mistake of a scale of the values of a term, by its logarithm."""

  def at(logarithm: float) -> Mistake:
    factor = np.ones(size)
    factor[part] = math.exp(logarithm)
    what = f"{name} ({label})" if label else name
    text = f"{what}: {math.exp(logarithm):.3g} times what is due"
    return Mistake(kind, text, "values", _value(name, _times(factor)))

  return at


def _mounting(terms: Mapping[Signal, str]) -> Iterator[Fit]:
  """Yield frames of the IMU that are turned against the pelvis'."""
  if not {"imu_gyro", "imu_quaternion"} & set(terms):
    return
  for axis, how in ((1, "pitched"), (0, "rolled"), (2, "turned")):

    def at(angle: float, axis=axis, how=how) -> Mistake:
      def change(signals: Signals) -> Signals:
        turn = _turn(axis, np.full(len(signals.quat), angle))
        return signals._replace(
          quat=_product(signals.quat, turn),
          gyro=_rotated(turn, signals.gyro, inverse=True),
        )

      text = (
        f"the IMU's frame is {how} against the pelvis' by {math.degrees(angle):.1f}°"
      )
      return Mistake(f"IMU frame {how}", text, "signals", change)

    yield Fit(at, _ANGLES)


def target_mistakes(
  deploy: Deploy, action: np.ndarray, found: np.ndarray
) -> Iterator[Mistake]:
  """Yield mistakes on the way from actions (T, A) to logged targets (T, A).

  The changes are from actions to targets.
  """
  scale, offset = np.array(deploy.action.scale), np.array(deploy.action.offset)

  def after(change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    return lambda value: change(targets(deploy, value))

  yield Mistake("target offset", "targets: the offset is missing", "output",
                lambda value: scale * value)  # fmt: skip
  yield Mistake("target delay", "targets: 1 step late", "output", after(_later(1)))
  yield Mistake("target sign", "targets: the sign of actions is reversed", "output",
                lambda value: targets(deploy, -value))  # fmt: skip
  if set(deploy.joint_names) == set(g1.MOTOR_NAMES):
    motors = np.array(deploy.joint_ids_map)
    place = np.argsort(motors)
    for name, order in _ORDERS.items():
      for index in (np.array(order), np.argsort(order)):
        text = f"targets: in the order of {name}, not in that of joint_names"
        mixed = after(_order(place[index][motors]))
        yield Mistake("target order", text, "output", mixed)
  low, high = np.array(deploy.joint_pos_lower), np.array(deploy.joint_pos_upper)
  yield Mistake("targets limited", "targets: limited to the joints' ranges", "output",
                after(lambda value: np.clip(value, low, high)))  # fmt: skip
  # Least squares for one factor, and for one per joint.
  moved, power = found - offset, (action**2).sum(axis=0)
  each = (moved * action).sum(axis=0) / np.maximum(power, 1e-12)
  factor = float((moved * action * scale).sum() / max((scale**2 * power).sum(), 1e-12))
  yield Mistake("action scale", f"targets: {factor:.3g} times the action scale", "output",
                lambda value: offset + factor * scale * value)  # fmt: skip
  joint = int(np.argmax(np.abs(each / scale - 1.0)))
  text = (
    f"targets: another action scale, {each[joint]:.3g} for {deploy.joint_names[joint]} "
    f"where {scale[joint]:.3g} is due"
  )
  yield Mistake("action scale", text, "output", lambda value: offset + each * value)
