"""Go to a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from smp.mdp import robot_state
from smp.mdp.commands.common import random_directions
from smp.mdp.commands.component import ComponentCommand, ComponentCommandCfg, Growth
from smp.utils.components import Component, point

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class LocationCommandCfg(ComponentCommandCfg):
  """A goal on the floor around the robot."""

  distance_range: tuple[float, float] = (1.0, 10.0)
  """How far the goal is from the robot when it is drawn, m, uniformly; any angle."""

  def growth(self) -> tuple[Growth, ...]:
    return (Growth("distance", "distance_range", "m", None),)

  def build(self, env: ManagerBasedRlEnv) -> LocationCommand:
    return LocationCommand(self, env)


class LocationCommand(ComponentCommand):
  """Go to a goal on the floor.

  The policy sees the goal's offset from the pelvis (x, y) in its heading frame, m.
  """

  cfg: LocationCommandCfg

  def __init__(self, cfg: LocationCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.distance_range = cfg.distance_range
    """Distances drawn at present, m: the configured ones, or what a curriculum allows."""
    self.goal_w = torch.zeros(self.num_envs, 2, device=self.device)

  def components(self) -> tuple[Component, ...]:
    low, high = self.cfg.distance_range
    return (point("goal", "where to go", low, high),)

  def targets(self) -> dict[str, torch.Tensor]:
    return {"goal": self.goal_w}

  @property
  def offset_w(self) -> torch.Tensor:
    """Goal minus pelvis (N, 2), m, world xy, at this very moment."""
    return self.goal_w - robot_state.root_pos_w(self.robot)[:, :2]

  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    # Positions come from qpos: at a reset the body poses are still those of the
    # episode before, and goals around them would lie anywhere.
    here = robot_state.root_pos_w(self.robot)[env_ids, :2]
    low, high = self.distance_range
    distance = low + (high - low) * torch.rand(len(env_ids), 1, device=self.device)
    offset = distance * random_directions(len(env_ids), self.device)
    self.goal_w[env_ids] = here + offset
