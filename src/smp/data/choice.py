"""Clips to select stretches from: matched by name, read and judged."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from smp.data.checks import warn
from smp.data.convert import find_clips, find_input
from smp.data.read_clips import load_clip
from smp.data.source import SourceCfg
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.utils.files import check_file, check_new
from smp.utils.limits import TableFile, check_rate
from smp.utils.names import check_clip_name


def matching(found: Mapping[str, Path], patterns: Sequence[str]) -> dict[str, Path]:
  """Return the files whose clip name, or own name in any folder, matches a pattern."""
  return {
    name: path
    for name, path in found.items()
    if any(
      fnmatch.fnmatchcase(each, pattern)
      for each in (name, path.stem)
      for pattern in patterns
    )
  }


def check_patterns(
  found: Mapping[str, Path], patterns: Sequence[str], option: str
) -> None:
  """Raise ``UserError`` for a pattern that no clip matches; names it and the option."""
  for pattern in patterns:
    if not matching(found, [pattern]):
      names = [*found, *(path.stem for path in found.values())]
      close = difflib.get_close_matches(pattern, names, n=1)
      hint = f"did you mean '{close[0]}'?" if close else "leave it out, or mend it"
      raise UserError(f"{option} {pattern}: no clip matches {pattern}; {hint}")


def clip_called(word: str, files: Mapping[str, Path], option: str) -> str:
  """Return the name of the clip called ``word``.

  ``word`` is the clip's name, or the own name of exactly one file.

  Raises:
    UserError: names the option and the available clips.
  """
  if word in files:
    return word
  named = [name for name, path in files.items() if path.stem == word]
  if len(named) == 1:
    return named[0]
  what = f"several clips ({', '.join(named)})" if named else "not among the clips"
  others = "" if named else f" ({', '.join(files)})"
  raise UserError(f"{option} {word}: {what}{others}")


@dataclass(frozen=True)
class ChoiceCfg:
  """Which clips a script selects from, and how they are read."""

  output: TableFile
  """The motion set to write (configs/motions/NAME.yaml)."""

  input_dir: Path | None = None
  """Folder of CSVs. Default: the environment variable SMP_LAFAN_DIR."""

  clips: tuple[str, ...] = ("*",)
  """Patterns of clip names to search."""

  val: tuple[str, ...] = ()
  """Clips to hold out, as a whole, for validation."""

  source: Annotated[SourceCfg, tyro.conf.arg(name="")] = field(
    default_factory=SourceCfg
  )

  accept_doubtful: bool = False
  """Include clips that the checks would refuse, with a warning."""

  overwrite: bool = False
  """Replace a motion set that is there already."""


class Chosen(NamedTuple):
  """Clips to select stretches from."""

  clips: dict[str, Clip]
  """Under their name (``a__walk`` of ``a/walk.csv``)."""
  val: tuple[str, ...]
  """Names of those held out."""
  files: dict[str, Path]
  """Their files by name."""


MIN_ROWS = 2
"""Minimum number of rows of which a velocity can be taken."""


def choose_clips(cfg: ChoiceCfg, further: Sequence[str] = ()) -> Chosen:
  """Return the clips of a folder that match, read and judged; warn of doubts.

  Clips too short for a velocity are left out, with a warning.

  Args:
    cfg: Patterns, folder and settings.
    further: More patterns, of the option ``--standing-clips``.

  Raises:
    UserError: the output exists, nothing matches, or not one of the patterns that are
      given, a clip of ``val`` is missing, or a file is unusable; names it.
  """
  cfg.source.check()
  check_rate(cfg.source.fps, "--fps")
  check_new(cfg.output, cfg.overwrite)
  folder = find_input(cfg.input_dir)
  found = find_clips(folder)
  files = matching(found, (*cfg.clips, *further))
  if not files:
    raise UserError(f"{folder}: no clip matches {', '.join((*cfg.clips, *further))}")
  # Of the usual patterns some may match nothing; what somebody typed may not.
  if cfg.clips != type(cfg).clips:
    check_patterns(found, cfg.clips, "--clips")
  check_patterns(found, further, "--standing-clips")
  held_back = tuple(clip_called(word, files, "--val") for word in cfg.val)
  for name, path in files.items():
    check_clip_name(name, path)
  clips = {}
  for name, path in files.items():
    clip, doubts = load_clip(path, cfg.source, cfg.accept_doubtful)
    warn(doubts)
    if len(clip) < MIN_ROWS:
      warn([f"{path}: skipped, a single row has no velocity"])
      continue
    clips[name] = replace(clip, name=name)
  if not clips:
    raise UserError(f"{folder}: no clip has {MIN_ROWS} rows; give longer ones")
  return Chosen(clips, held_back, {name: files[name] for name in clips})


def check_outputs(*paths: Path | None) -> None:
  """Raise ``UserError`` unless all files can be written, before the first of them is."""
  for path in paths:
    if path is not None:
      check_file(path)
