"""Pictures and videos of poses, rendered without a display."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mujoco
import numpy as np

from smp.errors import UserError
from smp.robots import g1
from smp.robots.scene import FRAME_SIZE, scene_model
from smp.utils.files import atomic_path

if TYPE_CHECKING:
  import mediapy

SIDE = -60.0
"""Position of the camera, degrees left of the direction in which the robot faces or
goes: in front and to the right, so that it is seen going to the right."""
DISTANCE, ELEVATION, LOOK_AT_HEIGHT = 2.25, -12.0, 0.62
"""m, degrees, m: a standing robot fits, and so does one that lies along the picture."""
MOVED = 0.5
"""Minimum distance between the ends of a motion, m, for it to have a direction."""
VIDEO_COLUMNS = 4
VIDEO_STRIDE = 2
"""Stride of the frames shown: half the time to render, and few browsers show a GIF at
50 frames per second."""


class MotionBatch(NamedTuple):
  """Motions to show."""

  qpos: np.ndarray
  """(N, T, 36), world frame: root xyz, root wxyz, joint angles."""
  labels: list[str]
  """Label of each of the N motions."""
  title: str
  """Title of all motions."""


class OffscreenRenderer:
  """The robot on a chequered floor, and a camera; a context manager.

  Raises:
    UserError: There is no OpenGL library to render with.
  """

  def __init__(self) -> None:
    self.model = scene_model()
    self.data, self.camera = mujoco.MjData(self.model), mujoco.MjvCamera()
    self.camera.distance, self.camera.elevation = DISTANCE, ELEVATION
    self.root = self.model.body(g1.ROOT_BODY).id
    self.renderer = make_renderer(self.model, FRAME_SIZE)

  def __enter__(self) -> OffscreenRenderer:
    return self

  def __exit__(self, *_: object) -> None:
    self.renderer.close()

  def picture(self, pose: np.ndarray, facing: float) -> np.ndarray:
    """Return a picture (H, W, 3), uint8, with the robot in a pose (36,) at its centre.

    Args:
      pose: Root xyz, root wxyz, joint angles.
      facing: Direction, rad about z, that the camera's `SIDE` is relative to.
    """
    self.data.qpos[:] = pose
    mujoco.mj_forward(self.model, self.data)
    # Looking at the root would leave out the head of a lying robot.
    center = self.data.subtree_com[self.root]
    self.camera.lookat[:] = (center[0], center[1], LOOK_AT_HEIGHT)
    self.camera.azimuth = math.degrees(facing) + SIDE + 180.0
    self.renderer.update_scene(self.data, self.camera)
    return self.renderer.render()


def make_renderer(model: mujoco.MjModel, size: tuple[int, int]) -> mujoco.Renderer:
  """Return a renderer of pictures of ``size``: height and width, pixels.

  Raises:
    UserError: There is no OpenGL library to render with.
  """
  try:
    return mujoco.Renderer(model, *size)
  except Exception as error:
    raise UserError(
      f"cannot render ({type(error).__name__}): install libEGL or libOSMesa, or set "
      "MUJOCO_GL"
    ) from error


@contextlib.contextmanager
def open_video(
  path: Path, size: tuple[int, int], fps: float
) -> Iterator[mediapy.VideoWriter]:
  """Yield a writer of pictures of ``size``: height and width, pixels.

  Args:
    path: The file to write, .gif or a video.
    size: Height and width of the pictures, pixels.
    fps: Frames per second of the video.

  Raises:
    UserError: The file cannot be written.
  """
  import imageio_ffmpeg
  import mediapy

  # mjlab does the same on import, but importing it takes ten seconds.
  mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
  codec = "gif" if path.suffix.lower() == ".gif" else "h264"
  with (
    atomic_path(path) as temporary,
    mediapy.VideoWriter(temporary, size, fps=fps, codec=codec) as writer,
  ):
    yield writer


def facing(qpos: np.ndarray) -> np.ndarray:
  """Return the facing (...) of poses (..., 36), rad: the turn of the root about z."""
  return 2.0 * np.arctan2(qpos[..., 6], qpos[..., 3])


def direction(motion: np.ndarray) -> float:
  """Return the direction of travel of a motion (T, 36), rad about z.

  For a motion that stays in place it is the facing of the last pose.
  """
  x, y = motion[-1, :2] - motion[0, :2]
  if math.hypot(x, y) < MOVED:
    return float(facing(motion[-1]))
  return math.atan2(y, x)


def film_strip(
  rows: Sequence[np.ndarray],
  path: Path,
  labels: Sequence[str] = (),
  directions: Sequence[float] | None = None,
) -> None:
  """Write a PNG with one row of pictures per sequence of poses.

  Args:
    rows: Sequences (N, 36), preferably of one length.
    path: The file to write.
    labels: A caption for each row.
    directions: Direction of each row, rad about z, for the camera to stay on one side
      of it. None: the camera follows the facing of every pose.
  """
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  with OffscreenRenderer() as studio:
    strips = [
      np.concatenate([studio.picture(pose, side) for pose, side in seen], axis=1)
      for seen in (_sides(row, directions, i) for i, row in enumerate(rows))
    ]
  width = max(strip.shape[1] for strip in strips) / 100
  height = len(strips) * FRAME_SIZE[0] / 100
  figure, axes = plt.subplots(
    len(strips), 1, figsize=(width, height), squeeze=False, layout="constrained"
  )
  for i, strip in enumerate(strips):
    axis = axes[i, 0]
    axis.imshow(strip)
    axis.set_axis_off()
    if i < len(labels):
      axis.text(8, 24, labels[i], color="black", fontsize=13)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=80)
  plt.close(figure)


def _sides(
  row: np.ndarray, directions: Sequence[float] | None, index: int
) -> Iterator[tuple[np.ndarray, float]]:
  """Yield the poses of a row, each with the direction for the camera."""
  for pose in row:
    yield pose, float(facing(pose)) if directions is None else directions[index]


def video(motions: np.ndarray, path: Path, fps: float) -> None:
  """Write motions side by side as a video; the camera follows each.

  Args:
    motions: (N, T, 36).
    path: The file to write, .mp4 or .gif.
    fps: Frames per second of the motions; the video has one in `VIDEO_STRIDE` of them.

  Raises:
    UserError: There is no OpenGL library to render with, or the file cannot be written.
  """
  columns = min(len(motions), VIDEO_COLUMNS)
  size = (math.ceil(len(motions) / columns) * FRAME_SIZE[0], columns * FRAME_SIZE[1])
  with (
    OffscreenRenderer() as studio,
    open_video(path, size, fps / VIDEO_STRIDE) as writer,
  ):
    directions = [direction(motion) for motion in motions]
    for frame in range(0, motions.shape[1], VIDEO_STRIDE):
      canvas = np.full((*size, 3), 255, dtype=np.uint8)
      for i, motion in enumerate(motions):
        top, left = i // columns * FRAME_SIZE[0], i % columns * FRAME_SIZE[1]
        picture = studio.picture(motion[frame], directions[i])
        canvas[top : top + FRAME_SIZE[0], left : left + FRAME_SIZE[1]] = picture
      writer.add_image(canvas)
