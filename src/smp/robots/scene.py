"""Scene of the robot on a floor, for rendering."""

from __future__ import annotations

import mujoco

from smp.robots import g1

FRAME_SIZE = (260, 240)
"""Height and width of one picture, pixels; even, as video formats require."""


def scene_model() -> mujoco.MjModel:
  """Return the compiled model of `scene_spec`."""
  return scene_spec().compile()


def scene_spec() -> mujoco.MjSpec:
  """Return the robot with visual meshes, on a chequered floor, under a bright sky."""
  spec = mujoco.MjSpec.from_file(str(g1.model_path()))
  spec.add_texture(
    name="sky",
    type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
    builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
    rgb1=[0.93, 0.95, 0.97],
    rgb2=[0.80, 0.84, 0.88],
    width=64,
    height=64,
  )
  spec.add_texture(
    name="chequers",
    type=mujoco.mjtTexture.mjTEXTURE_2D,
    builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
    rgb1=[0.42, 0.46, 0.50],
    rgb2=[0.36, 0.39, 0.43],
    width=128,
    height=128,
  )
  floor = spec.add_material(name="floor", texrepeat=[2, 2], texuniform=True)
  floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "chequers"
  spec.worldbody.add_geom(
    name=g1.FLOOR,
    type=mujoco.mjtGeom.mjGEOM_PLANE,
    size=[0.0, 0.0, 1.0],
    material="floor",
  )
  # The light follows the robot, because a motion may go far.
  spec.body(g1.ROOT_BODY).add_light(
    pos=[0, 0, 4],
    dir=[0, 0, -1],
    type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
    mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACK,
    # Shadows double the time of a picture where there is no GPU.
    castshadow=False,
  )
  spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
  spec.visual.headlight.diffuse = [0.4, 0.4, 0.4]
  height, width = FRAME_SIZE
  spec.visual.global_.offheight, spec.visual.global_.offwidth = height, width
  return spec
