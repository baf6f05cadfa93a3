"""Judge priors by motion they know and motion they do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from smp.diffusion.evaluate import (
  EvaluateCfg,
  PriorReport,
  SourceWindows,
  evaluate_prior,
)
from smp.diffusion.plots import save_evaluation_picture
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError, atomic_path
from smp.motion.dataset import WindowSet, load_windows
from smp.paths import resolve_prior

OWN, HELD_OUT = "own", "held out"


@dataclass(frozen=True)
class Options:
  """Report what priors find familiar: raw error by speed, and how well they tell real
  windows from altered ones. All priors are scored on the same poses."""

  priors: Annotated[tuple[str, ...], tyro.conf.Positional]
  """Shipped priors by name, or files (.safetensors). Import a published .pt first."""

  windows: tuple[Path, ...]
  """NPZ files of windows, or folders of them. Clips of split ``val`` count as held out
  unless --held-out is given."""

  held_out: tuple[Path, ...] = ()
  """NPZ files or folders of windows no prior was trained on."""

  plot: Path | None = None
  """Picture to write (PNG)."""

  json: Path | None = None
  """Numbers to write (JSON)."""

  device: str = "cpu"

  how: tyro.conf.OmitArgPrefixes[EvaluateCfg] = field(default_factory=EvaluateCfg)


def _source(windows: WindowSet, chosen: np.ndarray) -> SourceWindows:
  features = torch.from_numpy(windows.windows[chosen])
  return SourceWindows(features, windows.spec, windows.stride)


def load_sets(options: Options) -> dict[str, SourceWindows]:
  """The windows to judge by, own and held out."""
  own = load_windows(options.windows)
  everything = np.ones(len(own.windows), dtype=bool)
  if options.held_out:
    other = load_windows(options.held_out)
    all_other = np.ones(len(other.windows), dtype=bool)
    return {OWN: _source(own, everything), HELD_OUT: _source(other, all_other)}
  clips = [i for i, split in enumerate(own.splits) if split == "val"]
  held_out = np.isin(own.clip_index, clips)
  if held_out.all() or not held_out.any():
    return {HELD_OUT if held_out.all() else OWN: _source(own, everything)}
  return {OWN: _source(own, ~held_out), HELD_OUT: _source(own, held_out)}


def print_tables(reports: Sequence[PriorReport], console: Console) -> None:
  columns = [
    (f"{report.prior}, {name}", report.sets[name], report)
    for report in reports
    for name in report.sets
  ]
  first = columns[0][1]
  errors = Table(title="Median raw error")
  errors.add_column("speed (m/s)")
  told = Table(title="AUC, real against altered windows (1: told apart, 0.5: not)")
  told.add_column("altered")
  for title, _, _ in columns:
    errors.add_column(title, justify="right")
    told.add_column(title, justify="right")
  for name in reports[0].sets:
    errors.add_column(f"windows, {name}", justify="right", style="dim")
  for i, bin_ in enumerate(first.bins):
    scored = (result.bins[i].median for _, result, _ in columns)
    cells = ["-" if median is None else f"{median:.4f}" for median in scored]
    counts = (str(result.bins[i].count) for result in reports[0].sets.values())
    errors.add_row(f"{bin_.low:.1f} to {bin_.high:.1f}", *cells, *counts)
  counts = (str(result.windows) for result in reports[0].sets.values())
  every = (f"{result.median:.4f}" for _, result, _ in columns)
  errors.add_row("all", *every, *counts)
  errors.add_row("own samples", *(f"{report.samples:.4f}" for _, _, report in columns))
  for kind in first.auc:
    told.add_row(kind, *(f"{result.auc[kind]:.3f}" for _, result, _ in columns))
  console.print(errors)
  console.print(told)


def _names(paths: Sequence[Path]) -> list[str]:
  """Short names, unless two files share one."""
  stems = [path.stem for path in paths]
  return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def main(arguments: Sequence[str] | None = None) -> None:
  arguments = sys.argv[1:] if arguments is None else arguments
  options = tyro.cli(Options, args=arguments, description=Options.__doc__)
  if not options.priors:
    raise UserError("no prior: name at least one")
  options.how.check()
  files = [resolve_prior(name) for name in options.priors]
  priors = [MotionPrior.load(file).to(options.device) for file in files]
  sets = load_sets(options)
  # In a file or a pipe there is no width to fit, and no reason to cut columns.
  console = Console() if sys.stdout.isatty() else Console(width=240)
  with Console(stderr=True).status("") as status:
    reports = [
      evaluate_prior(name, prior, sets, options.how, status.update)
      for name, prior in zip(_names(files), priors, strict=True)
    ]
  print_tables(reports, console)
  if options.json:
    content = {
      "windows": [str(path) for path in options.windows],
      "held_out": [str(path) for path in options.held_out],
      "how": vars(options.how),
      "priors": [report.to_dict() for report in reports],
    }
    with atomic_path(options.json) as temporary:
      temporary.write_text(json.dumps(content, indent=2) + "\n")
  if options.plot:
    save_evaluation_picture(options.plot, reports)
