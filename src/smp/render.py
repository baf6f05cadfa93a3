"""Pictures of poses, rendered without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from smp import g1
from smp.errors import UserError, atomic_path

FRAME_SIZE = (260, 180)
"""Height and width of one picture, pixels."""


def render_poses(qpos: np.ndarray, azimuth: float = 60.0) -> list[np.ndarray]:
  """Pictures (H, W, 3), uint8, of poses (N, 36), each seen from its own front left.

  Raises:
    UserError: no OpenGL library to render with.
  """
  model = _scene()
  height, width = FRAME_SIZE
  try:
    renderer = mujoco.Renderer(model, height, width)
  except Exception as error:
    raise UserError(
      f"cannot render ({type(error).__name__}): install libEGL or libOSMesa, or set "
      "MUJOCO_GL"
    ) from error
  data, camera = mujoco.MjData(model), mujoco.MjvCamera()
  camera.distance, camera.elevation = 2.4, -8.0
  pictures = []
  for pose in qpos:
    data.qpos[:] = pose
    mujoco.mj_forward(model, data)
    w, z = pose[3], pose[6]
    camera.lookat[:] = (pose[0], pose[1], 0.7)
    camera.azimuth = np.degrees(2 * np.arctan2(z, w)) + 180.0 - azimuth
    renderer.update_scene(data, camera)
    pictures.append(renderer.render())
  renderer.close()
  return pictures


def film_strip(
  rows: Sequence[np.ndarray], path: Path, labels: Sequence[str] = ()
) -> None:
  """Write a PNG with one row of pictures per sequence of poses.

  Args:
    rows: Each (N, 36); all of one length look best.
    path: The file to write.
    labels: A caption for each row.
  """
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  strips = [np.concatenate(render_poses(row), axis=1) for row in rows]
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
      axis.text(8, 24, labels[i], color="white", fontsize=13)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=80)
  plt.close(figure)


def _scene() -> mujoco.MjModel:
  """The robot with its visual meshes, on a plane, lit from above."""
  spec = mujoco.MjSpec.from_file(str(g1.model_path()))
  spec.worldbody.add_geom(
    type=mujoco.mjtGeom.mjGEOM_PLANE, size=[50, 50, 0.1], rgba=[0.35, 0.38, 0.42, 1]
  )
  spec.worldbody.add_light(pos=[0, 0, 6], dir=[0, 0, -1], castshadow=False)
  spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
  spec.visual.headlight.diffuse = [0.5, 0.5, 0.5]
  height, width = FRAME_SIZE
  spec.visual.global_.offheight, spec.visual.global_.offwidth = height, width
  return spec.compile()
