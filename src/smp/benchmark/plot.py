"""Picture of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from smp.benchmark.timing import Spread
from smp.utils.files import atomic_path

Row = tuple[str, int, Spread, Spread | None]
"""Operation, size, our times, plain times."""


def plot_benchmark(rows: Sequence[Row], device: str, path: Path) -> None:
  """Draw times over the number of environments, ours and plain, and write a PNG."""
  names = [
    name for name in dict.fromkeys(row[0] for row in rows) if _count(rows, name) > 1
  ]
  if not names:
    names = list(dict.fromkeys(row[0] for row in rows))
  figure = Figure(figsize=(3.2 * len(names), 3.4), layout="constrained")
  for i, name in enumerate(names):
    axes = figure.add_subplot(1, len(names), i + 1)
    chosen = [row for row in rows if row[0] == name]
    ours = [row[2] for row in chosen]
    _line(axes, [row[1] for row in chosen], ours, "C0", "ours")
    pairs = [(row[1], row[3]) for row in chosen if row[3] is not None]
    if pairs:
      _line(axes, [n for n, _ in pairs], [s for _, s in pairs], "C1", "plain")
    axes.set(xscale="log", yscale="log", title=name, xlabel="environments")
    axes.grid(True, which="both", alpha=0.3)
    if i == 0:
      axes.set_ylabel("ms per call")
      axes.legend()
  figure.suptitle(device)
  with atomic_path(path) as temporary:
    figure.savefig(temporary, dpi=120)


def _count(rows: Sequence[Row], name: str) -> int:
  return sum(row[0] == name for row in rows)


def _line(axes, sizes: list[int], times: list[Spread], color: str, label: str) -> None:
  axes.plot(sizes, [t.median for t in times], "o-", color=color, label=label)
  lower, upper = [t.lower for t in times], [t.upper for t in times]
  axes.fill_between(sizes, lower, upper, color=color, alpha=0.2)
