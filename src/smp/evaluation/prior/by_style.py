"""Evaluation of a prior with styles: which label knows which motion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.diffusion.styles import StyleCfg
from smp.errors import UserError
from smp.evaluation.prior.judge import window_errors
from smp.evaluation.prior.sample_quality import canonicalized
from smp.evaluation.style_classifier import (
  PARTS,
  StyleAccuracy,
  StyleClassifier,
  accuracy_of,
)
from smp.motion.dataset import WindowSet
from smp.utils.rows import evenly_spaced


@dataclass(frozen=True)
class StyleError:
  """Errors of one style's windows, and the labels that know them best."""

  style: str
  windows: int
  """Number of windows, of which at most windows_per_bin were measured."""
  labelled: float
  """Median SDS loss under their own label."""
  unlabelled: float
  """Median SDS loss without a label."""
  lowest: dict[str, float]
  """Share of the windows whose error is the lowest under each label: a row of the
  confusion matrix."""
  medians: dict[str, float]
  """Median SDS loss under each label: what a reward for one style gives another."""


@dataclass(frozen=True)
class StyleReport:
  """Results of one prior by style."""

  prior: str
  split: str
  """Whose windows: "val", of clips held out, or "train" if none are. A style that has
  none of these windows is left out."""
  styles: list[StyleError]

  def accuracy(self) -> float:
    """Return the mean share of windows whose own label has the lowest error."""
    own = [error.lowest.get(error.style, 0.0) for error in self.styles]
    return sum(own) / len(own)

  def to_dict(self) -> dict[str, Any]:
    """Return the fields as plain types."""
    return {**asdict(self), "accuracy": self.accuracy()}


def evaluate_styles(
  name: str,
  prior: MotionPrior,
  windows: WindowSet,
  count: int,
  draws: int,
  seed: int,
  weight: float = 1.0,
) -> StyleReport:
  """Evaluate a prior on labelled windows under each of its labels.

  Args:
    name: Name of the prior in the report.
    prior: A prior with styles.
    windows: Labelled windows; those held out are taken, or all if none are.
    count: Maximum number of windows of each style, evenly spread.
    draws: Draws of noise per window and timestep, the same under every label.
    seed: Seed of the noise.
    weight: w of classifier-free guidance.

  Raises:
    UserError: The prior or the windows have no styles, or none in common.
  """
  if not prior.styles:
    raise UserError(f"--by-style: {name} has no styles (it is unconditional)")
  if not windows.styles:
    raise UserError(
      "--by-style: these windows have no labels; convert a motion set with styles "
      "(configs/motions/styles.yaml)"
    )
  common = [style for style in windows.styles if style in prior.styles]
  if not common:
    raise UserError(
      f"--by-style: {name} has the styles {', '.join(prior.styles)}, the windows "
      f"{', '.join(windows.styles)}"
    )
  windows.spec.check(prior.spec)
  split = "val" if "val" in windows.splits else "train"
  features = torch.from_numpy(windows.select(split))
  found = torch.from_numpy(windows.select_styles(split))
  each = {
    style: prior.with_style(StyleCfg(style, weight=weight)) for style in prior.styles
  }
  errors = []
  for style in common:
    rows = (found == windows.styles.index(style)).nonzero().squeeze(1)
    if len(rows):
      chosen = features[rows[evenly_spaced(len(rows), count)]]
      under = {
        label: window_errors(own, chosen, draws, seed) for label, own in each.items()
      }
      plain = window_errors(prior, chosen, draws, seed)
      errors.append(_style_error(style, len(rows), under, plain))
  return StyleReport(name, split, errors)


def _style_error(
  style: str, windows: int, under: dict[str, Tensor], plain: Tensor
) -> StyleError:
  """Return the results of a style from errors (n,) under each label, and without."""
  best = torch.stack(list(under.values())).argmin(dim=0)
  return StyleError(
    style,
    windows,
    float(under[style].median()),
    float(plain.median()),
    {label: float((best == i).float().mean()) for i, label in enumerate(under)},
    {label: float(errors.median()) for label, errors in under.items()},
  )


def sample_accuracy(
  name: str, prior: MotionPrior, classifier: StyleClassifier, count: int, seed: int
) -> list[StyleAccuracy]:
  """Return how a classifier labels a prior's samples under each style, by part.

  Args:
    name: Name of the prior, for errors.
    prior: A prior with styles; those that the classifier does not know are left out.
    classifier: The judge.
    count: Samples of each style.
    seed: Seed of the samples.

  Raises:
    UserError: They have no style in common.
  """
  common = [style for style in classifier.styles if style in prior.styles]
  if not common:
    raise UserError(
      f"--style-classifier: it has the styles {', '.join(classifier.styles)}, {name} "
      f"{', '.join(prior.styles)}"
    )
  found = []
  for style in common:
    generator = torch.Generator(prior.q_low.device).manual_seed(seed)
    samples = prior.with_style(StyleCfg(style)).sample(count, generator)
    windows = canonicalized(samples.cpu(), prior.spec)
    for part in PARTS:
      given = classifier.label(windows, part)
      found.append(accuracy_of(classifier, style, part, given))
  return found
