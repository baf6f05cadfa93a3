"""Specification of a task: its environment, and how its policies are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mjlab.envs import ManagerBasedRlEnvCfg
from torch import Tensor

from smp.episodes.metric import Metric
from smp.episodes.protocol import EvalProtocol
from smp.episodes.trajectory import Trajectory


class MakeEnvCfg(Protocol):
  """Factory of a task's environment, for training or (``play``) viewing."""

  def __call__(self, play: bool = False) -> ManagerBasedRlEnvCfg:
    """Return the environment's configuration."""
    ...


Values = Callable[[Trajectory, Tensor, float], dict[str, Tensor]]
"""Maps N episodes, their valid steps (T, N) and the seconds before errors count to
metrics (N,) by key."""


@dataclass(frozen=True)
class TaskSpec:
  """A task. Each module of `smp.tasks` exports one, as ``SPEC``."""

  env_cfg: MakeEnvCfg
  policy: str
  """Name of the shipped policy: datasets/policies/NAME.pt."""
  protocol: EvalProtocol
  """Evaluation protocol; its ``task`` is the id of this task."""
  metrics: tuple[Metric, ...]
  """Metrics of this task, in addition to those of every task."""
  values: Values
  """Computes the means and rates among ``metrics`` in each episode. The rates of
  terminations are known without it."""
  success: str
  """Key of the most informative metric about a policy, one of ``metrics``."""
  discount: float = 0.97
  """Discount of a step for the off-policy learner. 0.97 looks 0.7 s ahead, which does
  where every step earns its reward at once."""
  learned_after: float | None = None
  """Environment steps after which the off-policy learner does the task from nothing, as
  measured without a GPU (docs/results.md); None: it takes hours there, or a teacher."""

  def __post_init__(self) -> None:
    if self.success not in {metric.key for metric in self.metrics}:
      raise ValueError(f"{self.id}: success '{self.success}' is none of its metrics")

  @property
  def id(self) -> str:
    """Return the id for scripts, such as Smp-Forward-G1."""
    return self.protocol.task

  @property
  def experiment(self) -> str:
    """Return the name of the folder of runs, such as smp_forward_g1."""
    return self.id.lower().replace("-", "_")
