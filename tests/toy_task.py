"""A fifth task in one file: hold the pelvis at a commanded height.

Everything that a task needs is here, and nothing about it anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.tasks import registry as mjlab_registry
from torch import Tensor

from smp.episodes import episode_metrics
from smp.episodes.metric import FAILURES, Metric
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  EvalCondition,
  EvalProtocol,
  push_axis,
  pushed,
)
from smp.episodes.trajectory import Trajectory
from smp.mdp import robot_state
from smp.mdp.commands import ComponentCommand, ComponentCommandCfg
from smp.mdp.rewards import TaskReward
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks import registry
from smp.tasks.base import base_env_cfg, play_env_cfg
from smp.tasks.spec import TaskSpec
from smp.utils.components import Component, scalar

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class HeightCommandCfg(ComponentCommandCfg):
  """A height of the pelvis."""

  height_range: tuple[float, float] = (0.55, 0.75)
  """m, drawn uniformly."""

  def build(self, env: ManagerBasedRlEnv) -> HeightCommand:
    return HeightCommand(self, env)


class HeightCommand(ComponentCommand):
  """Hold the pelvis at a height. The policy sees it in m."""

  cfg: HeightCommandCfg

  def __init__(self, cfg: HeightCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.height = torch.zeros(self.num_envs, device=self.device)

  def components(self) -> tuple[Component, ...]:
    low, high = self.cfg.height_range
    return (scalar("height", "m", "how high to hold the pelvis", low, high, least=0.0),)

  def targets(self) -> dict[str, Tensor]:
    return {"height": self.height}

  def _draw_targets(self, env_ids: Tensor) -> None:
    low, high = self.cfg.height_range
    draw = torch.rand(len(env_ids), device=self.device)
    self.height[env_ids] = low + (high - low) * draw


def height_error(env: ManagerBasedRlEnv, command_name: str) -> Tensor:
  """|height - commanded height| of the pelvis (N,), m."""
  command = cast(HeightCommand, env.command_manager.get_term(command_name))
  robot = cast(Entity, env.scene["robot"])
  height = robot_state.above_floor(env, robot_state.root_pos_w(robot))
  return (height - command.height).abs()


def keep_height(env: ManagerBasedRlEnv, command_name: str, scale: float) -> Tensor:
  """exp(-scale * error^2) (N,)."""
  return torch.exp(-scale * height_error(env, command_name).square())


def height_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of Toy-Height-G1, for training or to look at."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(prior="loco"),
    command=HeightCommandCfg(resampling_time_range=(3.0, 8.0), debug_vis=True),
  )
  cfg.rewards["keep_height"] = RewardTermCfg(
    func=TaskReward,
    weight=1.0,
    params={"task": keep_height, "command_name": "command", "scale": 50.0},
  )
  cfg.metrics["height_error"] = MetricsTermCfg(
    func=height_error, params={"command_name": "command"}
  )
  return play_env_cfg(cfg) if play else cfg


def values(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return the mean error of the height (N,), m, once it has settled."""
  settled = episode_metrics.after(valid, settle, trajectory.fps)
  error = (trajectory.qpos[..., 2] - trajectory.command["height"][:, 0]).abs()
  return {"height_error": episode_metrics.masked_mean(error, settled)}


HEIGHTS = (0.6, 0.7)

SPEC = TaskSpec(
  env_cfg=height_env_cfg,
  policy="height",
  protocol=EvalProtocol(
    "Toy-Height-G1",
    (
      *(
        EvalCondition(COMMAND, f"{height:g} m", height, {"height": height})
        for height in HEIGHTS
      ),
      *pushed(height=0.7),
    ),
    {COMMAND: "commanded height (m)", PUSH: push_axis("0.7 m")},
  ),
  metrics=(
    Metric(
      "height_error",
      "height error",
      "m",
      "task",
      better="lower",
      short="height error (m)",
    ),
    *FAILURES,
  ),
  values=values,
  success="height_error",
)


@contextmanager
def registered() -> Iterator[TaskSpec]:
  """Know the task for a while: other tests go over all tasks that there are."""
  registry.register_task(SPEC)
  try:
    yield SPEC
  finally:
    del registry._SPECS[SPEC.id], mjlab_registry._REGISTRY[SPEC.id]
