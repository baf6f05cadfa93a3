"""Description of a metric of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["task", "naturalness", "effort"]


@dataclass(frozen=True)
class Metric:
  """Name, unit and kind of one metric."""

  key: str
  label: str
  unit: str
  group: Group
  kind: Literal["mean", "rate", "other"] = "mean"
  better: Literal["lower", "higher", "one", ""] = ""
  """Direction of improvement; "one": the nearer to 1 the better."""
  short: str = ""
  """Column title in the terminal; empty: neither shown there nor plotted."""
  signed: bool = False
  """Whether the metric can be negative."""


FAILURES = (
  Metric(
    "fall_rate", "episodes that failed", "%", "task", "rate", "lower", "failed (%)"
  ),
  Metric(
    "falls_per_minute",
    "failures per minute",
    "1/min",
    "task",
    "other",
    "lower",
    "per min",
  ),
  Metric(
    "root_too_low",
    "failed by a fall (pelvis under 0.3 m)",
    "%",
    "task",
    "rate",
    "lower",
  ),
  Metric("self_collision", "failed by self-collision", "%", "task", "rate", "lower"),
)
"""Metrics of a task whose episodes end with a failure, as in `smp.tasks.base`."""

VELOCITY_ERROR = Metric(
  "velocity_error",
  "velocity error",
  "m/s",
  "task",
  better="lower",
  short="v error (m/s)",
)

TRACKING = (
  VELOCITY_ERROR,
  Metric("speed", "achieved speed", "m/s", "task", short="speed (m/s)", signed=True),
  Metric(
    "speed_spread", "spread of speed within an episode", "m/s", "task", better="lower"
  ),
)
"""Metrics of a task that commands a speed along a direction
(`episode_metrics.tracking`)."""
