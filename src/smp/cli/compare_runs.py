"""Comparison of the learning speed of training runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from smp.errors import UserError
from smp.evaluation.policy.curves import (
  EPISODE,
  SDS_LOSS,
  TASK_REWARD,
  Curve,
  mean_sds_loss,
  read_curves,
)

SHOWN = ("episode", "task", "SDS loss")
"""Curves of which values are shown."""


@dataclass(frozen=True)
class CompareRunsCfg:
  """Print when episodes grew long in each run, and its learning curves at some times.

  Example: uv run scripts/compare_runs.py logs/rsl_rl/smp_forward_g1/*
  """

  runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
  """Folders of runs, logged with --agent.logger tensorboard, not resumed ones."""

  lengths: tuple[int, ...] = (500, 900)
  """Mean episode lengths, in steps; the time until each is exceeded is shown."""

  minutes: tuple[float, ...] = (20.0, 60.0)
  """Times at which steps, episode length, task reward and SDS loss are shown."""

  million_steps: tuple[float, ...] = ()
  """Numbers of steps, in millions, at which the same is shown, with the minutes. It
  compares trainings that shared their machine with other work."""


def main() -> None:
  """Run ``compare_runs RUN [RUN ...]``."""
  cfg = tyro.cli(CompareRunsCfg, description=CompareRunsCfg.__doc__)
  if not cfg.runs:
    raise UserError("no run named; give one or more folders of logs/rsl_rl/TASK")
  table = Table()
  for column in header(cfg):
    table.add_column(column, justify="left" if column == "run" else "right")
  for run in cfg.runs:
    table.add_row(*row(run, cfg))
  Console(width=None if Console().is_terminal else 200).print(table)


def header(cfg: CompareRunsCfg) -> list[str]:
  """Return the names of the columns."""
  columns = ["run", "steps/s"]
  for length in cfg.lengths:
    columns.append(f"episode > {length}: min (M steps)")
  for minutes in cfg.minutes:
    columns += [f"{name} at {minutes:g} min" for name in ("M steps", *SHOWN)]
  for steps in cfg.million_steps:
    columns += [f"{name} at {steps:g} M steps" for name in ("min", *SHOWN)]
  return columns


def row(run: Path, cfg: CompareRunsCfg) -> list[str]:
  """Return the cells of one run.

  Raises:
    UserError: The run has no curves.
  """
  curves = read_curves(run, (EPISODE, TASK_REWARD, SDS_LOSS, "Perf/"))
  if TASK_REWARD not in curves:
    raise UserError(f"{run}: not a run of this project (no {TASK_REWARD})")
  steps = steps_done(curves)
  shown = (curves.get(EPISODE), curves[TASK_REWARD], mean_sds_loss(curves))
  speed = steps.value[-1] / max(steps.seconds[-1], 1e-9)
  cells = [run.name, f"{speed:.0f}"]
  for length in cfg.lengths:
    cells.append(_passing(curves.get(EPISODE), length, steps))
  for minutes in cfg.minutes:
    seconds = 60.0 * minutes
    done = (
      None if seconds > steps.seconds[-1] else steps.value[steps.seconds <= seconds]
    )
    cells.append("–" if done is None or not len(done) else f"{done[-1] / 1e6:.2f}")
    cells += [_number(curve, seconds) for curve in shown]
  for millions in cfg.million_steps:
    index = steps.first_above(1e6 * millions)
    seconds = np.inf if index is None else float(steps.seconds[index])
    cells.append("–" if index is None else f"{seconds / 60:.1f}")
    cells += [_number(curve, seconds) for curve in shown]
  return cells


def steps_done(curves: dict[str, Curve]) -> Curve:
  """Return the total steps of all environments so far, from their speed and time."""
  fps = curves["Perf/total_fps"]
  seconds = curves["Perf/collection_time"].value + curves["Perf/learning_time"].value
  return Curve(fps.iteration, fps.seconds, (fps.value * seconds).cumsum())


def _passing(episode: Curve | None, length: int, steps: Curve) -> str:
  index = None if episode is None else episode.first_above(length)
  if episode is None or index is None:
    return "–"
  done = steps.value[steps.iteration <= episode.iteration[index]][-1]
  return f"{episode.seconds[index] / 60:.1f} ({done / 1e6:.2f})"


def _number(curve: Curve | None, seconds: float) -> str:
  value = None if curve is None else curve.at(seconds)
  return "–" if value is None else f"{value:.3g}"
