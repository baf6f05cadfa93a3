"""Motion sets, files of windows, and their statistics."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import AfterValidator

from smp.errors import UserError, shown
from smp.motion.features import FeatureSpec
from smp.utils.config import check_keys, read_table
from smp.utils.files import save_arrays
from smp.utils.schema import read_as

Split = Literal["train", "val"]
LOW_QUANTILE, HIGH_QUANTILE = 0.01, 0.99
STYLE_NAME = r"[a-z][a-z0-9_]*"
"""Regular expression of the names of styles, which are options of commands."""
MIN_SPAN = 1e-6
"""Minimum span of a feature that is not constant. Statistics give a constant feature
the span 1, centred on its value; a prior, whose quantiles may be of other statistics,
shifts it without scaling."""


# Motion sets.


def _rows(value: tuple[int, int]) -> tuple[int, int]:
  if not 0 <= value[0] < value[1]:
    raise ValueError("[start, stop] with stop > start >= 0")
  return value


Rows = Annotated[tuple[int, int], AfterValidator(_rows)]
"""Rows [start, stop)."""


@dataclass(frozen=True)
class ClipEntry:
  """An entry of a motion set: one clip, with its ranges and its split."""

  clip: str
  """File name without ``.csv``."""
  ranges: tuple[Rows, ...] = ()
  """Input rows [start, stop); empty: the whole clip."""
  mirror: bool = False
  """Add the mirrored motion."""
  split: Split = "train"
  """``val`` is held out for validation; a clip is never in both splits."""
  style: str = ""
  """Style of ``ranges``, or of the whole clip; empty: no label."""
  styles: dict[str, tuple[Rows, ...]] = field(default_factory=dict)
  """Further ranges by their style, for clips that show several."""

  def labelled(self) -> list[tuple[Rows, str]]:
    """Return all ranges with their styles; empty: the whole clip, of ``style``."""
    more = [(rows, style) for style, ranges in self.styles.items() for rows in ranges]
    return [(rows, self.style) for rows in self.ranges] + more


@dataclass(frozen=True)
class Motions:
  """A motion set: the contents of ``configs/motions/NAME.yaml``."""

  name: str
  description: str = ""
  clips: tuple[ClipEntry, ...] = ()
  styles: dict[str, str] = field(default_factory=dict)
  """What each style looks like, in a line; empty: the styles are not described."""


def load_motions(path: str | Path) -> Motions:
  """Read a motion set.

  Raises:
    UserError: names the file and the key or clip that is wrong.
  """
  path = Path(path)
  data = read_table(path)
  check_keys(path, data, ("name", "description", "mirror", "styles", "clips"))
  _check_filled(f"{path}", data, (None,))
  items = data.pop("clips", None)
  if not isinstance(items, list) or not items:
    raise UserError(f"{path}: 'clips' must be a list with at least one clip")
  mirror = data.pop("mirror", False)
  clips = tuple(_entry(path, item, mirror) for item in items)
  names = [entry.clip for entry in clips]
  twice = {name for name in names if names.count(name) > 1}
  if twice:
    raise UserError(
      f"{path}: clip '{min(twice)}' is listed twice; give it several ranges instead"
    )
  motions = read_as(Motions, {"name": path.stem, **data}, path)
  _check_described(path, motions.styles, clips)
  return replace(motions, clips=clips)


def _check_described(
  path: Path, described: dict[str, str], clips: Sequence[ClipEntry]
) -> None:
  """Raise for a style that the set does not describe, if it describes any."""
  for entry in clips if described else ():
    for style in (*entry.styles, *([entry.style] if entry.style else [])):
      if style not in described:
        close = difflib.get_close_matches(style, described, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "add it there"
        raise UserError(
          f"{path}: clip '{entry.clip}': style '{style}' is not among 'styles'; {hint}"
        )


def _check_filled(where: str, table: dict[str, Any], empty: Sequence[Any]) -> None:
  """Raise for a key without a value: left empty, it would mean what its absence does."""
  for key, value in table.items():
    if value in empty:
      raise UserError(
        f"{where}: '{key}' has no value; give one, or leave the key out for the default"
      )


def _entry(path: Path, item: Any, mirror: bool) -> ClipEntry:
  if isinstance(item, str):
    item = {"clip": item}
  if not isinstance(item, dict) or not isinstance(item.get("clip"), str):
    raise UserError(
      f"{path}: each entry of 'clips' needs a 'clip' name, got {shown(item)}"
    )
  name = f"clip '{item['clip']}'"
  check_keys(path, item, [entry.name for entry in fields(ClipEntry)], f"{name}: ")
  _check_filled(f"{path}: {name}", item, (None, "", [], {}))
  entry = read_as(ClipEntry, {"mirror": mirror, **item}, f"{path}: {name}")
  for style in (*entry.styles, *([entry.style] if entry.style else [])):
    if not re.fullmatch(STYLE_NAME, style):
      raise UserError(
        f"{path}: {name}: style '{style}' is no name: use lower-case letters, digits "
        "and _, and a letter first"
      )
  if entry.style and entry.styles and not entry.ranges:
    raise UserError(
      f"{path}: {name}: style '{entry.style}' has no 'ranges'; beside 'styles' it needs "
      "them, or put it there too"
    )
  empty = [style for style, ranges in entry.styles.items() if not ranges]
  if empty:
    raise UserError(
      f"{path}: {name}: style '{empty[0]}' has no ranges; give [start, stop], or 'style' "
      "for a whole clip"
    )
  return entry


# Files of windows.


@dataclass(frozen=True)
class WindowSet:
  """Windows of one clip, or of several joined by `load_windows`."""

  windows: np.ndarray
  """(N, W, F) float32."""
  spec: FeatureSpec
  stride: int
  clips: tuple[str, ...]
  """Names of the clips."""
  clip_index: np.ndarray
  """(N,) index of each window's clip."""
  mirrored: np.ndarray
  """(N,) bool, whether each window is mirrored."""
  splits: tuple[Split, ...] = field(default=())
  """Split of each clip."""
  styles: tuple[str, ...] = ()
  """Names of the styles, sorted; empty: no window has a label."""
  style_index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
  """(N,) index of each window's style; -1: no label. Empty without styles."""

  def rows_of(self, split: Split) -> np.ndarray:
    """Return which windows (N,) are of the clips of one split, as bool."""
    chosen = [i for i, s in enumerate(self.splits) if s == split]
    return np.isin(self.clip_index, chosen)

  def select(self, split: Split) -> np.ndarray:
    """Return the windows (n, W, F) of the clips of one split."""
    return self.windows[self.rows_of(split)]

  def select_styles(self, split: Split) -> np.ndarray:
    """Return the styles (n,) of `select`; empty without styles."""
    return self.style_index[self.rows_of(split)] if self.styles else self.style_index

  def of_styles(self, names: Sequence[str]) -> WindowSet:
    """Return the windows of some styles, without clips that have none.

    Raises:
      UserError: No window has a style of that name.
    """
    for name in names:
      if name not in self.styles:
        known = ", ".join(self.styles) or "no style"
        close = difflib.get_close_matches(name, self.styles, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise UserError(f"style '{name}': the windows have {known}{hint}")
    kept = [i for i, style in enumerate(self.styles) if style in names]
    found = self._rows(np.isin(self.style_index, kept))
    return replace(
      found,
      styles=tuple(self.styles[i] for i in kept),
      style_index=np.searchsorted(kept, found.style_index),
    )

  def first_seconds(self, seconds: float) -> WindowSet:
    """Return it with at most so much motion of each style to train on, the first of all.

    Held-out clips stay whole. Mirrored windows do not count, and are kept with those
    that they mirror. Windows without a label count as a style.

    Args:
      seconds: Time that the first frames of the windows span, s.

    Raises:
      UserError: The windows have no styles, or not one is left of a style.
    """
    if not self.styles:
      raise UserError("the windows have no styles; convert clips with labels")
    count = int(seconds * self.spec.fps / self.stride)
    if count < 1:
      raise UserError(
        f"{seconds:g} s of a style are no window at a stride of {self.stride} frames; "
        "give more"
      )
    train, kept = self.rows_of("train"), ~self.rows_of("train")
    for style in range(-1, len(self.styles)):
      for mirrored in (False, True):
        rows = train & (self.style_index == style) & (self.mirrored == mirrored)
        kept[np.flatnonzero(rows)[:count]] = True
    return self._rows(kept)

  def _rows(self, rows: np.ndarray) -> WindowSet:
    """Return some windows, without clips of which none is left; (N,) bool."""
    clips, clip_index = np.unique(self.clip_index[rows], return_inverse=True)
    return replace(
      self,
      windows=self.windows[rows],
      clips=tuple(self.clips[i] for i in clips),
      clip_index=clip_index,
      mirrored=self.mirrored[rows],
      splits=tuple(self.splits[i] for i in clips),
      style_index=self.style_index[rows] if self.styles else self.style_index,
    )


def save_windows(
  path: Path,
  windows: np.ndarray,
  spec: FeatureSpec,
  *,
  clip: str,
  stride: int,
  mirrored: np.ndarray,
  split: Split = "train",
  ranges: Sequence[tuple[int, int]] = (),
  styles: Sequence[str] = (),
) -> None:
  """Write the windows (N, W, F) of one clip as NPZ; all of it, or nothing.

  ``styles`` (N) is the style of each window, "" without one. It is written if any
  window has one.
  """
  arrays: dict[str, Any] = {
    "windows": windows.astype(np.float32, copy=False),
    "fps": np.float64(spec.fps),
    "window_size": np.int64(spec.window),
    "stride": np.int64(stride),
    "ee_body_names": np.array(spec.ee_body_names),
    "feature_dims": np.array(spec.feature_dims),
    "joint_names": np.array(spec.joint_names),
    "heading": np.array(spec.heading),
    "velocity": np.array(spec.velocity),
    "spec": np.array(json.dumps(spec.to_dict())),
    "clip": np.array(clip),
    "split": np.array(split),
    "mirrored": mirrored.astype(bool),
    "ranges": np.array(ranges, dtype=np.int64).reshape(-1, 2),
  }
  if any(styles):
    arrays["styles"] = np.array(styles)
  save_arrays(path, arrays)


def _open_npz(
  path: Path, keys: Sequence[str], made_by: str, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Return the named arrays of an NPZ, without unpickling anything.

  Those of ``optional`` are left out where the file has none.
  """
  if not path.is_file():
    raise UserError(f"{path}: no such file; write it with {made_by}")
  try:
    with np.load(path, allow_pickle=False) as archive:
      missing = [key for key in keys if key not in archive]
      if missing:
        raise UserError(
          f"{path}: no array '{missing[0]}'; not a file of {made_by}, write it anew"
        )
      there = [key for key in optional if key in archive]
      return {key: archive[key] for key in (*keys, *there)}
  except UserError:
    raise
  except Exception as error:  # numpy parses headers as Python: many types of errors.
    raise UserError(
      f"{path}: not a readable NPZ ({type(error).__name__}); write it anew with {made_by}"
    ) from error


def load_clip_windows(path: str | Path) -> WindowSet:
  """Read the windows of one clip.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  path = Path(path)
  keys = ("windows", "spec", "stride", "clip", "split", "mirrored")
  data = _open_npz(path, keys, "scripts/csv_to_npz.py", optional=("styles",))
  try:
    spec = FeatureSpec.from_dict(json.loads(str(data["spec"])))
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: array 'spec' is not JSON; write it anew") from error
  except UserError as error:
    raise UserError(f"{path}: array 'spec': {error}; write it anew") from error
  windows = data["windows"]
  shape = (spec.window, sum(spec.feature_dims))
  if windows.ndim != 3 or windows.shape[1:] != shape or windows.dtype != np.float32:
    raise UserError(
      f"{path}: array 'windows' is {windows.dtype} {windows.shape}, expected float32 "
      f"(N, {shape[0]}, {shape[1]})"
    )
  if not len(windows):
    raise UserError(f"{path}: holds no windows; write it anew with csv_to_npz.py")
  if not np.isfinite(windows).all():
    raise UserError(f"{path}: array 'windows' holds a value that is not finite")
  mirrored, stride, split = data["mirrored"], data["stride"], str(data["split"])
  if mirrored.shape != windows.shape[:1] or mirrored.dtype != bool:
    raise UserError(f"{path}: array 'mirrored' does not have one bool per window")
  if stride.shape != () or stride.dtype.kind not in "iu" or stride < 1:
    raise UserError(f"{path}: array 'stride' is not a number of frames; write it anew")
  if split not in ("train", "val") or data["clip"].shape != ():
    raise UserError(
      f"{path}: array 'split' is not train or val, or 'clip' not a name; write it anew"
    )
  labels = data.get("styles", np.full(len(windows), ""))
  if labels.shape != windows.shape[:1] or labels.dtype.kind != "U":
    raise UserError(
      f"{path}: array 'styles' does not have one name per window; write it anew"
    )
  styles, style_index = _indexed([labels])
  return WindowSet(
    windows=windows,
    spec=spec,
    stride=int(stride),
    clips=(str(data["clip"]),),
    clip_index=np.zeros(len(windows), dtype=np.int64),
    mirrored=mirrored,
    splits=(cast(Split, split),),
    styles=styles,
    style_index=style_index,
  )


def _indexed(labels: Sequence[np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
  """Return the sorted names of styles, and the index (N,) of each window's; -1: none."""
  joined = np.concatenate(labels)
  styles = tuple(sorted({str(name) for name in np.unique(joined)} - {""}))
  if not styles:
    return (), np.zeros(0, np.int64)
  index = np.searchsorted(np.array(styles), joined)
  return styles, np.where(joined == "", -1, index)


def _labels(part: WindowSet) -> np.ndarray:
  """Return the name of each window's style (N,), "" without one."""
  if not part.styles:
    return np.full(len(part.windows), "")
  return np.array((*part.styles, ""))[part.style_index]


def load_windows(paths: Sequence[str | Path]) -> WindowSet:
  """Join the windows of NPZ files and of all NPZ files in folders.

  Raises:
    UserError: nothing there, files that do not belong together, or a motion that is
      there twice.
  """
  files: list[Path] = []
  for path in map(Path, paths):
    found = [path]
    if path.is_dir():  # What begins with a dot is of the system, or half-written.
      found = sorted(f for f in path.glob("*.npz") if not f.name.startswith("."))
    if not found:
      raise UserError(f"{path}: no NPZ in this folder; write some with csv_to_npz.py")
    files.extend(found)
  if not files:
    raise UserError("no windows: name NPZ files or a folder of them")
  sets = [load_clip_windows(path) for path in files]
  for path, part in zip(files, sets, strict=True):
    try:
      part.spec.check(sets[0].spec)
    except UserError as error:
      raise UserError(f"{path} does not go with {files[0]}: {error}") from None
  _refuse_twins(files, sets)
  styles, style_index = _indexed([_labels(part) for part in sets])
  return WindowSet(
    windows=np.concatenate([part.windows for part in sets]),
    spec=sets[0].spec,
    stride=sets[0].stride,
    clips=tuple(part.clips[0] for part in sets),
    clip_index=np.concatenate(
      [np.full(len(part.windows), i) for i, part in enumerate(sets)]
    ),
    mirrored=np.concatenate([part.mirrored for part in sets]),
    splits=tuple(part.splits[0] for part in sets),
    styles=styles,
    style_index=style_index,
  )


def _refuse_twins(files: Sequence[Path], sets: Sequence[WindowSet]) -> None:
  """Raise an error for a motion that is there twice, under whatever names.

  Its windows would count twice, or be trained on and held out at once. Under labels of
  two styles it may be there twice.
  """
  seen: dict[tuple[bytes, ...], tuple[Path, WindowSet]] = {}
  for path, part in zip(files, sets, strict=True):
    if not len(part.windows):
      continue
    key = part.windows[0].tobytes(), part.windows[-1].tobytes(), _labels(part).tobytes()
    other, twin = seen.setdefault(key, (path, part))
    if twin is not part and np.array_equal(twin.windows, part.windows):
      what = "given twice" if other == path else f"the same windows as {other}"
      raise UserError(f"{path}: {what}; name it once, by itself or by its folder")


# Statistics.


@dataclass(frozen=True)
class NormStats:
  """Ranges of the features: ``q_low`` is normalised to -1, ``q_high`` to +1."""

  q_low: np.ndarray
  """(F,) float32."""
  q_high: np.ndarray
  """(F,) float32."""


def compute_norm_stats(windows: np.ndarray) -> NormStats:
  """Return the 1 % and 99 % quantiles of each feature over windows (N, W, F)."""
  frames = windows.reshape(-1, windows.shape[-1])
  # Take one feature at a time: this copies a column, not the whole set.
  quantiles = np.stack(
    [np.quantile(column, (LOW_QUANTILE, HIGH_QUANTILE)) for column in frames.T]
  )
  low, high = quantiles.T
  flat = high - low < MIN_SPAN
  # A constant feature gets a span of 1, centred on its value.
  middle = 0.5 * (high + low)
  low, high = np.where(flat, middle - 0.5, low), np.where(flat, middle + 0.5, high)
  return NormStats(low.astype(np.float32), high.astype(np.float32))


def save_stats(
  path: Path, stats: NormStats, spec: FeatureSpec, clips: Sequence[str]
) -> None:
  """Write statistics as NPZ, with the spec and the clips that they belong to."""
  arrays = {
    "q_low": stats.q_low,
    "q_high": stats.q_high,
    "spec": np.array(json.dumps(spec.to_dict())),
    "clips": np.array(list(clips)),
  }
  save_arrays(path, arrays)


def load_stats(path: str | Path) -> NormStats:
  """Read statistics: this project's, or the published ones.

  Published files have `q_low` and `q_high` alone.

  Raises:
    UserError: names the file and what is wrong with it.
  """
  path = Path(path)
  data = _open_npz(path, ("q_low", "q_high"), "scripts/compute_norm_stats.py")
  low, high = data["q_low"], data["q_high"]
  if low.dtype.kind != "f" or high.dtype.kind != "f":
    raise UserError(f"{path}: q_low and q_high must be arrays of real numbers")
  if low.shape != high.shape or low.ndim != 1:
    raise UserError(f"{path}: q_low {low.shape} and q_high {high.shape} must be (F,)")
  if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
    raise UserError(f"{path}: q_high must be above q_low, and both finite")
  return NormStats(low.astype(np.float32), high.astype(np.float32))
