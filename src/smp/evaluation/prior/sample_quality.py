"""Comparison of a prior's samples with real motion: bodies, histograms, neighbours.

Samples are compared as the denoiser returns them, without any repair. Distances between
sets of windows depend on the number of windows, so every prior gets the same numbers;
held-out motion in the place of the samples is the held_out_reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from smp.evaluation.prior.eval_windows import speeds
from smp.motion.dataset import NormStats
from smp.motion.features import (
  FeatureSpec,
  decode,
  encode,
  window_velocities,
)
from smp.motion.head import Head
from smp.motion.kinematics import Kinematics
from smp.robots import g1

BINS = 40
UNITS = {"speed": "m/s", "root height": "m", "head height": "m"}
"""Quantities compared by histogram (means over a window) and their units."""


@dataclass(frozen=True)
class Histogram:
  """One quantity, in bins of the real windows; values beyond are in the end bins."""

  unit: str
  edges: list[float]
  real: list[float]
  """Share of the real windows in each bin."""
  sampled: list[float]
  """Share of the samples in each bin."""


@dataclass(frozen=True)
class Distances:
  """Comparison of some windows, generated or not, with real ones."""

  windows: int
  """Number of windows."""
  real: int
  """Number of real windows compared with."""
  shifts: dict[str, float]
  """1-Wasserstein distance of each quantity of `UNITS`, in its unit."""
  fidelity: float
  """Median distance of the windows to the nearest real one (`distances`)."""
  coverage: float
  """Median distance of the real windows to the nearest of the windows."""


@dataclass(frozen=True)
class SampleReport:
  """Evaluation of the samples of one prior."""

  error: float
  """Median SDS loss, under the prior itself."""
  ee_mm: dict[str, float]
  """Mean distance of each end effector from its forward kinematics, mm."""
  likeness: Distances
  histograms: dict[str, Histogram]


def canonicalized(features: Tensor, spec: FeatureSpec) -> Tensor:
  """Return windows (N, W, F) of any spec with heading "twist" and window velocities.

  Velocities are derived from the poses even where ``spec`` has the same kind; otherwise
  a prior that generates smooth velocities would seem nearer to the data than its poses
  are.
  """
  state = decode(features.double())
  lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, spec.fps)
  state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  return encode(state, "twist").float()


def end_effector_errors(features: Tensor) -> Tensor:
  """Return the distance (N, W, 5), m, of end effectors from their forward kinematics.

  The forward kinematics use the root and the joints of the same frame.
  """
  state = decode(features.double())
  kinematics = Kinematics(g1.load_model()).double()
  joints = state.root_pos_w, state.root_quat_w, state.joint_pos
  return (kinematics.ee_positions(*joints) - state.ee_pos_w).norm(dim=-1)


def quantities(features: Tensor, spec: FeatureSpec) -> dict[str, np.ndarray]:
  """Return each quantity of `UNITS` (N,).

  Horizontal speed from the first to the last pose, mean height of the pelvis, and of
  the head from the joint angles.
  """
  state = decode(features.double())
  head = Head(g1.load_model()).double()
  at, _ = head(state.root_pos_w, state.root_quat_w, state.joint_pos)
  heights = state.root_pos_w[..., 2].mean(dim=1), at[..., 2].mean(dim=1)
  values = speeds(features, spec).double(), *heights
  return {name: value.numpy() for name, value in zip(UNITS, values, strict=True)}


def distances(windows: Tensor, others: Tensor, stats: NormStats) -> Tensor:
  """Return the distance (N, M) of windows (N, W, F) to others (M, W, F).

  RMS per feature in units of normalised features: from the 1 % to the 99 % quantile is
  2. Both must be of the same spec (`canonicalized`).
  """
  scale = 0.5 * torch.from_numpy(stats.q_high - stats.q_low)
  flat = ((windows / scale).flatten(1), (others / scale).flatten(1))
  # Matrix products would be faster, but give equal windows a distance above zero.
  apart = torch.cdist(*flat, compute_mode="donot_use_mm_for_euclid_dist")
  return apart / flat[0].shape[1] ** 0.5


def likeness(
  windows: Tensor, real: Tensor, spec: FeatureSpec, stats: NormStats
) -> Distances:
  """Compare windows (N, W, F) with real ones (M, W, F), both `canonicalized`."""
  ours, theirs = quantities(windows, spec), quantities(real, spec)
  apart = distances(windows, real, stats)
  return Distances(
    windows=len(windows),
    real=len(real),
    shifts={
      name: float(wasserstein_distance(ours[name], theirs[name])) for name in UNITS
    },
    fidelity=float(apart.amin(dim=1).median()),
    coverage=float(apart.amin(dim=0).median()),
  )


def histograms(
  windows: Tensor, real: Tensor, spec: FeatureSpec
) -> dict[str, Histogram]:
  """Return histograms of `quantities` of windows (N, W, F) and real ones (M, W, F)."""
  ours, theirs = quantities(windows, spec), quantities(real, spec)
  return {name: _histogram(ours[name], theirs[name], UNITS[name]) for name in UNITS}


def _histogram(sampled: np.ndarray, real: np.ndarray, unit: str) -> Histogram:
  margin = 0.1 * float(np.ptp(real)) + 1e-3
  edges = np.linspace(real.min() - margin, real.max() + margin, BINS + 1)

  def shares(values: np.ndarray) -> list[float]:
    counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
    return (counts / len(values)).tolist()

  return Histogram(unit, edges.tolist(), shares(real), shares(sampled))


def judge_samples(
  samples: Tensor, spec: FeatureSpec, error: float, real: Tensor, stats: NormStats
) -> SampleReport:
  """Evaluate samples of a prior of ``spec``.

  Args:
    samples: (N, W, F), raw units.
    spec: Feature layout of the prior.
    error: Their median SDS loss under the prior.
    real: Windows (M, W, F) that they should resemble, `canonicalized`.
    stats: Quantiles that scale the distances.
  """
  ours = canonicalized(samples, spec)
  means = 1000.0 * end_effector_errors(samples).mean(dim=(0, 1))
  return SampleReport(
    error=error,
    ee_mm=dict(zip(spec.ee_body_names, means.tolist(), strict=True)),
    likeness=likeness(ours, real, spec, stats),
    histograms=histograms(ours, real, spec),
  )
