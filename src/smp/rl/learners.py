"""The learners, and their requirements on the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.rl import RslRlBaseRunnerCfg, RslRlVecEnvWrapper

from smp.errors import UserError
from smp.rl.off_policy import OffPolicyRunner, off_policy_cfg, prepare_env_cfg
from smp.rl.ppo import ppo_cfg
from smp.rl.runner import CheckpointedRunner, SmpRunner

AUTO = "auto"


@dataclass(frozen=True)
class Learner:
  """A way to train policies."""

  runner: type[CheckpointedRunner]
  make_cfg: Callable[[str], RslRlBaseRunnerCfg]
  """Returns the settings for an experiment of this name."""
  prepare: Callable[[ManagerBasedRlEnvCfg], None]
  """Changes a task's environment for this learner, in place."""
  one_gpu: bool
  """Whether it can use at most one GPU."""


def _as_it_is(cfg: ManagerBasedRlEnvCfg) -> None:
  del cfg


LEARNERS: dict[str, Learner] = {
  SmpRunner.learner: Learner(SmpRunner, ppo_cfg, _as_it_is, one_gpu=False),
  OffPolicyRunner.learner: Learner(
    OffPolicyRunner, off_policy_cfg, prepare_env_cfg, one_gpu=True
  ),
}


def find_learner(name: str, on_gpu: bool) -> str:
  """Return the name of a learner; ``auto`` is PPO on a GPU and TD3 on a CPU.

  Raises:
    UserError: There is none of that name.
  """
  if name == AUTO:
    return SmpRunner.learner if on_gpu else OffPolicyRunner.learner
  if name not in LEARNERS:
    names = ", ".join((AUTO, *LEARNERS))
    raise UserError(f"--learner {name}: no such learner; choose one of {names}")
  return name


def check_options(arguments: Iterable[str], learner: str) -> None:
  """Raise an error for an option that another learner has and this one lacks.

  Args:
    arguments: Words of the command line; options of no learner are left alone.
    learner: Name of the learner in use.

  Raises:
    UserError: The message names the option and the learner that has it.
  """
  settings = {name: each.make_cfg("") for name, each in LEARNERS.items()}
  for word in arguments:
    option = word.partition("=")[0]
    if not option.startswith("--agent."):
      continue
    path = option.removeprefix("--agent.").replace("-", "_").split(".")
    having = [name for name, cfg in settings.items() if _has_setting(cfg, path)]
    if having and learner not in having:
      raise UserError(
        f"{option}: an option of --learner {' and '.join(having)}; the learner here is "
        f"{learner}"
      )


def _has_setting(cfg: object, path: list[str]) -> bool:
  """Return whether fields of dataclasses, or keys of tables, lead along a path."""
  for name in path:
    if isinstance(cfg, dict) and name in cfg:
      cfg = cfg[name]
    elif is_dataclass(cfg) and name in {each.name for each in fields(cfg)}:
      cfg = getattr(cfg, name)
    else:
      return False
  return True


def runner_for(task: str) -> type:
  """Return the factory that mjlab calls to create the runner of a task.

  mjlab knows one runner class for each task; the settings that it passes determine the
  learner.
  """

  def make(
    env: RslRlVecEnvWrapper,
    train_cfg: dict[str, Any],
    log_dir: str | None = None,
    device: str = "cpu",
  ) -> CheckpointedRunner:
    off_policy = train_cfg.get("class_name") == OffPolicyRunner.__name__
    kind: Any = OffPolicyRunner if off_policy else SmpRunner
    return kind.for_task(task)(env, train_cfg, log_dir, device)

  return cast(type, make)
