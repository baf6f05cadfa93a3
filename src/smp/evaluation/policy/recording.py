"""Runs a policy through a protocol and records what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.sensor import ContactMatch, ContactSensor, ContactSensorCfg
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg

from smp.evaluation.policy.episode_metrics import FEET
from smp.evaluation.policy.fixed_commands import FixedInitStates, fixed_command
from smp.evaluation.policy.protocol import (
  FALL_SEED,
  FALLS_PER_POSE,
  GSI_BUFFER_SIZES,
  EvalBatch,
  EvalProtocol,
)
from smp.evaluation.policy.trajectory import Trajectory
from smp.mdp.init_state_buffers import FallenStateBuffer
from smp.mdp.init_states import INIT_MODES
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.rl.loading import Policy
from smp.sim import make_env
from smp.utils.quiet import quiet

FOOT_FORCE = "evaluated_feet"
"""Name of the contact sensor that is added to the task."""
MakePolicy = Callable[[RslRlVecEnvWrapper], Policy]


@dataclass(frozen=True)
class Machine:
  """Where to compute."""

  engine: str = "auto"
  device: str | None = None
  threads: int | None = None


def evaluation_cfg(
  protocol: EvalProtocol, assignment: EvalBatch, seed: int, prior: str | None = None
) -> ManagerBasedRlEnvCfg:
  """The task's play environment, with what the protocol gives and without resets.

  The reward is the plain task reward: the prior is recorded beside it.
  """
  cfg = load_env_cfg(protocol.task, play=True)
  cfg.seed = seed
  cfg.scene.num_envs = len(assignment.condition)
  cfg.auto_reset = False
  smp_term = cast(SmpTermCfg, cfg.commands[SMP_TERM])
  low, high = GSI_BUFFER_SIZES
  smp_term.gsi_buffer_size = min(max(cfg.scene.num_envs, low), high)
  smp_term.gsi_refresh_interval = 0
  smp_term.reward_mode, smp_term.fallen_init_prob = "task_only", 0.0
  smp_term.update_statistics = False
  if prior is not None:
    smp_term.prior = prior
  if "command" in cfg.commands:
    cfg.commands["command"] = fixed_command(cfg.commands["command"], assignment)
  cfg.terminations = {
    name: term for name, term in cfg.terminations.items() if not term.time_out
  }
  feet = ContactSensorCfg(
    name=FOOT_FORCE,
    primary=ContactMatch(
      mode="subtree", pattern=f"^({'|'.join(FEET)})$", entity="robot"
    ),
    secondary=ContactMatch(mode="body", pattern="terrain"),
    fields=("found", "force"),
    reduce="netforce",
    num_slots=1,
  )
  cfg.scene.sensors = (*cfg.scene.sensors, feet)
  return cfg


def rollout(
  protocol: EvalProtocol,
  assignment: EvalBatch,
  seed: int,
  make_policy: MakePolicy,
  statistics: dict[str, Any] | None,
  machine: Machine,
  prior: str | None = None,
  progress: Callable[[int], None] = lambda step: None,
) -> Trajectory:
  """One episode of every environment.

  Args:
    statistics: ``mean`` and ``count`` of the SDS losses, of a checkpoint. None:
      r_smp is not known.
    prior: Another prior than the task's.
    progress: Called with the number of steps done.
  """
  with quiet():
    cfg = evaluation_cfg(protocol, assignment, seed, prior)
    env = make_env(cfg, machine.engine, machine.device, machine.threads)
  try:
    with quiet():
      wrapped, policy = _prepare(
        env, protocol, assignment, seed, make_policy, statistics
      )
    recorder = _Recorder(env, protocol.steps(1.0 / env.step_dt), statistics is not None)
    return _run(wrapped, protocol, assignment, policy, recorder, progress)
  finally:
    env.close()


def _smp_term(env: ManagerBasedRlEnv) -> SmpTerm:
  return cast(SmpTerm, env.command_manager.get_term(SMP_TERM))


def _prepare(
  env: ManagerBasedRlEnv,
  protocol: EvalProtocol,
  assignment: EvalBatch,
  seed: int,
  make_policy: MakePolicy,
  statistics: dict[str, Any] | None,
) -> tuple[RslRlVecEnvWrapper, Policy]:
  """Load the policy, give every environment its start, and reset to it."""
  smp_term = _smp_term(env)
  fallen = None
  if set(assignment.start) != {INIT_MODES[0]}:
    fallen = FallenStateBuffer(
      FALLS_PER_POSE * (len(INIT_MODES) - 1),
      smp_term.prior.spec,
      smp_term._kinematics,
      env.device,
      FALL_SEED + seed,
    )
  fresh = _copy(smp_term.init_states.state_dict())
  wrapped = RslRlVecEnvWrapper(
    env, clip_actions=load_rl_cfg(protocol.task).clip_actions
  )
  policy = make_policy(wrapped)
  # The checkpoint's pool came with it: all policies shall start from the same states.
  smp_term.init_states.load_state_dict(fresh)
  smp_term.init_states = FixedInitStates(smp_term.gsi_buffer, fallen, assignment.start)
  if statistics is not None:
    smp_term.load_means(statistics)
  # Building networks has drawn random numbers.
  env.reset(seed=seed)
  return wrapped, policy


def _copy(state: dict[str, Any]) -> dict[str, Any]:
  return {
    name: value.clone() if isinstance(value, torch.Tensor) else value
    for name, value in state.items()
  }


@torch.inference_mode()
def _run(
  wrapped: RslRlVecEnvWrapper,
  protocol: EvalProtocol,
  assignment: EvalBatch,
  policy: Policy,
  recorder: _Recorder,
  progress: Callable[[int], None],
) -> Trajectory:
  env = wrapped.unwrapped
  fps = 1.0 / env.step_dt
  pushes = torch.from_numpy(assignment.push).float().to(env.device)
  push_steps = [round(at * fps) for at in protocol.push_times]
  recorder.note_commands(env)
  observations = wrapped.get_observations()
  for step in range(recorder.steps):
    if step in push_steps:
      _push(env, pushes[push_steps.index(step)])
    action = policy(observations)
    observations, *_ = wrapped.step(action)
    recorder.record(env, step, action)
    env._manual_reset_pending[:] = False  # Who failed lies where it is.
    progress(step + 1)
  return recorder.trajectory(fps, protocol)


def _push(env: ManagerBasedRlEnv, change: torch.Tensor) -> None:
  """Add horizontal velocities (N, 2), m/s, to the pelvises."""
  robot = cast(Entity, env.scene["robot"])
  velocity = robot.data.root_link_vel_w.clone()
  velocity[:, :2] += change
  robot.write_root_link_velocity_to_sim(velocity)


class _Recorder:
  """Tensors for all steps, on the device, filled without waiting for it."""

  def __init__(self, env: ManagerBasedRlEnv, steps: int, knows_means: bool) -> None:
    smp_term = _smp_term(env)
    self.steps, self._knows_means = steps, knows_means
    self._timesteps = smp_term.cfg.timesteps
    self._ends = tuple(env.termination_manager.active_terms)
    sizes = {
      "qpos": (36,),
      "qvel": (35,),
      "action": (29,),
      "torque": (29,),
      "foot_force": (2,),
      "task_reward": (),
      "sds_loss": (len(self._timesteps),),
      "r_smp": (),
    }
    shape, device = (steps, env.num_envs), env.device
    self._kept = {
      name: torch.full((*shape, *size), torch.nan, device=device)
      for name, size in sizes.items()
    }
    self._ended = torch.zeros(*shape, len(self._ends), dtype=torch.bool, device=device)
    self._max_reward = sum(
      env.reward_manager.get_term_cfg(name).weight
      for name in env.reward_manager.active_terms
      if name != "prior"
    )

  def note_commands(self, env: ManagerBasedRlEnv) -> None:
    """Keep what each environment is asked for; it stays."""
    zero = torch.zeros(env.num_envs, 2, device=env.device)
    has = "command" in env.command_manager.active_terms
    term: Any = env.command_manager.get_term("command") if has else None
    self._commands = {
      "velocity_command": getattr(term, "velocity_w", zero).clone(),
      "facing_command": getattr(term, "facing_w", zero).clone(),
      "goal": zero.clone(),
    }
    if hasattr(term, "goal_w"):
      self._commands["goal"] = term.goal_w - env.scene.env_origins[:, :2]

  def record(self, env: ManagerBasedRlEnv, step: int, action: torch.Tensor) -> None:
    robot, kept, smp_term = cast(Entity, env.scene["robot"]), self._kept, _smp_term(env)
    data = robot.data.data
    kept["qpos"][step] = data.qpos
    kept["qpos"][step, :, :3] -= env.scene.env_origins
    kept["qvel"][step] = data.qvel
    kept["action"][step] = action
    kept["torque"][step] = data.qfrc_actuator[:, 6:]
    force = cast(ContactSensor, env.scene[FOOT_FORCE]).data.force
    assert force is not None
    kept["foot_force"][step] = force.norm(dim=-1)
    kept["task_reward"][step] = env.reward_buf / env.step_dt
    kept["sds_loss"][step] = smp_term.sds_loss()
    if self._knows_means:
      kept["r_smp"][step] = smp_term.r_smp()
    for i, name in enumerate(self._ends):
      self._ended[step, :, i] = env.termination_manager.get_term(name)

  def trajectory(self, fps: float, protocol: EvalProtocol) -> Trajectory:
    return Trajectory(
      fps=fps,
      **{name: value.cpu() for name, value in self._kept.items()},
      ended=self._ended.cpu(),
      end_names=self._ends,
      **{name: value.cpu() for name, value in self._commands.items()},
      max_reward=self._max_reward,
      timesteps=tuple(self._timesteps),
      stops=protocol.stops,
    )
