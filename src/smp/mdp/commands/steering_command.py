"""Command: travel in one direction while facing another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from smp.mdp.commands.common import random_directions
from smp.mdp.commands.travel_command import TravelCommand, TravelCommandCfg
from smp.utils.components import Component, direction

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class SteeringCommandCfg(TravelCommandCfg):
  """Configuration of a velocity and a facing, each in a random world direction."""

  speed_range: tuple[float, float] = (0.5, 2.0)
  """Commanded speeds, m/s, drawn uniformly."""

  start_speed: ClassVar[float] = 1.0

  def build(self, env: ManagerBasedRlEnv) -> SteeringCommand:
    """Return the command term for an environment."""
    return SteeringCommand(self, env)


class SteeringCommand(TravelCommand):
  """Command of a travel direction, a speed and a facing direction.

  The policy sees (direction x, direction y, speed, facing x, facing y): unit vectors in
  the robot's heading frame, the speed in m/s.
  """

  def __init__(self, cfg: SteeringCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.direction_w = torch.zeros(self.num_envs, 2, device=self.device)
    self.facing_w = torch.zeros(self.num_envs, 2, device=self.device)

  def components(self) -> tuple[Component, ...]:
    """Return travel direction, speed and facing, directions in the heading frame."""
    return (
      direction("direction", "where to go"),
      self.speed_component(),
      direction("facing", "where to face"),
    )

  def targets(self) -> dict[str, torch.Tensor]:
    """Return directions and facings (N, 2), world xy, and speeds (N,), m/s."""
    return {
      "direction": self.direction_w,
      "speed": self.speed,
      "facing": self.facing_w,
    }

  def start_motion(
    self, velocity_w: torch.Tensor, yaw_rate: torch.Tensor
  ) -> torch.Tensor:
    """Return the norms (P, 1) of velocities (P, 2), m/s; any direction counts."""
    del yaw_rate
    return velocity_w.norm(dim=-1, keepdim=True)

  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    count = len(env_ids)
    self.speed[env_ids] = self._take_drawn(env_ids)
    self.direction_w[env_ids] = random_directions(count, self.device)
    self.facing_w[env_ids] = random_directions(count, self.device)
