"""Command: go to a place."""

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
  """Configuration of a goal on the floor around the robot."""

  distance_range: tuple[float, float] = (1.0, 10.0)
  """Initial distance of a goal from the robot, m, drawn uniformly, at any angle."""

  def growth(self) -> tuple[Growth, ...]:
    """Return the distance range, which a curriculum may grow."""
    return (Growth("distance", "distance_range", "m", None),)

  def build(self, env: ManagerBasedRlEnv) -> LocationCommand:
    """Return the command term for an environment."""
    return LocationCommand(self, env)


class LocationCommand(ComponentCommand):
  """Command of a goal on the floor.

  The policy sees the goal's offset from the pelvis (x, y) in its heading frame, m.
  """

  cfg: LocationCommandCfg

  def __init__(self, cfg: LocationCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.distance_range = cfg.distance_range
    """Current range, m: the configured one, or the part that a curriculum allows."""
    self.goal_w = torch.zeros(self.num_envs, 2, device=self.device)

  def components(self) -> tuple[Component, ...]:
    """Return the goal, a point in the heading frame."""
    low, high = self.cfg.distance_range
    return (point("goal", "where to go", low, high),)

  def targets(self) -> dict[str, torch.Tensor]:
    """Return the goals (N, 2), m, world xy."""
    return {"goal": self.goal_w}

  @property
  def offset_w(self) -> torch.Tensor:
    """Return goal minus pelvis (N, 2), m, world xy, from the current ``qpos``."""
    return self.goal_w - robot_state.root_pos_w(self.robot)[:, :2]

  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    # Positions come from qpos: at a reset the body poses are still those of the
    # previous episode, so goals around them would be in the wrong place.
    here = robot_state.root_pos_w(self.robot)[env_ids, :2]
    low, high = self.distance_range
    distance = low + (high - low) * torch.rand(len(env_ids), 1, device=self.device)
    offset = distance * random_directions(len(env_ids), self.device)
    self.goal_w[env_ids] = here + offset
