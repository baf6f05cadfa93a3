"""What commands of a speed share: how speeds are drawn, and may be drawn ahead."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from smp.errors import UserError
from smp.mdp.commands.component import ComponentCommand, ComponentCommandCfg, Growth
from smp.utils.components import Component, scalar

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class TravelCommandCfg(ComponentCommandCfg, abc.ABC):
  """Which speeds are commanded."""

  speed_range: tuple[float, float]
  """Commanded speeds, m/s, drawn uniformly."""

  rel_standing_envs: float = 0.0
  """Share of the commands that ask to stand still instead."""

  rel_slow_envs: float = 0.0
  """Share of the commands that ask for a speed from 0 to ``slow_speed`` instead, drawn
  uniformly."""

  slow_speed: float = 0.6
  """Top of the slow speeds, m/s."""

  start_speed: ClassVar[float] = 3.0
  """Top speed at first, m/s, where a curriculum lets it grow."""

  def growth(self) -> tuple[Growth, ...]:
    return (Growth("speed", "speed_range", "m/s", self.start_speed),)


class TravelCommand(ComponentCommand):
  """Go at a commanded speed in some direction.

  A speed can be drawn before the command is (`draw_next`), for whoever prepares the
  start of an episode that fits.

  Raises:
    UserError: shares of standing and slow commands that are no shares, or no slow speed.
  """

  cfg: TravelCommandCfg

  direction_w: torch.Tensor
  """Direction of travel, (2,) or (N, 2), unit vectors in world xy."""

  def __init__(self, cfg: TravelCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    _check_shares(cfg)
    self.speed_range = cfg.speed_range
    """Speeds drawn at present, m/s: the configured ones, or what a curriculum allows."""
    self.speed = torch.zeros(self.num_envs, device=self.device)
    self._next = torch.zeros(self.num_envs, device=self.device)
    self._drawn = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

  def speed_component(self) -> Component:
    """Return the commanded speed as a part of the command."""
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
    """Commanded velocity (N, 2), m/s, world xy."""
    return self.speed.unsqueeze(-1) * self.direction_w

  def draw_next(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Draw the speeds (n,), m/s, that the next command of ``env_ids`` (n,) will have."""
    speed = self._draw(len(env_ids))
    self._next[env_ids] = speed
    self._drawn[env_ids] = True
    return speed

  @abc.abstractmethod
  def speed_along(self, velocity_w: torch.Tensor) -> torch.Tensor:
    """Return how fast velocities (P, 2), world xy, m/s, are in this command's terms: (P,)."""

  def _take_speeds(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Speeds (n,), m/s, for a new command: those drawn ahead, others drawn now."""
    ahead = self._drawn[env_ids]
    self._drawn[env_ids] = False
    return torch.where(ahead, self._next[env_ids], self._draw(len(env_ids)))

  def _draw(self, count: int) -> torch.Tensor:
    """Speeds (count,), m/s."""
    draw, kind = torch.rand(2, count, device=self.device)
    low, high = self.speed_range
    speed = low + (high - low) * draw
    standing, slow = self.cfg.rel_standing_envs, self.cfg.rel_slow_envs
    speed = torch.where(kind < standing + slow, self.cfg.slow_speed * draw, speed)
    return torch.where(kind < standing, torch.zeros_like(speed), speed)


def _check_shares(cfg: TravelCommandCfg) -> None:
  standing, slow = cfg.rel_standing_envs, cfg.rel_slow_envs
  if min(standing, slow) < 0.0 or not standing + slow <= 1.0:
    raise UserError(
      f"rel_standing_envs {standing} and rel_slow_envs {slow}: expected shares of the "
      "commands, from 0 to 1 together"
    )
  if not cfg.slow_speed > 0.0:
    raise UserError(f"slow_speed is {cfg.slow_speed} m/s, expected more than 0")
