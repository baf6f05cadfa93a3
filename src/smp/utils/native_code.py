"""C code for the CPU: compiled by Warp, launched over a job, and a way round it.

A few loops are too small for tensor operations and too many for Python. They are C
snippets, and Warp compiles each for this processor, once per machine, with the compiler
that it brings along. What a snippet works on is a job: an array of 64-bit integers, sizes
and addresses, in an order that the snippet says.

``SMP_NATIVE=0`` in the environment keeps them off where tensor operations do the same.
They also stand in, with one line of warning, where a snippet cannot be compiled.
"""
# No postponed annotations here: Warp reads those of the kernel.

import functools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from smp.errors import UserError, one_line

SWITCH = "SMP_NATIVE"
_PREAMBLE = "typedef long long Int;\nconst Int* job = (const Int*)address;\n"


class NativeKernel:
  """A snippet of C. Warp is imported, and the snippet compiled, on first use.

  Args:
    name: What it computes, for messages.
    snippet: The body of a function; ``job`` is a ``const Int*``, 64 bits each.
  """

  def __init__(self, name: str, snippet: str) -> None:
    self.name = name
    self._snippet = _PREAMBLE + snippet

  @functools.cached_property
  def usable(self) -> bool:
    """Whether it is switched on and compiles; says once on stderr if it does not."""
    if not enabled():
      return False
    try:
      self.record(np.zeros(1, np.int64))
    except Exception as error:  # Warp raises whatever its compiler and cache do.
      print(
        f"[WARN] {self.name}: cannot compile its C code ({one_line(error)}); computing "
        f"with torch, slower; {SWITCH}=0 skips the attempt",
        file=sys.stderr,
      )
      return False
    return True

  def record(self, job: np.ndarray) -> Any:
    """Return a launch over ``job`` (int64), which the caller keeps alive.

    Its method ``launch`` computes, without Python's lock. ``job`` is read each time.

    Raises:
      Exception: Warp's, when the snippet cannot be compiled.
    """
    wp = _warp()
    address = wp.uint64(job.ctypes.data)
    return wp.launch(self._kernel, 1, [address], device="cpu", record_cmd=True)

  @functools.cached_property
  def _kernel(self) -> Any:
    wp = _warp()

    @wp.func_native(self._snippet)
    def run_job(address: wp.uint64): ...  # pyright: ignore[reportInvalidTypeForm]

    @wp.kernel(module="unique", enable_backward=False)
    def native_kernel(address: wp.uint64):  # pyright: ignore[reportInvalidTypeForm]
      run_job(address)

    return native_kernel


class LaunchPool:
  """Runs recorded launches side by side.

  A launch releases Python's lock while it computes. The first runs on the caller's own
  thread, so a pool of one starts none.
  """

  def __init__(self, threads: int) -> None:
    self.threads = threads
    self._others = ThreadPoolExecutor(max(1, threads - 1), "native")

  def run(self, launches: Sequence[Any]) -> None:
    """Run all launches, at most one per thread, and return when they are done."""
    others = [self._others.submit(launch.launch) for launch in launches[1:]]
    launches[0].launch()
    for other in others:
      other.result()


def _warp() -> Any:
  """Return Warp, whose import takes a second."""
  alone = "warp" not in sys.modules
  import warp

  if alone:
    # Nobody else in this program uses it: no word about its devices and caches.
    warp.config.log_level = warp.LOG_ERROR
  return warp


def enabled() -> bool:
  """Whether ``SMP_NATIVE`` leaves the C code on, as it does unless it is 0.

  Raises:
    UserError: It is neither 0 nor 1.
  """
  value = os.environ.get(SWITCH, "1")
  if value not in ("0", "1"):
    raise UserError(f"{SWITCH}={value}: set it to 0 (torch alone) or 1 (default)")
  return value == "1"
