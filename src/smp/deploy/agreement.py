"""Comparison of a policy in mjlab's environment and in plain MuJoCo.

On MuJoCo's C engine both take the same steps, up to the rounding of the environment's
state. On MuJoCo Warp a step differs in three ways:

- Whether a part that lies exactly on the floor touches it is decided by rounding, and
  its first contact force comes a step sooner or later. `draw_start` therefore begins
  above the floor. Rarely a foot grazes the floor later on, which moves joints by some
  1e-2 rad.
- A capsule within 30 degrees of upright has its friction directions turned about the
  floor's normal: Warp aligns the first tangent with y, MuJoCo with the capsule. As the
  friction cone is a pyramid, it resists less in some directions than in others. A foot
  that tips over its toes by more than 60 degrees slips in another direction.
- Where the solver needs more than its 10 iterations, one step in some thousands, the
  engines stop at different solutions: 1e-3 rad half a second later.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mjlab.rl import RslRlVecEnvWrapper

from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot, State
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.rollout import Log, Rollout, figures, run

CLEARANCE = 1e-3
"""Height added by `draw_start`, m; far above the effect of rounding."""


@dataclass(frozen=True)
class Agreement:
  """Differences between the two simulators."""

  joints: np.ndarray
  """(T,) largest difference of a joint angle at each step, rad."""
  observations: np.ndarray
  """(T,) largest difference of an observation at each step."""
  theirs: dict[str, float]
  """`figures` of the environment."""
  ours: dict[str, float]
  """`figures` of plain MuJoCo."""
  step_s: float
  """Seconds between two steps."""

  def joints_until(self, seconds: float) -> float:
    """Return the largest difference of a joint angle in the first ``seconds``, rad."""
    return float(self.joints[: round(seconds / self.step_s) + 1].max())

  def apart(self) -> dict[str, float]:
    """Return each metric's difference relative to the environment's value."""
    return {
      name: abs(self.ours[name] - value) / max(abs(value), 1e-6)
      for name, value in self.theirs.items()
    }


def compare(
  env: RslRlVecEnvWrapper,
  path: str | os.PathLike[str],
  command: dict[str, tuple[float, ...]],
  seconds: float,
  start: State | None = None,
) -> Agreement:
  """Run an exported policy in both simulators from the same initial state.

  Args:
    env: An environment of one robot, without terminations, events and noise
      (`undisturbed`).
    path: The ONNX file of a policy of this task.
    command: As for `smp.deploy.fixed_command.Command`; held all the time.
    seconds: Duration of the run, s.
    start: Initial state of both; None: one of `draw_start`.
  """
  policy = OnnxPolicy(path)
  robot = Robot(policy.spec, Command(policy.spec, command))
  begin_environment(env, robot.command, start or draw_start(env))
  data = env.unwrapped.sim.data
  start = State(_row(data.qpos), _row(data.qvel))
  theirs = _run_environment(env, policy, seconds)
  ours = run(Rollout(policy, robot), seconds, start)
  steps = min(len(ours.time), len(theirs.time))
  fallen = policy.spec.fallen_below
  return Agreement(
    joints=np.abs(ours.qpos[:steps, 7:] - theirs.qpos[:steps, 7:]).max(axis=1),
    observations=np.abs(ours.obs[:steps] - theirs.obs[:steps]).max(axis=1),
    theirs=figures(theirs.qpos, theirs.qvel, robot.command, fallen),
    ours=figures(ours.qpos, ours.qvel, robot.command, fallen),
    step_s=robot.step_s,
  )


def undisturbed(cfg: Any) -> Any:
  """Change a task's play configuration for `compare`: one robot, endless episode."""
  cfg.scene.num_envs = 1
  cfg.terminations = {}
  return cfg


@torch.inference_mode()
def draw_start(env: RslRlVecEnvWrapper) -> State:
  """Draw an initial state from the environment and raise it by `CLEARANCE`.

  The environment lifts robots out of the floor until they lie exactly on it, where
  rounding would decide whether they touch.
  """
  env.reset()
  data = env.unwrapped.sim.data
  start = State(_row(data.qpos), _row(data.qvel))
  start.qpos[2] += CLEARANCE
  return start


@torch.inference_mode()
def begin_environment(env: RslRlVecEnvWrapper, command: Command, start: State) -> None:
  """Begin an episode with a given initial state and command.

  The state is exactly the given one, rounded to the environment's float32.
  """
  env.reset()
  raw = env.unwrapped
  for name, value in zip(("qpos", "qvel"), start, strict=True):
    getattr(raw.sim.data, name)[0] = torch.from_numpy(value).float()
  raw.sim.forward()
  if command.values:
    _hold(raw.command_manager.get_term("command"), command)
  raw.command_manager.compute(dt=0.0)
  raw.observation_manager.reset()  # A history begins with this state.
  raw.observation_manager.compute(update_history=True)


def _hold(term: Any, command: Command) -> None:
  """Make the environment hold ``command`` for the whole episode."""
  term.time_left[:] = torch.inf
  settable = [part.name for part in command.parts if part.settable]
  values = {
    name: torch.tensor(command.values[name], dtype=torch.float64) for name in settable
  }
  term.set(torch.arange(len(term.time_left)), values)


@torch.inference_mode()
def _run_environment(
  env: RslRlVecEnvWrapper, policy: OnnxPolicy, seconds: float
) -> Log:
  raw = env.unwrapped
  data, rows = raw.sim.data, []
  for step in range(max(1, round(seconds / raw.step_dt))):
    observed = env.get_observations()["actor"][0].numpy().copy()
    action = policy(observed)
    seen = _command(env)
    now = np.array(step * raw.step_dt)
    rows.append((now, _row(data.qpos), _row(data.qvel), action, observed, seen))
    env.step(torch.from_numpy(action)[None])
  return Log(*(np.stack(column) for column in zip(*rows, strict=True)))


def _command(env: RslRlVecEnvWrapper) -> np.ndarray:
  manager = env.unwrapped.command_manager
  if "command" not in manager.active_terms:
    return np.zeros(0)
  value = manager.get_command("command")
  assert value is not None
  return value[0].numpy().copy()


def _row(values: torch.Tensor) -> np.ndarray:
  return values[0].numpy().astype(float)
