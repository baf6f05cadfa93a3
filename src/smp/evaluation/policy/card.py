"""The card of a published policy: provenance, training curve and evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smp.episodes.metric import Metric
from smp.errors import UserError
from smp.evaluation.policy import summary
from smp.evaluation.policy.curves import EPISODE, TASK_REWARD, read_curves
from smp.evaluation.policy.html_report import in_words
from smp.robots import g1
from smp.utils.files import atomic_path

LICENCE = """The weights are computed from LAFAN1 (CC BY-NC-ND 4.0): research, non-commercial, with
attribution. See `datasets/README.md`."""

CURVES = {
  EPISODE: "episode (steps)",
  TASK_REWARD: "task reward",
  "Smp/r_smp": "r_smp",
}
"""Scalars of a run that the curve shows, and their titles."""


LIMBS = f"amplitude of {' / '.join(limb.replace('_', ' ') for limb in g1.LIMBS)}"
"""Title of the column with the joint amplitude of every limb, policy to data."""


def card_text(
  card: dict[str, Any],
  evaluation: Path | None,
  curve: Path | None,
  notes: str = "",
  weights: str | None = None,
) -> str:
  """Return a policy's card as Markdown.

  Args:
    card: Contents of the policy file's card.
    evaluation: evaluation.json of `scripts/evaluate.py`; its first policy is used.
    curve: A picture, in the same folder.
    notes: A paragraph for people: what the film shows, where the policy falls short.
    weights: Digest of the policy (`smp.rl.actor.Actor.digest`), which must be the one
      that was evaluated. None: it is not checked.

  Raises:
    UserError: The evaluation cannot be read, or is of another task or policy.
  """
  lines = [f"# {card['task']}", ""]
  if notes:
    lines += [notes, ""]
  lines += ["| | |", "|---|---|"]
  shown = {name: value for name, value in card.items() if name != "task"}
  lines += [f"| {name} | {_cell(value)} |" for name, value in shown.items()]
  lines += ["", LICENCE, ""]
  if curve is not None:
    lines += ["## Curve", "", f"![Curve of the training]({curve.name})", ""]
  if evaluation is not None:
    lines += _evaluation(evaluation, card["task"], weights)
  return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
  """Return a value of a card as text; what an actor observes (`ActorLayout`) as a list."""
  if isinstance(value, dict):
    frames = "frame" if value["history"] == 1 else "frames"
    value = f"{', '.join(value['terms'])}; {value['history']} {frames}"
  text = str(value).replace("|", "\\|")
  return f"`{text}`" if " --" in text else text


def _evaluation(path: Path, task: str, weights: str | None) -> list[str]:
  """Return the tables of an evaluation as Markdown.

  An evaluation of an earlier version does not say which weights it is of.
  """
  try:
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["protocol"]["task"] != task:
      raise UserError(
        f"{path}: an evaluation of {result['protocol']['task']}, not of {task}"
      )
    policy = result["policies"][0]
    found = policy.get("weights", weights)
    if weights is not None and found != weights:
      raise UserError(
        f"{path}: an evaluation of another policy ({policy['name']}), not of this one; "
        "evaluate it"
      )
    rows = policy["conditions"]
    # An evaluation of an earlier version lacks later metrics.
    known = set(rows[0]["figures"])
    metrics = [f for f in summary.metrics_in(result) if f.short and f.key in known]
    lines = ["## Evaluation", "", f"`{result['command']}`", ""]
    lines += [note.capitalize() + "." for note in result["protocol"]["notes"]]
    lines += ["95 % intervals in brackets.", ""]
    task_part = [f for f in metrics if f.group == "task"]
    motion_part = [f for f in metrics if f.group != "task"]
    lines += _table("Task", task_part, rows)
    lines += _table("Naturalness and effort", motion_part, rows, (LIMBS, _limbs))
    return lines
  except (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    RecursionError,
  ) as error:
    raise UserError(
      f"{path}: not an evaluation.json of this version of scripts/evaluate.py "
      f"({type(error).__name__}); evaluate again"
    ) from error


def _table(
  title: str,
  metrics: Sequence[Metric],
  rows: Sequence[dict[str, Any]],
  *more: tuple[str, Callable[[dict[str, Any]], str]],
) -> list[str]:
  """Return a table of conditions as Markdown.

  Args:
    title: Its heading.
    metrics: Its columns.
    rows: Conditions of an evaluation.
    more: Further columns: their titles, and their cells by a condition's figures.
  """
  heads = [*(f.short for f in metrics), *(name for name, _ in more)]
  lines = [f"### {title}", "", "| condition | n |" + _row(heads)]
  lines += ["|" + "---|" * (len(heads) + 2)]
  for row in rows:
    figures = row["figures"]
    cells = [" ".join(in_words(f, figures[f.key])).strip() for f in metrics]
    cells += [cell(figures) for _, cell in more]
    lines.append(f"| {row['label']} | {row['episodes']} |" + _row(cells))
  return [*lines, ""]


def _limbs(figures: dict[str, Any]) -> str:
  """Return the amplitude of every limb in one cell, without intervals."""
  values = [in_words(f, figures[f.key])[0] for f in summary.LIMB_AMPLITUDES]
  return " / ".join(values)


def _row(cells: Any) -> str:
  return "".join(f" {cell} |" for cell in cells)


def draw_curve(path: Path, runs: tuple[Path, ...]) -> None:
  """Draw the curve of a training that continued over ``runs``, oldest first.

  Args:
    path: The picture to write.
    runs: Folders of runs, logged with ``--agent.logger tensorboard``.

  Raises:
    UserError: A folder holds no such log.
  """
  import matplotlib.pyplot as plt

  tables = [read_curves(run, CURVES) for run in runs]
  for table, run in zip(tables, runs, strict=True):
    if not table:
      raise UserError(f"{run}: its log has none of {', '.join(CURVES)}")
  figure, axes = plt.subplots(1, len(CURVES), figsize=(10, 2.6), layout="constrained")
  for axis, (tag, label) in zip(axes, CURVES.items(), strict=True):
    for table, run in zip(tables, runs, strict=True):
      if tag in table:
        axis.plot(table[tag].iteration, table[tag].value, label=run.name)
    axis.set_xlabel("iteration")
    axis.set_title(label, fontsize=9)
    axis.grid(alpha=0.3)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, format="png", dpi=90)
  plt.close(figure)
