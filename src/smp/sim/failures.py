"""What becomes of the program when MuJoCo's C code cannot solve a robot's equations."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_UNSOLVED = b"rank-deficient"
"""In what the solver says when numbers have grown beyond what it can factorise."""
_BARELY = b"Linesearch objective is not convex"
"""And in what it says right before."""

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


@_Handler
def _on_error(message: bytes) -> None:
  if _UNSOLVED in message:
    return  # The step goes on with numbers that mean nothing.
  sys.stderr.write(f"MuJoCo: {message.decode(errors='replace')}\n")
  sys.stderr.flush()
  os._exit(1)  # MuJoCo must not go on, and nothing in Python can be reached from here.


@_Handler
def _on_warning(message: bytes) -> None:
  if _BARELY not in message:
    sys.stderr.write(f"MuJoCo: {message.decode(errors='replace')}\n")


@functools.cache
def survive_divergence(library: ctypes.CDLL) -> None:
  """Let a robot whose physics breaks down not end the program.

  MuJoCo exits when its solver cannot factorise, which one joint turned by 300 rad is
  enough for. With one robot among many that would be the end of a training. Here the
  solver goes on instead: the robot's state is then beyond all bounds, which
  `smp.mdp.terminations.PhysicsDiverged` looks for. Any other error still ends the program.

  The handlers are for all of MuJoCo in this process, but not for calls from its Python
  package, which makes exceptions of errors.
  """
  for name, handler in (
    ("mju_user_error", _on_error),
    ("mju_user_warning", _on_warning),
  ):
    address = ctypes.cast(handler, ctypes.c_void_p).value
    ctypes.c_void_p.in_dll(library, name).value = address
