"""Motion clips: read, check, cut, mirror, resample, and slice into windows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline, Slerp

from smp import g1
from smp.errors import UserError
from smp.motion.features import FPS, WINDOW, MotionState, encode, window_velocities
from smp.motion.kinematics import mj_ee_positions
from smp.motion.rotations import HeadingKind

CSV_FPS = 30
CSV_COLUMNS = 7 + g1.NUM_JOINTS
JOINT_TOLERANCE = 0.5
"""How far, in rad, an angle may lie outside its joint's limits before a file is refused.

Retargeted motion may graze a limit; half a radian beyond one is another robot's file."""

Resampling = Literal["spline", "linear"]


@dataclass(frozen=True)
class Clip:
  """A motion clip in numpy, float64; T frames."""

  name: str
  fps: float
  root_pos: np.ndarray
  """(T, 3), m."""
  root_quat: np.ndarray
  """(T, 4), wxyz, unit length."""
  joint_pos: np.ndarray
  """(T, 29), rad."""

  def __len__(self) -> int:
    return len(self.root_pos)

  def cut(self, start: int, stop: int) -> Clip:
    """Frames start to stop, stop not included."""
    part = slice(start, stop)
    return replace(
      self,
      root_pos=self.root_pos[part],
      root_quat=self.root_quat[part],
      joint_pos=self.joint_pos[part],
    )


# Reading.


def load_csv(path: str | Path, fps: float = CSV_FPS) -> Clip:
  """Read a LAFAN1-on-G1 CSV: root xyz, root quaternion **xyzw**, 29 joint angles.

  Raises:
    UserError: names the file and the row (1 is the first line) of what is wrong.
  """
  path = Path(path)
  try:
    text = path.read_bytes().rstrip()
    if not text:
      raise UserError(f"{path}: empty file; expected rows of {CSV_COLUMNS} numbers")
    rows = np.loadtxt(path, delimiter=",", ndmin=2, comments=None)
  except (ValueError, UnicodeDecodeError):
    raise UserError(_find_bad_row(path)) from None
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  if len(rows) != text.count(b"\n") + 1:
    # numpy skips empty lines: a gap in the motion, and every later row misnumbered.
    raise UserError(_find_bad_row(path))
  if rows.shape[1] != CSV_COLUMNS:
    raise UserError(
      f"{path}: row 1 has {rows.shape[1]} columns, expected {CSV_COLUMNS} (root xyz, "
      "root quaternion xyzw, 29 joint angles)"
    )
  _check_rows(path, rows)
  quat = rows[:, [6, 3, 4, 5]]
  quat = quat / np.linalg.norm(quat, axis=1, keepdims=True)
  return Clip(path.stem, fps, rows[:, :3], quat, rows[:, 7:])


def _find_bad_row(path: Path) -> str:
  """The message for a file that is not a table of numbers."""
  lines = path.read_text(errors="replace").rstrip().splitlines()
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      return f"{path}: row {number} is empty; remove it, or restore what it held"
    cells = line.split(",")
    if len(cells) != CSV_COLUMNS:
      return f"{path}: row {number} has {len(cells)} columns, expected {CSV_COLUMNS}"
    for column, cell in enumerate(cells, start=1):
      if not _is_number(cell):
        return (
          f"{path}: row {number}, column {column}: '{cell.strip()[:20]}' is not a number "
          "(the file must have no header)"
        )
  return f"{path}: not a table of {CSV_COLUMNS} comma-separated numbers"


def _is_number(cell: str) -> bool:
  """Whether numpy reads it: Python alone would also take 1_000 and foreign digits."""
  try:
    float(cell)
  except ValueError:
    return False
  return cell.isascii() and "_" not in cell


def _check_rows(path: Path, rows: np.ndarray) -> None:
  bad = np.argwhere(~np.isfinite(rows))
  if len(bad):
    row, column = bad[0] + 1
    raise UserError(f"{path}: row {row}, column {column}: not a finite number")
  lengths = np.linalg.norm(rows[:, 3:7], axis=1)
  bad = np.flatnonzero(lengths < 1e-3)
  if len(bad):
    raise UserError(
      f"{path}: row {bad[0] + 1}: the root quaternion (columns 4-7) is zero"
    )
  limits = g1.load_model().jnt_range[1:]
  over = np.maximum(limits[:, 0] - rows[:, 7:], rows[:, 7:] - limits[:, 1])
  bad = np.argwhere(over > JOINT_TOLERANCE)
  if len(bad):
    row, joint = bad[0]
    raise UserError(
      f"{path}: row {row + 1}: {g1.JOINT_NAMES[joint]} is {rows[row, 7 + joint]:.3f} "
      f"rad, far outside its limits [{limits[joint, 0]:.2f}, {limits[joint, 1]:.2f}]; "
      "is this a clip of the 29-joint G1?"
    )


# Transforming.


def mirror_clip(clip: Clip) -> Clip:
  """The clip in the sagittal mirror; twice is the identity."""
  return replace(
    clip,
    root_pos=clip.root_pos * (1.0, -1.0, 1.0),
    root_quat=clip.root_quat * (1.0, -1.0, 1.0, -1.0),
    joint_pos=clip.joint_pos[:, list(g1.MIRROR_INDEX)] * np.array(g1.MIRROR_SIGN),
  )


def resampled_length(frames: int, fps_in: float, fps_out: float) -> int:
  """How many output times 0, 1/fps_out, ... lie strictly before the last input time.

  25 frames at 30 fps give 40 at 50 fps; 3945 give 6574.
  """
  return math.ceil(round((frames - 1) * fps_out / fps_in, 9))


def resample(clip: Clip, fps: float = FPS, method: Resampling = "spline") -> Clip:
  """The clip at another frame rate.

  ``spline``: cubic splines, and for the root rotation a spline with continuous angular
  velocity and acceleration. ``linear``: straight lines and slerp. Both pass through the
  input frames.

  Lines move all acceleration into the input frames. With every other row of the 36
  LAFAN1 clips left out and put back (15 to 30 Hz), the error of the joint accelerations
  is 0.48 of their RMS with splines and 0.86 with lines, and smaller with splines in
  every clip. From 30 to 50 Hz lines have 4 to 8 % less mean |acceleration| than splines.
  """
  count = resampled_length(len(clip), clip.fps, fps)
  knots = np.arange(len(clip)) / clip.fps
  times = np.arange(count) / fps
  values = np.concatenate((clip.root_pos, clip.joint_pos), axis=1)
  # scipy's order is xyzw. Its splines work on relative rotations, so the sign of a
  # quaternion does not matter, and tiny turns are handled by series.
  rotations = Rotation.from_quat(clip.root_quat[:, [1, 2, 3, 0]])
  if method == "spline":
    values = CubicSpline(knots, values)(times)
    turned = RotationSpline(knots, rotations)(times)
  else:
    values = np.stack([np.interp(times, knots, column) for column in values.T], axis=1)
    turned = Slerp(knots, rotations)(times)
  quat = turned.as_quat()[:, [3, 0, 1, 2]]
  return Clip(clip.name, fps, values[:, :3], quat, values[:, 3:])


# Windows.


def clip_state(clip: Clip, model: mujoco.MjModel | None = None) -> MotionState:
  """The frames of a clip as tensors (T, ...), float64.

  Velocities are those of the whole clip: central differences, one-sided at its ends.
  """
  model = model or g1.load_model()
  qpos = np.concatenate((clip.root_pos, clip.root_quat, clip.joint_pos), axis=1)
  pos, quat = torch.from_numpy(clip.root_pos), torch.from_numpy(clip.root_quat)
  lin, ang = window_velocities(pos, quat, clip.fps)
  return MotionState(
    root_pos_w=pos,
    root_quat_w=quat,
    root_lin_vel_w=lin,
    root_ang_vel_w=ang,
    joint_pos=torch.from_numpy(clip.joint_pos),
    ee_pos_w=torch.from_numpy(mj_ee_positions(model, qpos)),
  )


def state_windows(
  state: MotionState, window: int = WINDOW, stride: int = 1
) -> MotionState:
  """All windows (N, W, ...) of consecutive frames (T, ...)."""

  def slide(part: torch.Tensor) -> torch.Tensor:
    return part.unfold(0, window, stride).movedim(-1, 1)

  return MotionState(*(slide(part) for part in state))


def clip_windows(
  clip: Clip,
  window: int = WINDOW,
  stride: int = 1,
  heading: HeadingKind = "twist",
  velocity: str = "window",
) -> torch.Tensor:
  """Features (N, W, 59), float32, of all windows of a clip at the output rate.

  Args:
    clip: At least ``window`` frames.
    window: Frames per window.
    stride: Frames between the starts of two windows.
    heading: How the anchor's heading is found.
    velocity: ``window`` derives velocities from each window alone, which is what the
      robot in simulation gets; ``clip`` from the whole clip, as the published priors.
  """
  state = state_windows(clip_state(clip), window, stride)
  if velocity == "window":
    lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, clip.fps)
    state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  return encode(state, heading).float()
