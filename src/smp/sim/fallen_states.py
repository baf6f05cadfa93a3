"""Robots on the ground, made by dropping them: no clip and no prior has seen them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import mujoco
import numpy as np

from smp.data.select_getups import StartPose, start_pose
from smp.motion.mirror import mirror_qpos
from smp.robots import g1

FALLEN_POSES: tuple[StartPose, ...] = ("prone", "supine", "left", "right")
"""``left`` lies on the left side."""

DROP_HEIGHT = (0.5, 0.8)
"""Of the pelvis, m."""
DROP_S = 2.0
"""Time to fall and come to rest, s."""
TIMESTEP = 0.005
STIFFNESS, DAMPING = 20.0, 2.0
"""The joints' springs (Nm/rad) and dampers (Nms/rad): stiff enough for some to stay on
a side, soft enough for limbs to give way."""
JOINT_SPREAD = 0.35
"""Standard deviation of the joint angles the springs hold, rad."""
TILT_SPREAD = 0.25
"""Standard deviation of the tilt away from the intended pose, rad."""
MAX_JOINT_SPEED, MAX_ROOT_SPEED = 1.0, 0.1
"""At rest: rad/s and m/s."""
MAX_OVERLAP = 0.01
"""How deep soft contacts may press parts of the robot into each other, m."""
MAX_DROPS = 100
"""Drops per wanted fall before giving up; on a side every fourth to tenth stays."""


class FallenStates(NamedTuple):
  """Windows of robots that lie on the ground."""

  qpos: np.ndarray
  """(N, W, 36): root xyz (m), root wxyz, joint angles (rad)."""
  pose: np.ndarray
  """(N,) index into ``FALLEN_POSES`` of what they came to lie as."""


def sample_fallen_states(
  per_pose: int, window: int, fps: float, seed: int = 0
) -> FallenStates:
  """``per_pose`` windows of robots at rest for each pose of ``FALLEN_POSES``.

  A robot with random joint angles, held by soft springs, is dropped in the direction of
  the pose. What it has rolled into when it is at rest is what counts, and its mirror
  image counts too. The windows are the last frames of the simulation, and the same for
  the same seed.

  Raises:
    RuntimeError: a pose does not come about, which a change of the model would explain.
  """
  found: list[list[np.ndarray]] = [[] for _ in FALLEN_POSES]
  with _workers(window, fps) as run:
    for number in range(MAX_DROPS * per_pose):
      wanted = [i for i, falls in enumerate(found) if len(falls) < per_pose]
      if not wanted:
        break
      # A fixed number at a time, so that the result is the same on any machine.
      kinds = [wanted[i % len(wanted)] for i in range(_BATCH)]
      seeds = [(seed, number, i) for i in range(_BATCH)]
      for pose, qpos in run(kinds, seeds):
        if pose is not None:
          found[pose].append(qpos)
          found[_MIRRORED[pose]].append(mirror_qpos(qpos))
  for name, falls in zip(FALLEN_POSES, found, strict=True):
    if len(falls) < per_pose:
      raise RuntimeError(f"dropped robots do not come to rest {name}")
    del falls[per_pose:]
  return FallenStates(
    np.stack([qpos for falls in found for qpos in falls]),
    np.repeat(np.arange(len(FALLEN_POSES)), per_pose),
  )


_BATCH = 16
_MIRRORED = (0, 1, 3, 2)
"""The pose in the mirror: left and right change places."""
Drop = tuple[int | None, np.ndarray]


class _workers:
  """Drops on all cores: MuJoCo's step releases the interpreter lock."""

  def __init__(self, window: int, fps: float) -> None:
    self._window, self._every = window, round(1.0 / (fps * TIMESTEP))
    self._model = _soft_model()

  def __enter__(self) -> Callable[[Sequence[int], Sequence], Iterator[Drop]]:
    self._pool = ThreadPoolExecutor(os.cpu_count())
    return lambda kinds, seeds: self._pool.map(self._drop, kinds, seeds)

  def __exit__(self, *_) -> None:
    self._pool.shutdown()

  def _drop(self, pose: int, seed: tuple[int, ...]) -> Drop:
    """One drop: the pose it ends in (None: not at rest, or none), and its window."""
    model, data = self._model, mujoco.MjData(self._model)
    rng = np.random.default_rng(seed)
    data.qpos[:] = _drop_pose(FALLEN_POSES[pose], rng)
    hold = data.qpos[7:].copy()
    frames = np.empty((self._window, model.nq))
    steps = round(DROP_S / TIMESTEP)
    for step in range(steps):
      data.qfrc_applied[6:] = STIFFNESS * (hold - data.qpos[7:])
      mujoco.mj_step(model, data)
      left = steps - 1 - step
      if left % self._every == 0 and left // self._every < self._window:
        frames[self._window - 1 - left // self._every] = data.qpos
    mujoco.mj_forward(model, data)
    in_floor, in_itself = _overlap(model, data)
    frames[:, 2] += in_floor
    return (None if in_itself > MAX_OVERLAP else _pose_at_rest(model, data)), frames


def _soft_model() -> mujoco.MjModel:
  model = copy.copy(g1.load_model(floor=True))
  model.opt.timestep = TIMESTEP
  model.dof_damping[6:] = DAMPING
  return model


def _drop_pose(pose: StartPose, rng: np.random.Generator) -> np.ndarray:
  """A configuration (36,) above the floor that faces the way it shall come to lie."""
  turns = {
    "prone": (0.0, np.pi / 2, 0.0),
    "supine": (0.0, -np.pi / 2, 0.0),
    "left": (-np.pi / 2, 0.0, 0.0),
    "right": (np.pi / 2, 0.0, 0.0),
  }
  base, tilt, quat = np.empty(4), np.empty(4), np.empty(4)
  mujoco.mju_axisAngle2Quat(base, *_axis_angle(np.array(turns[pose])))
  mujoco.mju_axisAngle2Quat(tilt, *_axis_angle(rng.normal(0.0, TILT_SPREAD, 3)))
  mujoco.mju_mulQuat(quat, tilt, base)
  limits = g1.load_model().jnt_range[1:]
  joints = rng.normal(0.0, JOINT_SPREAD, g1.NUM_JOINTS)
  joints = joints.clip(limits[:, 0], limits[:, 1])
  return np.concatenate(([0.0, 0.0, rng.uniform(*DROP_HEIGHT)], quat, joints))


def _axis_angle(rotation_vector: np.ndarray) -> tuple[np.ndarray, float]:
  angle = float(np.linalg.norm(rotation_vector))
  return rotation_vector / max(angle, 1e-12), angle


def _overlap(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, float]:
  """How deep soft contacts let the robot sink into the floor and into itself, m."""
  on_floor = (data.contact.geom == model.geom(g1.FLOOR).id).any(axis=1)
  depth = -data.contact.dist
  return float(depth[on_floor].max(initial=0.0)), float(
    depth[~on_floor].max(initial=0.0)
  )


def _pose_at_rest(model: mujoco.MjModel, data: mujoco.MjData) -> int | None:
  if np.abs(data.qvel[6:]).max() > MAX_JOINT_SPEED:
    return None
  if np.linalg.norm(data.qvel[:3]) > MAX_ROOT_SPEED:
    return None
  pose = start_pose(data.body(g1.HEAD_BODY).xmat.reshape(3, 3)[2])
  return FALLEN_POSES.index(pose) if pose in FALLEN_POSES else None
