"""Score-Matching Motion Priors on the Unitree G1, on mjlab."""

import ctypes.util
import os
import sys

__version__ = "0.1.0"


def _choose_gl() -> str:
  """Return the backend by which MuJoCo can render on Linux without a display."""
  for library, name in (("EGL", "egl"), ("OSMesa", "osmesa")):
    if ctypes.util.find_library(library) is not None:
      return name
  return "disable"


# Set this before anything imports MuJoCo, which reads it once. mjlab would select EGL
# whether it is installed or not, and without it importing MuJoCo fails, although
# training renders nothing.
if sys.platform.startswith("linux"):
  os.environ.setdefault("MUJOCO_GL", _choose_gl())
