"""Go one way while facing another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from smp.mdp import robot_state
from smp.mdp.commands.common import (
  ACTUAL_COLOR,
  COMMAND_COLOR,
  FACING_COLOR,
  ManualCommandGui,
  draw_arrow,
  in_heading_frame,
  random_directions,
)
from smp.mdp.commands.travel import TravelCommand, TravelCommandCfg

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer


@dataclass(kw_only=True)
class SteeringCommandCfg(TravelCommandCfg):
  """A velocity and a facing direction, each in a random direction of the world."""

  speed_range: tuple[float, float] = (0.5, 2.0)
  """Commanded speeds, m/s, drawn uniformly."""

  def build(self, env: ManagerBasedRlEnv) -> SteeringCommand:
    return SteeringCommand(self, env)


class SteeringCommand(TravelCommand):
  """Travel along one direction at a speed, and face another direction.

  The policy sees (direction x, direction y, speed, facing x, facing y): unit vectors in
  the robot's heading frame, the speed in m/s.
  """

  mirror_sign: ClassVar[tuple[float, ...]] = (1.0, -1.0, 1.0, 1.0, -1.0)
  """What each component is multiplied by in the sagittal mirror."""

  def __init__(self, cfg: SteeringCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.direction_w = torch.zeros(self.num_envs, 2, device=self.device)
    self.facing_w = torch.zeros(self.num_envs, 2, device=self.device)
    self._command = torch.zeros(self.num_envs, 5, device=self.device)
    self._hand: ManualCommandGui | None = None

  @property
  def command(self) -> torch.Tensor:
    """(direction, speed, facing) in the heading frame: (N, 5)."""
    return self._command

  def speed_along(self, velocity_w: torch.Tensor) -> torch.Tensor:
    """Return the norms (P,) of velocities (P, 2), m/s: travel is in any direction."""
    return velocity_w.norm(dim=-1)

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    count = len(env_ids)
    self.speed[env_ids] = self._take_speeds(env_ids)
    self.direction_w[env_ids] = random_directions(count, self.device)
    self.facing_w[env_ids] = random_directions(count, self.device)

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    del env_ids  # A function of the current state: refreshing all is right.
    held = self._hand.held() if self._hand is not None else None
    if held is not None:
      index, values = held
      self.speed[index] = values["Speed (m/s)"]
      for vector, label in (
        (self.direction_w, "Direction (deg)"),
        (self.facing_w, "Facing (deg)"),
      ):
        angle = math.radians(values[label])
        vector[index, 0], vector[index, 1] = math.cos(angle), math.sin(angle)
    quat = robot_state.root_quat_w(self.robot)
    self._command[:, :2] = in_heading_frame(self.direction_w, quat)
    self._command[:, 2] = self.speed
    self._command[:, 3:] = in_heading_frame(self.facing_w, quat)

  # Viewer.

  def create_gui(
    self,
    name: str,
    server: viser.ViserServer,
    get_env_idx: Callable[[], int],
    on_change: Callable[[], None] | None = None,
    request_action: Callable[[str, Any], None] | None = None,
  ) -> None:
    """Sliders for speed and both directions of the robot in view."""
    del on_change, request_action
    low, high = self.cfg.speed_range
    ranges = {
      "Speed (m/s)": (0.0, high, low),
      "Direction (deg)": (-180.0, 180.0, 0.0),
      "Facing (deg)": (-180.0, 180.0, 0.0),
    }
    self._hand = ManualCommandGui.build(name, server, get_env_idx, ranges)

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """Commanded velocity (blue), actual velocity (cyan), facing (orange)."""
    position = robot_state.root_pos_w(self.robot).cpu().numpy()
    actual = robot_state.root_lin_vel_w(self.robot).cpu().numpy()
    target, facing = self.velocity_w.cpu().numpy(), self.facing_w.cpu().numpy()
    for i in visualizer.get_env_indices(self.num_envs):
      viz = self.cfg.viz
      draw_arrow(visualizer, position[i], target[i], COMMAND_COLOR, viz)
      draw_arrow(visualizer, position[i], actual[i], ACTUAL_COLOR, viz, lift=0.05)
      draw_arrow(visualizer, position[i], facing[i], FACING_COLOR, viz, lift=0.1)
