"""CUDA graphs: a computation on the device that the host starts with one call."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

WARM_UP = 3
"""Runs before a CUDA graph is captured, in which libraries choose their kernels."""


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
  """Disable garbage collection for the duration of a capture.

  The collector may free device memory, such as that of an earlier environment, and that
  would invalidate the capture.
  """
  was_on = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_on:
      gc.enable()


class Graphed:
  """A computation that runs as it stands a few times, and then as a CUDA graph.

  All it reads and writes must stay in the same memory, its shapes must not change, and
  it must draw no random numbers. Each call computes once, the captured ones too, so a
  computation that learns may be graphed.

  Args:
    compute: The computation, which returns named tensors.
  """

  def __init__(self, compute: Callable[[], dict[str, Tensor]]) -> None:
    self._compute = compute
    self._calls = 0
    self._graph: torch.cuda.CUDAGraph | None = None
    self._out: dict[str, Tensor] = {}

  def __call__(self) -> dict[str, Tensor]:
    """Compute once; return copies of the outcome, which later calls leave alone."""
    if self._calls < WARM_UP:
      self._calls += 1
      return self._run_aside()
    if self._graph is None:
      graph = torch.cuda.CUDAGraph()
      with no_garbage_collection(), torch.cuda.graph(graph):
        self._out = self._compute()
      self._graph = graph
    self._graph.replay()
    return {name: value.clone() for name, value in self._out.items()}

  def _run_aside(self) -> dict[str, Tensor]:
    """Compute on a stream of its own, as a capture does."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
      out = self._compute()
    torch.cuda.current_stream().wait_stream(stream)
    return out
