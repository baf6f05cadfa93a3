"""Handlers of MuJoCo's C errors, so that one diverged environment ends no training."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_UNSOLVED = b"rank-deficient"
"""Part of the solver's error message for numbers too large to factorise."""
_BARELY = b"Linesearch objective is not convex"
"""Part of the warning that precedes that error."""

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


@_Handler
def _on_error(message: bytes) -> None:
  if _UNSOLVED in message:
    return  # The step goes on with meaningless numbers.
  sys.stderr.write(f"MuJoCo: {message.decode(errors='replace')}\n")
  sys.stderr.flush()
  os._exit(1)  # MuJoCo must not go on, and C code cannot pass an exception to Python.


@_Handler
def _on_warning(message: bytes) -> None:
  if _BARELY not in message:
    sys.stderr.write(f"MuJoCo: {message.decode(errors='replace')}\n")


@functools.cache
def survive_divergence(library: ctypes.CDLL) -> None:
  """Keep the program alive when the physics of an environment diverges.

  MuJoCo exits when its solver cannot factorise, for which one joint turned by 300 rad
  is enough. With one environment among many that would end the training. With these
  handlers the solver goes on instead: the state is then out of all bounds, which
  `smp.mdp.terminations.PhysicsDiverged` detects. Any other error still ends the
  program.

  The handlers apply to all of MuJoCo in this process, except calls from its Python
  package, which turns errors into exceptions.
  """
  for name, handler in (
    ("mju_user_error", _on_error),
    ("mju_user_warning", _on_warning),
  ):
    address = ctypes.cast(handler, ctypes.c_void_p).value
    ctypes.c_void_p.in_dll(library, name).value = address
