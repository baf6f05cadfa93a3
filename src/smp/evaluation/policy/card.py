"""The card of a published policy: provenance, training curve and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smp.errors import UserError
from smp.evaluation.policy import summary
from smp.evaluation.policy.curves import EPISODE, TASK_REWARD, read_curves
from smp.evaluation.policy.html_report import in_words
from smp.utils.files import atomic_path

LICENCE = """The weights are computed from LAFAN1 (CC BY-NC-ND 4.0): research, non-commercial, with
attribution. See `datasets/README.md`."""

CURVES = {
  EPISODE: "episode (steps)",
  TASK_REWARD: "task reward",
  "Smp/r_smp": "r_smp",
}
"""Scalars of a run that the curve shows, and their titles."""


def write_card(
  path: Path,
  card: dict[str, Any],
  evaluation: Path | None,
  curve: Path | None,
  notes: str = "",
) -> None:
  """Write a policy's card as Markdown.

  Args:
    path: The file to write.
    card: Contents of the policy file's card.
    evaluation: evaluation.json of `scripts/evaluate.py`; its first policy is used.
    curve: A picture, in the same folder.
    notes: A paragraph for people: what the film shows, where the policy falls short.

  Raises:
    UserError: The evaluation cannot be read, or is of another task.
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
    lines += _evaluation(evaluation, card["task"])
  with atomic_path(path) as temporary:
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
  """Return a value of a card as text; what an actor observes (`ActorLayout`) as a list."""
  if isinstance(value, dict):
    frames = "frame" if value["history"] == 1 else "frames"
    value = f"{', '.join(value['terms'])}; {value['history']} {frames}"
  text = str(value).replace("|", "\\|")
  return f"`{text}`" if " --" in text else text


def _evaluation(path: Path, task: str) -> list[str]:
  """Return the tables of an evaluation as Markdown."""
  try:
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["protocol"]["task"] != task:
      raise UserError(
        f"{path}: an evaluation of {result['protocol']['task']}, not of {task}"
      )
    rows = result["policies"][0]["conditions"]
    metrics = [f for f in summary.metrics_in(result) if f.short]
    lines = ["## Evaluation", "", f"`{result['command']}`", ""]
    lines += [note.capitalize() + "." for note in result["protocol"]["notes"]]
    lines += ["95 % intervals in brackets.", ""]
    for title, wanted in (("Task", True), ("Naturalness and effort", False)):
      part = [f for f in metrics if (f.group == "task") == wanted]
      lines += [f"### {title}", "", "| condition | n |" + _row(f.short for f in part)]
      lines += ["|" + "---|" * (len(part) + 2)]
      for row in rows:
        cells = [" ".join(in_words(f, row["figures"][f.key])).strip() for f in part]
        lines.append(f"| {row['label']} | {row['episodes']} |" + _row(cells))
      lines.append("")
    return lines
  except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
    raise UserError(
      f"{path}: not an evaluation.json of this version of scripts/evaluate.py "
      f"({type(error).__name__}); evaluate again"
    ) from error


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
