"""Command: a velocity and a turning rate, as a person at a joystick gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from smp.episodes.running_mean import STRIDE_S
from smp.errors import UserError
from smp.mdp import robot_state
from smp.mdp.commands.common import (
  ACTUAL_COLOR,
  COMMAND_COLOR,
  from_heading_frame,
  random_directions,
)
from smp.mdp.commands.component import Growth
from smp.mdp.commands.moving_command import MovingCommand, MovingCommandCfg
from smp.utils.components import Component, scalar

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

Range = tuple[float, float]

VX, VY, YAW_RATE = range(3)
"""Columns of a command."""

TURN_ARM = 0.3
"""Length, m, by which a yaw rate is compared with a velocity where a start is chosen:
about what a step swings the pelvis by, 0.6 rad/s, then weighs little."""


@dataclass(kw_only=True)
class VelocityCommandCfg(MovingCommandCfg):
  """Configuration of a velocity in the heading frame and a yaw rate.

  A standing command is zero in all three numbers. Of the slow commands, a share of
  ``rel_turning_envs`` turns on the spot.
  """

  vx_range: Range = (-0.5, 3.0)
  """Commanded velocities forward, m/s; negative: backward."""

  vy_range: Range = (-0.6, 0.6)
  """Commanded velocities to the left, m/s."""

  yaw_rate_range: Range = (-1.5, 1.5)
  """Commanded yaw rates, rad/s, counter-clockwise seen from above."""

  max_side_acceleration: float = 2.0
  """Largest product of speed and yaw rate in a command, m/s^2: the acceleration towards
  the inside of the curve, which friction has to give."""

  rel_turning_envs: float = 0.25
  """Share of the slow commands with a yaw rate and no speed."""

  rel_standing_envs: float = 0.2
  rel_slow_envs: float = 0.2

  starts: ClassVar[dict[str, Range]] = {
    "vx": (0.0, 2.0),
    "vy": (-0.2, 0.2),
    "yaw_rate": (-0.5, 0.5),
  }
  """Ranges at level 0 of a curriculum that grows them."""

  climb: ClassVar[float] = 15.0
  """Success is to stay up, which a robot also does that stands when told to go aside. At
  5 and at 8 the task reward fell from .66 to .52 and from .70 to .62 while the level
  rose, and steps aside were forgotten or never learned; at 12 and 30 it held."""

  def growth(self) -> tuple[Growth, ...]:
    """Return the three ranges, which a curriculum may grow."""
    units = {"vx": "m/s", "vy": "m/s", "yaw_rate": "rad/s"}
    return tuple(
      Growth(name, f"{name}_range", units[name], high, low)
      for name, (low, high) in self.starts.items()
    )

  def build(self, env: ManagerBasedRlEnv) -> VelocityCommand:
    """Return the command term for an environment."""
    return VelocityCommand(self, env)


class VelocityCommand(MovingCommand):
  """Command of a velocity in the heading frame and a yaw rate.

  The policy sees (vx, vy, yaw rate): m/s forward and to the left in the robot's heading
  frame, rad/s.

  Numbers are drawn uniformly from their ranges, and then reduced to what a robot can
  do at the same time. The velocity lies in the ellipse whose half-axes are the ends of
  the configured ranges: at 3 m/s forward there is nothing left for the side. And speed
  times yaw rate is at most ``max_side_acceleration``. Both reduce the smaller wish
  (sideways, yaw rate) in proportion, not by clamping it, so its limit is not commanded
  more often than other values.

  Raises:
    UserError: a range is empty, or does not hold zero; or a share or the acceleration
      is out of its range.
  """

  cfg: VelocityCommandCfg
  drawn_shape: ClassVar[tuple[int, ...]] = (3,)

  def __init__(self, cfg: VelocityCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    _check(cfg)
    # Current ranges: the configured ones, or the parts that a curriculum allows.
    self.vx_range = cfg.vx_range
    self.vy_range = cfg.vy_range
    self.yaw_rate_range = cfg.yaw_rate_range
    self.values = torch.zeros(self.num_envs, 3, device=self.device)
    """(N, 3): vx, vy, m/s, heading frame; yaw rate, rad/s."""
    self._yaw_rate_errors = torch.zeros(self.num_envs, device=self.device)
    """Weighted mean of the errors (N,), rad/s, up to the last step."""
    self._weight = env.step_dt / STRIDE_S
    """Weight of one step in that mean."""

  def components(self) -> tuple[Component, ...]:
    """Return velocity forward, velocity to the left, and yaw rate."""
    cfg = self.cfg
    return (
      scalar("vx", "m/s", "how fast to go forward", *cfg.vx_range, default=0.0),
      scalar("vy", "m/s", "how fast to go to the left", *cfg.vy_range, default=0.0),
      scalar(
        "yaw_rate", "rad/s", "how fast to turn left", *cfg.yaw_rate_range, default=0.0
      ),
    )

  def targets(self) -> dict[str, torch.Tensor]:
    """Return the three numbers (N,), m/s and rad/s, views of ``values``."""
    vx, vy, yaw_rate = self.values.unbind(dim=-1)
    return {"vx": vx, "vy": vy, "yaw_rate": yaw_rate}

  @property
  def mirror_sign(self) -> tuple[float, ...]:
    """Return the sign of each number in the sagittal mirror: left becomes right."""
    return (1.0, -1.0, -1.0)

  @property
  def speed(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Return the commanded speed (N,), m/s."""
    return self.values[:, :YAW_RATE].norm(dim=-1)

  @property
  def yaw_rate(self) -> torch.Tensor:
    """Return the commanded yaw rate (N,), rad/s."""
    return self.values[:, YAW_RATE]

  @property
  def yaw_rate_error(self) -> torch.Tensor:
    """Return the yaw rate beyond the commanded one (N,), rad/s, about world z."""
    return robot_state.root_ang_vel_w(self.robot)[:, 2] - self.yaw_rate

  @property
  def mean_yaw_rate_error(self) -> torch.Tensor:
    """Return the mean (N,) of `yaw_rate_error` since the command was given, rad/s.

    The weight of what is past falls off with a time constant of a stride, and what was
    before the command counts as zero.
    """
    return self._yaw_rate_errors.lerp(self.yaw_rate_error, self._weight)

  @property
  def velocity_w(self) -> torch.Tensor:
    """Return the commanded velocity (N, 2), m/s, world xy, at the present heading."""
    return from_heading_frame(
      self.values[:, :YAW_RATE], robot_state.root_quat_w(self.robot)
    )

  @property
  def standing(self) -> torch.Tensor:
    """Return which environments are to stand still (N,), bool."""
    return (self.values == 0.0).all(dim=-1)

  def start_motion(
    self, velocity_w: torch.Tensor, yaw_rate: torch.Tensor
  ) -> torch.Tensor:
    """Return velocities and yaw rates, times `TURN_ARM`, (P, 3), m/s."""
    return torch.cat((velocity_w, TURN_ARM * yaw_rate.unsqueeze(-1)), dim=-1)

  def _wanted_motion(self, drawn: torch.Tensor) -> torch.Tensor:
    return self.start_motion(drawn[:, :YAW_RATE], drawn[:, YAW_RATE])

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    super()._resample_command(env_ids)
    self._yaw_rate_errors[env_ids] = 0.0

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    super()._update_command(env_ids)
    if env_ids is None:  # After a step, not a reset.
      self._yaw_rate_errors.copy_(self.mean_yaw_rate_error)

  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    self.values[env_ids] = self._take_drawn(env_ids)

  def _draw(self, count: int) -> torch.Tensor:
    """Return random commands (count, 3)."""
    cfg, device = self.cfg, self.device
    # Plain numbers, column by column: a table of them would be copied to the device.
    ranges = (self.vx_range, self.vy_range, self.yaw_rate_range)
    shares = torch.rand(count, 3, device=device).unbind(dim=-1)
    drawn = torch.stack(
      [low + (high - low) * u for (low, high), u in zip(ranges, shares, strict=True)],
      dim=-1,
    )
    kind, turning, part = torch.rand(3, count, 1, device=device)
    slow = kind < self.standing_share + self.slow_share
    speed = cfg.slow_speed * part * (turning >= cfg.rel_turning_envs)
    slowly = speed * random_directions(count, device)
    slowly = torch.stack(
      [slowly[:, i].clamp(*ranges[i]) for i in (VX, VY)],
      dim=-1,
    )
    drawn[:, :YAW_RATE] = torch.where(slow, slowly, drawn[:, :YAW_RATE])
    drawn = self._feasible(drawn)
    return torch.where(kind < self.standing_share, torch.zeros_like(drawn), drawn)

  def _feasible(self, drawn: torch.Tensor) -> torch.Tensor:
    """Return commands (n, 3) reduced to what can be done at the same time."""
    vx, vy, yaw_rate = drawn.unbind(dim=-1)
    back, forth = self.cfg.vx_range
    # An end of zero is never exceeded: the range holds zero.
    end = torch.where(vx < 0.0, -back, forth).clamp(min=1e-6)
    vy = vy * (1.0 - (vx / end).square()).clamp(min=0.0).sqrt()
    most = max(map(abs, self.cfg.yaw_rate_range))
    speed = torch.hypot(vx, vy)
    turns = self.cfg.max_side_acceleration / (speed * most).clamp(min=1e-6)
    return torch.stack((vx, vy, yaw_rate * turns.clamp(max=1.0)), dim=-1)

  def _arrows(self) -> Iterator[tuple[torch.Tensor, tuple[float, float, float, float]]]:
    yield self.velocity_w, COMMAND_COLOR
    yield robot_state.root_lin_vel_w(self.robot)[:, :2], ACTUAL_COLOR


def _check(cfg: VelocityCommandCfg) -> None:
  for name in ("vx_range", "vy_range", "yaw_rate_range"):
    low, high = getattr(cfg, name)
    if not -math.inf < low <= 0.0 <= high < math.inf:
      raise UserError(f"{name} is ({low}, {high}), expected a range around 0")
  if not 0.0 <= cfg.rel_turning_envs <= 1.0:
    raise UserError(
      f"rel_turning_envs is {cfg.rel_turning_envs}, expected a share from 0 to 1"
    )
  if not cfg.max_side_acceleration > 0.0:
    raise UserError(
      f"max_side_acceleration is {cfg.max_side_acceleration} m/s^2, expected more than 0"
    )
