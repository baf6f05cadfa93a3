"""What replaces drawing by chance in an evaluation: commands and starts that are given."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mjlab.managers import CommandTermCfg

from smp.evaluation.policy.protocol import EvalBatch
from smp.mdp import robot_state
from smp.mdp.commands import (
  LocationCommand,
  LocationCommandCfg,
  SpeedCommand,
  SpeedCommandCfg,
  SteeringCommand,
  SteeringCommandCfg,
)
from smp.mdp.init_state_buffers import FallenStateBuffer, InitStateBuffer
from smp.mdp.init_states import INIT_MODES, InitStateSampler
from smp.motion.features import MotionState

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

NEVER = (1e9, 1e9)
"""Seconds until a command is drawn anew."""


def fixed_command(cfg: CommandTermCfg, assignment: EvalBatch) -> CommandTermCfg:
  """The same command, with values that are given and stay.

  Raises:
    TypeError: a kind of command that no protocol knows.
  """
  for kind, given in (
    (SpeedCommandCfg, FixedSpeedCfg),
    (SteeringCommandCfg, FixedSteeringCfg),
    (LocationCommandCfg, FixedLocationCfg),
  ):
    if isinstance(cfg, kind):
      values: dict[str, Any] = {f.name: getattr(cfg, f.name) for f in fields(kind)}
      values["resampling_time_range"] = NEVER
      return given(**values, assignment=assignment)
  raise TypeError(f"no protocol gives a {type(cfg).__name__}")


def _tensor(values: np.ndarray, device: str) -> torch.Tensor:
  return torch.from_numpy(values).float().to(device)


@dataclass(kw_only=True)
class FixedSpeedCfg(SpeedCommandCfg):
  assignment: EvalBatch

  def build(self, env: ManagerBasedRlEnv) -> SpeedCommand:
    return FixedSpeed(self, env)


class FixedSpeed(SpeedCommand):
  """A speed for each environment."""

  def __init__(self, cfg: FixedSpeedCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.given = cfg.assignment

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    self.speed[env_ids] = _tensor(self.given.speed, self.device)[env_ids]


@dataclass(kw_only=True)
class FixedSteeringCfg(SteeringCommandCfg):
  assignment: EvalBatch

  def build(self, env: ManagerBasedRlEnv) -> SteeringCommand:
    return FixedSteering(self, env)


class FixedSteering(SteeringCommand):
  """A speed, a direction and a facing for each environment."""

  def __init__(self, cfg: FixedSteeringCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.given = cfg.assignment

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    given = self.given
    self.speed[env_ids] = _tensor(given.speed, self.device)[env_ids]
    self.direction_w[env_ids] = _tensor(given.direction, self.device)[env_ids]
    self.facing_w[env_ids] = _tensor(given.facing, self.device)[env_ids]


@dataclass(kw_only=True)
class FixedLocationCfg(LocationCommandCfg):
  assignment: EvalBatch

  def build(self, env: ManagerBasedRlEnv) -> LocationCommand:
    return FixedLocation(self, env)


class FixedLocation(LocationCommand):
  """A goal for each environment, from where its robot starts."""

  def __init__(self, cfg: FixedLocationCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.given = cfg.assignment

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    here = robot_state.root_pos_w(self.robot)[env_ids, :2]
    goal = _tensor(self.given.goal, self.device)
    self.goal_w[env_ids] = here + goal[env_ids]


class FixedInitStates(InitStateSampler):
  """Starts of the kind that each environment is given; drawn for all at once."""

  def __init__(
    self,
    generated: InitStateBuffer,
    fallen: FallenStateBuffer | None,
    kinds: tuple[str, ...],
  ) -> None:
    super().__init__(generated, fallen)
    device = generated.root_pos.device
    self._kind = torch.tensor([INIT_MODES.index(k) for k in kinds], device=device)

  def draw(
    self, count: int, weights: torch.Tensor | None = None
  ) -> tuple[MotionState, torch.Tensor]:
    """Windows (count, W, ...) and their kinds, for all environments in their order.

    Every window is as likely as any other, whatever ``weights`` say.
    """
    del weights
    if count != len(self._kind):
      raise ValueError(f"{count} starts for {len(self._kind)} environments")
    window = self.generated.windows(self.generated.draw(count))
    if self.fallen is None:
      return window, self._kind
    fallen = self.fallen.windows(self._draw_fallen(self.fallen))
    chosen = self._kind > 0
    parts = [
      torch.where(chosen.view(-1, *(1,) * (a.dim() - 1)), b, a)
      for a, b in zip(window, fallen, strict=True)
    ]
    return MotionState(*parts), self._kind

  def _draw_fallen(self, pool: FallenStateBuffer) -> torch.Tensor:
    """A fall (N,) that lies as each environment wants; any where it wants none."""
    fits = pool.pose == (self._kind - 1).clamp(min=0).unsqueeze(-1)
    return torch.multinomial(fits.float(), 1).squeeze(-1)
