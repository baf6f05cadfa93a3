"""Base class of commands with a speed in a direction of the world."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from smp.mdp.commands.component import Growth
from smp.mdp.commands.moving_command import MovingCommand, MovingCommandCfg
from smp.utils.components import Component, scalar

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class TravelCommandCfg(MovingCommandCfg, abc.ABC):
  """Configuration of the commanded speeds."""

  speed_range: tuple[float, float]
  """Commanded speeds, m/s, drawn uniformly."""

  start_speed: ClassVar[float] = 3.0
  """Top speed at level 0 of a curriculum that grows it, m/s."""

  def growth(self) -> tuple[Growth, ...]:
    """Return the speed range, which a curriculum may grow."""
    return (Growth("speed", "speed_range", "m/s", self.start_speed),)


class TravelCommand(MovingCommand):
  """Command of a speed in some direction of the world."""

  cfg: TravelCommandCfg

  direction_w: torch.Tensor
  """Direction of travel, (2,) or (N, 2), unit vectors in world xy."""

  def __init__(self, cfg: TravelCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.speed_range = cfg.speed_range
    """Current range, m/s: the configured one, or the part that a curriculum allows."""
    self.speed = torch.zeros(self.num_envs, device=self.device)

  def speed_component(self) -> Component:
    """Return the commanded speed as a component of the command."""
    low, high = self.cfg.speed_range
    return scalar(
      "speed",
      "m/s",
      "how fast to go",
      low,
      high,
      default=max(low, 1.0),
      least=0.0,
      along="direction",
    )

  @property
  def velocity_w(self) -> torch.Tensor:
    """Return the commanded velocity (N, 2), m/s, world xy."""
    return self.speed.unsqueeze(-1) * self.direction_w

  def _draw(self, count: int) -> torch.Tensor:
    """Return random speeds (count,), m/s."""
    draw, kind = torch.rand(2, count, device=self.device)
    low, high = self.speed_range
    speed = low + (high - low) * draw
    standing, slow = self.standing_share, self.slow_share
    speed = torch.where(kind < standing + slow, self.cfg.slow_speed * draw, speed)
    return torch.where(kind < standing, torch.zeros_like(speed), speed)
