"""Fallen states: robots on the ground, simulated by dropping them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import mujoco
import numpy as np

from smp.motion.mirror import mirror_qpos
from smp.motion.pose_classes import StartPose, start_pose
from smp.robots import g1

FALLEN_POSES: tuple[StartPose, ...] = ("prone", "supine", "left", "right")
"""Poses to fall into; ``left`` lies on the left side."""

DROP_HEIGHT = (0.5, 0.8)
"""Range of the pelvis height at the drop, m."""
DROP_S = 2.0
"""Simulated time to fall and come to rest, s."""
TIMESTEP = 0.005
STIFFNESS, DAMPING = 20.0, 2.0
"""Stiffness (Nm/rad) and damping (Nms/rad) of the joints: stiff enough for some robots
to stay on a side, soft enough for limbs to give way."""
JOINT_SPREAD = 0.35
"""Standard deviation of the joint angles that the springs hold, rad."""
TILT_SPREAD = 0.25
"""Standard deviation of the tilt away from the intended pose, rad."""
MAX_JOINT_SPEED, MAX_ROOT_SPEED = 1.0, 0.1
"""Maximum speeds of a robot at rest, rad/s and m/s."""
MAX_OVERLAP = 0.01
"""Maximum penetration of two parts of the robot in soft contact, m."""
MAX_DROPS = 100
"""Maximum drops per wanted state; every fourth to tenth robot stays on its side."""


class FallenStates(NamedTuple):
  """Windows of motion of robots that lie on the ground."""

  qpos: np.ndarray
  """(N, W, 36): root xyz (m), root wxyz, joint angles (rad)."""
  pose: np.ndarray
  """(N,) index into ``FALLEN_POSES`` of the final pose."""


def sample_fallen_states(
  per_pose: int, window: int, fps: float, seed: int = 0
) -> FallenStates:
  """Return ``per_pose`` windows of robots at rest for each pose of ``FALLEN_POSES``.

  A robot with random joint angles, held by soft springs, is dropped in the orientation
  of the pose. It counts for the pose in which it comes to rest, and its mirror image
  counts too. The windows are the last frames of the simulation, and the same for the
  same seed.

  Raises:
    RuntimeError: a pose does not occur, which would mean that the model has changed.
  """
  found: list[list[np.ndarray]] = [[] for _ in FALLEN_POSES]
  with _workers(window, fps) as run:
    for number in range(MAX_DROPS * per_pose):
      wanted = [i for i, falls in enumerate(found) if len(falls) < per_pose]
      if not wanted:
        break
      # The batch size is fixed, so that the result is the same on any machine.
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
"""Index of the mirrored pose: left and right are swapped."""
Drop = tuple[int | None, np.ndarray]


class _workers:
  """Context that simulates drops on all cores.

  Entering it returns a function of poses and seeds that yields the drops in order.
  MuJoCo's step releases the interpreter lock, so threads suffice.
  """

  def __init__(self, window: int, fps: float) -> None:
    self._window, self._every = window, round(1.0 / (fps * TIMESTEP))
    self._model = _soft_model()

  def __enter__(self) -> Callable[[Sequence[int], Sequence], Iterator[Drop]]:
    self._pool = ThreadPoolExecutor(os.cpu_count())
    return lambda kinds, seeds: self._pool.map(self._drop, kinds, seeds)

  def __exit__(self, *_) -> None:
    self._pool.shutdown()

  def _drop(self, pose: int, seed: tuple[int, ...]) -> Drop:
    """Return the final pose of one drop, and its window (W, 36).

    The pose is None if the robot is not at rest, or in none of the poses.
    """
    model, data = self._model, mujoco.MjData(self._model)
    rng = np.random.default_rng(seed)
    data.qpos[:] = _drop_pose(FALLEN_POSES[pose], rng)
    hold = data.qpos[7:].copy()
    frames = np.empty((self._window, model.nq))
    steps = round(DROP_S / TIMESTEP)
    for step in range(steps):
      data.qfrc_applied[6:] = STIFFNESS * (hold - data.qpos[7:])
      mujoco.mj_step(model, data)
      # Record the last W frames at the frame rate of the window, the newest at the end.
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
  """Return a pose (36,) above the floor, oriented towards the intended pose."""
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
  """Return the penetration of soft contacts with floor and robot, m."""
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
