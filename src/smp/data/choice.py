"""Clips to select stretches from: matched by name, read and judged."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from smp.data.checks import warn
from smp.data.convert import find_clips, find_input
from smp.data.formats import SourceCfg
from smp.data.read_clips import load_clip
from smp.errors import UserError
from smp.motion.clips import Clip


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

  output: Path
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


def choose_clips(cfg: ChoiceCfg) -> tuple[dict[str, Clip], tuple[str, ...]]:
  """Return the clips of a folder that match, read and judged; warn of doubts.

  Returns:
    Clips by name, under that name (``a__walk`` of ``a/walk.csv``), and the names of
    those held out.

  Raises:
    UserError: nothing matches, a clip of ``val`` is missing, or a file is unusable;
      names it.
  """
  cfg.source.check()
  folder = find_input(cfg.input_dir)
  files = matching(find_clips(folder), cfg.clips)
  if not files:
    raise UserError(f"{folder}: no clip matches {', '.join(cfg.clips)}")
  held_back = tuple(clip_called(word, files, "--val") for word in cfg.val)
  clips = {}
  for name, path in files.items():
    clip, doubts = load_clip(path, cfg.source, cfg.accept_doubtful)
    warn(doubts)
    clips[name] = replace(clip, name=name)
  return clips, held_back
