"""Distance between the motion of a policy and the data, window against window.

Windows are of the prior's kind: 10 frames at 50 Hz in the 59 features, here with
velocities derived from the poses, in units of the normalised features (from the 1 % to
the 99 % quantile of LAFAN1 is 2). The data are windows of clips, or, where none are
given, samples of the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from smp.episodes.episode_metrics import all_of
from smp.episodes.trajectory import Trajectory
from smp.errors import UserError
from smp.evaluation.intervals import Interval, jackknife
from smp.evaluation.prior.sample_quality import canonicalized, distances
from smp.motion.dataset import NormStats
from smp.motion.features import (
  SLICES,
  WINDOW,
  FeatureSpec,
  MotionState,
  encode,
  window_velocities,
)
from smp.motion.kinematics import Kinematics
from smp.robots import g1
from smp.utils.rows import evenly_spaced

WINDOWS = 1024
"""Windows compared on each side; distances depend on their number."""
FRAMES = (0, 3, 6, 9)
"""Frames of a window that enter the Fréchet distance. Neighbouring frames are nearly
the same, and 1024 windows suffice for the covariance of these."""
GROUPS = 5
"""Groups of environments for jackknife intervals."""


@dataclass
class Data:
  """Windows that those of a policy are compared with."""

  features: Tensor
  """(M, W, F), `canonicalized`."""
  stats: NormStats
  what: str
  """Origin of the windows, in words."""
  points: np.ndarray = field(init=False)
  """(M, D), from `points_of`."""
  amplitude: Tensor = field(init=False)
  """(29,) mean standard deviation of each joint within a window, rad."""
  spread: float | None = field(init=False)
  """`spread` of the windows; None for less than two."""

  def __post_init__(self) -> None:
    self.points = points_of(self.features, self.stats)
    self.amplitude = joint_amplitude(self.features).mean(dim=0)
    self.spread = spread(distances(self.features, self.features, self.stats))

  def about(self) -> dict[str, Any]:
    """Describe the data, and the distance between its halves, in plain JSON types.

    The halves are the first and the second in order; for clips these are mostly
    different clips.
    """
    half = len(self.features) // 2
    other = Data(self.features[half:], self.stats, self.what)
    near = float(nearest(self.features[:half], other).mean())
    frechet_ = frechet_per_feature(self.points[:half], self.points[half:])
    text = f"Their first half is {near:.3f} from the nearest window of the second half"
    if frechet_ is not None:
      text += f" on average; their Fréchet distance is {frechet_:.3f}"
    return {
      "what": self.what,
      "windows": len(self.features),
      "halves_nearest": near,
      "halves_frechet": frechet_,
      "itself": f"{text}.",
    }


def data_of(features: Tensor, spec: FeatureSpec, stats: NormStats, what: str) -> Data:
  """Return at most `WINDOWS` of windows (N, W, F), evenly spread, for comparison.

  Raises:
    UserError: There are less than two.
  """
  if len(features) < 2:
    raise UserError(f"{what}: too few to compare with; give at least 2")
  chosen = features[evenly_spaced(len(features), WINDOWS)]
  return Data(canonicalized(chosen, spec), stats, what)


def window_rows(valid: Tensor, most: int) -> tuple[Tensor, Tensor]:
  """Choose at most ``most`` windows of valid frames, evenly over environments and time.

  Returns:
    Their first steps (n,) and their environments (n,).
  """
  if len(valid) < WINDOW:
    return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
  whole = all_of(valid, WINDOW)
  env, step = whole.T.nonzero().unbind(-1)
  rows = evenly_spaced(len(env), most)
  return step[rows], env[rows]


def windows_of(trajectory: Trajectory, step: Tensor, env: Tensor) -> Tensor:
  """Return features (n, W, F) of windows that begin at ``step`` (n,) in ``env`` (n,)."""
  frames = step.unsqueeze(-1) + torch.arange(WINDOW)
  qpos = trajectory.qpos[frames, env.unsqueeze(-1)]
  pos, quat, joints = qpos[..., :3], qpos[..., 3:7], qpos[..., 7:]
  lin, ang = window_velocities(pos, quat, trajectory.fps)
  ee = Kinematics(g1.load_model()).ee_positions(pos, quat, joints)
  return encode(MotionState(pos, quat, lin, ang, joints, ee), "twist")


def points_of(features: Tensor, stats: NormStats) -> np.ndarray:
  """Return windows (N, W, F) as points (N, D): normalised features of `FRAMES`."""
  scale = 0.5 * torch.from_numpy(stats.q_high - stats.q_low)
  chosen = (features / scale)[:, list(FRAMES)]
  return chosen.flatten(1).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
  """Return the squared Fréchet distance of normals fitted to points (N, D), (M, D).

  |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). Source: Dowson and Landau,
  "The Fréchet distance between multivariate normal distributions" (1982).
  """
  shift = a.mean(axis=0) - b.mean(axis=0)
  cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  # A square root of C_a: root @ root.T is C_a.
  values, vectors = eigh(cov_a)
  root = vectors * np.sqrt(values.clip(min=0.0))
  # (C_a C_b)^(1/2) has the same trace as the square root of this symmetric matrix.
  middle = eigh(root.T @ cov_b @ root, eigvals_only=True)
  cross = np.sqrt(middle.clip(min=0.0)).sum()
  distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross
  return float(max(distance, 0.0))


def frechet_per_feature(points: np.ndarray, data: np.ndarray) -> float | None:
  """Return the root of the squared Fréchet distance per dimension.

  It has the unit of the distance to nearest neighbours. None where there are fewer than
  twice as many points as dimensions.
  """
  dims = points.shape[1]
  if min(len(points), len(data)) < 2 * dims:
    return None
  return float(np.sqrt(frechet(points, data) / dims))


def nearest(features: Tensor, data: Data) -> Tensor:
  """Return the distance (n,) of windows to the nearest of the data, RMS per feature."""
  return distances(features, data.features, data.stats).amin(dim=1)


def spread(apart: Tensor) -> float | None:
  """Return the mean of distances (n, n) over all pairs of two windows; None for n < 2."""
  count = len(apart)
  if count < 2:
    return None
  return float(apart.double().sum()) / (count * (count - 1))


def diversity(features: Tensor, data: Data, groups: np.ndarray) -> Interval:
  """Return how far apart windows are from each other, relative to those of the data.

  The mean distance of two windows divided by that of two windows of the data: 0 for a
  motion that does the same all the time, 1 for the data itself.

  Args:
    features: Windows (n, W, F).
    data: The data.
    groups: (n,) group of each window, for the jackknife interval.
  """
  apart, whole = distances(features, features, data.stats), data.spread

  def of(rows: np.ndarray) -> float | None:
    chosen = torch.from_numpy(rows)
    own = spread(apart[chosen][:, chosen])
    return own / whole if own is not None and whole else None

  return jackknife(of, groups)


def per_env_mean(values: Tensor, env: Tensor, num_envs: int) -> Tensor:
  """Return the mean of ``values`` (n,) over each environment's windows (num_envs,)."""
  total = torch.zeros(num_envs).index_add(0, env, values)
  count = torch.zeros(num_envs).index_add(0, env, torch.ones_like(values))
  return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def joint_amplitude(features: Tensor) -> Tensor:
  """Return the standard deviation (n, 29), rad, of joints within windows (n, W, F)."""
  return features[..., SLICES["joint_pos"]].std(dim=1)


def amplitude_ratios(amplitude: Tensor, reference: Tensor) -> dict[str, Tensor]:
  """Return the ratio (n,) of amplitudes (n, 29) to those of the data (29,), by limb.

  The sums over the limb's joints are compared, so joints that hardly move weigh little.
  The training log's ``Smp/amplitude_...`` is the same ratio relative to the prior's
  initial states.
  """
  ratios = {}
  for limb in g1.LIMBS:
    joints = [i for i, name in enumerate(g1.JOINT_NAMES) if g1.limb_of(name) == limb]
    whole = reference[joints].sum().clamp(min=1e-9)
    ratios[limb] = amplitude[:, joints].sum(dim=1) / whole
  return ratios
