"""CPU cores of this machine."""

from __future__ import annotations

import os

from smp.errors import UserError


def core_count() -> int:
  """Return the number of cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
  """Return the number of threads, by default one per core this process may use.

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
