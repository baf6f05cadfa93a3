"""Score-Matching Motion Priors on the Unitree G1, on mjlab."""

import ctypes.util
import os
import sys

__version__ = "0.1.0"

# mjlab asks MuJoCo to render through EGL. On a machine without that library the mere
# import of MuJoCo would then fail, although training needs no rendering at all.
if sys.platform.startswith("linux") and ctypes.util.find_library("EGL") is None:
  _software = ctypes.util.find_library("OSMesa") is not None
  os.environ.setdefault("MUJOCO_GL", "osmesa" if _software else "disable")
