"""Go along a fixed direction of the world at a commanded speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from smp.mdp import robot_state
from smp.mdp.commands.common import (
  ACTUAL_COLOR,
  COMMAND_COLOR,
  ManualCommandGui,
  draw_arrow,
  in_heading_frame,
)
from smp.mdp.commands.travel import TravelCommand, TravelCommandCfg

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer


@dataclass(kw_only=True)
class SpeedCommandCfg(TravelCommandCfg):
  """A speed along a fixed direction of the world."""

  direction: tuple[float, float] = (1.0, 0.0)
  """Direction of travel, world xy; need not be of unit length."""

  speed_range: tuple[float, float] = (0.5, 5.0)
  """Commanded speeds, m/s, drawn uniformly."""

  def build(self, env: ManagerBasedRlEnv) -> SpeedCommand:
    return SpeedCommand(self, env)


class SpeedCommand(TravelCommand):
  """Go along a fixed direction at a commanded speed.

  The policy sees (direction x, direction y, speed): the direction as a unit vector in
  the robot's heading frame, the speed in m/s.
  """

  mirror_sign: ClassVar[tuple[float, ...]] = (1.0, -1.0, 1.0)
  """What each component is multiplied by in the sagittal mirror."""

  def __init__(self, cfg: SpeedCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    direction = torch.tensor(cfg.direction, device=self.device)
    if not bool(direction.norm() > 0.0):
      raise ValueError("SpeedCommandCfg.direction must not be zero")
    self.direction_w = direction / direction.norm()
    self._command = torch.zeros(self.num_envs, 3, device=self.device)
    self._hand: ManualCommandGui | None = None

  @property
  def command(self) -> torch.Tensor:
    """(direction in the heading frame, speed in m/s): (N, 3)."""
    return self._command

  def speed_along(self, velocity_w: torch.Tensor) -> torch.Tensor:
    """Return the components (P,) of velocities (P, 2), m/s, along the direction."""
    return velocity_w @ self.direction_w

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    self.speed[env_ids] = self._take_speeds(env_ids)

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    del env_ids  # A function of the current state: refreshing all is right.
    held = self._hand.held() if self._hand is not None else None
    if held is not None:
      index, values = held
      self.speed[index] = values["Speed (m/s)"]
    quat = robot_state.root_quat_w(self.robot)
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
    self._hand = ManualCommandGui.build(
      name, server, get_env_idx, {"Speed (m/s)": (0.0, high, low)}
    )

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """Commanded velocity (blue) and actual velocity (cyan)."""
    position = robot_state.root_pos_w(self.robot).cpu().numpy()
    actual = robot_state.root_lin_vel_w(self.robot).cpu().numpy()
    target = self.velocity_w.cpu().numpy()
    for i in visualizer.get_env_indices(self.num_envs):
      viz = self.cfg.viz
      draw_arrow(visualizer, position[i], target[i], COMMAND_COLOR, viz)
      draw_arrow(visualizer, position[i], actual[i], ACTUAL_COLOR, viz, lift=0.05)
