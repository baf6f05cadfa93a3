"""Common part of the learners' runners: checkpoints that continue seamlessly."""

from __future__ import annotations

import _thread
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper

from smp.deploy.deploy_file import deploy_path
from smp.deploy.onnx_export import FILE_NAME, export_policy
from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError, one_line
from smp.mdp.curriculums import curriculum_state, load_curriculum_state
from smp.mdp.smp_term import SmpTerm
from smp.rl.actor import Actor, actor_from
from smp.rl.actor_layout import ActorLayout
from smp.rl.checkpoint import read_checkpoint
from smp.rl.policy_file import CLIP
from smp.utils.git import git_revision
from smp.utils.tensor_files import save_tensors
from smp.utils.wandb_mode import choose_wandb_mode

MISFITS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""Errors of torch when it loads the state of another network."""


class CheckpointedRunner:
  """Base class of a learner's runner that saves, exports, resumes and stops.

  A checkpoint holds the state of the learner (`learner_state`), the actor, the running
  means of the SDS losses, the GSI buffer, and the counters. It is written to a
  temporary file and renamed, holds plain tensors and numbers only, and is read without
  unpickling code. Ctrl-C saves and ends cleanly.

  Attributes:
    learner: Name of the learner, stored in checkpoints.
    task: The task's id, stored in exported policies. Set by `for_task`.
    minutes: Minutes after which training is interrupted, as by Ctrl-C; None: never. Set
      for all runners of a program, as mjlab creates them.
  """

  learner = ""
  task = ""
  minutes: float | None = None
  env: RslRlVecEnvWrapper
  cfg: dict[str, Any]
  logger: Any
  current_learning_iteration: int

  @classmethod
  def for_task(cls, task: str) -> type[Any]:
    """Return this runner for one task, which mjlab does not pass to a runner."""
    return type(cls.__name__, (cls,), {"task": task, "__doc__": cls.__doc__})

  # Provided by a learner.

  def train(self, iterations: int, random_episode_lengths: bool) -> None:
    """Train for ``iterations`` more iterations, saving every ``save_interval``."""
    raise NotImplementedError

  def learner_state(self) -> dict[str, Any]:
    """Return the state of the learner, including ``actor_state_dict``."""
    raise NotImplementedError

  def load_learner(self, saved: dict[str, Any], load_cfg: dict | None) -> bool:
    """Load the output of `learner_state`; return whether training continues from it."""
    raise NotImplementedError

  # Common to all learners.

  def learn(
    self, num_learning_iterations: int, init_at_random_ep_len: bool = False
  ) -> None:
    """Train; save and end cleanly when interrupted.

    Raises:
      UserError: The disk is full, or another error that a person can fix.
    """
    _ = self._origin  # Read now: the files may change while training.
    if self.logger.log_dir is not None and self.cfg.get("logger") == "wandb":
      choose_wandb_mode(Path(self.logger.log_dir))
    try:
      with _interrupt_after(self.minutes):
        self.train(num_learning_iterations, init_at_random_ep_len)
    except KeyboardInterrupt:
      self._save_and_stop()
    except OSError as error:
      # The curves are files too.
      raise UserError(
        f"{self.logger.log_dir}: cannot write ({error.strerror}); free some space"
        f"{self._resume_hint()}"
      ) from error
    except UserError as error:
      raise UserError(f"{error}{self._resume_hint()}") from error

  def save(self, path: str, infos: dict | None = None) -> None:
    """Write a checkpoint to ``path`` and its policy as ONNX beside it.

    Both are uploaded to W&B if uploads are on.
    """
    env = self.env.unwrapped
    saved = self.learner_state()
    saved["learner"] = self.learner
    saved["iter"] = self.current_learning_iteration
    saved["infos"] = {
      **(infos or {}),
      "env_state": {"common_step_counter": env.common_step_counter},
      "curriculum": curriculum_state(env),
      "origin": self._origin,
      "progress": {
        "total_steps": self.logger.tot_timesteps,
        "total_time": self.logger.tot_time,
      },
    }
    if self._smp_term().prior is not None:
      saved["infos"]["smp"] = self._smp_term().state_dict()
    save_tensors(path, saved)
    self._upload(path)
    # Export after the checkpoint, which no error here may prevent.
    policy = Path(path).with_name(FILE_NAME)
    try:
      self.export(policy, actor_from(saved, path))
    except Exception as error:
      detail = one_line(error)
      print(f"[WARN] {policy}: not exported ({detail}); training continues")
    else:
      self._upload(str(policy))
      self._upload(str(deploy_path(policy)))

  def export(self, path: Path, actor: Actor | None = None) -> PolicySpec:
    """Write the actor as ONNX to ``path``, by default the one in training.

    Raises:
      UserError: As `export_policy`.
    """
    return export_policy(
      self.env,
      actor or actor_from(self.learner_state(), path),
      path,
      self.task or str(self.cfg["experiment_name"]),
      self.current_learning_iteration,
      path.parent.name,
    )

  def load(
    self,
    path: str,
    load_cfg: dict | None = None,
    strict: bool = True,
    map_location: str | None = None,
  ) -> dict:
    """Read a checkpoint; training then continues with the iteration after it.

    Raises:
      UserError: The file is missing, damaged, or of another learner, task or network.
    """
    del strict
    loaded = read_checkpoint(path, map_location or str(self.env.device))
    learner = loaded.get("learner", "ppo")
    if learner != self.learner:
      raise UserError(
        f"{path}: trained by the learner {learner}, not {self.learner}; go on with "
        f"--learner {learner}"
      )
    infos = loaded["infos"]
    has_prior = self._smp_term().prior is not None
    if has_prior and "smp" not in infos:
      raise UserError(
        f"{path}: trained without a motion prior, or not a checkpoint of this project (no "
        "infos.smp)"
      )
    try:
      resume = self.load_learner(loaded, load_cfg)
      same = not resume or self._compare_origin(path, infos)
      if has_prior and same:
        self._smp_term().load_state_dict(infos["smp"])
      if resume:
        self._go_on_from(loaded)
    except MISFITS as error:
      detail = one_line(error)
      raise UserError(
        f"{path}: checkpoint of another task or network; resume it with the options "
        f"that it was trained with ({detail})"
      ) from error
    return infos

  def _go_on_from(self, loaded: dict[str, Any]) -> None:
    """Load the counters of a checkpoint and its curriculum."""
    env, infos = self.env.unwrapped, loaded["infos"]
    self.current_learning_iteration = loaded["iter"] + 1
    env.common_step_counter = infos["env_state"]["common_step_counter"]
    self.logger.tot_timesteps = infos["progress"]["total_steps"]
    self.logger.tot_time = float(infos["progress"].get("total_time", 0.0))
    load_curriculum_state(env, infos.get("curriculum", {}))

  def _upload(self, path: str) -> None:
    """Upload a file of this run to W&B, if uploads are on."""
    if self.cfg["upload_model"]:
      self.logger.save_model(path, self.current_learning_iteration)

  @functools.cached_property
  def _origin(self) -> dict[str, Any]:
    """Return what this training is of: task, prior, commit, command, the actor's view."""
    clip = self.env.clip_actions
    return {
      **({"task": self.task} if self.task else {}),
      "actor": ActorLayout.of(self.env.unwrapped.cfg).to_dict(),
      "prior": self._prior_name(),
      **self._style(),
      **({} if clip is None else {CLIP: float(clip)}),
      "commit": git_revision(),
      "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }

  def _style(self) -> dict[str, str]:
    """Return the style under which this training is, if it is under one."""
    title = self._smp_term().cfg.style_title()
    return {} if title is None else {"style": title}

  def _prior_name(self) -> str:
    return Path(self._smp_term().cfg.prior or "none").stem

  def _compare_origin(self, path: str, infos: dict[str, Any]) -> bool:
    """Warn of a checkpoint of another prior or style; return whether it is of these."""
    origin = infos.get("origin")
    origin = origin if isinstance(origin, dict) else {}
    prior = origin.get("prior")
    if prior is not None and prior != self._prior_name():
      print(
        f"[WARN] {path}: trained under the prior {prior}, goes on under "
        f"{self._prior_name()} (--env.commands.smp.prior), with its initial states and "
        "a scale of its own"
      )
      return False
    before, now = origin.get("style"), self._style().get("style")
    if before != now:
      print(
        f"[WARN] {path}: trained under {shown_style(before)}, goes on under "
        f"{shown_style(now)} (--env.commands.smp.style), with its initial states and a "
        "scale of its own"
      )
    return before == now

  def _smp_term(self) -> SmpTerm:
    env = cast(ManagerBasedRlEnv, self.env.unwrapped)
    return SmpTerm.of(env)

  def _save_and_stop(self) -> None:
    if self.logger.writer is None or self.logger.log_dir is None:
      return
    path = os.path.join(
      self.logger.log_dir, f"model_{self.current_learning_iteration}.pt"
    )
    self.save(path)
    self.logger.stop_logging_writer()
    print(f"[INFO] Interrupted. Saved {path}")
    print(f"[INFO] Continue with the same options and {self._resume_options()}")

  def _resume_options(self) -> str:
    run = Path(str(self.logger.log_dir)).name
    return f"--agent.resume True --agent.load-run {run}"

  def _resume_hint(self) -> str:
    """Return the end of a fatal error's message: where it stopped and how to resume."""
    stopped = f"; training stopped in iteration {self.current_learning_iteration + 1}"
    if not list(Path(str(self.logger.log_dir)).glob("model_*.pt")):
      return f"{stopped}, before its first checkpoint"
    return f"{stopped}; continue from its last checkpoint: {self._resume_options()}"


def shown_style(title: str | None) -> str:
  """Return a style for a message."""
  return "no style" if title is None else f"style '{title}'"


@contextmanager
def _interrupt_after(minutes: float | None) -> Iterator[None]:
  """Interrupt the main thread as Ctrl-C does, ``minutes`` from now.

  Where the system has alarms one is used: a program in the background may ignore
  Ctrl-C.
  """
  if minutes is None:
    yield
  elif hasattr(signal, "setitimer"):
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 60.0 * minutes)
    try:
      yield
    finally:
      signal.setitimer(signal.ITIMER_REAL, 0.0)
      signal.signal(signal.SIGALRM, before)
  else:
    timer = threading.Timer(60.0 * minutes, _thread.interrupt_main)
    timer.daemon = True
    timer.start()
    try:
      yield
    finally:
      timer.cancel()


class SmpRunner(CheckpointedRunner, MjlabOnPolicyRunner):
  """PPO: mjlab's runner of rsl_rl, with this project's checkpoints."""

  learner = "ppo"
  env: RslRlVecEnvWrapper  # pyright: ignore[reportIncompatibleVariableOverride]

  def train(self, iterations: int, random_episode_lengths: bool) -> None:
    """Train by mjlab's runner."""
    MjlabOnPolicyRunner.learn(self, iterations, random_episode_lengths)

  def learner_state(self) -> dict[str, Any]:
    """Return the state of rsl_rl's PPO."""
    return self.alg.save()

  def load_learner(self, saved: dict[str, Any], load_cfg: dict | None) -> bool:
    """Load the state of rsl_rl's PPO; return whether training continues from it."""
    return bool(self.alg.load(saved, load_cfg, True))
