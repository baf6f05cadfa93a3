"""What the policy is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from mjlab.entity import Entity
from mjlab.managers import CommandTerm, CommandTermCfg

from smp.mdp import state
from smp.motion.rotations import heading

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer

COMMAND_COLOR = (0.2, 0.2, 0.9, 0.8)
ACTUAL_COLOR = (0.0, 0.7, 1.0, 0.8)


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

  @dataclass
  class VizCfg:
    height: float = 1.0
    """Height of the arrows above the floor, m."""
    scale: float = 0.4
    """Length of an arrow in m per m/s."""

  viz: VizCfg = field(default_factory=VizCfg)

  def build(self, env: ManagerBasedRlEnv) -> SpeedCommand:
    return SpeedCommand(self, env)


class SpeedCommand(CommandTerm):
  """Go along a fixed direction at a commanded speed.

  The policy sees (direction x, direction y, speed): the direction as a unit vector in
  the robot's heading frame, the speed in m/s.
  """

  cfg: SpeedCommandCfg

  def __init__(self, cfg: SpeedCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.robot = cast(Entity, env.scene[cfg.entity_name])
    direction = torch.tensor(cfg.direction, device=self.device)
    if not bool(direction.norm() > 0.0):
      raise ValueError("SpeedCommandCfg.direction must not be zero")
    self.direction_w = direction / direction.norm()
    self.speed = torch.zeros(self.num_envs, device=self.device)
    self._command = torch.zeros(self.num_envs, 3, device=self.device)
    self._slider: SpeedSlider | None = None

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
    if self._slider is not None:
      self._slider.apply(self.speed)
    cos, sin = heading(state.root_quat_w(self.robot))
    x, y = self.direction_w[0], self.direction_w[1]
    self._command[:, 0] = cos * x + sin * y
    self._command[:, 1] = cos * y - sin * x
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
    with server.gui.add_folder(name.capitalize()):
      enabled = server.gui.add_checkbox("Set by hand", initial_value=False)
      speed = server.gui.add_slider(
        "Speed (m/s)",
        min=0.0,
        max=max(self.cfg.speed_range),
        step=0.05,
        initial_value=min(self.cfg.speed_range),
      )
    self._slider = SpeedSlider(enabled, speed, get_env_idx)

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """Commanded velocity (blue) and actual velocity (cyan)."""
    position = state.root_pos_w(self.robot).cpu().numpy()
    actual = state.root_lin_vel_w(self.robot).cpu().numpy()
    target = self.velocity_w.cpu().numpy()
    viz = self.cfg.viz
    for i in visualizer.get_env_indices(self.num_envs):
      start = np.array([position[i, 0], position[i, 1], viz.height])
      for velocity, color, lift in (
        (target[i], COMMAND_COLOR, 0.0),
        (actual[i], ACTUAL_COLOR, 0.05),
      ):
        offset = np.array([velocity[0] * viz.scale, velocity[1] * viz.scale, 0.0])
        base = start + np.array([0.0, 0.0, lift])
        visualizer.add_arrow(base, base + offset, color=color, width=0.015)


@dataclass
class SpeedSlider:
  """The viewer's hold on the speed of one robot."""

  enabled: viser.GuiCheckboxHandle
  speed: viser.GuiSliderHandle
  get_env_idx: Callable[[], int]

  def apply(self, speed: torch.Tensor) -> None:
    """Overwrite the speed (N,) of the robot in view while enabled."""
    if self.enabled.value:
      speed[self.get_env_idx()] = float(self.speed.value)
