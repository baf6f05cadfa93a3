"""Go to a place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from mjlab.entity import Entity
from mjlab.managers import CommandTerm, CommandTermCfg

from smp.mdp import robot_state
from smp.mdp.commands.common import (
  GOAL_COLOR,
  ManualCommandGui,
  in_heading_frame,
  random_directions,
)

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer

GOAL_RADIUS = 0.15
"""Of the marker in the viewer, m."""


@dataclass(kw_only=True)
class LocationCommandCfg(CommandTermCfg):
  """A goal on the floor around the robot."""

  entity_name: str = "robot"

  distance_range: tuple[float, float] = (1.0, 10.0)
  """How far the goal is from the robot when it is drawn, m, uniformly; any angle."""

  def build(self, env: ManagerBasedRlEnv) -> LocationCommand:
    return LocationCommand(self, env)


class LocationCommand(CommandTerm):
  """Go to a goal on the floor.

  The policy sees the goal's offset from the pelvis (x, y) in its heading frame, m.
  """

  cfg: LocationCommandCfg

  mirror_sign: ClassVar[tuple[float, ...]] = (1.0, -1.0)
  """What each component is multiplied by in the sagittal mirror."""

  def __init__(self, cfg: LocationCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self.robot = cast(Entity, env.scene[cfg.entity_name])
    self.distance_range = cfg.distance_range
    """Distances drawn at present, m: the configured ones, or what a curriculum allows."""
    self.goal_w = torch.zeros(self.num_envs, 2, device=self.device)
    self._command = torch.zeros(self.num_envs, 2, device=self.device)
    self._hand: ManualCommandGui | None = None

  @property
  def command(self) -> torch.Tensor:
    """Goal minus pelvis, m, in the heading frame: (N, 2)."""
    return self._command

  @property
  def offset_w(self) -> torch.Tensor:
    """Goal minus pelvis (N, 2), m, world xy, at this very moment."""
    return self.goal_w - robot_state.root_pos_w(self.robot)[:, :2]

  def _update_metrics(self) -> None:
    """Errors are metrics of the task (`smp.mdp.metrics`), true means in SI units."""

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    # Positions come from qpos: at a reset the body poses are still those of the
    # episode before, and goals around them would lie anywhere.
    here = robot_state.root_pos_w(self.robot)[env_ids, :2]
    low, high = self.distance_range
    distance = low + (high - low) * torch.rand(len(env_ids), 1, device=self.device)
    offset = distance * random_directions(len(env_ids), self.device)
    self.goal_w[env_ids] = here + offset

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    del env_ids  # A function of the current state: refreshing all is right.
    held = self._hand.held() if self._hand is not None else None
    if held is not None:
      index, values = held
      origin = self._env.scene.env_origins[index]
      self.goal_w[index, 0] = origin[0] + values["Goal x (m)"]
      self.goal_w[index, 1] = origin[1] + values["Goal y (m)"]
    quat = robot_state.root_quat_w(self.robot)
    self._command[:] = in_heading_frame(self.offset_w, quat)

  # Viewer.

  def create_gui(
    self,
    name: str,
    server: viser.ViserServer,
    get_env_idx: Callable[[], int],
    on_change: Callable[[], None] | None = None,
    request_action: Callable[[str, Any], None] | None = None,
  ) -> None:
    """Sliders for the goal of the robot in view, relative to its start."""
    del on_change, request_action
    reach = self.cfg.distance_range[1]
    ranges = {
      "Goal x (m)": (-reach, reach, 2.0),
      "Goal y (m)": (-reach, reach, 0.0),
    }
    self._hand = ManualCommandGui.build(name, server, get_env_idx, ranges)

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """The goal: a ball on the floor under an upright arrow."""
    goals = self.goal_w.cpu().numpy()
    for i in visualizer.get_env_indices(self.num_envs):
      floor = np.array([goals[i, 0], goals[i, 1], GOAL_RADIUS])
      visualizer.add_sphere(floor, GOAL_RADIUS, GOAL_COLOR)
      top = floor + np.array([0.0, 0.0, 1.0])
      visualizer.add_arrow(top, floor, color=GOAL_COLOR, width=0.03)
