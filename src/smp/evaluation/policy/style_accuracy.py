"""Whether a policy moves in the style asked of it, as a classifier of windows sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smp.diffusion.styles import StyleCfg, find_style
from smp.episodes.episode_metrics import all_of
from smp.episodes.metric import Metric
from smp.episodes.trajectory import Trajectory
from smp.errors import UserError
from smp.evaluation.policy.motion_similarity import windows_of
from smp.evaluation.style_classifier import LOWER, UPPER, WHOLE, StyleClassifier
from smp.motion.features import WINDOW

STRIDE = 2 * WINDOW
"""Steps from one window that is judged to the next of the same episode."""
ENVS = 64
"""Episodes whose windows are computed at once."""
SEEN = {WHOLE: "", UPPER: ", upper body", LOWER: ", lower body"}


@dataclass(frozen=True)
class StyleJudge:
  """A classifier, and the style that it should see in each part of the body."""

  file: Path
  classifier: StyleClassifier
  asked: dict[str, str]
  """Style by part: of the whole body, or of the upper and of the lower one."""

  def about(self) -> dict[str, Any]:
    """Describe it in plain JSON types."""
    return {
      "classifier": str(self.file),
      "asked": self.asked,
      "held_out_accuracy": {
        part: self.classifier.accuracy(part).get(style)
        for part, style in self.asked.items()
      },
    }


def style_judge(file: Path | None, asked: StyleCfg) -> StyleJudge | None:
  """Return the judge of a choice of styles; None without a classifier.

  Raises:
    UserError: There is nothing to judge, a part of the body has no style, the file is
      no classifier of this robot's windows, or it does not know a style.
  """
  if file is None:
    return None
  if not asked.named():
    raise UserError(
      "--style-classifier: name the style that the policy should show with --style"
    )
  upper, lower = asked.parts()
  if upper is None or lower is None:
    part = "--style-upper" if upper is None else "--style-lower"
    raise UserError(f"{part} or --style: give the style of the rest of the body too")
  classifier = StyleClassifier.load(file.expanduser())
  parts = {WHOLE: upper} if upper == lower else {UPPER: upper, LOWER: lower}
  for part, style in parts.items():
    option = "--style" if part == WHOLE else f"{part} style"
    find_style(style, classifier.styles, option, "classifier")
  return StyleJudge(file, classifier, parts)


def style_metrics(parts: Sequence[str]) -> list[Metric]:
  """Return the metrics of the styles asked of some parts of the body."""
  found = []
  for part in parts:
    short = "style" if part == WHOLE else f"style, {part}"
    found += [
      Metric(
        f"style_{part}",
        f"share of windows in the style asked for{SEEN[part]}",
        "",
        "naturalness",
        better="higher",
        short=short,
      ),
      Metric(
        f"style_{part}_episodes",
        f"episodes mostly in the style asked for{SEEN[part]}",
        "%",
        "naturalness",
        "rate",
        "higher",
      ),
    ]
  return found


def style_values(
  trajectory: Trajectory, judge: StyleJudge, settle: float
) -> dict[str, Tensor]:
  """Return the values of `style_metrics` in each episode (N,); nan without a window.

  Windows count from ``settle`` (s) on, one every `STRIDE` steps, while the episode is
  valid. An episode is mostly in the style that the most of its windows are given; of
  equal ones the first.
  """
  parts = [
    _values(trajectory.select(envs), judge, settle)
    for envs in torch.arange(trajectory.num_envs).split(ENVS)
  ]
  return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _values(
  trajectory: Trajectory, judge: StyleJudge, settle: float
) -> dict[str, Tensor]:
  count, styles = trajectory.num_envs, judge.classifier.styles
  step, env = _rows(trajectory, round(settle * trajectory.fps))
  features = windows_of(trajectory, step, env).float()
  values = {}
  for part, style in judge.asked.items():
    given = judge.classifier.label(features, part)
    votes = torch.zeros(count, len(styles))
    votes.index_put_((env, given), torch.ones(len(env)), accumulate=True)
    total, label = votes.sum(dim=1), styles.index(style)
    empty = total == 0
    share = votes[:, label] / total.clamp(min=1)
    most = (votes.argmax(dim=1) == label).float()
    values[f"style_{part}"] = share.masked_fill(empty, torch.nan)
    values[f"style_{part}_episodes"] = most.masked_fill(empty, torch.nan)
  return values


def _rows(trajectory: Trajectory, first: int) -> tuple[Tensor, Tensor]:
  """Return the first step (n,) and the environment (n,) of each window judged."""
  valid = trajectory.valid()
  if trajectory.steps - first < WINDOW:
    return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
  whole = all_of(valid[first:], WINDOW)[::STRIDE]
  step, env = whole.nonzero().unbind(-1)
  return first + STRIDE * step, env
