"""Given commands and initial states, in the place of random ones, for an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mjlab.managers import CommandTerm

from smp.errors import UserError
from smp.mdp import robot_state
from smp.mdp.commands import ComponentCommand
from smp.mdp.init_state_buffers import FallenStateBuffer, InitStateBuffer
from smp.mdp.init_states import INIT_MODES, InitStateSampler
from smp.motion.features import MotionState
from smp.utils.components import POINT

NEVER = (1e9, 1e9)
"""Time range of resampling that never ends within an episode, s."""


def hold_command(term: CommandTerm, values: Mapping[str, np.ndarray]) -> None:
  """Make a command ask for given values from the next reset on.

  Args:
    term: The command of all N environments.
    values: As `smp.episodes.protocol.EvalBatch.command`.

  Raises:
    UserError: The command does not describe its components.
  """
  if not isinstance(term, ComponentCommand):
    raise UserError(
      f"cannot evaluate the command {type(term).__name__}: not a ComponentCommand"
    )
  given = {
    name: torch.from_numpy(value).to(term.device) for name, value in values.items()
  }
  points = {part.name for part in term.components() if part.kind == POINT}
  origins = term._env.scene.env_origins

  def give(env_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    here = robot_state.root_pos_w(term.robot)[env_ids, :2] - origins[env_ids, :2]
    return {
      name: value[env_ids] + here if name in points else value[env_ids]
      for name, value in given.items()
    }

  term.give = give


class FixedInitStates(InitStateSampler):
  """Initial states of the kind given to each environment, drawn for all at once."""

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
    self,
    count: int,
    weights: torch.Tensor | None = None,
    styles: torch.Tensor | None = None,
  ) -> tuple[MotionState, torch.Tensor]:
    """Draw windows (count, W, ...) and their kinds, for all environments in order.

    Every window of an environment's style is equally likely; ``weights`` is ignored.
    """
    del weights
    if count != len(self._kind):
      raise ValueError(f"{count} initial states for {len(self._kind)} environments")
    window = self.generated.windows(self.generated.draw(count, styles=styles))
    if self.fallen is None:
      return window, self._kind
    fallen = self.fallen.windows(self._draw_fallen(self.fallen))
    chosen = self._kind > 0
    parts = [
      torch.where(chosen.view(-1, *(1,) * (a.dim() - 1)), b, a)
      for a, b in zip(window, fallen, strict=True)
    ]
    return MotionState(*parts), self._kind

  def _draw_fallen(self, buffer: FallenStateBuffer) -> torch.Tensor:
    """Draw a fall (N,) in the pose given to each environment; any where none is given."""
    fits = buffer.pose == (self._kind - 1).clamp(min=0).unsqueeze(-1)
    return torch.multinomial(fits.float(), 1).squeeze(-1)
