"""Table of many motion files, and a viewer of one of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.table import Table

from smp.cli.options import parse
from smp.data.checks import (
  DOUBTFUL_JUMP,
  Finding,
  Rows,
  body_jumps,
  judge,
  report,
  warn,
)
from smp.data.choice import check_patterns, matching
from smp.data.clip_kinematics import find_poses
from smp.data.convert import find_clips
from smp.data.formats import read_rows
from smp.data.read_clips import clip_of
from smp.data.source import SourceCfg
from smp.errors import UserError, printable
from smp.motion.clips import Clip, resampled_length
from smp.motion.contact import outside_limits, penetration
from smp.motion.features import FPS, WINDOW
from smp.utils.limits import Count, Port, check_limits, check_rate
from smp.utils.names import check_clip_name
from smp.utils.tables import plain_console

UPRIGHT, LYING = 0.8, 0.5
"""z of the pelvis' vertical: above the first it is upright, below the second it lies.
"""


@dataclass(frozen=True)
class InspectCfg:
  """Inspect files of G1 motion: one row each, and the results of the checks.

  Example: uv run scripts/inspect_clips.py datasets/csv/g1

  Heights and speeds are of the pelvis; ``too short`` is a clip that makes no window.
  Exit code 2 if a file cannot be read or would be refused by csv_to_npz.py.
  """

  folder: Annotated[Path, tyro.conf.Positional]
  """Folder of motion files, sub-folders included, or one file."""

  clips: tuple[str, ...] = ("*",)
  """Patterns of clip names."""

  source: Annotated[SourceCfg, tyro.conf.arg(name="")] = field(
    default_factory=SourceCfg
  )

  every: Count = 5
  """Contacts are computed in every so many rows."""

  view: str | None = None
  """Show this clip in the browser, on the floor, instead of the table."""

  host: str = "localhost"
  port: Port = 8080


@dataclass(frozen=True)
class Summary:
  """Values of a row of the table."""

  rows: int
  fps: float
  seconds: float
  height: tuple[float, float, float]
  """Minimum, median and maximum, m."""
  speed: tuple[float, float]
  """Mean and maximum, horizontal, m/s."""
  upright: float
  lying: float
  self_collision: float
  """Shares of rows."""
  depth: float
  """Maximum depth under the floor, m."""
  skate: float
  """Median speed of soles on the floor, m/s; NaN if no sole is on it."""
  jumps: int
  """Number of rows that differ from what the neighbouring rows predict."""
  over: float
  """Maximum excess over joint limits, rad."""


def summarise(rows: Rows, every: int = 5) -> Summary:
  """Compute the values of a row of the table from a motion."""
  clip = clip_of(rows)
  poses = find_poses(clip.root_pos, clip.root_quat, clip.joint_pos)
  step = np.linalg.norm(np.diff(clip.root_pos[:, :2], axis=0), axis=1) * clip.fps
  step = step if len(step) else np.zeros(1)
  up, height = poses.up[:, 2], clip.root_pos[:, 2]
  overlap = penetration(_qpos(clip)[::every])
  skate = poses.skate(clip.fps)
  return Summary(
    len(clip),
    clip.fps,
    len(clip) / clip.fps,
    (float(height.min()), float(np.median(height)), float(height.max())),
    (float(step.mean()), float(step.max())),
    float((up > UPRIGHT).mean()),
    float((up < LYING).mean()),
    float((overlap.of_itself > 0).mean()),
    float(overlap.of_floor.max()),
    float(np.median(skate)) if len(skate) else np.nan,
    int((body_jumps(rows, poses) > DOUBTFUL_JUMP).sum()),
    float(outside_limits(clip.joint_pos).max()),
  )


def _qpos(clip: Clip) -> np.ndarray:
  return np.concatenate((clip.root_pos, clip.root_quat, clip.joint_pos), axis=1)


COLUMNS = (
  "clip",
  "rows",
  "fps",
  "s",
  "height (m)",
  "speed (m/s)",
  "upright",
  "lying",
  "in itself",
  "in floor",
  "skate",
  "jumps",
  "limits",
  "verdict",
)


def cells(name: str, summary: Summary, findings: list[Finding]) -> list[str]:
  """Return a row of the table as text."""
  s = summary
  verdict = "doubtful" if findings else "fine"
  if any(finding.refuse for finding in findings):
    verdict = "refused"
  elif resampled_length(s.rows, s.fps, FPS) < WINDOW:
    verdict = "too short"
  return [
    name,
    str(s.rows),
    f"{s.fps:g}",
    f"{s.seconds:.1f}",
    "{:.2f} {:.2f} {:.2f}".format(*s.height),
    "{:.2f} {:.2f}".format(*s.speed),
    f"{100 * s.upright:.0f} %",
    f"{100 * s.lying:.0f} %",
    f"{100 * s.self_collision:.0f} %",
    f"{s.depth:.3f}",
    f"{s.skate:.2f}",
    str(s.jumps),
    f"{s.over:.2f}",
    verdict,
  ]


def inspect(cfg: InspectCfg) -> None:
  """Print the table, or show a clip.

  Raises:
    UserError: There are no clips, or a file is refused; the table is printed first.
  """
  check_limits(cfg)
  cfg.source.check()
  check_rate(cfg.source.fps, "--fps")
  if not cfg.folder.exists():
    raise UserError(f"{cfg.folder}: no such file or folder of motion files")
  found = find_clips(cfg.folder)
  if cfg.view is not None:
    _view(cfg, found)
    return
  chosen = matching(found, cfg.clips)
  if not chosen:
    raise UserError(f"{cfg.folder}: no clip matches {', '.join(cfg.clips)}")
  check_patterns(found, cfg.clips if cfg.clips != ("*",) else (), "--clips")
  table = Table(
    title=f"{printable(str(cfg.folder))}: height minimum, median, maximum; speed mean, maximum"
  )
  for column in COLUMNS:
    left = column == "clip"
    table.add_column(column, justify="left" if left else "right", overflow="fold")
  messages, bad, total = [], 0, 0.0
  for name in chosen:
    try:
      check_clip_name(name, found[name])
      rows = read_rows(found[name], cfg.source)
      findings = judge(rows)
      summary = summarise(rows, cfg.every)
    except UserError as error:
      table.add_row(printable(name), *["-"] * (len(COLUMNS) - 2), "unreadable")
      messages.append(str(error))
      bad += 1
      continue
    bad += any(finding.refuse for finding in findings)
    total += summary.seconds
    messages += report(rows, findings, accept=True)
    table.add_row(*cells(name, summary, findings))
  plain_console(max(150, plain_console().width)).print(table)
  print(f"{len(chosen)} clips, {total:.1f} s")
  warn(messages)
  if bad:
    raise UserError(f"{cfg.folder}: {bad} of {len(chosen)} clips cannot be used")


def _view(cfg: InspectCfg, found: dict[str, Path]) -> None:
  from smp.viz.motion_viewer import serve
  from smp.viz.offscreen import MotionBatch

  assert cfg.view is not None
  names = list(matching(found, (cfg.view,)))
  if len(names) != 1:
    what = f"matches {len(names)} clips" if names else "is none of the clips"
    raise UserError(
      f"--view {cfg.view}: {what} ({', '.join((names or list(found))[:5])})"
    )
  rows = read_rows(found[names[0]], cfg.source)
  warn(report(rows, judge(rows), accept=True))
  clip = clip_of(rows)
  title = f"{names[0]}: {len(clip)} rows, {len(clip) / clip.fps:.1f} s"
  gallery = MotionBatch(_qpos(clip)[None], [names[0]], title)
  once = itertools.repeat(gallery)
  serve(once, clip.fps, names[0], cfg.host, cfg.port, renewable=False)


def main() -> None:
  """Run ``inspect_clips FOLDER [OPTIONS]``."""
  inspect(parse(InspectCfg))
