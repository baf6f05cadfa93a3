"""Pictures of an evaluation: metrics over a sweep, and strips of rendered frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from smp.episodes.metric import Metric
from smp.episodes.protocol import PUSH, EvalCondition, EvalProtocol
from smp.episodes.trajectory import Trajectory
from smp.evaluation.policy.summary import ALL
from smp.viz.offscreen import OffscreenRenderer, direction, facing

COLORS = ("#3b82c4", "#e07b39")
"""Colours of the first and the second policy; both are visible on white and on black.
"""
INK = "#010203"
"""Placeholder in a drawing for the colour of the page's text."""
STRIP_FRAMES = 8
STRIP_S = 1.6
"""Time that a strip of a walking robot covers, s."""
GETUP_STRIP_S = 4.8
BEFORE_PUSH_S = 0.2
JPEG_QUALITY = 82


def curve(
  figure: Metric, policies: Sequence[dict[str, Any]], sweep: str, axis_title: str
) -> str:
  """Draw one metric over the conditions of a sweep, with its intervals, as SVG."""
  import matplotlib
  from matplotlib.figure import Figure

  settings = {
    "svg.fonttype": "none",
    "svg.hashsalt": "smp",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
  }
  with matplotlib.rc_context(settings):
    canvas = Figure(figsize=(3.7, 2.5), layout="constrained")
    axes = canvas.subplots()
    ticks: dict[float, str] = {}
    for i, policy in enumerate(policies):
      rows = [
        row
        for row in policy["conditions"]
        if row["sweep"] == sweep and row["label"] != ALL
      ]
      ticks |= {row["value"]: row["label"] for row in rows}
      offset = (i - 0.5 * (len(policies) - 1)) * 0.012 * _span(ticks)
      joined = _tick_labels(ticks) != list(ticks.values())
      _draw(axes, figure, rows, offset, COLORS[i % len(COLORS)], joined)
    if figure.key == "speed" and sweep != PUSH and len(ticks) > 5:
      low, high = min(ticks), max(ticks)
      axes.plot((low, high), (low, high), color=INK, alpha=0.35, lw=0.8, ls="--")
    axes.set_xticks(list(ticks), _tick_labels(ticks))
    axes.set_xlabel(axis_title, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.2, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    if figure.kind == "rate":
      axes.set_ylim(-4, 104)
    buffer = io.StringIO()
    canvas.savefig(
      buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
    )
  text = buffer.getvalue()
  return text[text.index("<svg") :].replace(INK, "currentColor")


def _span(ticks: dict[float, str]) -> float:
  return max(ticks) - min(ticks)


def _tick_labels(ticks: dict[float, str]) -> list[str]:
  """Return numbers where the labels say no more, else words.

  Of many labels every other one is left empty.
  """
  numbers = [f"{value:g}" for value in ticks]
  words = list(ticks.values())
  plain = [word.split()[-2] if " " in word else word.rstrip("°") for word in words]
  labels = numbers if plain == numbers else words
  labels = [label.removesuffix(" m") for label in labels]
  if len(labels) > 7:
    labels = [label if i % 2 else "" for i, label in enumerate(labels)]
  return labels


def _draw(
  axes: Any,
  figure: Metric,
  rows: list[dict[str, Any]],
  offset: float,
  color: str,
  joined: bool,
) -> None:
  """Draw points with intervals, ``joined`` by a line where the axis is a quantity."""
  scale = 100.0 if figure.kind == "rate" else 1.0
  points = []
  for row in rows:
    one = row["figures"][figure.key]
    if one["value"] is not None:
      low, high = (
        one["value"] if one[end] is None else one[end] for end in ("low", "high")
      )
      points.append([row["value"] + offset, one["value"], low, high])
  if not points:
    return
  x, y, low, high = np.array(points).T
  y, low, high = scale * y, scale * low, scale * high
  axes.errorbar(
    x,
    y,
    yerr=(y - low, high - y),
    color=color,
    marker="o",
    markersize=3.5,
    lw=1.2 if joined else 0.0,
    elinewidth=1.0,
    capsize=2.5,
  )


# Strips.


def strip_frames(
  trajectory: Trajectory, env: int, condition: EvalCondition, protocol: EvalProtocol
) -> np.ndarray:
  """Return the poses (STRIP_FRAMES, 36) that illustrate an episode.

  For a robot that gets up these are the first seconds; for one that is pushed, the time
  around the first push; otherwise some steps after it has settled. If the robot fails
  before, they are the end of the episode.
  """
  span, start = STRIP_S, protocol.settle
  if condition.start != "prior" or not protocol.stops:
    span, start = GETUP_STRIP_S, 0.0
  if condition.sweep == PUSH and protocol.push_times[0] < protocol.seconds:
    start = protocol.push_times[0] - BEFORE_PUSH_S
  last = max(int(trajectory.valid()[:, env].sum()) - 1, 0)
  end = min(round((start + span) * trajectory.fps), last)
  begin = max(0, min(round(start * trajectory.fps), end - round(span * trajectory.fps)))
  steps = np.linspace(begin, end, STRIP_FRAMES).round().astype(int)
  return trajectory.qpos[steps, env].numpy()


def typical(returns: np.ndarray, choice: np.ndarray) -> int:
  """Return the environment among ``choice`` (N,) whose return is their median."""
  envs = np.flatnonzero(choice)
  order = np.argsort(returns[envs], kind="stable")
  return int(envs[order[(len(envs) - 1) // 2]])


def render_strip(studio: OffscreenRenderer, frames: np.ndarray) -> bytes:
  """Render poses (n, 36) side by side, as JPEG."""
  from PIL import Image

  moves = np.linalg.norm(frames[-1, :2] - frames[0, :2]) > 0.5
  side = direction(frames) if moves else float(facing(frames[0]))
  strip = np.concatenate([studio.picture(pose, side) for pose in frames], axis=1)
  buffer = io.BytesIO()
  Image.fromarray(strip).save(buffer, format="JPEG", quality=JPEG_QUALITY)
  return buffer.getvalue()
