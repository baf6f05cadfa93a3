"""Score-Matching Motion Priors on the Unitree G1, on mjlab."""

import ctypes.util
import os
import sys

__version__ = "0.1.0"


def _choose_gl() -> str:
  """How MuJoCo can render on this Linux machine without a display."""
  for library, name in (("EGL", "egl"), ("OSMesa", "osmesa")):
    if ctypes.util.find_library(library) is not None:
      return name
  return "disable"


# Before anything imports MuJoCo, which reads this once. mjlab would ask for EGL whether
# it is there or not, and where it is not, importing MuJoCo fails, although training
# renders nothing.
if sys.platform.startswith("linux"):
  os.environ.setdefault("MUJOCO_GL", _choose_gl())
