"""Go along a fixed direction of the world at a commanded speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from mjlab.entity import Entity
from mjlab.managers import CommandTerm, CommandTermCfg

from smp.mdp import state
from smp.mdp.commands.common import (
  ACTUAL_COLOR,
  COMMAND_COLOR,
  ArrowCfg,
  HandControl,
  draw_arrow,
  in_heading_frame,
)

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer


@dataclass(kw_only=True)
class SpeedCommandCfg(CommandTermCfg):
  """A speed along a fixed direction of the world."""

  entity_name: str = "robot"

  direction: tuple[float, float] = (1.0, 0.0)
  """Direction of travel, world xy; need not be of unit length."""

  speed_range: tuple[float, float] = (0.5, 5.0)
  """Commanded speeds, m/s, drawn uniformly."""

  rel_standing_envs: float = 0.0
  """Share of the commands that ask to stand still instead."""

  viz: ArrowCfg = field(default_factory=ArrowCfg)

  def build(self, env: ManagerBasedRlEnv) -> SpeedCommand:
    return SpeedCommand(self, env)


class SpeedCommand(CommandTerm):
  """Go along a fixed direction at a commanded speed.

  The policy sees (direction x, direction y, speed): the direction as a unit vector in
  the robot's heading frame, the speed in m/s.
  """

  cfg: SpeedCommandCfg

  mirror_sign: ClassVar[tuple[float, ...]] = (1.0, -1.0, 1.0)
  """What each component is multiplied by in the sagittal mirror."""

  def __init__(self, cfg: SpeedCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.robot = cast(Entity, env.scene[cfg.entity_name])
    direction = torch.tensor(cfg.direction, device=self.device)
    if not bool(direction.norm() > 0.0):
      raise ValueError("SpeedCommandCfg.direction must not be zero")
    self.direction_w = direction / direction.norm()
    self.speed = torch.zeros(self.num_envs, device=self.device)
    self._command = torch.zeros(self.num_envs, 3, device=self.device)
    self._hand: HandControl | None = None

  @property
  def command(self) -> torch.Tensor:
    """(direction in the heading frame, speed in m/s): (N, 3)."""
    return self._command

  @property
  def velocity_w(self) -> torch.Tensor:
    """Commanded velocity (N, 2), m/s, world xy."""
    return self.speed.unsqueeze(-1) * self.direction_w

  def _update_metrics(self) -> None:
    """Errors are metrics of the task (`smp.mdp.metrics`), true means in SI units."""

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    draw = torch.rand(2, len(env_ids), device=self.device)
    low, high = self.cfg.speed_range
    speed = low + (high - low) * draw[0]
    standing = draw[1] < self.cfg.rel_standing_envs
    self.speed[env_ids] = torch.where(standing, torch.zeros_like(speed), speed)

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    del env_ids  # A function of the current state: refreshing all is right.
    held = self._hand.held() if self._hand is not None else None
    if held is not None:
      index, values = held
      self.speed[index] = values["Speed (m/s)"]
    quat = state.root_quat_w(self.robot)
    self._command[:, :2] = in_heading_frame(self.direction_w, quat)
    self._command[:, 2] = self.speed

  # Viewer.

  def create_gui(
    self,
    name: str,
    server: viser.ViserServer,
    get_env_idx: Callable[[], int],
    on_change: Callable[[], None] | None = None,
    request_action: Callable[[str, Any], None] | None = None,
  ) -> None:
    """A slider for the speed of the robot in view."""
    del on_change, request_action
    low, high = self.cfg.speed_range
    self._hand = HandControl.build(
      name, server, get_env_idx, {"Speed (m/s)": (0.0, high, low)}
    )

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """Commanded velocity (blue) and actual velocity (cyan)."""
    position = state.root_pos_w(self.robot).cpu().numpy()
    actual = state.root_lin_vel_w(self.robot).cpu().numpy()
    target = self.velocity_w.cpu().numpy()
    for i in visualizer.get_env_indices(self.num_envs):
      viz = self.cfg.viz
      draw_arrow(visualizer, position[i], target[i], COMMAND_COLOR, viz)
      draw_arrow(visualizer, position[i], actual[i], ACTUAL_COLOR, viz, lift=0.05)
