"""C code for the CPU, compiled by Warp, with a switch to turn it off.

A few loops have too little work per tensor operation and too many iterations for
Python. They are C snippets, and Warp compiles each for this processor, once per
machine, with the compiler that it includes. The input of a snippet is a job: an array
of 64-bit integers, sizes and addresses, in an order that the snippet defines.

``SMP_NATIVE=0`` in the environment disables them where tensor operations can replace
them. Tensor operations also replace a snippet that cannot be compiled, with a warning
of one line.
"""
# Do not postpone annotations in this module: Warp reads those of the kernel.

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
  """A snippet of C; Warp is imported and the snippet compiled on first use.

  Args:
    name: What it computes, for messages.
    snippet: The body of a function; ``job`` is a ``const Int*``, 64 bits each.
  """

  def __init__(self, name: str, snippet: str) -> None:
    self.name = name
    self._snippet = _PREAMBLE + snippet

  @functools.cached_property
  def usable(self) -> bool:
    """Return whether it is switched on and compiles; warn once if it fails."""
    if not enabled():
      return False
    try:
      self.record(np.zeros(1, np.int64))
    except Exception as error:  # Warp passes on any error of its compiler and cache.
      print(
        f"[WARN] {self.name}: cannot compile its C code ({one_line(error)}); computing "
        f"with torch, slower; {SWITCH}=0 skips the attempt",
        file=sys.stderr,
      )
      return False
    return True

  def record(self, job: np.ndarray) -> Any:
    """Return a launch over ``job`` (int64), which the caller keeps alive.

    Its method ``launch`` computes without Python's lock. ``job`` is read on every
    launch.

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
  """Thread pool that runs recorded launches in parallel.

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
    # Nothing else in this program uses Warp, so silence its list of devices and caches.
    warp.config.log_level = warp.LOG_ERROR
  return warp


def enabled() -> bool:
  """Return whether ``SMP_NATIVE`` enables the C code: unset or 1.

  Raises:
    UserError: it is neither 0 nor 1.
  """
  value = os.environ.get(SWITCH, "1")
  if value not in ("0", "1"):
    raise UserError(f"{SWITCH}={value}: set it to 0 (torch alone) or 1 (default)")
  return value == "1"
