"""The PPO runner: checkpoints that continue without a jump."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Any, cast

from mjlab.rl import MjlabOnPolicyRunner

from smp.deploy.export import FILE_NAME, export_policy
from smp.diffusion.train import git_revision
from smp.errors import UserError
from smp.mdp.guidance import GUIDANCE, Guidance
from smp.tasks.checkpoint import read_checkpoint
from smp.tensor_files import save_tensors
from smp.wandb_mode import choose_wandb_mode

_MISFITS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What torch raises over states of another network."""


class SmpRunner(MjlabOnPolicyRunner):
  """mjlab's runner, with the reward's memory in the checkpoint.

  Beside the networks and the optimizer (whose learning rate rsl_rl adapts) a checkpoint
  holds the running means of the guidance errors, the pool of start states, and the
  counters. Checkpoints are written to a temporary file and renamed, hold plain tensors
  and numbers only, and are read without unpickling code. Ctrl-C saves and ends cleanly.

  Attributes:
    task: The task's id, which exported policies name. Set by `for_task`.
  """

  task = ""

  @classmethod
  def for_task(cls, task: str) -> type[SmpRunner]:
    """This runner for one task: mjlab does not tell a runner which one it trains."""
    return type(cls.__name__, (cls,), {"task": task, "__doc__": cls.__doc__})

  def learn(
    self, num_learning_iterations: int, init_at_random_ep_len: bool = False
  ) -> None:
    _ = self._origin  # Of the start: the files may change while training goes on.
    if self.logger.log_dir is not None and self.cfg.get("logger") == "wandb":
      choose_wandb_mode(Path(self.logger.log_dir))
    try:
      super().learn(num_learning_iterations, init_at_random_ep_len)
    except KeyboardInterrupt:
      self._save_and_stop()
    except OSError as error:
      # The curves are files too.
      raise UserError(
        f"{self.logger.log_dir}: cannot write ({error.strerror}); free some space"
        f"{self._way_on()}"
      ) from error
    except UserError as error:
      raise UserError(f"{error}{self._way_on()}") from error

  def save(self, path: str, infos: dict | None = None) -> None:
    """Write a checkpoint to ``path`` and the policy in it as ONNX beside it.

    Both are handed to W&B if uploads are on.
    """
    env = self.env.unwrapped
    saved = self.alg.save()
    saved["iter"] = self.current_learning_iteration
    saved["infos"] = {
      **(infos or {}),
      "env_state": {"common_step_counter": env.common_step_counter},
      "guidance": self._guidance().state_dict(),
      "origin": self._origin,
      "progress": {
        "total_steps": self.logger.tot_timesteps,
        "total_time": self.logger.tot_time,
      },
    }
    save_tensors(path, saved)
    self._hand_over(path)
    # After the checkpoint, which must not be lost to whatever goes wrong here.
    policy = Path(path).with_name(FILE_NAME)
    try:
      export_policy(self, policy, run_name=policy.parent.name)
    except Exception as error:
      detail = " ".join(str(error).split())[:200] or type(error).__name__
      print(f"[WARN] {policy}: not exported ({detail}); training goes on")
    else:
      self._hand_over(str(policy))

  def _hand_over(self, path: str) -> None:
    """Give a file of this run to W&B, if uploads are on."""
    if self.cfg["upload_model"]:
      self.logger.save_model(path, self.current_learning_iteration)

  def load(
    self,
    path: str,
    load_cfg: dict | None = None,
    strict: bool = True,
    map_location: str | None = None,
  ) -> dict:
    """Read a checkpoint; training then goes on with the iteration after it.

    Raises:
      UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    loaded = read_checkpoint(path, map_location or str(self.device))
    infos = loaded["infos"]
    try:
      resume = self.alg.load(loaded, load_cfg, strict)
      self._guidance().load_state_dict(infos["guidance"])
    except _MISFITS as error:
      detail = " ".join(str(error).split())[:200]
      raise UserError(
        f"{path}: checkpoint of another task or network ({detail})"
      ) from error
    if resume:
      self.current_learning_iteration = loaded["iter"] + 1
      env = self.env.unwrapped
      env.common_step_counter = infos["env_state"]["common_step_counter"]
      self.logger.tot_timesteps = infos["progress"]["total_steps"]
    return infos

  def load_policy(self, path: str, policy: dict[str, Any]) -> None:
    """Take the actor and the running means of a policy file (`smp.tasks.policy_file`).

    Raises:
      UserError: it is of another network.
    """
    try:
      self.alg.load(policy, {"actor": True}, strict=True)
      self._guidance().load_means(policy)
    except _MISFITS as error:
      detail = " ".join(str(error).split())[:200]
      raise UserError(
        f"{path}: policy of another task or network ({detail})"
      ) from error

  @functools.cached_property
  def _origin(self) -> dict[str, str]:
    """Where a checkpoint comes from."""
    return {
      "prior": Path(self._guidance().cfg.prior).stem,
      "commit": git_revision(),
      "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }

  def _guidance(self) -> Guidance:
    return cast(Guidance, self.env.unwrapped.command_manager.get_term(GUIDANCE))

  def _save_and_stop(self) -> None:
    if self.logger.writer is None or self.logger.log_dir is None:
      return
    path = os.path.join(
      self.logger.log_dir, f"model_{self.current_learning_iteration}.pt"
    )
    self.save(path)
    self.logger.stop_logging_writer()
    print(f"[INFO] Interrupted. Saved {path}")
    print(f"[INFO] Continue with: {self._resume_options()}")

  def _resume_options(self) -> str:
    run = Path(str(self.logger.log_dir)).name
    return f"--agent.resume True --agent.load-run {run}"

  def _way_on(self) -> str:
    """The end of an error's line, for who finds a training stopped by it."""
    stopped = f"; training stopped in iteration {self.current_learning_iteration + 1}"
    if not list(Path(str(self.logger.log_dir)).glob("model_*.pt")):
      return f"{stopped}, before its first checkpoint"
    return f"{stopped}; continue from its last checkpoint: {self._resume_options()}"
