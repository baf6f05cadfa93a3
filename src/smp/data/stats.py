"""Statistics of the features over a set of clips: comparison, and fit to windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from smp.errors import UserError, printable
from smp.motion.dataset import (
  HIGH_QUANTILE,
  LOW_QUANTILE,
  NormStats,
  compute_norm_stats,
  load_stats,
  load_windows,
  save_stats,
)
from smp.motion.features import SLICES
from smp.paths import NORM_STATS
from smp.robots import g1
from smp.utils.files import check_new
from smp.utils.limits import ArrayFile

MAX_OUTSIDE, GROUP_OUTSIDE, FAR_OUTSIDE = 0.15, 0.3, 0.6
"""Maximum share of values outside their ranges: of all, of a group of `SLICES`, of one
feature. Single clips of the shipped motion sets under the shipped statistics, or under
those of their set, reach 0.07, 0.15, 0.48."""
MIN_FILLED = 0.03
"""Minimum share of its range that the median feature of a group fills. The same clips,
of at least 50 windows, reach 0.09; values 100 times too small 0.01."""
BEYOND_LIMITS = 0.3
"""Maximum excess of a range over the limits of its joint, rad. Real clips: none; angles
relative to another pose: 0.4."""
STILL = 1e-3
"""Minimum change (m, rad, m/s, rad/s) of a feature that is not constant."""
HEIGHTS = (-0.3, 1.5)
"""Bounds of the pelvis height, m. Real clips: 0.05 to 0.83."""
_FEW = 200_000


@dataclass(frozen=True)
class StatsCfg:
  """Compute the 1 % and 99 % quantiles of every feature over windows.

  Example: uv run scripts/compute_norm_stats.py --inputs datasets/npz/all
  """

  inputs: tuple[Path, ...]
  """NPZ files, or folders of them, written by csv_to_npz.py."""

  output: ArrayFile = NORM_STATS

  overwrite: bool = False
  """Replace statistics that are there already."""

  compare: Path | None = None
  """Other statistics; print the differences to them, feature by feature."""


def feature_labels() -> list[str]:
  """Return a name for each of the 59 features, in order."""
  axes = ("x", "y", "z")
  labels = {
    "root_pos": [f"root_pos {a}" for a in axes],
    "root_rot": [f"root_rot {v} {a}" for v in ("tangent", "normal") for a in axes],
    "joint_pos": [name.removesuffix("_joint") for name in g1.JOINT_NAMES],
    "ee_pos": [
      f"{body.removesuffix('_link')} {a}" for body in g1.EE_BODY_NAMES for a in axes
    ],
    "root_lin_vel": [f"root_lin_vel {a}" for a in axes],
    "root_ang_vel": [f"root_ang_vel {a}" for a in axes],
  }
  return [label for name in SLICES for label in labels[name]]


def span_difference(ours: NormStats, theirs: NormStats) -> np.ndarray:
  """Return the distance of the two ends (F, 2), in shares of the span of ``theirs``."""
  span = (theirs.q_high - theirs.q_low).astype(np.float64)
  low = (ours.q_low - theirs.q_low) / span
  high = (ours.q_high - theirs.q_high) / span
  return np.stack((low, high), axis=1)


def print_comparison(ours: NormStats, theirs: NormStats) -> None:
  """Print a table of both ranges.

  Features that differ by more than 2 % are marked.
  """
  table = Table(title="ranges, ours and the others")
  for column in ("feature", "ours", "others", "low %", "high %", ""):
    table.add_column(column, justify="left" if column == "feature" else "right")
  difference = 100 * span_difference(ours, theirs)
  for i, label in enumerate(feature_labels()):
    low, high = difference[i]
    table.add_row(
      label,
      f"{ours.q_low[i]:+.3f} {ours.q_high[i]:+.3f}",
      f"{theirs.q_low[i]:+.3f} {theirs.q_high[i]:+.3f}",
      f"{low:+.2f}",
      f"{high:+.2f}",
      "*" if max(abs(low), abs(high)) > 2 else "",
    )
  Console(width=100).print(table)


def doubt_stats(windows: np.ndarray, stats: NormStats) -> str:
  """Return why statistics do not fit windows (N, W, 59); empty: they do."""
  frames = windows.reshape(-1, windows.shape[-1])
  frames = frames[:: max(1, len(frames) // _FEW)]
  if not len(frames) or frames.shape[1:] != stats.q_low.shape:
    return ""
  return _impossible(frames, stats) or _far_off(frames, stats)


def _impossible(frames: np.ndarray, stats: NormStats) -> str:
  """Return why no statistics of these frames (N, 59) can be such; empty: fine."""
  part = SLICES["joint_pos"]
  low, high = stats.q_low[part], stats.q_high[part]
  limits = g1.load_model().jnt_range[1:]
  least = np.minimum(limits[:, 0], frames[:, part].min(axis=0))
  most = np.maximum(limits[:, 1], frames[:, part].max(axis=0))
  over = np.where(_moves(frames)[part], np.maximum(least - low, high - most), 0.0)
  j = int(over.argmax())
  if over[j] > BEYOND_LIMITS:
    return (
      f"{g1.JOINT_NAMES[j]} ranges over [{low[j]:.2f}, {high[j]:.2f}], its limits are "
      f"[{limits[j, 0]:.2f}, {limits[j, 1]:.2f}] rad: another unit, order or zero of joints?"
    )
  height = SLICES["root_pos"].start + 2
  low, high = stats.q_low[height], stats.q_high[height]
  least, most = frames[:, height].min(), frames[:, height].max()
  if low < min(HEIGHTS[0], least - 0.1) or high > max(HEIGHTS[1], most + 0.1):
    return (
      f"the pelvis ranges over z = {low:.2f} to {high:.2f}, in the windows {least:.2f} to "
      f"{most:.2f} m: another unit?"
    )
  return ""


def _moves(frames: np.ndarray) -> np.ndarray:
  """Return which features (59,) of frames (N, 59) are not constant."""
  return np.ptp(frames, axis=0) > STILL


def _far_off(frames: np.ndarray, stats: NormStats) -> str:
  """Return how badly the values of frames (N, 59) fit the ranges; empty: well."""
  scaled = 2 * (frames - stats.q_low) / (stats.q_high - stats.q_low) - 1
  # Rounding puts values of a nearly constant feature slightly outside.
  outside = (np.abs(scaled) > 1.05).mean(axis=0)
  low, high = np.quantile(scaled, (LOW_QUANTILE, HIGH_QUANTILE), axis=0)
  # A constant feature fills none of its range.
  filled = np.where(_moves(frames), (high - low) / 2, 1.0)
  worst = int(outside.argmax())
  groups = {name: float(outside[part].mean()) for name, part in SLICES.items()}
  far = max(groups, key=lambda name: groups[name])
  if (
    outside.mean() > MAX_OUTSIDE
    or groups[far] > GROUP_OUTSIDE
    or outside[worst] > FAR_OUTSIDE
  ):
    return (
      f"{100 * outside.mean():.0f} % of the values lie outside their ranges "
      f"({far}: {100 * groups[far]:.0f} %, {feature_labels()[worst]}: "
      f"{100 * outside[worst]:.0f} %), expected 2 %"
    )
  middle = {name: float(np.median(filled[part])) for name, part in SLICES.items()}
  least = min(middle, key=lambda name: middle[name])
  if middle[least] < MIN_FILLED:
    return (
      f"{least} fills {100 * middle[least]:.1f} % of its ranges, expected 100 %: "
      "another unit?"
    )
  return ""


def _check_output(cfg: StatsCfg) -> None:
  """Raise unless the output may be written: no input, not among them, nor there already."""
  for path in cfg.inputs:
    if cfg.output.resolve() == path.resolve():
      raise UserError(f"--output {cfg.output}: is an input; give another name")
    if path.is_dir() and cfg.output.resolve().parent == path.resolve():
      raise UserError(
        f"--output {cfg.output}: lies in {path}, where it would be read as windows; give "
        "another folder"
      )
  check_new(cfg.output, cfg.overwrite)


def run_stats(cfg: StatsCfg) -> None:
  """Compute statistics, write them, and compare them if requested.

  Raises:
    UserError: names the file: windows or statistics that are unusable or of another
      layout, or an output that exists.
  """
  _check_output(cfg)
  # Read before anything is written: it may be the file to write.
  other = None if cfg.compare is None else load_stats(cfg.compare)
  data = load_windows(cfg.inputs)
  features = data.windows.shape[-1]
  if other is not None and len(other.q_low) != features:
    raise UserError(
      f"{cfg.compare}: has {len(other.q_low)} features, the windows {features}; compare "
      "with statistics of such windows"
    )
  stats = compute_norm_stats(data.windows)
  save_stats(cfg.output, stats, data.spec, data.clips)
  print(
    f"{len(data.windows)} windows of {len(data.clips)} clips -> "
    f"{printable(str(cfg.output))}"
  )
  if other is not None:
    print_comparison(stats, other)
