"""Where episodes start: in generated windows, and for a share of them on the ground."""

from __future__ import annotations

from typing import Any

import torch

from smp.mdp.pool import FallPool, StartPool
from smp.motion.falls import FALL_POSES
from smp.motion.features import MotionState

START_KINDS = ("prior", *FALL_POSES)
"""Where an episode started: in a generated window, or as a robot that was dropped and
lies on its front, its back, its left or its right side."""


class Starts:
  """Draws start windows from two pools, and says which is which."""

  def __init__(
    self, generated: StartPool, fallen: FallPool | None = None, share: float = 0.0
  ) -> None:
    """
    Args:
      generated: Windows from the prior.
      fallen: Robots that were dropped; None if none are wanted.
      share: Chance that an episode starts as one of those.
    """
    self.generated, self.fallen, self.share = generated, fallen, share

  def draw(self, count: int) -> tuple[MotionState, torch.Tensor]:
    """``count`` windows (count, W, ...), and their kinds (count,) in `START_KINDS`."""
    state = self.generated.windows(self.generated.draw(count))
    device = state.root_pos_w.device
    kind = torch.zeros(count, dtype=torch.long, device=device)
    if self.fallen is None:
      return state, kind
    chosen = torch.rand(count, device=device) < self.share
    index = self.fallen.draw(count)
    fallen = self.fallen.windows(index)

    def pick(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
      return torch.where(chosen.view(-1, *(1,) * (a.dim() - 1)), b, a)

    state = MotionState(*(pick(a, b) for a, b in zip(state, fallen, strict=True)))
    return state, torch.where(chosen, self.fallen.pose[index] + 1, kind)

  def state_dict(self) -> dict[str, Any]:
    """What a checkpoint keeps: the generated windows. Falls are the same every time."""
    return self.generated.state_dict()

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore the generated windows; False if the pool is of another size."""
    return self.generated.load_state_dict(state)
