"""The off-policy runner: TD3 on the environments of this project."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg
from mjlab.envs.mdp.actions import JointPositionAction
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.rl import RslRlBaseRunnerCfg, RslRlVecEnvWrapper
from rsl_rl.utils.logger import Logger
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.mdp.composition import compose
from smp.mdp.observations import MAX_ERROR, log_denoising_error
from smp.mdp.rewards import TaskReward, smp_reward, task_weight
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.mdp.symmetry import action_mirror, observation_mirror
from smp.motion.features import decode
from smp.rl.actor import Actor
from smp.rl.actor_layout import ActorLayout
from smp.rl.policy_file import load_trained
from smp.rl.replay import Batch, ReplayBuffer, Step
from smp.rl.runner import CheckpointedRunner
from smp.rl.td3 import (
  COST_SHARE,
  DEFAULT_SHARE,
  DEFAULT_SHARE_SCALE,
  PULL_TO_SPEAK_OF,
  Td3,
  Td3Cfg,
)
from smp.rl.teacher import load_teachers
from smp.utils.quiet import quiet
from smp.utils.tensor_files import load_tensors, save_tensors

REPLAY_FILE = "replay.pt"
"""Name of the replay's file, beside the checkpoints, with ``save_replay``."""

REACH_WINDOWS, REACH_TAIL = 512, 0.005
"""Samples of a prior that `action_bound` takes its poses of, and the share of the
smallest and of the largest angles that it leaves out."""
EPISODES = 40
"""Finished episodes that the progress line averages over."""


@dataclass
class OffPolicyRunnerCfg(RslRlBaseRunnerCfg):
  """TD3 and its runner; an iteration is ``num_steps_per_env`` steps of each."""

  class_name: str = "OffPolicyRunner"
  algorithm: Td3Cfg = field(default_factory=Td3Cfg)

  replay_steps: int = 8000
  """Steps of each environment that the replay buffer keeps."""

  learning_starts: int = 10
  """Batches that must be in the buffer before the first update."""

  refill_steps: int = 250
  """Steps of each environment after resuming without a saved buffer, before learning
  continues."""

  teacher: str | None = None
  """Policy file whose actions the actor imitates at first, of this task or of another
  (`smp.rl.teacher`): for an actor that observes less, or a task that is hard to begin.
  Of several files, separated by commas, each is for the commands that it can follow and
  no earlier one can; "FILE@aside+turn" for these kinds of velocity command only: stand,
  turn (on the spot), aside (or backward), straight, fast."""

  init_policy: str | None = None
  """Policy file of this task that the actor begins as. It is its own teacher unless
  another is given, for what the critics know at first is nothing."""

  overlap: bool | None = None
  """Learn on half of the processor's threads while the robots take their next step on
  the others; the actor is then one step behind what is learned, and products are in
  float32. None: no, unless train.py finds that it pays."""

  save_replay: bool = False
  """Write the buffer (gigabytes) when training ends or is interrupted, so that a
  resumed run continues with it."""


def off_policy_cfg(experiment_name: str) -> OffPolicyRunnerCfg:
  """Return the settings of the off-policy learner for a task."""
  return OffPolicyRunnerCfg(
    experiment_name=experiment_name,
    wandb_project="smp",
    num_steps_per_env=25,
    save_interval=100,
    max_iterations=2500,
  )


def prepare_env_cfg(cfg: ManagerBasedRlEnvCfg) -> None:
  """Change a task's environment for an off-policy learner, in place.

  Episodes are reset by the runner, which thus sees their true last observation. The
  critic observes one exact frame and the SDS losses, which summarise the window. Mu is
  the prior's own reference: a running mean would begin with the errors of random
  actions.

  Raises:
    UserError: The task has no motion prior.
  """
  smp_term = cfg.commands.get(SMP_TERM)
  if not isinstance(smp_term, SmpTermCfg):
    raise UserError(
      "--learner td3: this task has no motion prior; train it with --learner ppo"
    )
  smp_term.sds_normalizer = "reference"
  cfg.auto_reset = False
  critic = cfg.observations["critic"]
  critic.history_length = None
  critic.terms["log_denoising_error"] = ObservationTermCfg(func=log_denoising_error)


class OffPolicyRunner(CheckpointedRunner):
  """Runner that steps all environments, stores the steps, and updates TD3 in between.

  Args:
    env: An environment configured with `prepare_env_cfg`.
    train_cfg: `OffPolicyRunnerCfg` as a table.
    log_dir: Folder of the run; None: nothing is written.
    device: Device to learn on, that of the environment.

  Raises:
    UserError: Too little memory for the replay buffer, or a bad setting.
  """

  learner = "td3"

  def __init__(
    self,
    env: RslRlVecEnvWrapper,
    train_cfg: dict[str, Any],
    log_dir: str | None = None,
    device: str = "cpu",
  ) -> None:
    self.env, self.device = env, device
    algorithm = dict(train_cfg["algorithm"])
    self.alg_cfg = Td3Cfg(**{k: v for k, v in algorithm.items() if k != "rnd_cfg"})
    _check(self.alg_cfg)
    overlap = train_cfg.get("overlap")
    check_overlap(overlap, device)
    if overlap:  # The precision would hold for the robots' step too.
      self.alg_cfg = replace(self.alg_cfg, bfloat16=False)
    if train_cfg["replay_steps"] < self.alg_cfg.n_step:
      raise UserError(
        f"--agent.replay-steps {train_cfg['replay_steps']}: give at least the steps of a "
        f"return, {self.alg_cfg.n_step} (--agent.algorithm.n-step)"
      )
    _check_prior_weight(env.unwrapped)
    # Entries that rsl_rl's logger requires.
    self.cfg = {**train_cfg, "algorithm": {**algorithm, "rnd_cfg": None}}
    manager = env.unwrapped
    smp_term = self._smp_term()
    init_policy = train_cfg.get("init_policy")
    first = None if init_policy is None else self._read_policy(init_policy)
    teacher = train_cfg.get("teacher") or init_policy
    obs_dim = _width(manager, "actor")
    critic_dim = _width(manager, "critic")
    self.alg = Td3(
      obs_dim,
      critic_dim,
      action_bound(manager, self.alg_cfg),
      env.num_envs,
      value_range(manager, self.alg_cfg),
      self.alg_cfg,
      device,
      mirrors=(
        observation_mirror(manager, "actor"),
        observation_mirror(manager, "critic"),
        action_mirror(manager),
      )
      if self.alg_cfg.mirror
      else None,
      teacher=load_teachers(teacher, manager) if teacher else None,
    )
    if first is not None:
      self._begin_with(first, f"--agent.init-policy {init_policy}")
    self.replay = ReplayBuffer(
      self.cfg["replay_steps"],
      env.num_envs,
      obs_dim,
      critic_dim,
      env.num_actions,
      smp_term.style.losses.shape[1],
      device,
    )
    self.logger = Logger(
      log_dir, self.cfg, cast(Any, env.cfg), env.num_envs, False, 1, 0, device
    )
    self.current_learning_iteration = 0
    self._learning_starts = self._steps_for(self.cfg["learning_starts"])
    self._judged: deque[float] = deque(maxlen=EPISODES)
    self._ended: list[Tensor] = []
    self._worker: ThreadPoolExecutor | None = None
    if overlap:
      share = max(1, torch.get_num_threads() // 2)
      self._worker = ThreadPoolExecutor(1, "learner", torch.set_num_threads, (share,))

  def _read_policy(self, path: str) -> Actor:
    """Return the policy of a file for the actor to begin as.

    Raises:
      UserError: The file is missing, damaged, or of another task or observation.
    """
    trained = load_trained(path, self.task or None, self.device)
    theirs, ours = ActorLayout.read(path), ActorLayout.of(self.env.unwrapped.cfg)
    if theirs is not None and theirs.styles != ours.styles:
      raise UserError(
        f"--agent.init-policy {path}: its styles are {','.join(theirs.styles) or 'none'}"
        f", here {','.join(ours.styles) or 'none'}; give --env.commands.smp.styles as in "
        "its training"
      )
    if theirs is not None and theirs != ours:
      raise UserError(
        f"--agent.init-policy {path}: observes {', '.join(theirs.terms)} of "
        f"{theirs.history} frames, here {', '.join(ours.terms)} of {ours.history}; give --actor as in its training"
      )
    return trained.actor

  def _begin_with(self, actor: Actor, where: str) -> None:
    """Let the actor begin as another, named ``where`` in errors.

    Raises:
      UserError: It is another network.
    """
    try:
      self.alg.begin_with(actor)
    except ValueError as error:
      hint = "give --agent.algorithm.hidden-dims"
      if actor.spec != self.alg.spec:
        hint = "one of another learner can only teach (--agent.teacher)"
      raise UserError(f"{where}: another network ({error}); {hint}") from error

  def add_git_repo_to_log(self, repo_file_path: str) -> None:
    """Log the state of a repository, as rsl_rl's runner does."""
    self.logger.git_status_repos.append(repo_file_path)

  def _steps_for(self, batches: int) -> int:
    """Return the steps of all environments that fill ``batches`` batches."""
    wanted = batches * self.alg_cfg.batch_size // self.env.num_envs + 1
    return max(self.alg_cfg.n_step, min(wanted, self.replay.capacity))

  # Training.

  def train(self, iterations: int, random_episode_lengths: bool) -> None:
    """Train for ``iterations`` more iterations, saving every ``save_interval``."""
    env = self.env
    if random_episode_lengths:
      env.episode_length_buf = torch.randint_like(
        env.episode_length_buf, high=int(env.max_episode_length)
      )
    obs: Mapping[str, Tensor] = env.unwrapped.observation_manager.compute()  # pyright: ignore[reportAssignmentType]
    self.logger.init_logging_writer()
    first = self.current_learning_iteration
    for iteration in range(first, first + iterations):
      obs = self._iterate(obs, iteration, first, first + iterations)
      self.current_learning_iteration = iteration
      if self.logger.writer is not None and iteration % self.cfg["save_interval"] == 0:
        self.save(os.path.join(self.logger.log_dir, f"model_{iteration}.pt"))
    if self.logger.writer is not None:
      path = os.path.join(
        self.logger.log_dir, f"model_{self.current_learning_iteration}.pt"
      )
      self.save(path)
      self._save_replay()
      self.logger.stop_logging_writer()

  def _iterate(
    self, obs: Mapping[str, Tensor], iteration: int, first: int, total: int
  ) -> Mapping[str, Tensor]:
    """Step and learn ``num_steps_per_env`` times; return the observations."""
    collecting = waiting = learning = 0.0
    before = self.alg.updates
    losses: dict[str, list[Tensor]] = {}
    for _ in range(self.cfg["num_steps_per_env"]):
      start = time.perf_counter()
      if self._worker is None:
        obs = self._step(obs)
        middle = time.perf_counter()
        learned, spent = self._learn(self._draw())
      else:
        action, drawn = self._act(obs), self._draw()
        job = self._worker.submit(self._learn, drawn)
        try:
          obs = self._advance(obs, action)
          middle = time.perf_counter()
        finally:  # Go on, or stop, after whole updates.
          learned, spent = job.result()
      for name, value in learned:
        losses.setdefault(name, []).append(value)
      end = time.perf_counter()
      collecting += middle - start
      waiting += end - middle
      learning += end - middle if self._worker is None else spent
    start = time.perf_counter()  # Wait for a GPU, which is still at work.
    means = {name: float(torch.stack(each).mean()) for name, each in losses.items()}
    last = time.perf_counter() - start
    speed = (self.alg.updates - before) / (learning + last)
    self._log(iteration, first, total, collecting, waiting + last, speed, means)
    return obs

  def _step(self, obs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Act in all environments and store the step; return the next observations."""
    return self._advance(obs, self._act(obs))

  def _act(self, obs: Mapping[str, Tensor]) -> Tensor:
    """Return the actions (N, A) in all environments; update the normalisers."""
    self.alg.observe(obs["actor"], obs["critic"])
    return self.alg.explore(obs["actor"], obs["critic"])

  def _advance(self, obs: Mapping[str, Tensor], action: Tensor) -> Mapping[str, Tensor]:
    """Take a step and store it; return the next observations.

    Nothing here reads or writes what an update does.
    """
    env, smp_term = self.env.unwrapped, self._smp_term()
    actor_obs, critic_obs = obs["actor"], obs["critic"]
    with torch.no_grad():
      if self.env.clip_actions is not None:
        action = action.clamp(-self.env.clip_actions, self.env.clip_actions)
      # Around the environment there may be a recorder of videos.
      last, reward, terminated, truncated, _ = self.env.env.step(action)
      if env.cfg.is_finite_horizon:
        terminated, truncated = terminated | truncated, torch.zeros_like(truncated)
      log = env.extras["log"]
      task = _finite_or_zero(smp_term.task_reward)
      error = smp_term.style.losses.nan_to_num(nan=MAX_ERROR, posinf=MAX_ERROR)
      self.replay.push(
        Step(
          obs=actor_obs,
          critic_obs=critic_obs,
          action=action,
          next_obs=cast(Tensor, last["actor"]),
          next_critic_obs=cast(Tensor, last["critic"]),
          task=task,
          error=error,
          floor=smp_term.floor,
          extra=self._extra(reward, task, error),
          terminated=terminated,
          truncated=truncated & ~terminated,
        )
      )
      following = self._reset(terminated | truncated, cast(Any, last))
    env.extras["log"] = {**log, **env.extras["log"]}
    dones = (terminated | truncated).long()
    self._note_episodes(dones)
    self.logger.process_env_step(_finite_or_zero(reward), dones, env.extras)
    return following

  def _extra(self, reward: Tensor, task: Tensor, error: Tensor) -> Tensor:
    """Return the part of the reward (N,) outside of the composition."""
    env, smp_term = self.env.unwrapped, self._smp_term()
    if not extra_weights(env):
      return torch.zeros_like(task)
    scale = smp_term.style.scale()
    composed = compose(task, error, smp_term.floor, scale, smp_term.cfg.form())
    step = env.step_dt if env.cfg.scale_rewards_by_dt else 1.0
    return _finite_or_zero(reward / step - composed)

  def _reset(self, done: Tensor, last: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Reset the environments whose episodes ended; return the observations of all.

    mjlab resets here by an explicit call, which also refreshes the pose of every robot:
    this is the cost of the true last observation.
    """
    ids = done.nonzero().squeeze(-1)
    if len(ids) == 0:
      return last
    fresh, _ = self.env.unwrapped.reset(env_ids=ids)
    chosen = done.unsqueeze(-1)
    return {
      name: torch.where(chosen, cast(Tensor, fresh[name]), last[name])
      for name in ("actor", "critic")
    }

  def _draw(self) -> list[tuple[Batch, Tensor]]:
    """Return the batches of the updates due after a step, each with its noise."""
    if self.replay.size < self._learning_starts or not self.alg_cfg.updates_per_step:
      return []
    smp_term, cfg = self._smp_term(), self.alg_cfg
    scale, form = smp_term.style.scale(), smp_term.cfg.form()
    # Sampled at once, for a GPU waits for the host here.
    count = cfg.batch_size * cfg.updates_per_step
    batches = self.replay.sample(count, cfg.n_step, cfg.gamma, scale, form)
    return [
      (batch, torch.randn_like(batch.action)) for batch in batches.split(cfg.batch_size)
    ]

  def _learn(
    self, drawn: list[tuple[Batch, Tensor]]
  ) -> tuple[list[tuple[str, Tensor]], float]:
    """Make an update of each batch; return the losses, and the time taken, s."""
    start = time.perf_counter()
    losses: list[tuple[str, Tensor]] = []
    for batch, noise in drawn:
      losses += self.alg.update(batch, noise).items()
    return losses, time.perf_counter() - start

  # Logging.

  def _note_episodes(self, dones: Tensor) -> None:
    """Store the lengths of episodes that end in environments without noise on actions.

    They stay on the device until the end of the iteration; 0 where no episode ends.
    """
    quiet = slice(0, self.alg.num_quiet)
    self._ended.append((self.logger.cur_episode_length[quiet] + 1) * dones[quiet])

  def _read_episodes(self) -> None:
    """Fetch the lengths stored by `_note_episodes`, in one copy."""
    lengths = torch.cat(self._ended).tolist() if self._ended else []
    self._judged.extend(length for length in lengths if length > 0)
    self._ended.clear()

  def _log(
    self,
    iteration: int,
    first: int,
    total: int,
    collecting: float,
    learning: float,
    updates_per_second: float,
    losses: dict[str, float],
  ) -> None:
    self._read_episodes()
    logger = self.logger
    if logger.writer is None:
      return
    smp = _last_means(logger.ep_extras)
    writer = logger.writer
    writer.add_scalar("Perf/updates", self.alg.updates, iteration)
    writer.add_scalar("Perf/updates_per_second", updates_per_second, iteration)
    judged = sum(self._judged) / len(self._judged) if self._judged else 0.0
    if self._judged:
      writer.add_scalar("Train/mean_episode_length_no_noise", judged, iteration)
    with quiet():  # rsl_rl prints a page per iteration.
      logger.log(
        iteration,
        first,
        total,
        collecting,
        learning,
        losses,
        self.alg_cfg.learning_rate,
        self.alg.noise,
        None,
      )
    lengths = list(logger.lenbuffer)
    mean = sum(lengths) / len(lengths) if lengths else 0.0
    print(
      f"{iteration + 1}/{total}  {logger.tot_time / 60:5.1f} min  "
      f"{logger.tot_timesteps / 1e6:.3f} M steps  {self.alg.updates} updates  "
      f"episode {mean:.0f} (no noise {judged:.0f})  "
      + "  ".join(f"{name} {value:.3f}" for name, value in smp.items())
      + "".join(
        f"  {name} {losses[name]:.3f}"
        for name in ("imitation", "value")
        if name in losses
      )
      + f"  {self.env.num_envs * self.cfg['num_steps_per_env'] / (collecting + learning):.0f}"
      " steps/s",
      flush=True,
    )

  # Checkpoints.

  def learner_state(self) -> dict[str, Any]:
    """Return the state of TD3 between two updates."""
    if self._worker is not None:  # Ctrl-C may have left an update at work.
      self._worker.submit(int).result()
    return self.alg.state_dict()

  def load_learner(self, saved: dict[str, Any], load_cfg: dict | None) -> bool:
    """Load the state of TD3; training always continues from it."""
    del load_cfg
    self.alg.load_state_dict(saved)
    if saved.get("pull", 0.0) > PULL_TO_SPEAK_OF and self.alg.teacher is None:
      print(
        "[WARN] the actor of the checkpoint was still held by its teacher: give "
        "--agent.teacher again, or it may forget what it learned"
      )
    return True

  def load(
    self,
    path: str,
    load_cfg: dict | None = None,
    strict: bool = True,
    map_location: str | None = None,
  ) -> dict:
    """Read a checkpoint, and the replay buffer beside it if there is one.

    Raises:
      UserError: As `CheckpointedRunner.load`; or the buffer is of another size.
    """
    infos = super().load(path, load_cfg, strict, map_location)
    file = Path(path).with_name(REPLAY_FILE)
    if self.cfg["save_replay"] and file.is_file():
      try:
        self.replay.load_state_dict(load_tensors(file, "replay buffer", self.device))
      except ValueError as error:
        raise UserError(
          f"{file}: does not fit ({error}); remove it to begin with an empty buffer"
        ) from error
      print(f"[INFO] Replay buffer of {self.replay.size} steps per environment loaded")
    else:
      self._learning_starts = max(
        self._learning_starts, min(self.cfg["refill_steps"], self.replay.capacity)
      )
      print(
        f"[INFO] Learning continues after {self._learning_starts} steps per environment, "
        "which fill the replay buffer"
      )
      if file.is_file():
        print(f"[INFO] {file}: not read; to continue with it, --agent.save-replay True")
    return infos

  def _save_and_stop(self) -> None:
    super()._save_and_stop()
    self._save_replay()

  def _save_replay(self) -> None:
    if self.cfg["save_replay"] and self.logger.log_dir is not None:
      path = Path(self.logger.log_dir) / REPLAY_FILE
      save_tensors(path, self.replay.state_dict())
      print(f"[INFO] Saved {path} ({path.stat().st_size / 2**30:.1f} GiB)")


def action_bound(env: ManagerBasedRlEnv, cfg: Td3Cfg) -> Tensor:
  """Return the largest action (A,) of each joint, in units of the action.

  Raises:
    UserError: The actions are not joint position targets; or the environment has no
      prior to reach the poses of.
  """
  bound = torch.full((env.action_manager.total_action_dim,), cfg.action_bound)
  if cfg.action_reach == "none":
    return bound
  term = env.action_manager.get_term("joint_pos")
  if not isinstance(term, JointPositionAction):
    raise UserError(
      f"--agent.algorithm.action-reach {cfg.action_reach}: the actions are not joint "
      "positions"
    )
  robot = cast(Entity, env.scene["robot"])
  limits = robot.data.joint_pos_limits[0]
  if cfg.action_reach == "prior":
    poses = _joint_range(SmpTerm.of(env).prior).to(limits)
    limits = torch.minimum(torch.maximum(poses, limits[:, :1]), limits[:, 1:])
  offset = robot.data.default_joint_pos[0]
  scale = torch.as_tensor(term.scale, device=limits.device)
  scale = scale[0] if scale.dim() > 1 else scale
  reach = (limits - offset.unsqueeze(-1)).abs().amax(dim=-1)
  return torch.maximum(bound, (reach / scale).cpu())


def _joint_range(prior: MotionPrior | None) -> Tensor:
  """Return the range (29, 2), rad, of the joint angles of a prior's samples.

  Raises:
    UserError: There is no prior.
  """
  if prior is None:
    raise UserError(
      "--agent.algorithm.action-reach prior: the environment has no prior"
    )
  generator = torch.Generator(prior.q_low.device).manual_seed(0)
  joints = decode(prior.sample(REACH_WINDOWS, generator)).joint_pos.flatten(0, -2)
  share = torch.tensor((REACH_TAIL, 1.0 - REACH_TAIL)).to(joints)
  return joints.quantile(share, dim=0).T.contiguous()


def extra_weights(env: ManagerBasedRlEnv) -> dict[str, float]:
  """Return the weights of the reward terms outside of the composition, by name.

  Terms with a weight of 0 are left out.
  """
  manager = env.reward_manager
  terms = {name: manager.get_term_cfg(name) for name in manager.active_terms}
  return {
    name: term.weight
    for name, term in terms.items()
    if not (term.func is smp_reward or isinstance(term.func, TaskReward))
    and term.weight != 0.0
  }


def value_range(env: ManagerBasedRlEnv, cfg: Td3Cfg) -> tuple[float, float]:
  """Return the values of the first and the last atom, as mean rewards of a step.

  Costs outside of the composition (`extra_weights`) can make returns negative; how
  large they may get no weight says, so the range begins `COST_SHARE` of its length
  below 0.

  Raises:
    UserError: The given range is empty.
  """
  if cfg.value_range is not None:
    low, high = cfg.value_range
    if not low < high:
      raise UserError(
        f"--agent.algorithm.value-range {cfg.value_range}: give (LOW,HIGH), LOW < HIGH"
      )
    return low, high
  smp_term = SmpTerm.of(env)
  form, extra = smp_term.cfg.form(), extra_weights(env).values()
  most = form.max_reward(task_weight(env)) + sum(w for w in extra if w > 0.0)
  # The best motions keep their mean SDS loss: r_smp grows as w_s shrinks.
  best = DEFAULT_SHARE ** (form.sds_scale / DEFAULT_SHARE_SCALE)
  floor = smp_term.cfg.min_smp_reward_fallen
  best = floor + (1.0 - floor) * best
  high = (best if form.mode == "product" else 1.0) * most
  if not high > 0.0:
    raise UserError(
      "the task's rewards have no weight, so there is nothing to learn; give one with "
      "--env.rewards.NAME.weight, or --agent.algorithm.value-range"
    )
  low = -COST_SHARE * high if any(w < 0.0 for w in extra) else 0.0
  return low, high


def _check(cfg: Td3Cfg) -> None:
  """Raise an error for settings that cannot work.

  Raises:
    UserError: The message names the option.
  """
  for name, low in (
    ("batch_size", 2),
    ("n_step", 1),
    ("updates_per_step", 0),
    ("actor_interval", 1),
    ("actor_delay", 0),
    ("num_atoms", 2),
    ("noise_free_envs", 0),
    ("learning_rate", 0),
    ("teacher_weight", 0),
    ("teacher_half_life", 1),
    ("teacher_floor", 0),
  ):
    if not getattr(cfg, name) >= low:  # Of NaN neither is true.
      option = name.replace("_", "-")
      raise UserError(
        f"--agent.algorithm.{option} {getattr(cfg, name)}: give {low} or more"
      )
  if not 0.0 <= cfg.gamma < 1.0:
    raise UserError(f"--agent.algorithm.gamma {cfg.gamma}: give 0 up to below 1")
  if not 0.0 < cfg.action_bound < math.inf:
    raise UserError(
      f"--agent.algorithm.action-bound {cfg.action_bound}: give a number above 0"
    )
  if not 0.0 < cfg.tau <= 1.0:
    raise UserError(f"--agent.algorithm.tau {cfg.tau}: give a share above 0, up to 1")
  low, high = cfg.exploration_noise
  if not 0.0 <= low <= high:
    raise UserError(
      f"--agent.algorithm.exploration-noise {cfg.exploration_noise}: give (LOW,HIGH), "
      "0 <= LOW <= HIGH"
    )


def _check_prior_weight(env: ManagerBasedRlEnv) -> None:
  """Raise an error for a weight of the composed reward, which the replay lacks.

  Raises:
    UserError: The message names the option.
  """
  manager = env.reward_manager
  for name in manager.active_terms:
    term = manager.get_term_cfg(name)
    if term.func is smp_reward and term.weight != 1.0:
      raise UserError(
        f"--env.rewards.{name}.weight {term.weight:g}: td3 composes the reward itself; "
        "leave it at 1 and set --env.commands.smp.task-reward-weight and "
        ".smp-reward-weight, or .sds-scale"
      )


def check_overlap(overlap: bool | None, device: str) -> None:
  """Raise an error for learning beside the robots on a GPU, which works on its own.

  Raises:
    UserError: It is asked for there.
  """
  if overlap and torch.device(device).type != "cpu":
    raise UserError(
      "--agent.overlap True: is for a processor; a GPU works beside it anyway"
    )


def _width(env: ManagerBasedRlEnv, group: str) -> int:
  dim = env.observation_manager.group_obs_dim[group]
  assert isinstance(dim, tuple) and len(dim) == 1 and isinstance(dim[0], int)
  return dim[0]


def _finite_or_zero(value: Tensor) -> Tensor:
  """Return ``value`` with non-finite entries, of diverged robots, replaced by 0."""
  return value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _last_means(extras: list[dict[str, Any]]) -> dict[str, float]:
  """Return the means over an iteration for the progress line."""
  shown = {"task": "Smp/task_reward", "r_smp": "Smp/r_smp"}
  found = {}
  for name, key in shown.items():
    values = [float(each[key]) for each in extras if key in each]
    if values:
      found[name] = sum(values) / len(values)
  errors = [
    float(value)
    for each in extras
    for key, value in each.items()
    if key.startswith("Smp/sds_loss_t")
  ]
  if errors:
    found["sds_loss"] = sum(errors) / len(errors)
  return found
