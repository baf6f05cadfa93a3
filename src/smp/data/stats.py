"""Ranges of the features over a set of clips, and how two such ranges differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from smp.motion.dataset import (
  NormStats,
  compute_norm_stats,
  load_stats,
  load_windows,
  save_stats,
)
from smp.motion.features import SLICES
from smp.paths import NORM_STATS
from smp.robots import g1


@dataclass(frozen=True)
class StatsCfg:
  """Compute the 1 % and 99 % quantiles of every feature over windows.

  Example: uv run scripts/compute_norm_stats.py --inputs datasets/npz/all
  """

  inputs: tuple[Path, ...]
  """NPZ files, or folders of them, written by csv_to_npz.py."""

  output: Path = NORM_STATS

  compare: Path | None = None
  """Other statistics: print how far ours lie from them, feature by feature."""


def feature_labels() -> list[str]:
  """A name for each of the 59 features, in order."""
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
  """Distance of the two ends (F, 2), in shares of the other statistics' span."""
  span = (theirs.q_high - theirs.q_low).astype(np.float64)
  low = (ours.q_low - theirs.q_low) / span
  high = (ours.q_high - theirs.q_high) / span
  return np.stack((low, high), axis=1)


def print_comparison(ours: NormStats, theirs: NormStats) -> None:
  """A table of both ranges; features that differ by more than 2 % are marked."""
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


def run_stats(cfg: StatsCfg) -> None:
  """Compute, write, and compare if asked."""
  data = load_windows(cfg.inputs)
  stats = compute_norm_stats(data.windows)
  save_stats(cfg.output, stats, data.spec, data.clips)
  print(f"{len(data.windows)} windows of {len(data.clips)} clips -> {cfg.output}")
  if cfg.compare is not None:
    print_comparison(stats, load_stats(cfg.compare))
