"""Training of a classifier of motion windows by style, and its accuracy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from smp import paths
from smp.cli.options import parse
from smp.errors import UserError
from smp.evaluation.style_classifier import (
  PARTS,
  ClassifierCfg,
  StyleAccuracy,
  StyleClassifier,
  judge,
  labelled,
  mean_accuracy,
  train_classifier,
)
from smp.motion.dataset import load_stats, load_windows
from smp.utils.tables import table_console


@dataclass(frozen=True)
class Options:
  """Train a classifier that names the style of a window, on labelled clips alone.

  Example: uv run scripts/train_style_classifier.py outputs/style_classifier.safetensors
  --windows datasets/npz/styles

  Clips of split ``train`` train it; those of split ``val`` judge it, and its accuracy
  on them is printed and stored in the file. scripts/evaluate.py and
  scripts/evaluate_prior.py take the file with --style-classifier.
  """

  output: Annotated[Path, tyro.conf.Positional]
  """The file to write (.safetensors)."""

  windows: tuple[Path, ...]
  """NPZ files of labelled windows, or folders of them."""

  stats: Path = paths.NORM_STATS
  """Quantiles that normalise the features."""

  how: tyro.conf.OmitArgPrefixes[ClassifierCfg] = field(default_factory=ClassifierCfg)


TITLES = {
  "whole": "the whole body",
  "upper": "waist, arms and torso alone",
  "lower": "legs and root alone",
}
"""What a classifier sees, by part of the body."""


def print_accuracy(
  found: Sequence[StyleAccuracy], styles: Sequence[str], title: str, console: Console
) -> None:
  """Print accuracy, interval and confusion matrix, a table for each part."""
  for part in PARTS:
    rows = [each for each in found if each.part == part]
    if not rows:
      continue
    table = Table("windows of", title=f"{title}: {TITLES[part]}")
    for name in ("windows", "own label", "95 %", *styles):
      table.add_column(name, justify="right")
    for each in rows:
      assert each.low is not None and each.high is not None  # It has windows.
      table.add_row(
        *(each.style, str(each.windows), f"{100 * each.accuracy:.1f} %"),
        f"{100 * each.low:.0f}-{100 * each.high:.0f}",
        *(f"{100 * each.given[style]:.0f} %" for style in styles),
      )
    console.print(table)
    mean = mean_accuracy(found, part)
    assert mean is not None
    console.print(f"own label: {100 * mean:.1f} % (mean over styles)")


def warn_of_unjudged(classifier: StyleClassifier) -> None:
  """Warn of styles that no held-out clip shows."""
  seen = {each.style for each in classifier.held_out}
  missing = [style for style in classifier.styles if style not in seen]
  if missing:
    print(
      f"warning: no clip of split val shows {', '.join(missing)}: the accuracy there is "
      "unknown",
      file=sys.stderr,
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Run ``train_style_classifier OUTPUT --windows FILE... [OPTIONS]``."""
  arguments = sys.argv[1:] if arguments is None else arguments
  options = parse(Options, arguments)
  if options.output.suffix != ".safetensors":
    raise UserError(f"{options.output}: the file must end in .safetensors")
  windows = load_windows(options.windows)
  classifier = train_classifier(windows, load_stats(options.stats), options.how)
  console = table_console(240)
  print_accuracy(classifier.held_out, classifier.styles, "Held-out clips", console)
  own = judge(classifier, labelled(windows, "train"))
  shares = (f"{part} {100 * (mean_accuracy(own, part) or 0.0):.1f} %" for part in PARTS)
  console.print(f"own label on its own clips, for comparison: {', '.join(shares)}")
  warn_of_unjudged(classifier)
  classifier.save(options.output)
  print(f"[INFO] Wrote {options.output}")
