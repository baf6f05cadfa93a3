"""Evaluation of priors on motion that they know and motion that they do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smp import paths
from smp.cli.options import parse
from smp.cli.train_style_classifier import print_accuracy
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.evaluation.prior.by_style import StyleReport, evaluate_styles, sample_accuracy
from smp.evaluation.prior.comparison import NOTE, SEEN, markdown, side_by_side
from smp.evaluation.prior.eval_windows import HELD_OUT, OWN, EvalWindows, kind_of
from smp.evaluation.prior.judge import (
  EvaluateCfg,
  EvaluationData,
  PriorReport,
  evaluate_prior,
)
from smp.evaluation.prior.prior_plots import save_evaluation_picture
from smp.evaluation.style_classifier import StyleClassifier
from smp.motion.dataset import WindowSet, load_stats, load_windows
from smp.utils.device import choose_device
from smp.utils.files import atomic_path
from smp.utils.limits import PictureFile
from smp.utils.tables import table_console


@dataclass(frozen=True)
class Options:
  """Judge priors: familiar motion, altered motion, other motion, and their samples.

  Example: uv run scripts/evaluate_prior.py loco --windows datasets/npz/loco --plot
  loco.png

  All priors are evaluated on the same poses. A prior trained on all its clips has no
  metrics on unseen ones: train a held-out run, with some clips held out
  (scripts/pretrain.py --hold-out), and name it as one more prior.
  """

  priors: Annotated[tuple[str, ...], tyro.conf.Positional]
  """Shipped priors by name, or files (.safetensors). Import a published .pt first."""

  windows: tuple[Path, ...]
  """NPZ files of windows, or folders of them. Clips of split ``val`` count as held out
  unless --held-out is given."""

  held_out: tuple[Path, ...] = ()
  """NPZ files or folders of windows that no prior was trained on."""

  others: tuple[Path, ...] = ()
  """NPZ files or folders of other motion, grouped by the first letters of clip names.
  Clips that are among --windows or --held-out are left out."""

  stats: Path = paths.NORM_STATS
  """Quantiles that scale distances between windows, the same for all priors."""

  names: tuple[str, ...] = ()
  """Titles of the columns, one for each prior. Default: the names of the files."""

  plot: PictureFile | None = None
  """Picture to write (.png, .pdf, .svg)."""

  json: Path | None = None
  """Numbers to write (JSON)."""

  markdown: Path | None = None
  """Table to write (Markdown), a column for each prior."""

  join: tuple[Path, ...] = ()
  """JSON of earlier runs, whose priors come first in the Markdown table."""

  by_style: bool = False
  """Of priors with styles: report only the errors by style, and which label has the
  lowest error on the windows of which style."""

  style_classifier: Path | None = None
  """With --by-style: a classifier (scripts/train_style_classifier.py) that says how many
  samples under each style look like it."""

  style_weight: float | None = None
  """With --by-style: w of classifier-free guidance. Default: 1."""

  device: str = "cpu"

  how: tyro.conf.OmitArgPrefixes[EvaluateCfg] = field(default_factory=EvaluateCfg)


def _source(windows: WindowSet, clips: Sequence[int]) -> EvalWindows:
  """Return the windows of some clips, by their index."""
  features = torch.from_numpy(windows.windows[np.isin(windows.clip_index, clips)])
  names = tuple(windows.clips[i] for i in clips)
  return EvalWindows(features, windows.spec, windows.stride, names)


def load_sets(options: Options) -> dict[str, EvalWindows]:
  """Load the evaluation windows, own and held out."""
  own = load_windows(options.windows)
  clips = range(len(own.clips))
  if options.held_out:
    other = load_windows(options.held_out)
    all_other = range(len(other.clips))
    return {OWN: _source(own, clips), HELD_OUT: _source(other, all_other)}
  val = [i for i in clips if own.splits[i] == "val"]
  parts = {OWN: [i for i in clips if i not in val], HELD_OUT: val}
  return {name: _source(own, part) for name, part in parts.items() if part}


def load_others(
  folders: Sequence[Path], sets: dict[str, EvalWindows]
) -> dict[str, EvalWindows]:
  """Return windows of clips that are in none of the sets, by kind.

  Raises:
    UserError: Every clip is in one of the sets.
  """
  if not folders:
    return {}
  windows = load_windows(folders)
  known = {clip for source in sets.values() for clip in source.clips}
  kinds: dict[str, list[int]] = {}
  for i, clip in enumerate(windows.clips):
    if clip not in known:
      kinds.setdefault(kind_of(clip), []).append(i)
  if not kinds:
    raise UserError(
      f"--others {' '.join(map(str, folders))}: every clip there is among --windows or "
      "--held-out; name windows of other clips"
    )
  return {kind: _source(windows, clips) for kind, clips in sorted(kinds.items())}


def print_tables(reports: Sequence[PriorReport], console: Console) -> None:
  """Print the errors by speed, and all other results side by side."""
  columns = [
    (f"{report.prior}, {name}", result)
    for report in reports
    for name, result in report.sets.items()
  ]
  errors = Table("speed (m/s)", title="Median SDS loss by speed")
  for title, _ in columns:
    errors.add_column(title, justify="right")
  for name in reports[0].sets:
    errors.add_column(f"windows, {name}", justify="right", style="dim")
  for i, bin_ in enumerate(columns[0][1].bins):
    scored = (result.bins[i].median for _, result in columns)
    cells = ["-" if median is None else f"{median:.4f}" for median in scored]
    counts = (str(result.bins[i].count) for result in reports[0].sets.values())
    errors.add_row(f"{bin_.low:.1f} to {bin_.high:.1f}", *cells, *counts)
  console.print(errors)
  table = Table("", title="Side by side (AUC 1: perfectly separable, 0.5: chance)")
  for report in reports:
    table.add_column(report.prior, justify="right")
  for title, rows in side_by_side([report.to_dict() for report in reports]):
    table.add_row(Text(title, style="bold"))
    for label, cells in rows:
      table.add_row(f"  {label}", *cells)
    table.add_section()
  console.print(table)
  if any(report.seen for report in reports):
    console.print(NOTE)


def print_styles(report: StyleReport, console: Console) -> None:
  """Print the errors by style and the confusion matrix."""
  of = "held-out" if report.split == "val" else "training"
  title = (
    f"{report.prior}: median SDS loss and the label of the lowest error, {of} clips"
  )
  table = Table("windows of", title=title)
  labels = list(report.styles[0].lowest)
  for name in ("windows", "own label", "no label", *labels):
    table.add_column(name, justify="right")
  for error in report.styles:
    shares = (f"{100 * error.lowest[label]:.0f} %" for label in labels)
    table.add_row(
      *(error.style, str(error.windows)),
      *(f"{error.labelled:.4f}", f"{error.unlabelled:.4f}", *shares),
    )
  console.print(table)
  errors = Table("windows of", title="median SDS loss under each label")
  for label in labels:
    errors.add_column(label, justify="right")
  for error in report.styles:
    errors.add_row(error.style, *(f"{error.medians[label]:.4f}" for label in labels))
  console.print(errors)
  console.print(f"own label lowest: {100 * report.accuracy():.1f} % (mean over styles)")


def report_styles(options: Options, priors: dict[str, MotionPrior]) -> None:
  """Evaluate, print and write the results by style."""
  windows, how = load_windows(options.windows), options.how
  file = options.style_classifier
  judge = None if file is None else StyleClassifier.load(file.expanduser())
  weight = 1.0 if options.style_weight is None else options.style_weight
  reports = [
    evaluate_styles(
      name, prior, windows, how.windows_per_bin, how.draws, how.seed, weight
    )
    for name, prior in priors.items()
  ]
  console = table_console(240)
  content = [report.to_dict() for report in reports]
  for report, entry in zip(reports, content, strict=True):
    print_styles(report, console)
    if judge is not None:
      prior = priors[report.prior]
      found = sample_accuracy(report.prior, prior, judge, how.samples, how.seed)
      print_accuracy(found, judge.styles, f"Samples of {report.prior}", console)
      entry["samples"] = [asdict(each) for each in found]
  _write(options.json, json.dumps({"styles": content}, indent=2) + "\n")


def warn_of_seen(report: PriorReport) -> None:
  """Warn of the clips that this prior was trained on, which do not test it."""
  for name, clips in report.seen.items():
    what = "held out here" if name == HELD_OUT else f"of the kind '{name}'"
    print(
      f"warning: {report.prior} was trained on {', '.join(clips)}, {what}: values "
      f"marked {SEEN} are not of unseen motion; add a prior trained without these clips",
      file=sys.stderr,
    )


def _names(options: Options, files: Sequence[Path]) -> list[str]:
  """Return the names given, or file names without suffix where they are unique."""
  if options.names:
    if len(options.names) != len(files):
      raise UserError(
        f"--names: {len(options.names)} for {len(files)} priors; give one for each"
      )
    return list(options.names)
  stems = [file.stem for file in files]
  return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


def load_reports(path: Path) -> list[dict[str, Any]]:
  """Return the reports in a JSON of an earlier run.

  Raises:
    UserError: There is no such file, or it is not of this version.
  """
  try:
    reports = json.loads(path.read_text())["priors"]
    side_by_side(reports)
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(
      f"{path}: not a JSON of scripts/evaluate_prior.py; write it anew with --json"
    ) from error
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  return reports


def _write(path: Path | None, text: str) -> None:
  if path:
    with atomic_path(path) as temporary:
      temporary.write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
  """Run ``evaluate_prior PRIOR... --windows FILE... [OPTIONS]``."""
  arguments = sys.argv[1:] if arguments is None else arguments
  options = parse(Options, arguments)
  if not options.priors:
    raise UserError("no prior: name at least one")
  options.how.check()
  earlier = [report for path in options.join for report in load_reports(path)]
  files = [paths.resolve_prior(name) for name in options.priors]
  names = _names(options, files)
  device = choose_device(options.device)
  priors = [MotionPrior.load(file).to(device) for file in files]
  if options.style_classifier and not options.by_style:
    raise UserError("--style-classifier: needs --by-style")
  if options.style_weight is not None and not options.by_style:
    raise UserError("--style-weight: needs --by-style")
  if options.by_style:
    report_styles(options, dict(zip(names, priors, strict=True)))
    return
  sets = load_sets(options)
  others = load_others(options.others, sets)
  data = EvaluationData(sets, load_stats(options.stats), others)
  # A file or a pipe has no width to fit, so no column is cut.
  console = table_console(240)
  with Console(stderr=True).status("") as status:
    reports = [
      evaluate_prior(name, prior, data, options.how, status.update)
      for name, prior in zip(names, priors, strict=True)
    ]
  print_tables(reports, console)
  for report in reports:
    warn_of_seen(report)
  as_dicts = [report.to_dict() for report in reports]
  content = {
    "windows": [str(path) for path in options.windows],
    "held_out": [str(path) for path in options.held_out],
    "others": [str(path) for path in options.others],
    "how": vars(options.how),
    "priors": as_dicts,
  }
  _write(options.json, json.dumps(content, indent=2) + "\n")
  _write(options.markdown, markdown([*earlier, *as_dicts]))
  if options.plot:
    save_evaluation_picture(options.plot, reports)
