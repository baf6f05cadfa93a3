"""Initial states of episodes: generated windows, and a share of fallen states."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from smp.mdp.init_state_buffers import FallenStateBuffer, InitStateBuffer
from smp.motion.fallen_states import FALLEN_POSES
from smp.motion.features import MotionState

INIT_MODES = ("prior", *FALLEN_POSES)
"""Kinds of initial states: the end of a generated window, or a robot that was dropped
and lies on its front, its back, its left or its right side."""


HEIGHT_BIN, UPRIGHT = 0.1, 1.0
"""Width of the bins of `init_height_weights`, and the height of the head from which on
a robot is about to stand, m."""
NEAREST = 0.02
"""Share of a buffer's windows that always have the full weight of `init_motion_weights`."""


def init_motion_weights(
  motion: torch.Tensor, wanted: torch.Tensor, bandwidth: float
) -> torch.Tensor:
  """Return weights (n, P) that prefer windows near the motion each episode wants.

  They fall as exp(-|m - wanted|^2 / (2 bandwidth^2)) with the difference, from 1 at the
  `NEAREST` of all windows: so a few windows do not serve all episodes of a rare motion,
  however far it is from all.

  Args:
    motion: (P, D) of the windows, m/s.
    wanted: (n, D), m/s.
    bandwidth: m/s, above 0.
  """
  gap = torch.zeros(len(wanted), len(motion), device=motion.device)
  for have, want in zip(motion.unbind(-1), wanted.unbind(-1), strict=True):
    gap += ((have - want.unsqueeze(-1)) / bandwidth).square_()
  nearest = max(1, int(NEAREST * len(motion)))
  gap -= gap.kthvalue(nearest, dim=-1, keepdim=True).values
  return gap.clamp_(min=0.0).mul_(-0.5).exp_()


def init_height_weights(heights: torch.Tensor, lowest: float) -> torch.Tensor:
  """Return weights (P,) by which heights of the head are drawn equally often.

  Each `HEIGHT_BIN` from ``lowest`` to `UPRIGHT`, and all above, has the same share,
  divided among the windows in it; a bin without windows has none. Lower windows are not
  drawn, unless no window is higher: then the highest is.

  Args:
    heights: (P,) of the windows, m.
    lowest: m.
  """
  bins = round(UPRIGHT / HEIGHT_BIN) + 1
  place = (heights / HEIGHT_BIN).long().clamp(0, bins - 1)
  counted = (heights >= lowest) | (heights == heights.amax())
  count = torch.zeros(bins, device=heights.device)
  count.scatter_add_(0, place, counted.float())
  return counted / count.clamp(min=1.0)[place]


class InitStates(Protocol):
  """A source of initial states: windows of motion whose last frame is the state.

  Attributes:
    generated: The windows of mode 0.
    share: Probability that an episode starts from a fallen state.
  """

  generated: InitStateBuffer
  share: float

  def draw(
    self,
    count: int,
    weights: torch.Tensor | None = None,
    styles: torch.Tensor | None = None,
  ) -> tuple[MotionState, torch.Tensor]:
    """Return windows (count, W, ...) and their modes (count,) in `INIT_MODES`."""
    ...

  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest windows, if new ones can be made."""
    ...

  def state_dict(self) -> dict[str, Any]:
    """Return the state for a checkpoint."""
    ...

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Load the result of `state_dict`; return False if it does not fit."""
    ...


class InitStateSampler:
  """Sampler that draws initial states from two buffers and reports the kinds."""

  def __init__(
    self,
    generated: InitStateBuffer,
    fallen: FallenStateBuffer | None = None,
    share: float = 0.0,
  ) -> None:
    """Combine the buffers.

    Args:
      generated: Windows from the prior.
      fallen: Robots that were dropped; None if none are wanted.
      share: Probability that an episode starts from a fallen state.
    """
    self.generated, self.fallen, self.share = generated, fallen, share

  def draw(
    self,
    count: int,
    weights: torch.Tensor | None = None,
    styles: torch.Tensor | None = None,
  ) -> tuple[MotionState, torch.Tensor]:
    """Return windows (count, W, ...) and their kinds (count,) in `INIT_MODES`.

    Args:
      count: Number of episodes that start.
      weights: (count, generated windows) unnormalised probability of each window for
        each episode, such as `init_motion_weights`; None: uniform.
      styles: (count,) style of each episode, where each has its own.
    """
    state = self.generated.windows(self.generated.draw(count, weights, styles))
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
    """Return the state for a checkpoint: the generated windows.

    Fallen states are the same in every run.
    """
    return self.generated.state_dict()

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore the generated windows; return False if the buffer size differs."""
    return self.generated.load_state_dict(state)
