"""Pictures of priors: training curves, samples beside real motion, evaluations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.evaluation.prior.eval_windows import HELD_OUT
from smp.motion.features import SLICES
from smp.utils.files import atomic_path
from smp.utils.rows import evenly_spaced

if TYPE_CHECKING:
  from smp.evaluation.prior.judge import PriorReport

SAMPLES = 256
STICKS = 4
"""Windows of each kind drawn as stick figures."""
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
  """Draw the training curves and samples of a prior.

  Args:
    path: The PNG to write.
    prior: The prior to sample.
    history: Values of the evaluations during training, by name.
    real: Windows (N, W, F), raw units, to compare samples with.
    seed: Seed of the samples.
  """
  device = prior.q_low.device
  generator = torch.Generator(device).manual_seed(seed)
  sampled = prior.sample(SAMPLES, generator).cpu()
  rows = evenly_spaced(len(real), SAMPLES)
  kinds: list[tuple[str, Tensor, str]] = [
    ("real", real[rows].cpu(), REAL),
    ("sampled", sampled, SAMPLED),
  ]
  figure = Figure(figsize=(15, 11), layout="constrained")
  axes = figure.subplots(3, 3)
  _curves(axes[0, 0], history, ("loss", "val_loss"), "L1 loss")
  errors = tuple(name for name in history if name.startswith("val_error"))
  _curves(axes[0, 1], history, errors, "SDS loss, held out")
  _sticks(axes[0, 2], kinds)
  _histograms(axes[1], kinds)
  _trajectories(axes[2], kinds, prior)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=110)


def save_evaluation_picture(
  path: str | os.PathLike[str], reports: Sequence[PriorReport]
) -> None:
  """Draw the evaluation of priors as PNG, one colour for each prior.

  It shows the error by speed, the error and AUC of every kind of windows, and
  histograms of samples.
  """
  rows = max(len(_dots(report)) for report in reports)
  figure = Figure(figsize=(18, 6.5 + 0.22 * rows), layout="constrained")
  upper, lower = figure.subfigures(2, 1, height_ratios=(2.0 + 0.22 * rows, 4.5))
  by_speed, error, auc = upper.subplots(1, 3, width_ratios=(1.0, 1.0, 0.7))
  _errors_by_speed(by_speed, reports)
  _kinds(error, auc, reports)
  _sample_histograms(lower.subplots(1, len(reports[0].samples.histograms)), reports)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=100)


def _errors_by_speed(axis: Axes, reports: Sequence[PriorReport]) -> None:
  styles = ("-", "--")
  for i, report in enumerate(reports):
    for j, (name, result) in enumerate(report.sets.items()):
      medians = [np.nan if b.median is None else b.median for b in result.bins]
      axis.plot(
        [0.5 * (b.low + b.high) for b in result.bins],
        medians,
        marker="o",
        linestyle=styles[j % len(styles)],
        color=f"C{i % 10}",
        label=f"{report.prior}, {name}",
      )
  axis.set(
    title="median SDS loss by speed", xlabel="horizontal speed (m/s)", yscale="log"
  )
  _plain_ticks(axis.yaxis)
  axis.grid(alpha=0.3)
  axis.legend(fontsize=8)


def _plain_ticks(axis: Axis) -> None:
  """Set the ticks of a log axis to 1, 2 and 5 in each decade, in plain digits."""
  axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
  axis.set_major_formatter("{x:g}")
  axis.set_minor_formatter(NullFormatter())


_Dot = tuple[str, float, float | None, bool]
"""Kind of windows, median SDS loss, AUC, and whether made of held-out windows."""


def _dots(report: PriorReport) -> list[_Dot]:
  dots: list[_Dot] = []
  for name, result in report.sets.items():
    held_out = name == HELD_OUT
    against = report.held_out_auc if held_out else None
    dots.append((f"{name} clips", result.median, against, held_out))
  dots.append(("own samples", report.samples.error, None, False))
  for name, result in report.sets.items():
    for kind, separability in result.altered.items():
      dots.append((kind, separability.median, separability.auc, name == HELD_OUT))
  for kind, separability in report.others.items():
    dots.append((f"{kind} clips", separability.median, separability.auc, False))
  return dots


def _kinds(error: Axes, auc: Axes, reports: Sequence[PriorReport]) -> None:
  """Draw a row for each kind of windows, with a dot for each prior and set."""
  dots = [_dots(report) for report in reports]
  labels = list(dict.fromkeys(dot[0] for part in dots for dot in part))
  for i, (report, part) in enumerate(zip(reports, dots, strict=True)):
    shift = 0.5 * ((i + 0.5) / len(reports) - 0.5)
    for label, median, separability, hollow in part:
      place = labels.index(label) + shift
      for axis, value in ((error, median), (auc, separability)):
        if value is not None:
          axis.plot(
            value,
            place,
            "o",
            color=f"C{i % 10}",
            markerfacecolor="white" if hollow else f"C{i % 10}",
          )
    error.plot([], [], "o", color=f"C{i % 10}", label=report.prior)
  error.plot([], [], "o", color="grey", markerfacecolor="white", label="from held out")
  for axis in (error, auc):
    axis.set_yticks(np.arange(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.grid(alpha=0.3)
  error.set(title="median SDS loss by kind of windows", xscale="log")
  _plain_ticks(error.xaxis)
  error.legend(fontsize=8)
  auc.tick_params(labelleft=False)
  auc.axvline(0.5, color="black", linewidth=0.8)
  auc.set(title="AUC, real against each (0.5: chance)", xlim=(-0.02, 1.02))


def _sample_histograms(axes: np.ndarray, reports: Sequence[PriorReport]) -> None:
  for axis, name in zip(axes, reports[0].samples.histograms, strict=True):
    first = reports[0].samples.histograms[name]
    axis.stairs(
      first.real, first.edges, fill=True, color="lightgrey", label="own clips"
    )
    for i, report in enumerate(reports):
      sampled = report.samples.histograms[name].sampled
      shift = report.samples.likeness.shifts[name]
      axis.stairs(
        sampled,
        first.edges,
        color=f"C{i % 10}",
        linewidth=1.5,
        label=f"samples of {report.prior}: {shift:.2g} {first.unit} off",
      )
    axis.set(title=f"share of windows by {name} ({first.unit})")
    axis.legend(fontsize=8)


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
  """Draw lines from the pelvis to the end effectors, first and last frame, side view."""
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
    # Samples of a prior with little training lie far off, so real motion sets the
    # scale.
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
