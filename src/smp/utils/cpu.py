"""The cores of this machine, and how native code is run on several of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from smp.errors import UserError


def core_count() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
  """The number of threads, by default one per core this process may use.

  Raises:
    UserError: fewer than one, or more than there are cores.
  """
  cores = core_count()
  if threads is None:
    return cores
  if not 1 <= threads <= cores:
    raise UserError(
      f"--threads {threads}: give 1 to {cores} (the cores of this machine), or leave "
      "it out to use them all"
    )
  return threads


class LaunchPool:
  """Runs recorded launches of Warp CPU kernels side by side.

  A launch releases Python's lock while it computes. The first runs on the caller's own
  thread, so a crew of one starts none.
  """

  def __init__(self, threads: int) -> None:
    self.threads = threads
    self._others = ThreadPoolExecutor(max(1, threads - 1), "crew")

  def run(self, launches: Sequence[Any]) -> None:
    """Run all launches, at most one per thread, and return when they are done."""
    others = [self._others.submit(launch.launch) for launch in launches[1:]]
    launches[0].launch()
    for other in others:
      other.result()
