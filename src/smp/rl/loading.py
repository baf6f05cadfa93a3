"""Environments for viewing, and policies to run in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from mjlab.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg, load_runner_cls
from torch import Tensor

from smp.errors import UserError, one_line
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.rl.actor_layout import ActorLayout, leave_out_prior
from smp.rl.checkpoint import read_checkpoint
from smp.rl.policy_file import load_trained
from smp.sim.engine import find_device, make_env

Agent = Literal["trained", "zero", "random"]
Policy = Callable[[Mapping[str, Tensor]], Tensor]
"""Maps the groups of observations, "actor" among them, to actions (N, A)."""

CPU_GSI_BUFFER_SIZE = 64
"""Initial states sampled for viewing a policy on a CPU."""


@dataclass(frozen=True)
class PlayEnvCfg:
  """Configuration of a task's play environment."""

  num_envs: int = 1
  device: str | None = None
  """Default: the GPU where there is one."""
  engine: str = "auto"
  threads: int | None = None
  seed: int = 42
  prior: str | None = None
  """Another prior than the task's: a name or a path."""
  actor: ActorLayout | None = None
  """Observations of the actor; None: those of the task."""
  observations_alone: bool = False
  """Whether the prior of a policy of several styles may be left out."""
  terminations: bool = True
  video_size: tuple[int, int] | None = None
  """Height and width of rendered frames, pixels; None: nothing is rendered."""


def build_env(task: str, play: PlayEnvCfg) -> RslRlVecEnvWrapper:
  """Return the play environment of a task, ours or mjlab's.

  Raises:
    UserError: There is no such engine, device, prior or observation, or there are too
      many threads.
  """
  cfg = load_env_cfg(task, play=True)
  if play.actor is not None:
    play.actor.apply(cfg)
  if play.observations_alone:
    leave_out_prior(cfg)
  cfg.seed = play.seed
  cfg.scene.num_envs = play.num_envs
  if play.video_size is not None:
    cfg.viewer.height, cfg.viewer.width = play.video_size
  if not play.terminations:
    cfg.terminations = {}
  device = find_device(play.device, play.engine)
  smp_term = cfg.commands.get(SMP_TERM)
  if isinstance(smp_term, SmpTermCfg):
    smp_term.prior = play.prior or smp_term.prior
    if device.startswith("cpu"):
      # Sampling takes 15 ms a window on a CPU, and a viewer needs few initial states.
      smp_term.gsi_buffer_size = min(smp_term.gsi_buffer_size, CPU_GSI_BUFFER_SIZE)
  render_mode = None if play.video_size is None else "rgb_array"
  env = make_env(cfg, play.engine, device, play.threads, render_mode)
  return RslRlVecEnvWrapper(env, clip_actions=load_rl_cfg(task).clip_actions)


def load_policy(
  task: str, env: RslRlVecEnvWrapper, agent: Agent, checkpoint: Path | None
) -> Policy:
  """Return the policy of an agent; a trained one also sets the means of r_smp.

  Args:
    task: Task of the environment.
    env: The environment to act in.
    agent: "zero" and "random" need no checkpoint.
    checkpoint: A checkpoint of any learner, or a policy file.

  Raises:
    UserError: The file is missing, damaged, or of another task or network.
  """
  shape, device = (env.num_envs, env.num_actions), env.device
  if agent == "zero":
    return lambda obs: torch.zeros(shape, device=device)
  if agent == "random":
    return lambda obs: 2.0 * torch.rand(shape, device=device) - 1.0
  if checkpoint is None:
    raise UserError("--agent trained: needs a checkpoint (--checkpoint-file FILE)")
  if not is_smp_task(task):
    return _load_mjlab_policy(task, env, checkpoint)
  trained = load_trained(checkpoint, task, str(device))
  check_fit(trained.actor.sizes, env, checkpoint)
  term = env.unwrapped.command_manager.get_term(SMP_TERM)
  if trained.means is not None and isinstance(term, SmpTerm):
    term.load_means(trained.means)
  print(
    f"[INFO] {checkpoint}: "
    + ", ".join(f"{k} {v}" for k, v in trained.card.items() if not isinstance(v, dict))
  )
  actor = trained.actor

  def act(obs: Mapping[str, Tensor]) -> Tensor:
    return actor(obs["actor"])

  return act


def is_smp_task(task: str) -> bool:
  """Return whether a registered task has a motion prior."""
  return isinstance(load_env_cfg(task).commands.get(SMP_TERM), SmpTermCfg)


def check_fit(sizes: tuple[int, ...], env: RslRlVecEnvWrapper, path: Path) -> None:
  """Raise an error for an actor whose observations or actions are not those of ``env``.

  Raises:
    UserError: The message names the sizes.
  """
  (width,) = env.unwrapped.observation_manager.group_obs_dim["actor"]
  if (sizes[0], sizes[-1]) != (width, env.num_actions):
    raise UserError(
      f"{path}: policy of another task or network ({sizes[0]} observations and "
      f"{sizes[-1]} actions, here {width} and {env.num_actions})"
    )


def _load_mjlab_policy(task: str, env: RslRlVecEnvWrapper, checkpoint: Path) -> Policy:
  """Return a policy of one of mjlab's own tasks, loaded by its own runner."""
  read_checkpoint(checkpoint, "cpu")  # Refuse pickled code first.
  kind = load_runner_cls(task) or MjlabOnPolicyRunner
  runner = kind(env, asdict(load_rl_cfg(task)), device=str(env.device))
  try:
    runner.load(str(checkpoint), {"actor": True}, map_location=str(env.device))
  except (RuntimeError, ValueError, KeyError, TypeError) as error:
    detail = one_line(error)
    raise UserError(
      f"{checkpoint}: checkpoint of another task or network ({detail})"
    ) from error
  return runner.get_inference_policy(device=str(env.device))
