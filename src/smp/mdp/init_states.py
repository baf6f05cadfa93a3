"""Where episodes start: in generated windows, and for a share of them on the ground."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from smp.mdp.init_state_buffers import FallenStateBuffer, InitStateBuffer
from smp.motion.features import MotionState
from smp.sim.fallen_states import FALLEN_POSES

INIT_MODES = ("prior", *FALLEN_POSES)
"""Where an episode started: in a generated window, or as a robot that was dropped and
lies on its front, its back, its left or its right side."""


RARE = 0.02
"""Share of a pool's windows, at either end of its speeds, that nobody aims beyond."""


def init_speed_weights(
  speed: torch.Tensor, wanted: torch.Tensor, bandwidth: float
) -> torch.Tensor:
  """Weights (n, P) that prefer windows of about the speed that each start wants.

  They fall as exp(-((v - wanted) / bandwidth)^2 / 2) with the distance in speed. Where
  the pool has nothing near, a speed beyond all but `RARE` of its windows counts as that
  bound, so that a few windows do not start all of those episodes; and the nearest window
  always weighs 1.

  Args:
    speed: (P,) of the windows, m/s.
    wanted: (n,), m/s.
    bandwidth: m/s, above 0.
  """
  ordered, rare = speed.sort().values, int(RARE * len(speed))
  wanted = torch.clamp(wanted, ordered[rare], ordered[-1 - rare])
  gap = ((speed - wanted.unsqueeze(-1)) / bandwidth).square_()
  return gap.sub_(gap.amin(dim=-1, keepdim=True)).mul_(-0.5).exp_()


class InitStates(Protocol):
  """What episodes start from: windows of motion, the last frame of which is the state.

  Attributes:
    generated: The windows of mode 0.
  """

  generated: InitStateBuffer

  def draw(
    self, count: int, weights: torch.Tensor | None = None
  ) -> tuple[MotionState, torch.Tensor]:
    """Return windows (count, W, ...) and their modes (count,) in `INIT_MODES`."""
    ...

  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest windows, if new ones can be made."""
    ...

  def state_dict(self) -> dict[str, Any]:
    """Return what a checkpoint keeps."""
    ...

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Take what `state_dict` returned; False if it does not fit."""
    ...


class InitStateSampler:
  """Draw initial windows from two buffers, and say which is which."""

  def __init__(
    self,
    generated: InitStateBuffer,
    fallen: FallenStateBuffer | None = None,
    share: float = 0.0,
  ) -> None:
    """
    Args:
      generated: Windows from the prior.
      fallen: Robots that were dropped; None if none are wanted.
      share: Chance that an episode starts as one of those.
    """
    self.generated, self.fallen, self.share = generated, fallen, share

  def draw(
    self, count: int, weights: torch.Tensor | None = None
  ) -> tuple[MotionState, torch.Tensor]:
    """``count`` windows (count, W, ...), and their kinds (count,) in `INIT_MODES`.

    Args:
      weights: (count, generated windows) how likely each is for each start, such as
        `init_speed_weights`; None: all alike.
    """
    state = self.generated.windows(self.generated.draw(count, weights))
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

  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest generated windows."""
    self.generated.refresh(count)

  def state_dict(self) -> dict[str, Any]:
    """What a checkpoint keeps: the generated windows. Falls are the same every time."""
    return self.generated.state_dict()

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore the generated windows; False if the pool is of another size."""
    return self.generated.load_state_dict(state)
