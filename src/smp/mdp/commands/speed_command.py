"""Command: go along a fixed world direction at a commanded speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from smp.errors import UserError
from smp.mdp.commands.travel_command import TravelCommand, TravelCommandCfg
from smp.utils.components import Component, direction

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class SpeedCommandCfg(TravelCommandCfg):
  """Configuration of a speed along a fixed direction of the world."""

  direction: tuple[float, float] = (1.0, 0.0)
  """Direction of travel, world xy; need not be of unit length."""

  speed_range: tuple[float, float] = (0.5, 5.0)
  """Commanded speeds, m/s, drawn uniformly."""

  def build(self, env: ManagerBasedRlEnv) -> SpeedCommand:
    """Return the command term for an environment."""
    return SpeedCommand(self, env)


class SpeedCommand(TravelCommand):
  """Command of a speed along a fixed direction.

  The policy sees (direction x, direction y, speed): the direction as a unit vector in
  the robot's heading frame, the speed in m/s.
  """

  def __init__(self, cfg: SpeedCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    direction = torch.tensor(cfg.direction, device=self.device)
    if not bool(direction.norm() > 0.0):
      raise UserError("--env.commands.command.direction: give a direction, not zero")
    self.direction_w = direction / direction.norm()

  def components(self) -> tuple[Component, ...]:
    """Return the direction, in the heading frame, and the speed."""
    x, y = self.direction_w.tolist()
    along = math.degrees(math.atan2(y, x))
    return direction("direction", "where to go", along), self.speed_component()

  def targets(self) -> dict[str, torch.Tensor]:
    """Return the fixed direction (2,), world xy, and the speeds (N,), m/s."""
    return {"direction": self.direction_w, "speed": self.speed}

  def start_motion(
    self, velocity_w: torch.Tensor, yaw_rate: torch.Tensor
  ) -> torch.Tensor:
    """Return the components (P, 1) of velocities (P, 2), m/s, along the direction."""
    del yaw_rate
    return velocity_w @ self.direction_w.unsqueeze(-1)

  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    self.speed[env_ids] = self._take_drawn(env_ids)
