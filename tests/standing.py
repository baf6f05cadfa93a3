"""A motion that no one recorded and that the checks have nothing against."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from smp.data.clip_kinematics import find_poses
from smp.motion.clips import Clip
from smp.robots import g1


def standing_clip(frames: int = 36, fps: float = 30.0, yaw: float = 0.3) -> Clip:
  """A robot that bends its knees and swings its arms, its feet on the floor.

  Shorter than what figures are compared of: motion made up is unlike real motion.
  """
  t = np.arange(frames)[:, None] / fps
  joints = np.zeros((frames, g1.NUM_JOINTS))
  bend = 0.3 + 0.2 * np.sin(2 * t[:, 0])
  for side in ("left", "right"):
    joints[:, g1.JOINT_NAMES.index(f"{side}_hip_pitch_joint")] = -bend
    joints[:, g1.JOINT_NAMES.index(f"{side}_knee_joint")] = 2 * bend
    joints[:, g1.JOINT_NAMES.index(f"{side}_ankle_pitch_joint")] = -bend
  arms = np.arange(15, 29)
  joints[:, arms] = 0.2 * np.sin(3 * t + arms)
  quat = Rotation.from_euler("z", np.full(frames, yaw)).as_quat()[:, [3, 0, 1, 2]]
  pos = np.concatenate(
    (0.1 * np.sin(t), 0.1 * np.cos(t), np.full_like(t, 0.75)), axis=1
  )
  pos[:, 2] -= find_poses(pos, quat, joints).foot_height
  return Clip("standing", fps, pos, quat, joints)


def table(clip: Clip) -> np.ndarray:
  """(T, 36) as a plain file has it."""
  quat = clip.root_quat[:, [1, 2, 3, 0]]
  return np.concatenate((clip.root_pos, quat, clip.joint_pos), axis=1)


def text(values: np.ndarray, separator: str = ",", heading: str = "") -> str:
  lines = [separator.join(f"{v:.8f}" for v in row) for row in values]
  return heading + "\n".join(lines) + "\n"
