"""Evaluation windows of priors: the same poses, in the features of each prior."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smp.motion.features import (
  SLICES,
  FeatureSpec,
  MotionState,
  decode,
  encode,
  window_velocities,
)
from smp.motion.rotations import heading as heading_of
from smp.motion.rotations import rotate_z

OWN, HELD_OUT = "own", "held out"
"""Names of the sets of windows of the prior's own kind of motion."""


@dataclass(frozen=True)
class EvalWindows:
  """Windows as stored in a file, whatever prior they were made for."""

  features: Tensor
  """(N, W, F), raw units; the windows of a clip in order."""
  spec: FeatureSpec
  stride: int
  """Frames between the first frames of two successive windows of a clip."""
  clips: tuple[str, ...] = ()
  """Names of the clips of the windows."""


def convert_features(source: EvalWindows, spec: FeatureSpec) -> Tensor:
  """Return the windows (N, W, F) in the features of a prior of ``spec``.

  - Another ``heading``: the windows are anchored anew.
  - ``velocity`` "window": derived from the poses of each window.
  - ``velocity`` "clip" from "window": inside a window the two agree. At its two ends
    "clip" needs one more frame, which is taken from the window before or after where
    the two overlap. So the result is that of converting the clip anew, except for a
    stride too wide for an overlap (over W - 2), where the ends stay one-sided.

  Raises:
    UserError: The windows differ from ``spec`` in anything else, such as fps or joints.
  """
  have = source.spec
  replace(have, heading=spec.heading, velocity=spec.velocity).check(spec)
  if (have.heading, have.velocity) == (spec.heading, spec.velocity):
    return source.features
  state = decode(source.features.double())
  if spec.velocity == "window" and have.velocity != "window":
    lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, have.fps)
    state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  if spec.velocity == "clip" and have.velocity == "window":
    state = _look_beyond(state, source)
  return encode(state, spec.heading).float()


def rows_to_spec(source: EvalWindows, rows: Tensor, spec: FeatureSpec) -> Tensor:
  """Return rows (n,) of `convert_features` without converting all windows."""
  need = torch.cat((rows - 1, rows, rows + 1)).clamp(0, len(source.features) - 1)
  need = need.unique()
  part = convert_features(replace(source, features=source.features[need]), spec)
  return part[torch.searchsorted(need, rows)]


def _look_beyond(state: MotionState, source: EvalWindows) -> MotionState:
  """Replace the velocities of end frames by those of the neighbouring windows.

  ``state`` holds windows (N, W, ...), each in the frame of its own anchor.
  """
  stride, last = source.stride, source.spec.window - 1
  lin, ang = state.root_lin_vel_w.clone(), state.root_ang_vel_w.clone()
  if stride > last - 1 or len(lin) < 2:
    return state
  # Equal poses in the overlap mean that the windows are neighbours in one clip.
  joints = state.joint_pos
  same = (joints[:-1, stride:] - joints[1:, : last + 1 - stride]).abs()
  neighbours = same.amax(dim=(1, 2)) < 1e-6
  # The last frame of a window is frame last - stride of the next one; its heading there
  # is the turn between the two anchors.
  cos, sin = heading_of(state.root_quat_w[1:, last - stride], kind=source.spec.heading)
  for velocity in (lin, ang):
    original = velocity.clone()
    following = rotate_z(cos, -sin, original[1:, last - stride])
    preceding = rotate_z(cos, sin, original[:-1, stride])
    velocity[:-1, last][neighbours] = following[neighbours]
    velocity[1:, 0][neighbours] = preceding[neighbours]
  return state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)


def kind_of(clip: str) -> str:
  """Return the kind of a clip: the first letters of its name ("dance2_1" is "dance")."""
  letters = re.match(r"[^\W\d_]+", clip)
  return letters.group() if letters else clip


def speeds(features: Tensor, spec: FeatureSpec) -> Tensor:
  """Return the mean horizontal speed (N,) of windows, m/s, from their poses."""
  xy = features[..., SLICES["root_pos"]][..., :2]
  return (xy[:, -1] - xy[:, 0]).norm(dim=-1) * spec.fps / (spec.window - 1)
