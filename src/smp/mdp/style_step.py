"""The style reward of a step: record a frame, encode the window, judge it."""

from __future__ import annotations

import torch
from torch import Tensor

from smp.mdp.motion_window import MotionWindow
from smp.mdp.style_reward import StyleReward
from smp.utils.cuda_graph import WARM_UP, no_garbage_collection


class StyleStep:
  """The computation of the style reward in a step.

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
    # Random numbers are drawn outside the graph, where torch's generator works as
    # usual.
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
    """Warm up and, on a GPU, capture the graph, leaving every state unchanged.

    Args:
      compiled: Apply ``torch.compile`` to the style's model first.
    """
    kept = [tensor.clone() for tensor in self.state()]
    if compiled:
      self.style.compile()
    if self.style.reward.is_cuda:
      self._capture()
    for tensor, value in zip(self.state(), kept, strict=True):
      tensor.copy_(value)

  def state(self) -> list[Tensor]:
    """Return the tensors that a step changes and a later step or checkpoint reads."""
    return [*self.window.state(), *self.style.state()]

  def _capture(self) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    self.style.draw()
    with torch.cuda.stream(stream):
      for _ in range(WARM_UP):
        self._compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with no_garbage_collection(), torch.cuda.graph(graph):
      self._compute()
    self._graph = graph
