"""Reports of priors side by side: one table, for the terminal and as Markdown.

The input is the reports' JSON, so that earlier runs can be columns too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from smp.errors import UserError
from smp.evaluation.prior.eval_windows import HELD_OUT, OWN
from smp.evaluation.prior.sample_quality import UNITS

ERRORS = "median SDS loss (AUC)"
REAL = f"Real windows: {ERRORS}"
KINDS_OWN = "Own windows by kind of motion: median SDS loss"
KINDS_HELD_OUT = "Held-out windows by kind of motion: median SDS loss"
ALTERED_OWN = f"Altered own windows: {ERRORS}"
ALTERED_HELD_OUT = f"Altered held-out windows: {ERRORS}"
OTHERS = f"Other kinds of motion: {ERRORS}"
SAMPLES = "Samples against own windows; held-out windows in their place"
SECTIONS = (
  *(REAL, KINDS_OWN, KINDS_HELD_OUT),
  *(ALTERED_OWN, ALTERED_HELD_OUT, OTHERS, SAMPLES),
)
SEEN = "†"
NOTE = (
  f"{SEEN} Not unseen: the prior was trained on these clips, or on the held-out ones that "
  "they are told from."
)

Column = dict[str, dict[str, str]]
"""Cells of one prior, by section and row."""
Section = tuple[str, list[tuple[str, list[str]]]]
"""Title, and rows of label and cells."""


def three_digits(value: float) -> str:
  """Format a number with three significant digits, and as an integer from 1000 on."""
  if abs(value) >= 999.5:
    return f"{value:.0f}"
  return f"{value:#.3g}".removesuffix(".")


def side_by_side(reports: Sequence[dict[str, Any]]) -> list[Section]:
  """Return the table of `PriorReport.to_dict` s, one column each; ``-`` for no value.

  Raises:
    UserError: One of them is not such a report.
  """
  try:
    columns = [_column(report) for report in reports]
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f"not a report of this version of scripts/evaluate_prior.py ({error!r}); "
      "evaluate again"
    ) from None
  table = []
  for title in SECTIONS:
    parts = [column[title] for column in columns]
    labels = list(dict.fromkeys(label for part in parts for label in part))
    if title == OTHERS:
      labels.sort()
    rows = [(label, [part.get(label, "-") for part in parts]) for label in labels]
    if rows:
      table.append((title, rows))
  return table


def markdown(reports: Sequence[dict[str, Any]]) -> str:
  """Return the table as Markdown, with a note where it contains marked cells."""
  sections = side_by_side(reports)
  names = [str(report["prior"]).replace("|", "\\|") for report in reports]
  lines = [_line("", names), "|---" + "|---:" * len(names) + "|"]
  for title, rows in sections:
    lines.append(_line(f"**{title}**", [""] * len(names)))
    lines.extend(_line(label, cells) for label, cells in rows)
  text = "\n".join(lines) + "\n"
  return f"{text}\n{NOTE}\n" if SEEN in text else text


def _line(label: str, cells: Sequence[str]) -> str:
  return "| " + " | ".join((label, *cells)) + " |"


def _column(report: dict[str, Any]) -> Column:
  sets, seen, others = report["sets"], report["seen"], report["others"]
  own = sets[OWN]["altered"] if OWN in sets else {}
  held_out = sets[HELD_OUT]["altered"] if HELD_OUT in sets else {}
  # An AUC against clips of the prior's training is biased, as their errors are.
  knows_real = HELD_OUT in seen
  return {
    REAL: _real(report),
    KINDS_OWN: _kinds(sets.get(OWN, {}), ""),
    KINDS_HELD_OUT: _kinds(sets.get(HELD_OUT, {}), SEEN if knows_real else ""),
    ALTERED_OWN: _separability(own, ()),
    ALTERED_HELD_OUT: _separability(held_out, held_out if knows_real else ()),
    OTHERS: _separability(others, others if knows_real else seen),
    SAMPLES: _samples(report["samples"], report["held_out_reference"]),
  }


def _real(report: dict[str, Any]) -> dict[str, str]:
  rows = {}
  for name, result in report["sets"].items():
    cell = three_digits(result["median"])
    if name == HELD_OUT and report["held_out_auc"] is not None:
      cell += f" ({three_digits(report['held_out_auc'])})"
    label = f"{name.replace(' ', '-')} clips"
    rows[label] = cell + (SEEN if name in report["seen"] else "")
  return {**rows, "own samples": three_digits(report["samples"]["error"])}


def _kinds(result: dict[str, Any], mark: str) -> dict[str, str]:
  return {
    each["kind"]: three_digits(each["median"]) + mark
    for each in result.get("kinds", ())
    if each["median"] is not None
  }


def _separability(
  kinds: dict[str, dict[str, float]], marked: Collection[str]
) -> dict[str, str]:
  return {
    kind: f"{three_digits(separability['median'])} ({three_digits(separability['auc'])})"
    + (SEEN if kind in marked else "")
    for kind, separability in kinds.items()
  }


def _samples(
  samples: dict[str, Any], held_out_reference: dict[str, Any] | None
) -> dict[str, str]:
  off = list(samples["ee_mm"].values())
  means = {"mean": sum(off) / len(off), "worst": max(off)}
  rows = {
    f"end effectors off their joints, {which} of five (mm)": three_digits(value)
    for which, value in means.items()
  }
  pair = [samples["likeness"]] + ([held_out_reference] if held_out_reference else [])

  def both(values: Iterable[float]) -> str:
    return "; ".join(map(three_digits, values))

  for name, unit in UNITS.items():
    label = f"{name}, shift of the histogram ({unit})"
    rows[label] = both(like["shifts"][name] for like in pair)
  rows["distance to the nearest own window (fidelity)"] = both(
    like["fidelity"] for like in pair
  )
  rows["distance of own windows to the nearest (coverage)"] = both(
    like["coverage"] for like in pair
  )
  return rows
