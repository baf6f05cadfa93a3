"""What happens once in every step: record a frame, encode the window, judge it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch
from torch import Tensor

from smp.mdp.motion_window import MotionWindow
from smp.mdp.style_reward import StyleReward

_WARM_UP = 3
"""Runs before a CUDA graph is captured: libraries choose their kernels in them."""


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
  """Hold back the collector: what it frees may be memory of the device (an earlier
  environment's), which no capture survives."""
  was_on = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_on:
      gc.enable()


class StyleStep:
  """Compute the style reward of a step.

  All of it is arithmetic on the device with static shapes. On a GPU it is captured in a
  CUDA graph when `prepare` is called, and one replay computes a step; on a CPU the same
  code runs as it stands.
  """

  def __init__(self, window: MotionWindow, style: StyleReward) -> None:
    self.window, self.style = window, style
    self._graph: torch.cuda.CUDAGraph | None = None

  def run(self, pos: Tensor, quat: Tensor, joints: Tensor) -> None:
    """Record one frame of every environment and judge its window.

    Args:
      pos: (N, 3), m, pelvis relative to the environment's own origin.
      quat: (N, 4), wxyz.
      joints: (N, J), rad.
    """
    self.window.set_pose(pos, quat, joints)
    # Outside the graph, so that torch's generator works as it always does.
    self.style.draw()
    if self._graph is not None:
      self._graph.replay()
    else:
      self._compute()

  @torch.no_grad()
  def _compute(self) -> None:
    self.window.push()
    self.style.score(self.window.features())

  def prepare(self, compiled: bool = False) -> None:
    """Warm up and, on a GPU, capture the graph. Leaves no trace in any state.

    Args:
      compiled: Hand the style's model to ``torch.compile`` first.
    """
    kept = [tensor.clone() for tensor in self.state()]
    if compiled:
      self.style.compile()
    if self.style.reward.is_cuda:
      self._capture()
    for tensor, value in zip(self.state(), kept, strict=True):
      tensor.copy_(value)

  def state(self) -> list[Tensor]:
    """Return what a step changes and the next one, or a checkpoint, looks at."""
    return [*self.window.state(), *self.style.state()]

  def _capture(self) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    self.style.draw()
    with torch.cuda.stream(stream):
      for _ in range(_WARM_UP):
        self._compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with _no_garbage_collection(), torch.cuda.graph(graph):
      self._compute()
    self._graph = graph
