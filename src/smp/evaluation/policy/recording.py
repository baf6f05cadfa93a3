"""Recording of a policy through an evaluation protocol."""

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

from smp.episodes.episode_metrics import FEET
from smp.episodes.protocol import (
  FALL_SEED,
  FALLS_PER_POSE,
  GSI_BUFFER_SIZES,
  EvalBatch,
  EvalProtocol,
)
from smp.episodes.trajectory import Trajectory
from smp.evaluation.policy.fixed_commands import NEVER, FixedInitStates, hold_command
from smp.mdp.commands import ComponentCommand
from smp.mdp.init_state_buffers import FallenStateBuffer
from smp.mdp.init_states import INIT_MODES
from smp.mdp.rewards import task_weight
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.rl.actor_layout import ActorLayout
from smp.rl.loading import Policy
from smp.sim import make_env
from smp.tasks.base import change_robots
from smp.utils.components import DIRECTION, POINT
from smp.utils.quiet import quiet

COMMAND = "command"
"""Name of the command term that the policy observes."""
FOOT_FORCE = "evaluated_feet"
"""Name of the contact sensor that is added to the task."""
MakePolicy = Callable[[RslRlVecEnvWrapper], Policy]


@dataclass(frozen=True)
class Machine:
  """Engine, device and threads of an evaluation."""

  engine: str = "auto"
  device: str | None = None
  threads: int | None = None


def evaluation_cfg(
  protocol: EvalProtocol,
  assignment: EvalBatch,
  seed: int,
  prior: str | None = None,
  actor: ActorLayout | None = None,
) -> ManagerBasedRlEnvCfg:
  """Return the task's play environment under the protocol, without resets.

  The reward is the plain task reward; the prior's is recorded beside it.
  """
  cfg = load_env_cfg(protocol.task, play=True)
  if actor is not None:
    actor.apply(cfg)
  cfg.seed = seed
  cfg.scene.num_envs = len(assignment.condition)
  cfg.auto_reset = False
  change_robots(cfg, protocol.robot)
  smp_term = cast(SmpTermCfg, cfg.commands[SMP_TERM])
  low, high = GSI_BUFFER_SIZES
  smp_term.gsi_buffer_size = min(max(cfg.scene.num_envs, low), high)
  smp_term.gsi_refresh_interval = 0
  smp_term.reward_mode, smp_term.fallen_init_prob = "task_only", 0.0
  smp_term.update_statistics = False
  if prior is not None:
    smp_term.prior = prior
  if COMMAND in cfg.commands:
    cfg.commands[COMMAND].resampling_time_range = NEVER
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
  actor: ActorLayout | None = None,
  progress: Callable[[int], None] = lambda step: None,
) -> Trajectory:
  """Run one episode in every environment and record it.

  Args:
    protocol: The task, its conditions, and the length of episodes.
    assignment: Condition, command, initial state and pushes of each environment.
    seed: Seed of the environment, the initial states and the falls.
    make_policy: Builds the policy for the wrapped environment.
    statistics: ``mean`` and ``count`` of the SDS losses, from a checkpoint. None, or
      running means of other timesteps: r_smp is unknown and recorded as nan.
    machine: Engine, device and threads to compute with.
    prior: Path of another prior than the task's; None: the task's.
    actor: What the policy observes; None: what the task defines.
    progress: Called with the number of steps done.

  Returns:
    The recorded steps of all environments, on the CPU.
  """
  with quiet():
    cfg = evaluation_cfg(protocol, assignment, seed, prior, actor)
    env = make_env(cfg, machine.engine, machine.device, machine.threads)
  try:
    with quiet():
      wrapped, policy, knows_means = _prepare(
        env, protocol, assignment, seed, make_policy, statistics
      )
    recorder = _Recorder(env, protocol.steps(1.0 / env.step_dt), knows_means)
    return _run(wrapped, protocol, assignment, policy, recorder, progress)
  finally:
    env.close()


def _smp_term(env: ManagerBasedRlEnv) -> SmpTerm:
  return SmpTerm.of(env)


def _prepare(
  env: ManagerBasedRlEnv,
  protocol: EvalProtocol,
  assignment: EvalBatch,
  seed: int,
  make_policy: MakePolicy,
  statistics: dict[str, Any] | None,
) -> tuple[RslRlVecEnvWrapper, Policy, bool]:
  """Load the policy, assign initial states to the environments, and reset them.

  Returns:
    The environments, the policy, and whether the scale of the errors is known.
  """
  smp_term = _smp_term(env)
  fallen = None
  if set(assignment.start) != {INIT_MODES[0]}:
    fallen = FallenStateBuffer(
      FALLS_PER_POSE * (len(INIT_MODES) - 1),
      smp_term.window.spec,
      smp_term.window.kinematics,
      env.device,
      FALL_SEED + seed,
    )
  fresh = _copy(smp_term.init_states.state_dict())
  wrapped = RslRlVecEnvWrapper(
    env, clip_actions=load_rl_cfg(protocol.task).clip_actions
  )
  policy = make_policy(wrapped)
  # Loading a checkpoint replaces the GSI buffer: all policies shall begin from the same
  # initial states, so the fresh ones are restored.
  smp_term.init_states.load_state_dict(fresh)
  smp_term.init_states = FixedInitStates(
    smp_term.init_states.generated, fallen, assignment.start
  )
  if COMMAND in env.command_manager.active_terms:
    term = cast(ComponentCommand, env.command_manager.get_term(COMMAND))
    hold_command(term, assignment.command)
  knows_means = statistics is not None and smp_term.load_means(statistics)
  # Building networks has drawn random numbers, so seed again.
  env.reset(seed=seed)
  return wrapped, policy, knows_means


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
  recorder.command = recorder.commands(env)
  change_step = round(protocol.change_at * fps)
  observations = wrapped.get_observations()
  for step in range(recorder.steps):
    if step in push_steps:
      _push(env, pushes[push_steps.index(step)])
    if step == change_step and assignment.changes.any():
      _change_commands(env, assignment)
      recorder.later, recorder.change_step = recorder.commands(env), step
    action = policy(observations)
    observations, *_ = wrapped.step(action)
    recorder.record(env, step, action)
    env._manual_reset_pending[:] = False  # A failed robot keeps lying where it is.
    progress(step + 1)
  return recorder.trajectory(fps, protocol)


def _change_commands(env: ManagerBasedRlEnv, assignment: EvalBatch) -> None:
  """Ask for the later commands; the policy sees them after the next step."""
  term = cast(ComponentCommand, env.command_manager.get_term(COMMAND))
  hold_command(term, assignment.later)
  changed = torch.from_numpy(assignment.changes).nonzero().squeeze(-1)
  term._resample_command(changed.to(env.device))


def _push(env: ManagerBasedRlEnv, change: torch.Tensor) -> None:
  """Add horizontal velocities (N, 2), m/s, to the pelvises."""
  robot = cast(Entity, env.scene["robot"])
  velocity = robot.data.root_link_vel_w.clone()
  velocity[:, :2] += change
  robot.write_root_link_velocity_to_sim(velocity)


class _Recorder:
  """Tensors for all steps, on the device, filled without synchronising with it."""

  def __init__(self, env: ManagerBasedRlEnv, steps: int, knows_means: bool) -> None:
    smp_term = _smp_term(env)
    self.steps, self._knows_means = steps, knows_means
    self._timesteps = smp_term.cfg.timesteps if smp_term.prior else ()
    self._ends = tuple(env.termination_manager.active_terms)
    sizes = {
      "qpos": (36,),
      "qvel": (35,),
      "action": (29,),
      "torque": (29,),
      "foot_force": (2,),
      "task_reward": (),
      "sds_loss": (smp_term.style.errors.shape[1],),
      "r_smp": (),
    }
    shape, device = (steps, env.num_envs), env.device
    self._kept = {
      name: torch.full((*shape, *size), torch.nan, device=device)
      for name, size in sizes.items()
    }
    self._ended = torch.zeros(*shape, len(self._ends), dtype=torch.bool, device=device)
    self._max_reward = task_weight(env)
    self.command: dict[str, torch.Tensor] = {}
    self.later: dict[str, torch.Tensor] = {}
    self.change_step = 0

  @staticmethod
  def commands(env: ManagerBasedRlEnv) -> dict[str, torch.Tensor]:
    """Return the present command of each environment by component, on the CPU."""
    found: dict[str, torch.Tensor] = {}
    if COMMAND not in env.command_manager.active_terms:
      return found
    term = cast(ComponentCommand, env.command_manager.get_term(COMMAND))
    targets = term.targets()
    for part in term.components():
      target = targets[part.name]
      # A fixed direction has one row for all environments.
      target = target.expand(env.num_envs, 2) if part.kind == DIRECTION else target
      if part.kind == POINT:
        target = target - env.scene.env_origins[:, :2]
      found[part.name] = target.reshape(env.num_envs, -1).clone().cpu()
    return found

  def record(self, env: ManagerBasedRlEnv, step: int, action: torch.Tensor) -> None:
    """Store one step of all environments."""
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
    kept["task_reward"][step] = smp_term.task_reward
    kept["sds_loss"][step] = smp_term.sds_loss()
    if self._knows_means:
      kept["r_smp"][step] = smp_term.r_smp()
    for i, name in enumerate(self._ends):
      self._ended[step, :, i] = env.termination_manager.get_term(name)

  def trajectory(self, fps: float, protocol: EvalProtocol) -> Trajectory:
    """Return the recorded steps on the CPU."""
    return Trajectory(
      fps=fps,
      **{name: value.cpu() for name, value in self._kept.items()},
      ended=self._ended.cpu(),
      end_names=self._ends,
      command=self.command,
      later=self.later,
      change_step=self.change_step,
      max_reward=self._max_reward,
      timesteps=tuple(self._timesteps),
      stops=protocol.stops,
    )
