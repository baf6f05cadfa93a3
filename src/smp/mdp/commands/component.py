"""Base class of commands that declare their components."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from mjlab.entity import Entity
from mjlab.managers import CommandTerm, CommandTermCfg

from smp.mdp import robot_state
from smp.mdp.commands.common import (
  ACTUAL_COLOR,
  COMMAND_COLOR,
  FACING_COLOR,
  ArrowCfg,
  ManualCommandGui,
  draw_arrow,
  draw_goal,
  in_heading_frame,
)
from smp.utils.components import DIRECTION, POINT, SCALAR, Component

if TYPE_CHECKING:
  import viser
  from mjlab.envs import ManagerBasedRlEnv
  from mjlab.viewer.debug_visualizer import DebugVisualizer


CLIMB = 5.0
"""Minimum number of episodes per environment from level 0 of a curriculum to level 1."""


class Growth(NamedTuple):
  """A range of a command that a curriculum may widen."""

  quantity: str
  """Name such as "speed"; the curriculum term is then called top_speed."""
  attribute: str
  """Attribute that holds the range (low, high), in configuration and term."""
  unit: str
  start: float | None
  """Upper bound at level 0. None: it grows only where a start is given."""
  start_low: float | None = None
  """Lower bound at level 0. None: the configured one, which then does not grow."""


@dataclass(kw_only=True)
class ComponentCommandCfg(CommandTermCfg, abc.ABC):
  """Configuration that all commands of this project share."""

  entity_name: str = "robot"

  viz: ArrowCfg = field(default_factory=ArrowCfg)

  climb: ClassVar[float] = CLIMB
  """Minimum number of episodes per environment in which a curriculum grows the command.
  """

  def growth(self) -> tuple[Growth, ...]:
    """Return the ranges that a curriculum may grow."""
    return ()


class ComponentCommand(CommandTerm, abc.ABC):
  """A command made of components.

  A subclass declares its components (`components`), keeps the commanded values in
  tensors of its own (`targets`) and draws new ones (`_draw_targets`). The observation,
  sliders, arrows, the mirror, export and evaluation follow from these.
  """

  def __init__(self, cfg: ComponentCommandCfg, env: ManagerBasedRlEnv):
    super().__init__(cfg, env)
    self._viz = cfg.viz
    self.robot = cast(Entity, env.scene[cfg.entity_name])
    self.give: Callable[[torch.Tensor], Mapping[str, torch.Tensor]] | None = None
    """From environments (n,) to the values that `set` takes: asked for in the place of
    values that are drawn."""
    self._hand: ManualCommandGui | None = None

  # Declared by subclasses.

  @abc.abstractmethod
  def components(self) -> tuple[Component, ...]:
    """Return the parts of the command in the order of the observation."""

  @abc.abstractmethod
  def targets(self) -> dict[str, torch.Tensor]:
    """Return the commanded values by component, in the tensors that hold them.

    World axes: unit vectors (N, 2) (a fixed one: (2,)), points (N, 2) in m, scalars
    (N,).
    """

  @abc.abstractmethod
  def _draw_targets(self, env_ids: torch.Tensor) -> None:
    """Draw new values for the environments ``env_ids`` (n,)."""

  # Derived from the components.

  @property
  def command(self) -> torch.Tensor:
    """Return the observation (N, C): the components side by side."""
    return self._command

  @property
  def mirror_sign(self) -> tuple[float, ...]:
    """Return the sign of each number of the command in the sagittal mirror."""
    return tuple(sign for part in self.components() for sign in part.mirror_sign)

  def set(self, env_ids: torch.Tensor, values: Mapping[str, Any]) -> None:
    """Set the command of environments, until the next draw.

    Args:
      env_ids: (n,).
      values: By component, as a person gives them, (n, G) or (G,): angles in degrees
        from world x, points in m from the environment's origin, scalars in their unit.

    Raises:
      ValueError: a component that this command does not have, or that cannot be set.
    """
    parts = {part.name: part for part in self.components() if part.settable}
    targets = self.targets()
    for name, value in values.items():
      if name not in parts:
        raise ValueError(f"{type(self).__name__}: nobody can set a '{name}'")
      given = torch.as_tensor(value, device=self.device)
      given = given.expand(len(env_ids), parts[name].given_size)
      if parts[name].kind == DIRECTION:
        angle = given.deg2rad().squeeze(-1)
        given = torch.stack((angle.cos(), angle.sin()), dim=-1)
      elif parts[name].kind == POINT:
        given = given + self._env.scene.env_origins[env_ids, :2]
      target = targets[name]
      target[env_ids] = given.to(target.dtype).reshape(len(env_ids), *target.shape[1:])

  def _resample_command(self, env_ids: torch.Tensor) -> None:
    if self.give is None:
      self._draw_targets(env_ids)
    else:
      self.set(env_ids, self.give(env_ids))

  def _update_command(self, env_ids: torch.Tensor | None) -> None:
    # The command is a function of the current state, so refreshing all is correct.
    del env_ids
    held = self._hand.held() if self._hand is not None else None
    if held is not None:
      index, values = held
      self.set(torch.tensor([index], device=self.device), values)
    quat = robot_state.root_quat_w(self.robot)
    targets = self.targets()
    for name, kind, columns in self._layout:
      target = targets[name]
      if kind == SCALAR:
        self._command[:, columns] = target.view(self.num_envs, -1)
        continue
      if kind == POINT:
        target = target - robot_state.root_pos_w(self.robot)[:, :2]
      self._command[:, columns] = in_heading_frame(target, quat)

  def _update_metrics(self) -> None:
    """Do nothing: errors are metrics of the task (`smp.mdp.metrics`) in SI units."""

  @functools.cached_property
  def _layout(self) -> tuple[tuple[str, str, slice], ...]:
    """Return name, kind and columns of each component."""
    found, start = [], 0
    for part in self.components():
      found.append((part.name, part.kind, slice(start, start + part.size)))
      start += part.size
    return tuple(found)

  @functools.cached_property
  def _command(self) -> torch.Tensor:
    width = self._layout[-1][2].stop
    return torch.zeros(self.num_envs, width, device=self.device)

  # Viewer.

  def create_gui(
    self,
    name: str,
    server: viser.ViserServer,
    get_env_idx: Callable[[], int],
    on_change: Callable[[], None] | None = None,
    request_action: Callable[[str, Any], None] | None = None,
  ) -> None:
    """Add sliders for the settable components of the environment in view."""
    del on_change, request_action
    self._hand = ManualCommandGui.build(name, server, get_env_idx, self.components())

  def _debug_vis_impl(self, visualizer: DebugVisualizer) -> None:
    """Draw commanded (blue), actual (cyan) and facing (orange) arrows, goals (red)."""
    here = robot_state.root_pos_w(self.robot).cpu().numpy()
    arrows = [(v.cpu().numpy(), color) for v, color in self._arrows()]
    targets = self.targets()
    goals = [
      targets[name].cpu().numpy() for name, kind, _ in self._layout if kind == POINT
    ]
    for i in visualizer.get_env_indices(self.num_envs):
      for k, (vector, color) in enumerate(arrows):
        draw_arrow(visualizer, here[i], vector[i], color, self._viz, lift=0.05 * k)
      for goal in goals:
        draw_goal(visualizer, goal[i])

  def _arrows(self) -> Iterator[tuple[torch.Tensor, tuple[float, float, float, float]]]:
    """Yield the vectors (N, 2), m/s or unit length, to draw, with their colours."""
    targets, parts = self.targets(), self.components()
    followed = {part.along for part in parts if part.along}
    for part in parts:
      if part.along:
        speed = targets[part.name].view(self.num_envs, 1)
        yield speed * targets[part.along], COMMAND_COLOR
        yield robot_state.root_lin_vel_w(self.robot)[:, :2], ACTUAL_COLOR
    for part in parts:
      if part.kind == DIRECTION and part.name not in followed:
        yield targets[part.name].expand(self.num_envs, 2), FACING_COLOR
