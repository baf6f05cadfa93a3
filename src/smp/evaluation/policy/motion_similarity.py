"""How far the policy's motion is from the data: windows against windows.

Windows are those the prior scores: 10 frames at 50 Hz in the 59 features, here with
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

from smp.evaluation.policy.episode_metrics import all_of
from smp.evaluation.policy.trajectory import Trajectory
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
"""Windows compared on each side; distances depend on the number."""
FRAMES = (0, 3, 6, 9)
"""Frames of a window that the Fréchet distance looks at. Neighbours say nearly the same,
and 1024 windows are enough for the covariance of these."""
GROUPS = 5
"""Groups of environments for the interval of the Fréchet distance."""


@dataclass
class Data:
  """What the policy's windows are compared with."""

  features: Tensor
  """(M, W, F), `canonicalized`."""
  stats: NormStats
  what: str
  """In words: where they are from."""
  points: np.ndarray = field(init=False)
  """(M, D) of `points_of`."""
  amplitude: Tensor = field(init=False)
  """(29,) mean standard deviation of each joint within a window, rad."""

  def __post_init__(self) -> None:
    self.points = points_of(self.features, self.stats)
    self.amplitude = joint_amplitude(self.features).mean(dim=0)

  def about(self) -> dict[str, Any]:
    """What it is, and how far one half of it is from the other, in plain JSON types.

    The halves are the first and the second in their order: of clips, mostly other clips.
    """
    half = len(self.features) // 2
    other = Data(self.features[half:], self.stats, self.what)
    near = float(nearest(self.features[:half], other).mean())
    frechet_ = frechet_per_feature(self.points[:half], self.points[half:])
    text = f"One half of them is {near:.3f} from the nearest window of the other half"
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
  """At most `WINDOWS` of some windows (N, W, F), evenly, ready to compare with."""
  chosen = features[evenly_spaced(len(features), WINDOWS)]
  return Data(canonicalized(chosen, spec), stats, what)


def window_rows(valid: Tensor, most: int) -> tuple[Tensor, Tensor]:
  """At most ``most`` windows whose frames all count, spread evenly over environments
  and time: their first steps (n,) and environments (n,)."""
  if len(valid) < WINDOW:
    return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
  whole = all_of(valid, WINDOW)
  env, step = whole.T.nonzero().unbind(-1)
  rows = evenly_spaced(len(env), most)
  return step[rows], env[rows]


def windows_of(trajectory: Trajectory, step: Tensor, env: Tensor) -> Tensor:
  """Features (n, W, F) of the windows that begin at ``step`` (n,) in ``env`` (n,)."""
  frames = step.unsqueeze(-1) + torch.arange(WINDOW)
  qpos = trajectory.qpos[frames, env.unsqueeze(-1)]
  pos, quat, joints = qpos[..., :3], qpos[..., 3:7], qpos[..., 7:]
  lin, ang = window_velocities(pos, quat, trajectory.fps)
  ee = Kinematics(g1.load_model()).ee_positions(pos, quat, joints)
  return encode(MotionState(pos, quat, lin, ang, joints, ee), "twist")


def points_of(features: Tensor, stats: NormStats) -> np.ndarray:
  """Windows (N, W, F) as points (N, D) in normalised features, of `FRAMES` only."""
  scale = 0.5 * torch.from_numpy(stats.q_high - stats.q_low)
  chosen = (features / scale)[:, list(FRAMES)]
  return chosen.flatten(1).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
  """Squared Fréchet distance of normal distributions fitted to points (N, D), (M, D).

  |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). Source: Dowson and Landau,
  "The Fréchet distance between multivariate normal distributions" (1982).
  """
  shift = a.mean(axis=0) - b.mean(axis=0)
  cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  values, vectors = eigh(cov_a)
  root = vectors * np.sqrt(values.clip(min=0.0))
  # (C_a C_b)^(1/2) has the trace of the root of this symmetric matrix.
  middle = eigh(root.T @ cov_b @ root, eigvals_only=True)
  cross = np.sqrt(middle.clip(min=0.0)).sum()
  distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross
  return float(max(distance, 0.0))


def frechet_per_feature(points: np.ndarray, data: np.ndarray) -> float | None:
  """Root of the squared distance per dimension: in the units that nearest neighbours are
  in. None where there are not twice as many points as dimensions."""
  dims = points.shape[1]
  if min(len(points), len(data)) < 2 * dims:
    return None
  return float(np.sqrt(frechet(points, data) / dims))


def nearest(features: Tensor, data: Data) -> Tensor:
  """Distance (n,) of windows to the nearest of the data, RMS per feature."""
  return distances(features, data.features, data.stats).amin(dim=1)


def per_env_mean(values: Tensor, env: Tensor, num_envs: int) -> Tensor:
  """Mean of ``values`` (n,) over the windows of each environment (num_envs,)."""
  total = torch.zeros(num_envs).index_add(0, env, values)
  count = torch.zeros(num_envs).index_add(0, env, torch.ones_like(values))
  return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def joint_amplitude(features: Tensor) -> Tensor:
  """Standard deviation of each joint within windows (n, W, F): (n, 29), rad."""
  return features[..., SLICES["joint_pos"]].std(dim=1)


def amplitude_ratios(amplitude: Tensor, reference: Tensor) -> dict[str, Tensor]:
  """How large movements (n, 29) are beside those of the data (29,), for each limb (n,).

  Of the limb's mean over joints, so joints that hardly move weigh little. The training
  log's ``Smp/amplitude_...`` is the same, beside the prior's initial states.
  """
  ratios = {}
  for limb in g1.LIMBS:
    joints = [i for i, name in enumerate(g1.JOINT_NAMES) if g1.limb_of(name) == limb]
    whole = reference[joints].sum().clamp(min=1e-9)
    ratios[limb] = amplitude[:, joints].sum(dim=1) / whole
  return ratios
