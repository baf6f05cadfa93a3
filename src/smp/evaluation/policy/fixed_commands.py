"""What replaces drawing by chance in an evaluation: commands and starts that are given."""

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
"""Seconds until a command is drawn anew."""


def hold_command(term: CommandTerm, values: Mapping[str, np.ndarray]) -> None:
  """Let a command ask for values that are given, from the next reset on.

  Args:
    term: Of all N environments.
    values: As `smp.episodes.protocol.EvalBatch.command`.

  Raises:
    UserError: a command that does not say what it is made of.
  """
  if not isinstance(term, ComponentCommand):
    raise UserError(
      f"cannot evaluate the command {type(term).__name__}: it is no ComponentCommand"
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
