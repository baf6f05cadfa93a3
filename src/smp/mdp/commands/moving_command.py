"""Base class of commands to move, which can be drawn ahead of the command."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch

from smp.errors import UserError
from smp.mdp.commands.component import ComponentCommand, ComponentCommandCfg

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


@dataclass(kw_only=True)
class MovingCommandCfg(ComponentCommandCfg, abc.ABC):
  """Configuration that commands to move share: how often to stand or to go slowly."""

  rel_standing_envs: float = 0.0
  """Share of the commands with speed zero."""

  rel_slow_envs: float = 0.0
  """Share of the commands with a speed from 0 to ``slow_speed`` instead, drawn
  uniformly."""

  slow_speed: float = 0.6
  """Upper bound of the slow speeds, m/s."""


class MovingCommand(ComponentCommand):
  """Command to move with a velocity.

  The numbers of a command can be drawn before the command is (`draw_next`), so that an
  initial state of a matching motion can be chosen.

  Raises:
    UserError: ``rel_standing_envs`` and ``rel_slow_envs`` are not shares that sum to at
      most 1, or ``slow_speed`` is not positive.
  """

  speed: torch.Tensor
  """(N,), m/s, commanded."""

  easy_share: float = 1.0
  """Factor on both shares, of standing and of slow commands: 1, or what a curriculum
  allows."""

  drawn_shape: ClassVar[tuple[int, ...]] = ()
  """Shape of the numbers that `_draw` returns for one environment."""

  def __init__(self, cfg: MovingCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    _check_shares(cfg)
    self._next = torch.zeros(self.num_envs, *self.drawn_shape, device=self.device)
    self._drawn = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

  @property
  def standing_share(self) -> float:
    """Return the share of commands to stand now."""
    return self.easy_share * cast(MovingCommandCfg, self.cfg).rel_standing_envs

  @property
  def slow_share(self) -> float:
    """Return the share of slow commands now."""
    return self.easy_share * cast(MovingCommandCfg, self.cfg).rel_slow_envs

  @property
  @abc.abstractmethod
  def velocity_w(self) -> torch.Tensor:
    """Return the commanded velocity (N, 2), m/s, world xy."""

  @abc.abstractmethod
  def start_motion(
    self, velocity_w: torch.Tensor, yaw_rate: torch.Tensor
  ) -> torch.Tensor:
    """Return the motions (P, D), m/s, by which initial states are chosen.

    Args:
      velocity_w: (P, 2), m/s, of windows of motion that end at a heading along world x.
      yaw_rate: (P,), rad/s, of these windows.
    """

  @abc.abstractmethod
  def _draw(self, count: int) -> torch.Tensor:
    """Return the random numbers (count, ...) that make up new commands."""

  def _wanted_motion(self, drawn: torch.Tensor) -> torch.Tensor:
    """Return the motions (n, D), m/s, to start with for numbers (n, ...) of `_draw`."""
    return drawn.unsqueeze(-1)

  def draw_next(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Draw the next command of ``env_ids`` (n,); return its motions (n, D), m/s.

    They are what `start_motion` returns of windows that move as commanded.
    """
    drawn = self._draw(len(env_ids))
    self._next[env_ids] = drawn
    self._drawn[env_ids] = True
    return self._wanted_motion(drawn)

  def _take_drawn(self, env_ids: torch.Tensor) -> torch.Tensor:
    """Return numbers (n, ...) for new commands: those drawn ahead, or new draws."""
    ahead = self._drawn[env_ids].view(-1, *(1,) * len(self.drawn_shape))
    self._drawn[env_ids] = False
    return torch.where(ahead, self._next[env_ids], self._draw(len(env_ids)))


def _check_shares(cfg: MovingCommandCfg) -> None:
  standing, slow = cfg.rel_standing_envs, cfg.rel_slow_envs
  if min(standing, slow) < 0.0 or not standing + slow <= 1.0:
    raise UserError(
      f"rel_standing_envs {standing} and rel_slow_envs {slow}: expected shares of the "
      "commands, from 0 to 1 together"
    )
  if not cfg.slow_speed > 0.0:
    raise UserError(f"slow_speed is {cfg.slow_speed} m/s, expected more than 0")
