"""Base class of commands with a speed, which can be drawn ahead of the command."""

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
  """Configuration of the commanded speeds."""

  speed_range: tuple[float, float]
  """Commanded speeds, m/s, drawn uniformly."""

  rel_standing_envs: float = 0.0
  """Share of the commands with speed zero."""

  rel_slow_envs: float = 0.0
  """Share of the commands with a speed from 0 to ``slow_speed`` instead, drawn
  uniformly."""

  slow_speed: float = 0.6
  """Upper bound of the slow speeds, m/s."""

  start_speed: ClassVar[float] = 3.0
  """Top speed at level 0 of a curriculum that grows it, m/s."""

  def growth(self) -> tuple[Growth, ...]:
    """Return the speed range, which a curriculum may grow."""
    return (Growth("speed", "speed_range", "m/s", self.start_speed),)


class TravelCommand(ComponentCommand):
  """Command of a speed in some direction.

  A speed can be drawn before the command is (`draw_next`), so that an initial state of
  a matching speed can be chosen.

  Raises:
    UserError: ``rel_standing_envs`` and ``rel_slow_envs`` are not shares that sum to at
      most 1, or ``slow_speed`` is not positive.
  """

  cfg: TravelCommandCfg

  direction_w: torch.Tensor
  """Direction of travel, (2,) or (N, 2), unit vectors in world xy."""

  def __init__(self, cfg: TravelCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    _check_shares(cfg)
    self.speed_range = cfg.speed_range
    """Current range, m/s: the configured one, or the part that a curriculum allows."""
    self.speed = torch.zeros(self.num_envs, device=self.device)
    self._next = torch.zeros(self.num_envs, device=self.device)
    self._drawn = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

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

  def draw_next(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Draw the speeds (n,), m/s, of the next command of ``env_ids`` (n,)."""
    speed = self._draw(len(env_ids))
    self._next[env_ids] = speed
    self._drawn[env_ids] = True
    return speed

  @abc.abstractmethod
  def speed_along(self, velocity_w: torch.Tensor) -> torch.Tensor:
    """Return the speeds (P,) of velocities (P, 2), world xy, as this command counts."""

  def _take_speeds(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Return speeds (n,), m/s, for new commands: those drawn ahead, or new draws."""
    ahead = self._drawn[env_ids]
    self._drawn[env_ids] = False
    return torch.where(ahead, self._next[env_ids], self._draw(len(env_ids)))

  def _draw(self, count: int) -> torch.Tensor:
    """Return random speeds (count,), m/s."""
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
