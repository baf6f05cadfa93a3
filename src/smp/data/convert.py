"""Conversion of motion files to NPZ windows, several clips in parallel."""

from __future__ import annotations

import contextlib
import difflib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import Progress

from smp.data.checks import warn
from smp.data.motion_files import find_files
from smp.data.read_clips import load_clip
from smp.data.source import (
  AngleUnit,
  Format,
  LengthUnit,
  QuaternionOrder,
  SourceCfg,
)
from smp.errors import UserError, printable
from smp.motion.clips import Resampling, clip_windows, mirror_clip, resample
from smp.motion.dataset import ClipEntry, load_motions, save_windows
from smp.motion.features import FPS, WINDOW, g1_spec
from smp.motion.rotations import HeadingKind
from smp.utils.limits import Count, FrameRate, WholeNumber, check_limits
from smp.utils.names import check_clip_name

MIN_WINDOW = 3
"""Minimum number of frames for `window_velocities`."""

DATA_VARIABLE = "SMP_LAFAN_DIR"
"""Environment variable for the folder of CSVs, used without an option."""


@dataclass(frozen=True)
class ConvertCfg:
  """Convert files of G1 motion to NPZ windows of 59 features.

  Example: uv run scripts/csv_to_npz.py --motions configs/motions/loco.yaml
  --output-dir datasets/npz/loco

  docs/motion-formats.md lists the formats and the checks.
  """

  output_dir: Path
  """Output folder of the NPZ files, one per clip."""

  input_dir: Path | None = None
  """Folder of motion files, sub-folders included, or one file. Default: the environment
  variable SMP_LAFAN_DIR."""

  motions: Path | None = None
  """A motion set (configs/motions/NAME.yaml). Default: every file of the folder,
  whole."""

  window_size: Annotated[int, Field(ge=MIN_WINDOW)] = WINDOW
  stride: Count = 1
  input_fps: FrameRate | None = None
  """Rows per second. Default: the file's own rate, or else 30."""

  output_fps: FrameRate = FPS

  format: Format = "auto"
  """``csv``: numbers, or columns with names; ``seed``: BONES-SEED CSV; ``gmr``: GMR's
  PKL or NPZ; ``mjlab``: NPZ of a tracking task; ``auto``: by the file."""

  quaternion_order: QuaternionOrder = "auto"
  length_unit: LengthUnit = "auto"
  angle_unit: AngleUnit = "auto"
  """Units and order of the files. ``auto``: those of the format."""

  up_axis: Literal["z", "y"] = "z"
  joint_order: tuple[str, ...] = ()
  """Joint names, in order, of files without names; or ``mujoco``, ``isaac``."""

  fill_missing_joints: bool = False
  """Fill joints that a file lacks with zero: clips of the 23-joint G1."""

  accept_doubtful: bool = False
  """Convert clips that the checks would refuse, with a warning."""

  shard_index: WholeNumber = 0
  """Index of the shard of clips that this call converts, from 0."""

  num_shards: Count = 1

  mirror: bool = False
  """Add the mirrored motion of every clip."""

  method: Resampling = "spline"
  """Interpolation between input frames."""

  heading: HeadingKind = "twist"
  """Definition of a window's heading; the published priors used ``yaw``."""

  velocity: Literal["window", "clip"] = "window"
  """Velocities from each ``window``, or from the ``clip`` as the published priors."""

  workers: Count | None = None
  """Number of processes. Default: one per core; a single clip starts none."""

  def source(self) -> SourceCfg:
    """Return the settings for reading the files."""
    return SourceCfg(
      self.format,
      self.input_fps,
      self.quaternion_order,
      self.length_unit,
      self.angle_unit,
      self.up_axis,
      self.joint_order,
      self.fill_missing_joints,
    )


@dataclass(frozen=True)
class Converted:
  """Result of the conversion of one clip."""

  clip: str
  windows: int
  skipped: int
  """Number of ranges too short for a window."""
  seconds: float
  """Length of the whole clip at its input frame rate."""
  fps: float
  doubts: tuple[str, ...] = ()
  """Doubts of the checks."""


def convert_clip(path: Path, entry: ClipEntry, cfg: ConvertCfg) -> Converted:
  """Convert one clip and write its NPZ.

  Windows never span two ranges.

  Raises:
    UserError: names the file and row of bad input.
  """
  labelled = entry.labelled()
  ranges = tuple(rows for rows, _ in labelled)
  clip, doubts = load_clip(path, cfg.source(), cfg.accept_doubtful, ranges)
  for start, stop in ranges:
    if stop > len(clip):
      raise UserError(
        f"{path}: range [{start}, {stop}] of clip '{entry.clip}' ends after its "
        f"{len(clip)} rows"
      )
  parts, skipped = [], 0
  for (start, stop), style in labelled or [((0, len(clip)), entry.style)]:
    moved = clip.cut(start, stop)
    # Splines need two frames; a window needs far more.
    if len(moved) > 1:
      moved = resample(moved, cfg.output_fps, cfg.method)
    if len(moved) < cfg.window_size:
      skipped += 1
      continue
    for mirrored in (False, True) if entry.mirror or cfg.mirror else (False,):
      turned = mirror_clip(moved) if mirrored else moved
      windows = clip_windows(
        turned, cfg.window_size, cfg.stride, cfg.heading, cfg.velocity
      )
      parts.append((windows.numpy(), mirrored, style))
  done = (skipped, len(clip) / clip.fps, clip.fps, tuple(doubts))
  if not parts:
    return Converted(entry.clip, 0, *done)
  spec = g1_spec(
    window=cfg.window_size,
    fps=cfg.output_fps,
    heading=cfg.heading,
    velocity=cfg.velocity,
  )
  windows = np.concatenate([part for part, _, _ in parts])
  output = cfg.output_dir / f"{entry.clip}.npz"
  if output.exists() and output.samefile(path):
    raise UserError(
      f"{output}: is the clip itself; give another --output-dir, so that it stays"
    )
  save_windows(
    output,
    windows,
    spec,
    clip=entry.clip,
    stride=cfg.stride,
    mirrored=np.concatenate([np.full(len(p), m) for p, m, _ in parts]),
    split=entry.split,
    ranges=ranges,
    styles=[style for p, _, style in parts for _ in p],
  )
  return Converted(entry.clip, len(windows), *done)


def find_input(input_dir: Path | None) -> Path:
  """Return the folder of CSVs: the option, or the environment variable.

  Raises:
    UserError: neither is given, or it is no folder.
  """
  if input_dir is None:
    value = os.environ.get(DATA_VARIABLE)
    if not value:
      raise UserError(
        f"no input folder: give --input-dir, or set {DATA_VARIABLE} (datasets/README.md "
        "says where to download the clips)"
      )
    input_dir = Path(value)
  if not input_dir.exists():
    raise UserError(f"{input_dir}: no such folder of CSV clips")
  return input_dir


def find_clips(folder: Path) -> dict[str, Path]:
  """Return the motion files by clip name.

  Raises:
    UserError: there are none.
  """
  found = find_files(folder)
  if not found:
    others = sorted({p.suffix for p in folder.rglob("*.*") if p.is_file()})
    hint = f" (only {', '.join(others[:5])})" if others else ""
    raise UserError(
      f"{folder}: no CSV in this folder or below{hint}; motion files are .csv, .npz, .pkl"
    )
  return found


def plan(cfg: ConvertCfg) -> list[tuple[Path, ClipEntry]]:
  """Return the clips that this call converts.

  Raises:
    UserError: no CSV, a missing clip, a file under two names, or invalid options.
  """
  check_limits(cfg)
  if not 0 <= cfg.shard_index < cfg.num_shards:
    raise UserError(
      f"--shard-index {cfg.shard_index}: must be from 0 to {cfg.num_shards - 1}"
    )
  for name, kind in (
    ("velocity", Literal["window", "clip"]),
    ("heading", HeadingKind),
    ("method", Resampling),
  ):
    if getattr(cfg, name) not in get_args(kind):
      words = ", ".join(get_args(kind))
      raise UserError(f"--{name} {getattr(cfg, name)}: must be one of {words}")
  cfg.source().check()
  folder = find_input(cfg.input_dir)
  found = find_clips(folder)
  if cfg.motions is None:
    entries = [ClipEntry(name) for name in found]
  else:
    entries = list(load_motions(cfg.motions).clips)
    found |= _by_stem(found)
  for entry in entries:
    if entry.clip not in found:
      close = difflib.get_close_matches(entry.clip, found, n=1)
      hint = f"; did you mean '{close[0]}'?" if close else ""
      raise UserError(
        f"{cfg.motions}: clip '{entry.clip}' is not in {folder} "
        f"({entry.clip}.csv){hint}"
      )
  jobs = [(found[entry.clip], entry) for entry in entries]
  for path, entry in jobs:
    check_clip_name(entry.clip, path)
  if cfg.motions is not None:
    _refuse_one_file_twice(cfg.motions, jobs)
  # Other shards write here too, but only files of the whole plan.
  _warn_of_strangers(cfg.output_dir, {entry.clip for entry in entries})
  return jobs[cfg.shard_index :: cfg.num_shards]


def _by_stem(found: dict[str, Path]) -> dict[str, Path]:
  """Return files in sub-folders by their own name, where that is unique."""
  stems = [path.stem for path in found.values()]
  return {
    path.stem: path
    for name, path in found.items()
    if name != path.stem and stems.count(path.stem) == 1
  }


def _refuse_one_file_twice(
  motions: Path, jobs: Sequence[tuple[Path, ClipEntry]]
) -> None:
  """Raise an error for two clips of a motion set that are one file, links included.

  Its rows would count twice, or be trained on and held out at once.
  """
  seen: dict[tuple[int, int], ClipEntry] = {}
  for path, entry in jobs:
    status = path.stat()
    other = seen.setdefault((status.st_dev, status.st_ino), entry)
    if other is not entry:
      raise UserError(
        f"{motions}: clips '{other.clip}' and '{entry.clip}' are one file ({path}); list "
        "it once, with several ranges"
      )


def _warn_of_strangers(folder: Path, planned: set[str]) -> None:
  """Warn of NPZ files of an earlier run that would be read with the new ones."""
  strangers = sorted(p.stem for p in folder.glob("*.npz") if p.stem not in planned)
  if strangers:
    names = ", ".join(strangers[:3]) + (" ..." if len(strangers) > 3 else "")
    print(
      f"warning: {folder} also holds {len(strangers)} NPZ not of this set ({names}); "
      "programs that read the folder will include them",
      file=sys.stderr,
    )


def convert(cfg: ConvertCfg) -> list[Converted]:
  """Convert a folder of clips with a progress bar.

  Raises:
    UserError: names file and row of the first bad input (finished clips stay), or
      nothing was long enough for a window.
  """
  jobs = plan(cfg)
  console = Console(stderr=True)
  results = []
  # Fork the processes before the progress bar starts its thread: a fork that
  # happens while another thread holds a lock never sees that lock released.
  with _converter(jobs, cfg) as converted, Progress(console=console) as progress:
    task = progress.add_task("converting", total=len(jobs))
    for result in converted:
      progress.advance(task)
      if result.skipped:
        console.print(
          f"warning: {result.clip}: {result.skipped} range(s) shorter than "
          f"{cfg.window_size} frames skipped"
        )
      warn(result.doubts)
      results.append(result)
  for result in sorted(results, key=lambda each: each.clip):
    print(
      f"{result.clip}: {result.seconds:.1f} s at {result.fps:g} fps, {result.windows} "
      "windows"
    )
  total = sum(result.windows for result in results)
  written = sum(result.windows > 0 for result in results)
  if results and not written:
    longest = max(result.seconds for result in results)
    raise UserError(
      f"nothing written: no clip or range is long enough for a window of "
      f"{cfg.window_size} frames at {cfg.output_fps:g} fps (the longest clip: "
      f"{longest:.2f} s)"
    )
  folder = printable(str(cfg.output_dir))
  print(f"{written} of {len(results)} clips, {total} windows -> {folder}")
  return results


@contextlib.contextmanager
def _converter(
  jobs: list[tuple[Path, ClipEntry]], cfg: ConvertCfg
) -> Iterator[Iterator[Converted]]:
  """Yield an iterator over results, in the order in which they are ready."""
  workers = min(cfg.workers or os.cpu_count() or 1, len(jobs))
  if workers <= 1:
    yield (convert_clip(path, entry, cfg) for path, entry in jobs)
    return
  # A forked process has torch imported already; otherwise each imports it once.
  method = "fork" if sys.platform.startswith("linux") else "spawn"
  context = multiprocessing.get_context(method)
  with ProcessPoolExecutor(workers, context, initializer=_start_worker) as executor:
    futures: list[Future[Converted]] = [
      executor.submit(convert_clip, path, entry, cfg) for path, entry in jobs
    ]
    try:
      yield (future.result() for future in as_completed(futures))
    except BaseException:
      # Clips in progress finish soon; those not begun are cancelled.
      executor.shutdown(wait=True, cancel_futures=True)
      raise


def _start_worker() -> None:
  torch.set_num_threads(1)
  # Ctrl-C reaches every process of the terminal; only the parent handles it.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
