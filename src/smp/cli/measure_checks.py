"""Share of random damage to real clips that the checks notice; fit of their ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from smp.cli.options import parse
from smp.data.checks import Rows, judge
from smp.data.convert import find_clips, find_input
from smp.data.damage import DAMAGE, change, resampling_change, table_of
from smp.data.familiar import FAMILIAR
from smp.data.fit_familiar import fit_familiar
from smp.data.read_clips import load_csv
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.utils.limits import Count, Seed, WholeNumber


@dataclass(frozen=True)
class MeasureCfg:
  """Damage real clips at random, and print what share of each kind is noticed.

  Example: uv run scripts/measure_checks.py --input-dir datasets/csv/g1

  Damage that moves no body further, in any row, than a resampling to two thirds of the
  rows and back is harmless, and does not count."""

  input_dir: Path | None = None
  """Folder of clips. Default: the environment variable SMP_LAFAN_DIR."""

  draws: WholeNumber = 200
  """Number of draws of each kind of damage."""

  rows: Count | None = None
  """Length of the damaged stretches, in rows. Default: whole clips."""

  kinds: tuple[str, ...] = ()
  """Kinds of damage. Default: all."""

  fit: bool = False
  """Fit the models and ranges of the checks to the clips first, and write them."""

  output: Path = FAMILIAR
  """File that ``fit`` writes."""

  seed: Seed = 0


def rows_of(table: np.ndarray, fps: float = 30.0) -> Rows:
  """Return the 36 columns (T, 36) of a plain file as rows to check."""
  quat = table[:, [6, 3, 4, 5]]
  lines = np.arange(1, len(table) + 1)
  return Rows(Path("clip"), fps, table[:, :3], quat, table[:, 7:], lines)


def noticed(table: np.ndarray) -> bool:
  """Return whether the checks find anything in columns (T, 36)."""
  with np.errstate(all="ignore"):
    return bool(judge(rows_of(table), explain=False))


def share_noticed(
  kind: str, clips: list[Clip], cfg: MeasureCfg
) -> tuple[int, int, list[str]]:
  """Damage clips at random and count what the checks notice.

  Returns:
    How many draws of this kind of damage are noticed, how many are neither noticed nor
    harmful, and the clips of the others.
  """
  rng = np.random.default_rng((cfg.seed, list(DAMAGE).index(kind)))
  hits, harmless, missed = 0, 0, []
  for _ in track(range(cfg.draws), kind, transient=True):
    clip = clips[rng.integers(len(clips))]
    if cfg.rows is not None and cfg.rows < len(clip):
      start = int(rng.integers(len(clip) - cfg.rows))
      clip = clip.cut(start, start + cfg.rows)
    damaged = DAMAGE[kind](table_of(clip), rng)
    if noticed(damaged.table):
      hits += 1
    elif change(clip, damaged) <= resampling_change(clip):
      harmless += 1
    else:
      missed.append(clip.name)
  return hits, harmless, missed


def measure(cfg: MeasureCfg) -> None:
  """Print false alarms, and a line for each kind of damage.

  Raises:
    UserError: There are no clips, or a kind is unknown.
  """
  for kind in cfg.kinds:
    if kind not in DAMAGE:
      raise UserError(f"--kinds {kind}: must be of {', '.join(DAMAGE)}")
  found = find_clips(find_input(cfg.input_dir))
  clips = [replace(load_csv(path), name=name) for name, path in found.items()]
  if cfg.fit:
    fit_familiar(clips).save(cfg.output)
    print(f"ranges of {len(clips)} clips -> {cfg.output}")
  alarms = [clip.name for clip in clips if noticed(table_of(clip))]
  print(f"false alarms: {len(alarms)} of {len(clips)} whole clips {' '.join(alarms)}")
  if not cfg.draws:
    return
  print("| damage | noticed | harmless | share |\n|---|---|---|---|")
  for kind in cfg.kinds or DAMAGE:
    hits, harmless, _ = share_noticed(kind, clips, cfg)
    share = hits / max(cfg.draws - harmless, 1)
    print(f"| {kind} | {hits} | {harmless} | {100 * share:.1f} % |", flush=True)


def main() -> None:
  """Run ``measure_checks [OPTIONS]``."""
  measure(parse(MeasureCfg))
