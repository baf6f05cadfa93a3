"""Pictures of priors: training curves, samples beside real motion, evaluations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.errors import atomic_path
from smp.motion.features import SLICES

if TYPE_CHECKING:
  from smp.diffusion.evaluate import PriorReport

SAMPLES = 256
STICKS = 4
"""Windows drawn as stick figures, of each kind."""
STICK_SPACING = 1.2
JOINTS_SHOWN = ("left_knee_joint", "right_hip_pitch_joint", "left_shoulder_pitch_joint")
REAL, SAMPLED = "tab:blue", "tab:orange"


def save_training_picture(
  path: str | os.PathLike[str],
  prior: MotionPrior,
  history: dict[str, list[float]],
  real: Tensor,
  seed: int = 0,
) -> None:
  """Draw ``path`` (PNG).

  Args:
    real: Windows (N, W, F), raw units, to compare samples with.
  """
  device = prior.q_low.device
  generator = torch.Generator(device).manual_seed(seed)
  sampled = prior.sample(SAMPLES, generator).cpu()
  rows = torch.linspace(0, len(real) - 1, min(SAMPLES, len(real))).long()
  kinds: list[tuple[str, Tensor, str]] = [
    ("real", real[rows].cpu(), REAL),
    ("sampled", sampled, SAMPLED),
  ]
  figure = Figure(figsize=(15, 11), layout="constrained")
  axes = figure.subplots(3, 3)
  _curves(axes[0, 0], history, ("loss", "val_loss"), "L1 loss")
  errors = tuple(name for name in history if name.startswith("val_error"))
  _curves(axes[0, 1], history, errors, "raw error, held out")
  _sticks(axes[0, 2], kinds)
  _histograms(axes[1], kinds)
  _trajectories(axes[2], kinds, prior)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=110)


def save_evaluation_picture(
  path: str | os.PathLike[str], reports: Sequence[PriorReport]
) -> None:
  """Draw ``path`` (PNG): error by speed, and what each prior tells from real motion."""
  figure = Figure(figsize=(15, 5.5), layout="constrained")
  by_speed, by_kind = figure.subplots(1, 2)
  styles = ("-", "--", ":", "-.")
  for i, report in enumerate(reports):
    for j, (name, result) in enumerate(report.sets.items()):
      scored = [b for b in result.bins if b.median is not None]
      by_speed.plot(
        [0.5 * (b.low + b.high) for b in scored],
        [b.median for b in scored],
        marker="o",
        linestyle=styles[j % len(styles)],
        color=f"C{i % 10}",
        label=f"{report.prior}, {name}",
      )
  by_speed.set(
    title="median raw error by speed", xlabel="horizontal speed (m/s)", yscale="log"
  )
  by_speed.grid(alpha=0.3)
  by_speed.legend(fontsize=8)
  columns = [(report, name) for report in reports for name in report.sets]
  height = 0.8 / max(len(columns), 1)
  for k, (report, name) in enumerate(columns):
    auc = report.sets[name].auc
    places = np.arange(len(auc)) + k * height
    by_kind.barh(
      places,
      list(auc.values()),
      height,
      label=f"{report.prior}, {name}",
      color=f"C{reports.index(report) % 10}",
      alpha=1.0 if name == next(iter(report.sets)) else 0.5,
    )
    by_kind.set_yticks(np.arange(len(auc)) + 0.4 - height / 2, list(auc))
  by_kind.axvline(0.5, color="black", linewidth=0.8)
  by_kind.invert_yaxis()
  by_kind.set(title="AUC, real against altered windows (0.5: not told apart)")
  by_kind.set(xlim=(0.0, 1.0))
  by_kind.legend(fontsize=8)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=110)


def _curves(
  axis: Axes, history: dict[str, list[float]], names: tuple[str, ...], title: str
) -> None:
  for name in names:
    if name in history:
      axis.plot(history["step"], history[name], label=name, marker=".", markersize=3)
  axis.set(title=title, xlabel="step", yscale="log")
  if axis.lines:
    axis.legend(fontsize=8)
  axis.grid(alpha=0.3)


def _sticks(axis: Axes, kinds: list[tuple[str, Tensor, str]]) -> None:
  """First and last frame from the side: lines from the pelvis to the end effectors."""
  for row, (name, windows, colour) in enumerate(kinds):
    picks = np.linspace(0, len(windows) - 1, STICKS).astype(int)
    for column, window in enumerate(windows[picks]):
      for frame, alpha in ((0, 0.35), (-1, 1.0)):
        pelvis = window[frame, SLICES["root_pos"]]
        ends = window[frame, SLICES["ee_pos"]].view(-1, 3) + pelvis
        for end in ends:
          line = torch.stack((pelvis, end))
          axis.plot(
            line[:, 0] + column * STICK_SPACING,
            line[:, 2] - row * 1.6,
            color=colour,
            alpha=alpha,
            linewidth=1.5,
          )
    axis.axhline(-row * 1.6, color="black", linewidth=0.5)
    axis.text(-0.9, -row * 1.6 + 1.25, name, color=colour)
  axis.set(title="pelvis to end effectors, side view, first and last frame")
  axis.set(xlim=(-1.0, STICKS * STICK_SPACING), ylim=(-1.7, 1.6))
  axis.set_aspect("equal")
  axis.set_yticks([])


def _histograms(axes: np.ndarray, kinds: list[tuple[str, Tensor, str]]) -> None:
  def speed(windows: Tensor) -> Tensor:
    return windows[..., SLICES["root_lin_vel"]][..., :2].norm(dim=-1).mean(dim=1)

  def height(windows: Tensor) -> Tensor:
    return windows[:, -1, SLICES["root_pos"]][:, 2]

  def activity(windows: Tensor) -> Tensor:
    return windows[..., SLICES["joint_pos"]].std(dim=1).mean(dim=-1)

  quantities: list[tuple[Any, str]] = [
    (speed, "horizontal speed (m/s)"),
    (height, "pelvis height (m)"),
    (activity, "joint motion within a window (rad, std)"),
  ]
  for axis, (measure, title) in zip(axes, quantities, strict=True):
    values = [measure(windows).numpy() for _, windows, _ in kinds]
    # A prior that has learned little samples far off; real motion sets the scale.
    bins = np.linspace(*_limits(torch.from_numpy(values[0])), 41)
    for (name, _, colour), value in zip(kinds, values, strict=True):
      value = value.clip(bins[0], bins[-1])
      share = np.full(len(value), 1.0 / len(value))
      axis.hist(
        value, bins.tolist(), weights=share, alpha=0.5, label=name, color=colour
      )
    axis.set(title=title)
    axis.legend(fontsize=8)


def _limits(values: Tensor) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  margin = 0.3 * (high - low) + 1e-3
  return low - margin, high + margin


def _trajectories(
  axes: np.ndarray, kinds: list[tuple[str, Tensor, str]], prior: MotionPrior
) -> None:
  names = [name for name in JOINTS_SHOWN if name in prior.spec.joint_names]
  time = np.arange(prior.spec.window) / prior.spec.fps
  for axis, name in zip(axes, names, strict=False):
    joint = SLICES["joint_pos"].start + prior.spec.joint_names.index(name)
    for kind, windows, colour in kinds:
      picks = np.linspace(0, len(windows) - 1, 40).astype(int)
      lines = axis.plot(time, windows[picks, :, joint].T, color=colour, alpha=0.35)
      lines[0].set_label(kind)
    axis.set(title=f"{name} (rad)", xlabel="s", ylim=_limits(kinds[0][1][..., joint]))
    axis.legend(fontsize=8)
