"""Random damage of real motion, to measure how much of it the checks detect.

Each function takes the 36 columns of a file (root xyz, root quaternion xyzw, joints)
and returns them damaged, along with the origin of its rows. `change` measures by how
much the motion itself differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from smp.data.clip_kinematics import find_poses
from smp.motion.clips import Clip, resample
from smp.robots import g1

Generator = np.random.Generator
Table = np.ndarray


@dataclass(frozen=True)
class Damaged:
  """Damaged columns (T', 36), and the original row (T',) of each row."""

  table: Table
  source: np.ndarray


def table_of(clip: Clip) -> Table:
  """Return the columns (T, 36): root xyz, root quaternion xyzw, joint angles."""
  return np.concatenate(
    (clip.root_pos, clip.root_quat[:, [1, 2, 3, 0]], clip.joint_pos), axis=1
  )


def _same_rows(table: Table) -> Damaged:
  return Damaged(table, np.arange(len(table)))


def swap_joints(table: Table, rng: Generator) -> Damaged:
  """Swap two joints."""
  a, b = rng.choice(np.arange(7, 36), 2, replace=False)
  out = table.copy()
  out[:, [a, b]] = table[:, [b, a]]
  return _same_rows(out)


def swap_columns(table: Table, rng: Generator) -> Damaged:
  """Swap any two columns."""
  a, b = rng.choice(np.arange(36), 2, replace=False)
  out = table.copy()
  out[:, [a, b]] = table[:, [b, a]]
  return _same_rows(out)


def scale_column(table: Table, rng: Generator) -> Damaged:
  """Scale a column by 0.5 to 2, at least a fifth from 1."""
  factor = 2 ** (rng.choice((-1, 1)) * rng.uniform(np.log2(1.2), 1))
  out = table.copy()
  out[:, rng.integers(36)] *= factor
  return _same_rows(out)


def flip_column(table: Table, rng: Generator) -> Damaged:
  """Flip the sign of a joint."""
  out = table.copy()
  out[:, rng.integers(7, 36)] *= -1
  return _same_rows(out)


def shift_column(table: Table, rng: Generator) -> Damaged:
  """Shift a joint's angles by 0.2 to 0.6 rad."""
  out = table.copy()
  out[:, rng.integers(7, 36)] += rng.choice((-1, 1)) * rng.uniform(0.2, 0.6)
  return _same_rows(out)


def permute_joints(table: Table, rng: Generator) -> Damaged:
  """Permute three to all joints."""
  count = rng.integers(3, g1.NUM_JOINTS + 1)
  chosen = rng.choice(np.arange(7, 36), count, replace=False)
  out = table.copy()
  out[:, chosen] = table[:, np.roll(chosen, 1)]
  return _same_rows(out)


def exchange_sides(table: Table, rng: Generator) -> Damaged:
  """Swap left and right: legs, arms, or both."""
  part = (range(12), range(15, 29), range(29))[rng.integers(3)]
  out = table.copy()
  for j in part:
    out[:, 7 + j] = table[:, 7 + g1.MIRROR_INDEX[j]]
  return _same_rows(out)


def _taken(table: Table, source: np.ndarray) -> Damaged:
  return Damaged(table[source], source)


def drop_row(table: Table, rng: Generator) -> Damaged:
  """Remove one to three consecutive rows."""
  count, at = rng.integers(1, 4), rng.integers(10, len(table) - 20)
  return _taken(table, np.delete(np.arange(len(table)), np.arange(at, at + count)))


def drop_rows(table: Table, rng: Generator) -> Damaged:
  """Remove 1 to 20 % of all rows, or every second."""
  rows = np.arange(len(table))
  if rng.random() < 0.3:
    return _taken(table, rows[::2])
  return _taken(table, rows[rng.random(len(rows)) > rng.uniform(0.01, 0.2)])


def repeat_rows(table: Table, rng: Generator) -> Damaged:
  """Repeat one row, a stretch of rows, or some of all rows."""
  rows, kind = np.arange(len(table)), rng.integers(3)
  at = rng.integers(10, len(table) - 60)
  if kind == 0:
    return _taken(table, np.insert(rows, at, at))
  if kind == 1:
    stretch = rows[at : at + rng.integers(5, 50)]
    return _taken(table, np.insert(rows, at, stretch))
  return _taken(
    table, np.repeat(rows, 1 + (rng.random(len(rows)) < rng.uniform(0.02, 1)))
  )


def move_rows(table: Table, rng: Generator) -> Damaged:
  """Move a stretch of rows elsewhere in the file."""
  rows, size = np.arange(len(table)), rng.integers(3, len(table) // 4)
  at = rng.integers(0, len(table) - size)
  left = np.delete(rows, np.arange(at, at + size))
  return _taken(
    table, np.insert(left, rng.integers(1, len(left)), rows[at : at + size])
  )


def shift_rows(table: Table, rng: Generator) -> Damaged:
  """Delay joints, legs or the root by some rows."""
  part = (slice(7, 36), slice(7, 19), slice(0, 7), slice(0, 3))[rng.integers(4)]
  out = table.copy()
  late = rng.integers(3, 30)
  out[late:, part], out[:late, part] = table[:-late, part], table[0, part]
  return _same_rows(out)


def shift_cells(table: Table, rng: Generator) -> Damaged:
  """Shift some rows by one column."""
  at = rng.integers(0, len(table))
  out = table.copy()
  part = slice(at, at + rng.integers(1, 100))
  out[part] = np.roll(table[part], rng.choice((-1, 1)), axis=1)
  return _same_rows(out)


def units(table: Table, rng: Generator) -> Damaged:
  """Convert positions to cm, mm or inches, or joints to degrees."""
  out, kind = table.copy(), rng.integers(4)
  if kind == 3:
    out[:, 7:] = np.degrees(out[:, 7:])
  else:
    out[:, :3] *= (100.0, 1000.0, 39.37)[kind]
  return _same_rows(out)


def lift(table: Table, rng: Generator) -> Damaged:
  """Raise or lower everything by 7 cm to 1 m."""
  out = table.copy()
  out[:, 2] += rng.choice((-1, 1)) * rng.uniform(0.07, 1.0)
  return _same_rows(out)


def quaternion(table: Table, rng: Generator) -> Damaged:
  """Reorder, invert or scale the quaternion."""
  out, kind = table.copy(), rng.integers(3)
  if kind == 0:
    out[:, 3:7] = table[:, [6, 3, 4, 5]]
  elif kind == 1:
    out[:, 3:6] *= -1
  else:
    out[:, 3:7] *= rng.uniform(0.5, 2, (len(table), 1))
  return _same_rows(out)


def frame_rate(table: Table, rng: Generator) -> Damaged:
  """Replace the rows by rows at another rate, which are then read as 30 fps.

  60 to 120 fps by cubic splines, or 15 to 10 fps.
  """
  times = int(rng.integers(2, 5))
  if rng.random() < 0.3:
    return _taken(table, np.arange(len(table))[:: min(times, 3)])
  source = np.arange(len(table)) / times
  out = CubicSpline(np.arange(len(table)), table)(source)
  out[:, 3:7] /= np.linalg.norm(out[:, 3:7], axis=1, keepdims=True)
  return Damaged(out, source.astype(int))


DAMAGE: dict[str, Callable[[Table, Generator], Damaged]] = {
  function.__name__: function
  for function in (
    swap_joints,
    swap_columns,
    permute_joints,
    exchange_sides,
    scale_column,
    flip_column,
    shift_column,
    drop_row,
    drop_rows,
    repeat_rows,
    move_rows,
    shift_rows,
    shift_cells,
    units,
    lift,
    quaternion,
    frame_rate,
  )
}


# Difference between motions.


def _links(table: Table) -> np.ndarray:
  quat = table[:, [6, 3, 4, 5]]
  quat = quat / np.maximum(np.linalg.norm(quat, axis=1, keepdims=True), 1e-9)
  return find_poses(table[:, :3], quat, table[:, 7:]).links


def _offs(links: np.ndarray, source: np.ndarray, true: np.ndarray) -> float:
  """Return the maximum deviation over the rows, m, RMS over bodies.

  The larger one of the deviation of positions, and of their change in 0.1 s.
  """
  where = np.sqrt(((links - true[source]) ** 2).sum(axis=2).mean(axis=1))
  true_step = np.gradient(true, axis=0)[source]
  step = np.gradient(links, axis=0)
  moves = 3 * np.sqrt(((step - true_step) ** 2).sum(axis=2).mean(axis=1))
  return float(max(where.max(), moves.max()))


def change(clip: Clip, damaged: Damaged) -> float:
  """Return the deviation of a damaged motion from the true one, m, worst row."""
  if not np.array_equal(
    np.linalg.norm(damaged.table[:, 3:7], axis=1) > 0.5, [True] * len(damaged.table)
  ):
    return np.inf
  return _offs(_links(damaged.table), damaged.source, _links(table_of(clip)))


def resampling_change(clip: Clip) -> float:
  """Return the deviation, m, of a clip resampled to 20 fps and back.

  This is the effect of resampling alone, measured as in `change`.
  """
  there = resample(clip, clip.fps / 1.5, "linear")
  back = resample(there, clip.fps, "linear")
  return _offs(_links(table_of(back)), np.arange(len(back)), _links(table_of(clip)))
