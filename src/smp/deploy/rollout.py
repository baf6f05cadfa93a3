"""Runs of a policy in plain MuJoCo, their recording, and their metrics."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from smp.deploy.disturbances import Pusher
from smp.deploy.fixed_command import Command, heading
from smp.deploy.history import History
from smp.deploy.mujoco_robot import Robot, State
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.safety import Safety
from smp.errors import UserError
from smp.motion.fallen_states import FALLEN_POSES, sample_fallen_states
from smp.utils.files import save_arrays

STAND_HEIGHT = 0.3
"""How far a stand lifts the robot for its soft start, m."""


@dataclass(frozen=True)
class Log:
  """Recording of T moments, ``1 / control_hz`` s apart."""

  time: np.ndarray
  """(T,), s."""
  qpos: np.ndarray
  """(T, 36), as in `smp.deploy.mujoco_robot.State`."""
  qvel: np.ndarray
  """(T, 35), as in `smp.deploy.mujoco_robot.State`."""
  action: np.ndarray
  """(T, A), actions of the policy."""
  obs: np.ndarray
  """(T, O), observations of the policy."""
  command: np.ndarray
  """(T, C), the command as observed by the policy, without noise."""

  def save(self, path: Path) -> None:
    """Write the arrays to a compressed .npz file."""
    arrays = {f.name: getattr(self, f.name) for f in fields(self)}
    save_arrays(path, arrays, compress=True)


class Rollout:
  """A policy and its robot, step by step.

  Args:
    policy: The policy.
    robot: The robot, made for the same policy.
    noise: Observation noise as a multiple of training's.
    seed: Seed of the noise.
    pusher: Pushes the robot; None: nobody does.
    safety: Stands between policy and motors; None: nothing does.
  """

  def __init__(
    self,
    policy: OnnxPolicy,
    robot: Robot,
    noise: float = 0.0,
    seed: int = 0,
    pusher: Pusher | None = None,
    safety: Safety | None = None,
  ) -> None:
    self.policy, self.robot = policy, robot
    self._pusher, self.safety = pusher, safety
    self._random = np.random.default_rng(seed)
    parts = robot.spec.observations
    ranges = [(np.array(p.noise)[:, None] * np.array(p.scale), p.size) for p in parts]
    spread = [np.broadcast_to(each, (2, size)) for each, size in ranges]
    self._noise = noise * np.concatenate(spread, axis=1)
    self._history = History(parts)
    self._rows: list[tuple[np.ndarray, ...]] = []

  def reset(self, start: State | None = None) -> None:
    """Clear the recording and begin at ``start``, by default the default pose."""
    self._rows.clear()
    self._history.clear()
    self.robot.reset(start)
    if self._pusher is not None:
      self._pusher.reset()
    if self.safety is not None:
      self._soft_start(self.safety)

  def _soft_start(self, safety: Safety) -> None:
    """Lead the joints to the default pose on a stand, then set the robot on its feet."""
    robot = self.robot
    held = robot.data.qpos[:7].copy()
    held[2] += STAND_HEIGHT
    robot.data.qvel[:6], robot.data.qpos[:7], robot.held = 0.0, held, held
    safety.begin(robot.data.qpos[robot.joint_q])
    while not safety.wants_policy() and not safety.reason:
      self._drive(safety, None)
    on_feet, joints = robot.default_state(), robot.data.qpos[7:].copy()
    robot.held = None
    robot.data.qpos[:7], robot.data.qpos[7:] = on_feet.qpos[:7], joints
    robot.data.qvel[:6], robot.data.time = 0.0, 0.0
    robot.refresh()

  def _drive(self, safety: Safety, target: np.ndarray | None) -> None:
    """Advance by one control step with the targets that the safety layer lets through."""
    robot = self.robot
    data = robot.data
    measured = data.qpos[robot.joint_q], data.qvel[robot.joint_v], data.qpos[3:7]
    command = safety.step(*measured, target)
    robot.set_gains(command.kp, command.kd)
    robot.drive(command.target)

  def step(self) -> None:
    """Observe, act, and advance by one action.

    Raises:
      UserError: The action is not finite.
    """
    robot = self.robot
    frame = robot.observe()
    if self._noise.any():
      frame += self._random.uniform(*self._noise).astype(np.float32)
    observation = self._history.push(frame)
    action = self.policy(observation)
    if not np.isfinite(action).all():
      raise UserError(
        f"{self.policy.path}: an action at {robot.data.time:.2f} s is not a number; "
        "the policy is damaged, or was exported from a training that diverged"
      )
    command = robot.command.observe(robot.data.qpos)
    now = np.array(robot.data.time)
    self._rows.append((now, *robot.state(), action, observation, command))
    if self._pusher is not None:
      self._pusher(robot)
    if self.safety is None:
      robot.step(action)
    else:
      robot.action[:] = action
      self._drive(self.safety, robot.targets(action))

  def forget(self, keep: int = 0) -> None:
    """Shorten the recording that `log` returns to its last ``keep`` steps."""
    del self._rows[: max(0, len(self._rows) - keep)]

  @property
  def diverged(self) -> bool:
    """Return whether the physics diverged: the state is not finite."""
    data = self.robot.data
    return not (np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all())

  def log(self) -> Log:
    """Return the recording since the last reset, of at least one step."""
    return Log(*(np.stack(column) for column in zip(*self._rows, strict=True)))


def run(
  rollout: Rollout,
  seconds: float,
  start: State | None = None,
  after_step: Callable[[], None] = lambda: None,
  before_step: Callable[[], None] = lambda: None,
) -> Log:
  """Run for ``seconds`` of simulated time, or until the physics diverges."""
  rollout.reset(start)
  for _ in range(max(1, round(seconds / rollout.robot.step_s))):
    before_step()
    rollout.step()
    if rollout.diverged:
      break
    after_step()
  return rollout.log()


def start_state(start: Path, robot: Robot, seed: int) -> State:
  """Return the state at rest of a robot that was dropped, or that of a file.

  Args:
    start: A pose of `FALLEN_POSES`, or a file that `read_start` reads.
    robot: Whose joints are placed.
    seed: Of the fall; another seed is another pose of the limbs.

  Raises:
    UserError: It is neither, or the file does not fit.
  """
  pose, at_rest = start.as_posix(), robot.default_state()
  if pose in FALLEN_POSES:
    falls = sample_fallen_states(1, window=1, fps=1.0 / robot.step_s, seed=seed)
    qpos = falls.qpos[falls.pose == FALLEN_POSES.index(pose)][0, -1]
    at_rest.qpos[:7], at_rest.qpos[robot.joint_q] = qpos[:7], qpos[7:]
    return at_rest
  if start.suffix != ".npz" and not start.exists():
    raise UserError(
      f"--start {start}: neither a .npz file nor one of {', '.join(FALLEN_POSES)}"
    )
  return read_start(start, at_rest)


def read_start(path: str | os.PathLike[str], default: State) -> State:
  """Read an initial state from a .npz file.

  The file has ``qpos`` (36,) and, unless at rest, ``qvel`` (35,). Of a file with a row
  per moment, as `Log.save` writes, the first row is read.

  Raises:
    UserError: There is no such file, it is unreadable, or its arrays do not fit.
  """
  if not Path(path).is_file():
    raise UserError(f"{path}: no such start file")
  try:
    with np.load(path, allow_pickle=False) as table:
      arrays = {name: table[name] for name in ("qpos", "qvel") if name in table}
  except Exception as error:  # zipfile, zlib and numpy each raise errors of their own.
    raise UserError(
      f"{path}: not a readable .npz file ({type(error).__name__})"
    ) from error
  if "qpos" not in arrays:
    raise UserError(f"{path}: no array 'qpos'; give qpos (36,) and, if you like, qvel")
  values = []
  for name, fallback in zip(("qpos", "qvel"), default, strict=True):
    value = np.asarray(arrays.get(name, fallback))
    value = value[0] if value.ndim == 2 and len(value) else value
    if value.shape != fallback.shape or value.dtype.kind not in "fiu":
      raise UserError(
        f"{path}: '{name}' has shape {value.shape}, expected {fallback.shape} numbers"
      )
    if not np.isfinite(value).all():
      raise UserError(f"{path}: '{name}' holds values that are not finite")
    values.append(value.astype(float))
  size = np.linalg.norm(values[0][3:7])
  if abs(size - 1.0) > 0.01:
    raise UserError(f"{path}: qpos[3:7] is not a unit quaternion (length {size:.3g})")
  values[0][3:7] /= size
  return State(*values)


def figures(
  qpos: np.ndarray, qvel: np.ndarray, command: Command, fallen_below: float | None
) -> dict[str, float]:
  """Compute the metrics of a task over the time until a fall.

  Args:
    qpos: (T, 36), one row per control step.
    qvel: (T, 35); its first columns are the velocity of the pelvis' origin, world axes.
    command: The command, held all the time.
    fallen_below: Height of the pelvis, m, that counts as a fall.

  Returns:
    ``fall_step``: the first step below, -1 if there is none; ``speed``: mean over time
    of the pelvis' horizontal speed, m/s; ``root_height``: mean, m; and by the command:
    ``velocity_error``, mean, m/s; ``NAME_error`` of a direction to face (such as
    facing_error), mean, degrees; ``NAME_distance`` from a place (such as
    goal_distance), at the end, m.
  """
  low = qpos[:, 2] < (-np.inf if fallen_below is None else fallen_below)
  fall = int(np.argmax(low)) if low.any() else -1
  upright = slice(0, max(1, fall)) if fall >= 0 else slice(None)
  pose, velocity = qpos[upright], qvel[upright, :2]
  result = {
    "fall_step": float(fall),
    "speed": float(np.linalg.norm(velocity, axis=1).mean()),
    "root_height": float(pose[:, 2].mean()),
  }
  if command.velocity_w is not None:
    error = np.linalg.norm(command.velocity_w - velocity, axis=1)
    result["velocity_error"] = float(error.mean())
  cos, sin = heading(pose[:, 3:7])
  for name, (x, y) in command.facings_w.items():
    angle = np.arctan2(cos * y - sin * x, cos * x + sin * y)
    result[f"{name}_error"] = float(np.degrees(np.abs(angle)).mean())
  for name, place in command.points_w.items():
    result[f"{name}_distance"] = float(np.linalg.norm(place - pose[-1, :2]))
  return result
