"""Reading of motion files, with checks of their contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smp.data.checks import Rows, joint_limits, judge, report
from smp.data.formats import read_rows
from smp.data.source import SourceCfg
from smp.motion.clips import Clip


def load_csv(path: str | Path, fps: float | None = None) -> Clip:
  """Return the clip of a LAFAN1-on-G1 CSV, or of another known format.

  Its contents are not judged, except for joints far outside their limits: `load_clip`
  judges them.

  Args:
    path: A file.
    fps: Rows per second. None: the file's own rate, or else 30.

  Raises:
    UserError: names the file and the row (1 is the first line) of what is wrong.
  """
  rows = read_rows(Path(path), SourceCfg(fps=fps))
  report(rows, list(joint_limits(rows)))
  return clip_of(rows)


def load_clip(
  path: Path,
  source: SourceCfg,
  accept: bool = False,
  ranges: Sequence[tuple[int, int]] = (),
) -> tuple[Clip, list[str]]:
  """Return the clip of a motion file, after judging its contents.

  Args:
    path: A file.
    source: How to read it.
    accept: Treat impossible motion as doubtful.
    ranges: Rows [start, stop) that are used; findings elsewhere do not count.

  Returns:
    The clip, and the doubts about it: messages that name the file.

  Raises:
    UserError: names the file and the row of what is impossible.
  """
  rows = read_rows(path, source)
  return clip_of(rows), report(rows, judge(rows), accept, ranges)


def clip_of(rows: Rows) -> Clip:
  """Return the clip of a file's rows, with quaternions normalised."""
  quat = rows.root_quat / np.linalg.norm(rows.root_quat, axis=1, keepdims=True)
  return Clip(rows.path.stem, rows.fps, rows.root_pos, quat, rows.joint_pos)
