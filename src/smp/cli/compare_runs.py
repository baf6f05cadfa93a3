"""Comparison of the learning speed of training runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table

from smp.cli.options import parse
from smp.errors import UserError
from smp.evaluation.policy.curves import (
  EPISODE,
  SDS_LOSS,
  TASK_REWARD,
  Curve,
  in_common,
  mean_sds_loss,
  read_curves,
)
from smp.utils.limits import Count, NotNegative
from smp.utils.tables import table_console

PERFORMANCE = ("Perf/total_fps", "Perf/collection_time", "Perf/learning_time")
"""Scalars from which the steps done follow: steps per second, and the seconds."""
SHOWN = {
  "updates": "Perf/updates",
  "level": "Curriculum/success/level",
  "episode": EPISODE,
  "task": TASK_REWARD,
  "r_smp": "Smp/r_smp",
}
"""Curves of which values are shown, beside the SDS loss; a dash where a run has none."""


@dataclass(frozen=True)
class CompareRunsCfg:
  """Print when episodes grew long in each run, and its learning curves at some times.

  Example: uv run scripts/compare_runs.py logs/rsl_rl/smp_forward_g1/*
  """

  runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
  """Folders of runs, logged with --agent.logger tensorboard, not resumed ones."""

  lengths: tuple[Count, ...] = (500, 900)
  """Mean episode lengths, in steps; the time until each is exceeded is shown."""

  minutes: tuple[NotNegative, ...] = (20.0, 60.0)
  """Times at which to compare steps, updates of td3, level of the curriculum, episode
  length, rewards and SDS loss."""

  million_steps: tuple[NotNegative, ...] = ()
  """Numbers of steps, in millions, at which to compare the same: trainings that shared
  their machine with other work, say."""


def main() -> None:
  """Run ``compare_runs RUN [RUN ...]``."""
  cfg = parse(CompareRunsCfg)
  if not cfg.runs:
    raise UserError("no run named; give one or more folders of logs/rsl_rl/TASK")
  runs = [(run.name, read_run(run)) for run in cfg.runs]
  lengths = [f"episode > {length}: min (M steps)" for length in cfg.lengths]
  table = _table("run", "steps/s", *lengths)
  for name, curves in runs:
    table.add_row(name, *speed_cells(curves, cfg.lengths))
  console = table_console(200)
  console.print(table)
  for minutes in cfg.minutes:
    at = [60.0 * minutes for _ in runs]
    console.print(moment_table(f"after {minutes:g} min", runs, at))
  for millions in cfg.million_steps:
    at = [seconds_until(curves, 1e6 * millions) for _, curves in runs]
    console.print(moment_table(f"after {millions:g} M steps", runs, at))


def moment_table(
  title: str, runs: Sequence[tuple[str, dict[str, Curve]]], seconds: Sequence[float]
) -> Table:
  """Return where each run was after so many seconds of its own."""
  table = _table("run", "min", "M steps", *SHOWN, "SDS loss", title=title)
  for (name, curves), at in zip(runs, seconds, strict=True):
    table.add_row(name, *moment_cells(curves, at))
  return table


def _table(first: str, *others: str, title: str | None = None) -> Table:
  table = Table(first, title=title)
  for column in others:
    table.add_column(column, justify="right")
  return table


def read_run(run: Path) -> dict[str, Curve]:
  """Return the curves of a run.

  Raises:
    UserError: The run has none, or not those of this project.
  """
  curves = read_curves(run, (*SHOWN.values(), SDS_LOSS, "Perf/"))
  if TASK_REWARD not in curves:
    raise UserError(f"{run}: not a run of this project (no {TASK_REWARD})")
  for name in PERFORMANCE:
    if name not in curves:
      raise UserError(f"{run}: a run without {name}; let it train a little longer")
  if not len(steps_done(curves).value):
    raise UserError(f"{run}: no iteration is complete; let it train a little longer")
  return curves


def speed_cells(curves: dict[str, Curve], lengths: Sequence[int]) -> list[str]:
  """Return steps per second, and when the episodes exceeded each length."""
  steps = steps_done(curves)
  speed = steps.value[-1] / max(steps.seconds[-1], 1e-9)
  passing = [_passing(curves.get(EPISODE), length, steps) for length in lengths]
  return [f"{speed:.0f}", *passing]


def seconds_until(curves: dict[str, Curve], steps: float) -> float:
  """Return after how many seconds a run had more steps than this; inf: never."""
  done = steps_done(curves)
  index = done.first_above(steps)
  return np.inf if index is None else float(done.seconds[index])


def moment_cells(curves: dict[str, Curve], seconds: float) -> list[str]:
  """Return what `moment_table` shows of a run; dashes if the time never came."""
  steps = steps_done(curves)
  before = steps.value[steps.seconds <= seconds]
  shown = [*map(curves.get, SHOWN.values()), mean_sds_loss(curves)]
  if seconds > steps.seconds[-1] or not len(before):
    return ["–"] * (2 + len(shown))
  return [
    f"{seconds / 60:.1f}",
    f"{before[-1] / 1e6:.2f}",
    *(_number(curve, seconds) for curve in shown),
  ]


def steps_done(curves: dict[str, Curve]) -> Curve:
  """Return the total steps of all environments so far, from their speed and time."""
  fps, *parts = in_common([curves[name] for name in PERFORMANCE])
  seconds = np.sum([part.value for part in parts], axis=0)
  return Curve(fps.iteration, fps.seconds, (fps.value * seconds).cumsum())


def _passing(episode: Curve | None, length: int, steps: Curve) -> str:
  index = None if episode is None else episode.first_above(length)
  if episode is None or index is None:
    return "–"
  done = steps.value[steps.iteration <= episode.iteration[index]]
  if not len(done):
    return f"{episode.seconds[index] / 60:.1f}"
  return f"{episode.seconds[index] / 60:.1f} ({done[-1] / 1e6:.2f})"


def _number(curve: Curve | None, seconds: float) -> str:
  value = None if curve is None else curve.at(seconds)
  if value is None:
    return "–"
  return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"
