"""Statistics that distinguish motion of this robot from motion with columns swapped.

A file whose columns are swapped, scaled or negated still holds smooth, possible motion.
The correlations of joints reveal the damage: a Gaussian over the pose (joint angles,
direction of gravity, height of the pelvis) and one over its rates, fitted to the 36
LAFAN1 clips, show which swap of columns would make a motion more likely. Real motion is
most likely as it is. `signature` computes such statistics; `Familiar` holds the models
and, for motions of several lengths, the range of each statistic over the real clips.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smp.data.clip_kinematics import CONTACT, Poses
from smp.errors import UserError
from smp.paths import DATASETS
from smp.robots import g1
from smp.utils.files import save_arrays

FAMILIAR = DATASETS / "familiar.npz"
RATE = 30.0
"""Rows per second at which statistics are computed, the rate of LAFAN1."""
LENGTHS = (40, 90, 300, 900, 3000)
"""Minimum lengths, in rows, for which there are ranges of the statistics."""
MARGINS = {
  **{"swap": 0.4, "flip": 0.4, "sides": 0.4, "scale": 0.3, "offset": 0.4},
  **{"frequency": 0.25, "root_frequency": 0.5, "carried_x": 0.3, "carried_y": 0.3},
  **{"speed": 0.5, "low": 0.6, "middle": 0.6, "high": 0.6, "joint_frequency": 0.6},
}
MARGIN = 1.0
"""Margin of the statistics that `MARGINS` does not name. A range extends beyond the real
clips by this multiple of the distance between their median and their extreme: more for
statistics in which other motion may well differ, less for swaps of columns."""
EXCHANGES = ("swap", "flip", "sides")
"""Kinds of statistics for the likelihood lost by a swap; only low values are odd."""
REGULARISATION = 1e-2
JOINTS = tuple(name.removesuffix("_joint") for name in g1.JOINT_NAMES)
PAIRS = tuple((j, k) for j in range(g1.NUM_JOINTS) for k in range(j + 1, g1.NUM_JOINTS))
STANDING_HEIGHT, STANDING_UP = 0.55, 0.7
"""Minimum pelvis height, m, and minimum z of its vertical axis, of a standing robot."""
_MIN_SPEED = 0.3
"""Minimum speed of a foot, m/s, for its ratio to the root's speed to be used."""
_FEW = 1000
"""Approximate number of rows that a quantile is computed from."""
_MIN_ROWS = 30
"""Minimum number of rows for a statistic."""


@dataclass(frozen=True)
class Gaussian:
  """A normal distribution of D numbers."""

  mean: np.ndarray
  """(D,)"""
  precision: np.ndarray
  """(D, D): the inverse covariance."""


@dataclass(frozen=True)
class Statistic:
  """Description of one number of a signature."""

  kind: str
  joints: tuple[int, ...] = ()


def _figures() -> tuple[Statistic, ...]:
  joints = range(g1.NUM_JOINTS)
  single = ("frequency", "joint_speed", "rarity", "rate_rarity", "root_frequency")
  floor = [f"foot_height_{q}" for q in (5, 25, 50, 75, 95)]
  feet = ["sole_tilt_50", "sole_tilt_10", "skate_50", "skate_75", "stance"]
  feet += ["carried_x", "carried_y", "carried_off"]
  per_joint = "low middle high speed joint_frequency scale flip offset".split()
  return (
    *(Statistic(name) for name in (*single, *floor, *feet)),
    *(Statistic(name, (j,)) for name in per_joint for j in joints),
    *(Statistic("swap", pair) for pair in PAIRS),
    *(Statistic("sides", part) for part in SIDES),
  )


_LEGS, _ARMS = tuple(range(12)), tuple(range(15, 29))
SIDES = (_LEGS, _ARMS, (*_LEGS, *_ARMS))
"""Groups of joints whose left and right may be swapped."""
STATISTICS = _figures()


def pose_numbers(
  root_pos: np.ndarray, up: np.ndarray, joint_pos: np.ndarray
) -> np.ndarray:
  """Return the numbers of a pose (T, 33).

  Joint angles, the vertical in the pelvis' frame, the pelvis' height.
  """
  return np.concatenate((joint_pos, up, root_pos[:, 2:3]), axis=1)


def fit(numbers: list[np.ndarray]) -> Gaussian:
  """Return a Gaussian over rows (T, D) of several motions, each of the same weight."""
  mean = np.mean([part.mean(axis=0) for part in numbers], axis=0)
  square = np.mean([_square(part) for part in numbers], axis=0)
  covariance = square - np.outer(mean, mean)
  covariance += np.diag(REGULARISATION * np.diag(covariance))
  return Gaussian(mean, np.linalg.inv(covariance))


def _square(numbers: np.ndarray) -> np.ndarray:
  """Return E[x x'] (D, D) over rows (T, D).

  The sum is split into parts so small that BLAS computes each in one thread: for larger
  ones its threads wait for each other for longer than the sum takes.
  """
  whole = len(numbers) // _PART * _PART
  parts = numbers[:whole].reshape(-1, _PART, numbers.shape[1])
  rest = numbers[whole:]
  total = (parts.swapaxes(1, 2) @ parts).sum(axis=0) + rest.T @ rest
  return total / len(numbers)


_PART = 200


# Statistics of a motion.


@dataclass(frozen=True)
class _Fit:
  """Moments of a motion under a Gaussian, sufficient for all its statistics.

  With x a row and y = P (x - mean): E[x y] (D, D), E[x x] (D, D), E[y] (D,).

  The negative log likelihood of a row is (x - mean)' P (x - mean) / 2 plus a constant.
  The methods return by how much its mean changes when entries of x are swapped or
  negated.
  """

  xy: np.ndarray
  xx: np.ndarray
  y: np.ndarray
  precision: np.ndarray
  rarity: float

  @staticmethod
  def of(numbers: np.ndarray, model: Gaussian) -> _Fit:
    """Return the moments of rows (T, D) under a Gaussian."""
    mean, square = numbers.mean(axis=0), _square(numbers)
    centred = square - np.outer(mean, model.mean)
    xy = centred @ model.precision
    y = model.precision @ (mean - model.mean)
    rarity = 0.5 * float(np.trace(xy) - model.mean @ y)
    return _Fit(xy, square, y, model.precision, rarity)

  def swaps(self) -> np.ndarray:
    """Return the loss of log likelihood (J, J) by the swap of each pair of joints."""
    # Swapping joints i and j adds d = (x_j - x_i) (e_i - e_j) to x. The change of the
    # quadratic form is d' y plus d' P d / 2; below are the expectations of the two.
    part = slice(0, g1.NUM_JOINTS)
    a, own = self.xy[part, part], np.diag(self.xy)[part]
    linear = a.T + a - own[:, None] - own[None]
    return linear + 0.5 * _difference(self.xx) * _difference(self.precision)

  def flips(self) -> np.ndarray:
    """Return the loss of log likelihood (J,) by negating each joint."""
    # Negating joint j adds d = -2 x_j e_j to x: d' y + d' P d / 2, as in `swaps`.
    part = slice(0, g1.NUM_JOINTS)
    square = np.diag(self.xx) * np.diag(self.precision)
    return (2 * square - 2 * np.diag(self.xy))[part]

  def sides(self, joints: tuple[int, ...]) -> float:
    """Return the loss of log likelihood by swapping left and right of joints."""
    order = np.arange(len(self.xx))
    order[list(joints)] = [g1.MIRROR_INDEX[j] for j in joints]
    # The quadratic term tr(P E[x x']) before and after the swap; terms without x do not
    # change.
    before = np.sum(self.precision * self.xx)
    after = np.sum(self.precision * self.xx[np.ix_(order, order)])
    # The linear term E[x'] P mean before and after: E[x] (P mean)' = E[x x'] P - E[x
    # y'].
    drift = self.xx @ self.precision - self.xy
    linear_before, linear_after = np.trace(drift), _turned_trace(drift, order)
    return 0.5 * float(after - before) - float(linear_after - linear_before)


def _turned_trace(matrix: np.ndarray, order: np.ndarray) -> float:
  """Return the trace of a matrix E[x] (P mean)' with the entries of x permuted."""
  return float(matrix[order, np.arange(len(order))].sum())


def _difference(matrix: np.ndarray) -> np.ndarray:
  """Return u' M u (J, J) for u the difference of each pair of unit vectors."""
  own = np.diag(matrix)[: g1.NUM_JOINTS]
  rest = matrix[: g1.NUM_JOINTS, : g1.NUM_JOINTS]
  return own[:, None] + own[None] - rest - rest.T


def _scales(fits: tuple[_Fit, ...]) -> np.ndarray:
  """Return the log of the factor (J,) by which each joint's angles would be likeliest.

  The log likelihood of a motion with joint j scaled by s is quadratic in s, plus log s
  for each Gaussian, so its maximum is a root of a quadratic equation.
  """
  part = slice(0, g1.NUM_JOINTS)
  a = sum((np.diag(f.precision) * np.diag(f.xx))[part] for f in fits) + 1e-9
  b = sum(np.diag(f.xy)[part] for f in fits)
  # Setting the derivative to zero: a s^2 - (a - b) s - (number of Gaussians) = 0.
  half = (a - b) / (2 * a)
  return np.log(half + np.sqrt(half**2 + len(fits) / a))


def signature(
  poses: Poses, root_pos: np.ndarray, joint_pos: np.ndarray, familiar: Familiar
) -> np.ndarray:
  """Return the statistics (S,) of a motion at `RATE`; NaN where there are none.

  They are in the order of `STATISTICS`.

  Args:
    poses: Of the same rows.
    root_pos: (T, 3), m.
    joint_pos: (T, 29), rad.
    familiar: Its models are used, not its ranges.
  """
  numbers = pose_numbers(root_pos, poses.up, joint_pos)
  rates = np.diff(numbers, axis=0) * RATE
  fits = (_Fit.of(numbers, familiar.pose), _Fit.of(rates, familiar.rate))
  moves = _moves(rates, fits)
  swaps = fits[0].swaps() + fits[1].swaps()
  first, second = np.array(PAIRS).T
  return np.concatenate(
    (
      _pace(root_pos, moves, fits),
      _stand(poses, root_pos),
      _joints(joint_pos, moves, fits),
      swaps[first, second],
      [sum(f.sides(part) for f in fits) for part in SIDES],
    )
  )


def _rms(values: np.ndarray, axis: int | None = None) -> Any:
  return np.sqrt((values**2).mean(axis=axis)) + 1e-6


def _moves(rates: np.ndarray, fits: tuple[_Fit, ...]) -> np.ndarray:
  """Return RMS speed and acceleration (2, J) of the joints, rad/s and rad/s^2."""
  speed = np.sqrt(np.diag(fits[1].xx)[: g1.NUM_JOINTS])
  change = np.diff(rates[:, : g1.NUM_JOINTS], axis=0)
  square = np.einsum("tj,tj->j", change, change) / max(len(change), 1)
  return np.stack((speed, RATE * np.sqrt(square))) + 1e-6


def _pace(
  root_pos: np.ndarray, moves: np.ndarray, fits: tuple[_Fit, ...]
) -> list[float]:
  speed, acceleration = np.sqrt((moves**2).mean(axis=1))
  velocity = np.diff(root_pos, axis=0) * RATE
  force = _rms(np.diff(velocity, axis=0) * RATE)
  return [
    float(np.log(acceleration / speed)),
    float(np.log(speed)),
    float(np.log(max(fits[0].rarity, 1e-6))),
    float(np.log(max(fits[1].rarity, 1e-6))),
    float(np.log(force / _rms(velocity - velocity.mean(axis=0)))),
  ]


def _stand(poses: Poses, root_pos: np.ndarray) -> list[float]:
  standing = (root_pos[:, 2] > STANDING_HEIGHT) & (poses.up[:, 2] > STANDING_UP)
  if standing.sum() < _MIN_ROWS:
    return [np.nan] * 13
  height = poses.foot_height[standing]
  heights = np.quantile(
    height[:: max(1, len(height) // _FEW)], (0.05, 0.25, 0.5, 0.75, 0.95)
  )
  low = (np.abs(poses.sole_height) < CONTACT) & standing[:, None]
  tilt = poses.sole_up[low]
  feet = [np.nan] * 4
  if len(tilt) >= _MIN_ROWS:
    feet[:2] = np.quantile(tilt, (0.5, 0.1))
  skate = poses.skate(RATE)
  if len(skate) >= _MIN_ROWS:
    feet[2:] = np.quantile(skate, (0.5, 0.75))
  return [*heights, *feet, float(low.mean()), *_carried(poses)]


def _carried(poses: Poses) -> list[float]:
  """Return how well the root's steps match those that the standing foot implies.

  A foot that does not slip implies the root's step. The results are the median ratio of
  the two along the world's x and y, 1 if the foot does not slip, and the remainder as a
  share. Medians ignore feet that slip for a while.
  """
  # For each step use the foot that is nearer to the floor in both of its rows.
  root, center = poses.links[:, 0, :2], poses.soles[..., :2].mean(axis=2)
  steps = np.diff(root, axis=0)
  asked = -np.diff(center - root[:, None], axis=0)
  height = np.abs(poses.sole_height)
  height = np.maximum(height[1:], height[:-1])
  foot = height.argmin(axis=1)
  rows = np.flatnonzero(height.min(axis=1) < CONTACT)
  u, r = asked[rows, foot[rows]], steps[rows]
  ratios = []
  for axis in (0, 1):
    moved = np.abs(u[:, axis]) * RATE > _MIN_SPEED
    ratio = r[moved, axis] / u[moved, axis]
    ratios.append(float(np.median(ratio)) if len(ratio) >= _MIN_ROWS else np.nan)
  own = (u * u).sum()
  left = np.sqrt(((r - u) ** 2).sum() / own) if own > 0 and len(rows) else np.nan
  return [*ratios, float(left) if len(rows) >= _MIN_ROWS else np.nan]


def _joints(
  joint_pos: np.ndarray, moves: np.ndarray, fits: tuple[_Fit, ...]
) -> np.ndarray:
  some = np.ascontiguousarray(joint_pos[:: max(1, len(joint_pos) // _FEW)].T)
  low, middle, high = np.quantile(some, (0.02, 0.5, 0.98), axis=1)
  speed, frequency = moves[0], moves[1] / moves[0]
  flips = fits[0].flips() + fits[1].flips()
  offset = fits[0].y[: g1.NUM_JOINTS] / np.diag(fits[0].precision)[: g1.NUM_JOINTS]
  return np.concatenate(
    (low, middle, high, np.log(speed), np.log(frequency), _scales(fits), flips, offset)
  )


# Ranges.


@dataclass(frozen=True)
class Familiar:
  """The models, and the ranges of the statistics for motions of several lengths."""

  pose: Gaussian
  rate: Gaussian
  """Model of the change per second."""
  low: np.ndarray
  """(L, S) lower ends of the ranges, by `LENGTHS` and `STATISTICS`."""
  high: np.ndarray
  """(L, S) upper ends of the ranges."""

  def strange(self, figures: np.ndarray, rows: int) -> np.ndarray:
    """Return the distance (S,) of statistics from their ranges; 0: inside."""
    fitting = [i for i, length in enumerate(LENGTHS) if rows >= length]
    if not fitting:
      return np.zeros(len(figures))
    low, high = self.low[fitting[-1]], self.high[fitting[-1]]
    return np.nan_to_num(np.maximum(low - figures, figures - high)).clip(min=0.0)

  def save(self, path: Path = FAMILIAR) -> None:
    """Write models and ranges as NPZ."""
    arrays = {
      "figures": np.array(_names()),
      "lengths": np.array(LENGTHS),
      "low": self.low.astype(np.float32),
      "high": self.high.astype(np.float32),
    }
    for name in ("pose", "rate"):
      for part in ("mean", "precision"):
        value = getattr(getattr(self, name), part)
        arrays[f"{name}_{part}"] = value.astype(np.float32)
    save_arrays(path, arrays)


def _names() -> list[str]:
  return [
    " ".join((figure.kind, *map(str, figure.joints[:2]))) for figure in STATISTICS
  ]


def ranges(figures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return the ends (S,) of the ranges of statistics (N, S), with their margins."""
  low, middle, high = (f(figures, axis=0) for f in (np.nanmin, np.nanmedian, np.nanmax))
  exchange = np.array([figure.kind in EXCHANGES for figure in STATISTICS])
  margin = np.array([MARGINS.get(figure.kind, MARGIN) for figure in STATISTICS])
  high = np.where(exchange, 1e9, high + margin * (high - middle))
  return low - margin * (middle - low), high


@functools.cache
def load_familiar(path: Path = FAMILIAR) -> Familiar:
  """Return the shipped models and ranges.

  Raises:
    UserError: the file is missing, or of another version of this module.
  """
  try:
    with np.load(path, allow_pickle=False) as data:
      fits = data["figures"].tolist() == _names()
      if not fits or data["lengths"].tolist() != list(LENGTHS):
        raise UserError(f"{path}: of another version; scripts/measure_checks.py --fit")
      parts = {key: data[key].astype(np.float64) for key in data.files[2:]}
  except OSError as error:
    raise UserError(
      f"{path}: cannot read it; restore it, or scripts/measure_checks.py --fit"
    ) from error
  return Familiar(
    Gaussian(parts["pose_mean"], parts["pose_precision"]),
    Gaussian(parts["rate_mean"], parts["rate_precision"]),
    parts["low"],
    parts["high"],
  )
