"""What a task is: its environment, and how a policy of it is judged."""

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
  """Makes the environment of a task, for training or to look at."""

  def __call__(self, play: bool = False) -> ManagerBasedRlEnvCfg: ...


Values = Callable[[Trajectory, Tensor, float], dict[str, Tensor]]
"""From N episodes, the steps that count (T, N) and the seconds after which errors do to
figures (N,) by key."""


@dataclass(frozen=True)
class TaskSpec:
  """A task. Each module of `smp.tasks` exports one, as ``SPEC``."""

  env_cfg: MakeEnvCfg
  policy: str
  """Name of its shipped policy: datasets/policies/NAME.pt."""
  protocol: EvalProtocol
  """How it is evaluated; its ``task`` is the id of this task."""
  metrics: tuple[Metric, ...]
  """Figures of its own, beside those that every task has."""
  values: Values
  """The means and shares among ``metrics``, for each episode. Shares of episodes by what
  ended them are known without it."""
  success: str
  """Key of the metric, one of ``metrics``, that says most about a policy."""

  def __post_init__(self) -> None:
    if self.success not in {metric.key for metric in self.metrics}:
      raise ValueError(f"{self.id}: success '{self.success}' is none of its metrics")

  @property
  def id(self) -> str:
    """What scripts call it, such as Smp-Forward-G1."""
    return self.protocol.task

  @property
  def experiment(self) -> str:
    """Name of the folder of its runs, such as smp_forward_g1."""
    return self.id.lower().replace("-", "_")
