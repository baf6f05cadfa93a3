"""Kinematics of a clip, row by row: feet, heights, speeds, contacts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smp.robots import g1

FEET = ("left_ankle_roll_link", "right_ankle_roll_link")
SOLE = ((-0.054, 0.0), (0.132, 0.0), (0.075, -0.05), (0.075, 0.05))
"""Heel, toe and both sides of the sole: x and y in the frame of a foot of `FEET`, m."""
SOLE_Z = -0.035
"""Height of the sole in that frame, m: the lowest points of the foot's collision
shapes."""
LINKS = (
  "pelvis",
  "left_knee_link",
  "right_knee_link",
  *g1.EE_BODY_NAMES,
  "left_elbow_link",
  "right_elbow_link",
)
"""Bodies whose motion represents that of the whole robot."""
CONTACT = 0.02
"""Maximum height of a sole that stands on the floor, m."""
_CHUNK = 4000
"""Rows per pass, so that the intermediate arrays fit into the processor's cache."""


@dataclass(frozen=True)
class Poses:
  """Positions of parts of the robot in each row (T,), m, in the world."""

  links: np.ndarray
  """(T, 10, 3) positions of `LINKS`."""
  soles: np.ndarray
  """(T, 2, 4, 3) points of both soles."""
  sole_up: np.ndarray
  """(T, 2): z component of each foot's own vertical axis; 1: flat."""
  lowest: np.ndarray
  """(T,): height of the lowest body origin or point of a sole."""
  up: np.ndarray
  """(T, 3): the world's vertical in the pelvis' frame; z is 1 upright, -1 head down."""

  @functools.cached_property
  def sole_height(self) -> np.ndarray:
    """Return the height of the lowest point of each sole (T, 2)."""
    return self.soles[..., 2].min(axis=2)

  @functools.cached_property
  def foot_height(self) -> np.ndarray:
    """Return the height of the lowest point of both soles (T,)."""
    return self.sole_height.min(axis=1)

  def skate(self, fps: float) -> np.ndarray:
    """Return the horizontal speed of soles on the floor, m/s.

    One number for each sole in each row in which it stands on the floor.
    """
    center = self.soles[..., :2].mean(axis=2)
    speed = np.linalg.norm(np.diff(center, axis=0), axis=-1) * fps
    low = np.abs(self.sole_height) < CONTACT
    return speed[low[1:] & low[:-1]]


Parts = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class _Body:
  """A body of the robot's tree: its pose in its parent, and its hinge."""

  parent: int
  offset: tuple[float, float, float]
  turned: tuple[float, float, float, float]
  axis: tuple[float, float, float]


@functools.cache
def _tree() -> tuple[tuple[_Body, ...], list[int], list[int]]:
  """Return the bodies, the root being 0, and the indices of `LINKS` and `FEET`."""
  model = g1.load_model()
  bodies = tuple(
    _Body(
      int(model.body_parentid[b]) - 1,
      tuple(model.body_pos[b].tolist()),
      tuple(model.body_quat[b].tolist()),
      tuple(model.jnt_axis[b - 1].tolist()),
    )
    for b in range(2, model.nbody)
  )
  names = [model.body(b).name for b in range(1, model.nbody)]
  return bodies, [names.index(n) for n in LINKS], [names.index(n) for n in FEET]


def _walk(root_pos: Parts, root_quat: Parts, joints: Parts) -> tuple[list, list]:
  """Return positions and orientations of all bodies, as tuples of components (T,).

  It does the same as `Kinematics`, which is made for devices and gradients; working on
  components takes a CPU a fifth of the time.
  """
  pos, quat = [root_pos], [root_quat]
  axes: dict[int, tuple[Parts, Parts, Parts]] = {}
  for joint, body in enumerate(_tree()[0]):
    parent = body.parent
    if parent not in axes:
      axes[parent] = _axes(quat[parent])
    place = tuple(
      _moved(p, body.offset, [axis[i] for axis in axes[parent]])
      for i, p in enumerate(pos[parent])
    )
    # Parent's orientation, then the fixed rotation of the body, then its hinge.
    half = 0.5 * joints[joint]
    turned = quat[parent]
    if body.turned != (1.0, 0.0, 0.0, 0.0):
      turned = _times(turned, body.turned)
    sine = np.sin(half)
    hinge = (np.cos(half), *(a * sine if a else 0.0 for a in body.axis))
    pos.append(place)
    quat.append(_times(turned, hinge))
  return pos, quat


def _moved(
  start: np.ndarray, offset: Sequence[float], axes: Sequence[np.ndarray]
) -> np.ndarray:
  """Return a component of a position, moved by an offset along axes."""
  out = start.copy()
  for share, axis in zip(offset, axes, strict=True):
    if share:
      out += share * axis
  return out


def _times(a: Parts, b: Sequence[np.ndarray | float]) -> Parts:
  """Return the product of quaternions a b; zero components of b cost nothing."""

  def total(*terms: tuple[int, int, int]) -> np.ndarray:
    """Return a sum of signed products of components, given as (sign, i, j)."""
    out: np.ndarray | None = None
    for sign, i, j in terms:
      part = b[j]
      if isinstance(part, float) and part == 0.0:
        continue
      term = a[i] * part
      if out is None:
        out = term if sign > 0 else -term
      elif sign > 0:
        out += term
      else:
        out -= term
    assert out is not None
    return out

  return (
    total((1, 0, 0), (-1, 1, 1), (-1, 2, 2), (-1, 3, 3)),
    total((1, 0, 1), (1, 1, 0), (1, 2, 3), (-1, 3, 2)),
    total((1, 0, 2), (-1, 1, 3), (1, 2, 0), (1, 3, 1)),
    total((1, 0, 3), (1, 1, 2), (-1, 2, 1), (1, 3, 0)),
  )


def _axes(quat: Parts) -> tuple[Parts, Parts, Parts]:
  """Return the x, y and z axes of orientations, the columns of their matrices."""
  w, x, y, z = quat
  x2, y2, z2 = 2 * x, 2 * y, 2 * z
  xx, yy, zz = x * x2, y * y2, z * z2
  xy, xz, yz, wx, wy, wz = x * y2, x * z2, y * z2, w * x2, w * y2, w * z2
  return (
    (1 - yy - zz, xy + wz, xz - wy),
    (xy - wz, 1 - xx - zz, yz + wx),
    (xz + wy, yz - wx, 1 - xx - yy),
  )


def find_poses(
  root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray
) -> Poses:
  """Return the poses of a motion.

  Args:
    root_pos: (T, 3), m.
    root_quat: (T, 4), wxyz, unit length.
    joint_pos: (T, 29), rad.
  """
  parts = [
    _some_poses(
      *(part[start : start + _CHUNK] for part in (root_pos, root_quat, joint_pos))
    )
    for start in range(0, max(len(root_pos), 1), _CHUNK)
  ]
  return Poses(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def find_bodies(
  root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray
) -> np.ndarray:
  """Return the positions of all bodies (T, 30, 3), m; arguments as for `find_poses`."""
  origin = root_pos[:1] * (1.0, 1.0, 0.0)
  args = (root_pos - origin, root_quat, joint_pos)
  pos, _ = _walk(*(tuple(np.ascontiguousarray(a.T, np.float32)) for a in args))
  return np.stack([np.stack(p, axis=-1) for p in pos], axis=1) + origin[:, None]


def body_names() -> list[str]:
  """Return the names of the bodies of `find_bodies`."""
  model = g1.load_model()
  return [model.body(b).name for b in range(1, model.nbody)]


def _some_poses(
  root_pos: np.ndarray, root_quat: np.ndarray, joint_pos: np.ndarray
) -> tuple[np.ndarray, ...]:
  _, links, feet = _tree()
  # A clip may be far from the origin, where float32 is imprecise: shift it first.
  origin = np.zeros(3) if not len(root_pos) else np.array([*root_pos[0, :2], 0.0])
  args = (root_pos - origin, root_quat, joint_pos)
  pos, quat = _walk(*(tuple(np.ascontiguousarray(a.T, np.float32)) for a in args))
  lowest = np.minimum.reduce([p[2] for p in pos])
  soles, tilts = [], []
  for foot in feet:
    # Points of the sole, given in the frame of the foot, in the world.
    ex, ey, ez = _axes(quat[foot])
    points = [
      np.stack(
        [
          p + SOLE_Z * z + sx * x + sy * y
          for p, x, y, z in zip(pos[foot], ex, ey, ez, strict=True)
        ],
        axis=-1,
      )
      for sx, sy in SOLE
    ]
    soles.append(np.stack(points, axis=1))
    tilts.append(ez[2])
  sole = np.stack(soles, axis=1)
  lowest = np.minimum(lowest, sole[..., 2].min(axis=(1, 2)))
  origin = origin.astype(np.float32)
  link = np.stack([np.stack(pos[b], axis=-1) for b in links], axis=1)
  return (
    link + origin,
    sole + origin,
    np.stack(tilts, axis=1),
    lowest,
    vertical(root_quat),
  )


def vertical(quat: np.ndarray) -> np.ndarray:
  """Return the world's vertical (T, 3) in the frames of orientations (T, 4), wxyz."""
  w, x, y, z = quat.T
  up = (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))
  return np.stack(up, axis=1)
