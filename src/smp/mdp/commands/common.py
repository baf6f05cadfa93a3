"""Parts that commands share: heading-frame directions, markers, manual override."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from smp.motion.rotations import heading
from smp.utils.components import Component

if TYPE_CHECKING:
  import viser
  from mjlab.viewer.debug_visualizer import DebugVisualizer

COMMAND_COLOR = (0.2, 0.2, 0.9, 0.8)
ACTUAL_COLOR = (0.0, 0.7, 1.0, 0.8)
FACING_COLOR = (0.9, 0.5, 0.1, 0.8)
GOAL_COLOR = (0.9, 0.2, 0.2, 0.8)
GOAL_RADIUS = 0.15
"""Radius of the ball that marks a goal, m."""


@dataclass
class ArrowCfg:
  """Size and height of the arrows that show commands in the viewer."""

  height: float = 1.0
  """Height of the arrows above the floor, m."""

  scale: float = 0.4
  """Length of an arrow in m per m/s."""


def in_heading_frame(vector_w: torch.Tensor, root_quat_w: torch.Tensor) -> torch.Tensor:
  """Return world xy vectors (N, 2) in the heading frame of each robot.

  Args:
    vector_w: (N, 2) or (2,), any unit.
    root_quat_w: (N, 4), wxyz.
  """
  cos, sin = heading(root_quat_w)
  x, y = vector_w[..., 0], vector_w[..., 1]
  return torch.stack((cos * x + sin * y, cos * y - sin * x), dim=-1)


def from_heading_frame(
  vector_h: torch.Tensor, root_quat_w: torch.Tensor
) -> torch.Tensor:
  """Return vectors (N, 2) of the robots' heading frames as world xy vectors.

  Args:
    vector_h: (N, 2), any unit.
    root_quat_w: (N, 4), wxyz.
  """
  cos, sin = heading(root_quat_w)
  x, y = vector_h[..., 0], vector_h[..., 1]
  return torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)


def random_directions(count: int, device: str | torch.device) -> torch.Tensor:
  """Return unit vectors (count, 2), uniform over the circle."""
  angle = 2.0 * math.pi * torch.rand(count, device=device)
  return torch.stack((angle.cos(), angle.sin()), dim=-1)


def draw_arrow(
  visualizer: DebugVisualizer,
  root_pos_w: np.ndarray,
  vector_w: np.ndarray,
  color: tuple[float, float, float, float],
  cfg: ArrowCfg,
  lift: float = 0.0,
) -> None:
  """Draw a horizontal arrow over a robot.

  Args:
    cfg: Height and length of arrows.
    visualizer: Where to draw.
    root_pos_w: (3,), m.
    vector_w: (2,) or more, of which xy count; times ``cfg.scale`` is the length in m.
    color: RGBA, 0 to 1.
    lift: Height above the other arrows, m, so that arrows do not hide each other.
  """
  start = np.array([root_pos_w[0], root_pos_w[1], cfg.height + lift])
  offset = np.array([vector_w[0] * cfg.scale, vector_w[1] * cfg.scale, 0.0])
  visualizer.add_arrow(start, start + offset, color=color, width=0.015)


def draw_goal(visualizer: DebugVisualizer, goal_w: np.ndarray) -> None:
  """Draw a ball on the floor at ``goal_w`` (2,), m, under an upright arrow."""
  floor = np.array([goal_w[0], goal_w[1], GOAL_RADIUS])
  visualizer.add_sphere(floor, GOAL_RADIUS, GOAL_COLOR)
  top = floor + np.array([0.0, 0.0, 1.0])
  visualizer.add_arrow(top, floor, color=GOAL_COLOR, width=0.03)


@dataclass
class ManualCommandGui:
  """The viewer's sliders for a command, and the environment that they override."""

  enabled: viser.GuiCheckboxHandle
  sliders: dict[str, list[viser.GuiSliderHandle]]
  """Sliders by component, one for each number that a person enters."""
  get_env_idx: Callable[[], int]

  @staticmethod
  def build(
    name: str,
    server: viser.ViserServer,
    get_env_idx: Callable[[], int],
    components: tuple[Component, ...],
  ) -> ManualCommandGui:
    """Add a folder with a checkbox and a slider for each settable number."""
    with server.gui.add_folder(name.capitalize()):
      enabled = server.gui.add_checkbox("Manual override", initial_value=False)
      sliders = {
        part.name: [
          server.gui.add_slider(
            label, min=low, max=high, step=step, initial_value=initial
          )
          for label, low, high, step, initial in part.sliders()
        ]
        for part in components
        if part.settable
      }
    return ManualCommandGui(enabled, sliders, get_env_idx)

  def held(self) -> tuple[int, dict[str, list[float]]] | None:
    """Return the environment in view and the values by component, if overridden."""
    if not self.enabled.value:
      return None
    values = {
      name: [float(slider.value) for slider in sliders]
      for name, sliders in self.sliders.items()
    }
    return self.get_env_idx(), values
