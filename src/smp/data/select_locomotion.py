"""Selection of locomotion in long clips.

The criteria are measured on the input rows: root speed (smoothed over half a second),
turning rate of the heading, angle between motion and heading, tilt of the torso, height
of the pelvis and of the hands, and, for standing, the speed of the joints.

The stretches are cut into pieces and balanced by speed or by kind of motion: common
pieces are left out at random, rare ones repeated. A range that a motion set lists n times
gives every window n times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import torch
import yaml
from pydantic import Field
from rich.console import Console
from rich.table import Table
from scipy.ndimage import uniform_filter1d

from smp.data.choice import ChoiceCfg, check_outputs, choose_clips, matching
from smp.errors import UserError
from smp.motion.clips import Clip, qpos_of
from smp.motion.contact import penetration
from smp.motion.kinds import KINDS, STANDING, Going, is_still, kinds
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import heading, quat_to_matrix
from smp.robots import g1
from smp.utils.files import atomic_path
from smp.utils.limits import NotNegative, PictureFile, Positive, Seed

SMOOTHING_S = 0.5

HANDS = ("left_wrist_yaw_link", "right_wrist_yaw_link")
FEET = ("left_ankle_roll_link", "right_ankle_roll_link")
PLAIN_HANDS, PLAIN_LIFT, PLAIN_TILT = 0.0, 0.05, 15.0
"""Limits of plain standing: height of the hands above the pelvis and of one foot above
the other (m), tilt of the torso (degrees)."""

BalanceBy = Literal["speed", "kind"]


@dataclass(frozen=True)
class SelectCfg(ChoiceCfg):
  """Select standing, walking, jogging and running forward in LAFAN1 clips.

  Wider limits (``max_turn``, ``max_drift``) take motion in every direction.

  Example: uv run scripts/select_clips.py --output configs/motions/mine.yaml
  --val run2_subject4
  """

  clips: tuple[str, ...] = ("walk*", "run*", "sprint*")

  standing_clips: tuple[str, ...] = ()
  """Patterns of further clips, of which only standing still is taken."""

  max_turn: Positive = 0.8
  """Maximum turning rate of the heading, rad/s."""

  max_drift: NotNegative = 25.0
  """Maximum angle between velocity and heading while moving, degrees."""

  max_tilt: NotNegative = 35.0
  """Maximum tilt of the torso, degrees; this excludes hunched and sneaking gaits."""

  min_height: NotNegative = 0.68
  """Minimum height of the pelvis, m."""

  max_hands: float = math.inf
  """Maximum height of a wrist above the pelvis, m; the shoulders are at 0.29. This
  excludes waving, carrying, and arms held out."""

  max_penetration: float = 0.0
  """Maximum penetration of parts of the robot, m. In a quarter of the retargeted
  frames of forward locomotion a hand or wrist is inside the hip. The tasks end episodes
  at such contacts, so a prior that has learnt them works against the task."""

  skip_s: NotNegative = 4.0
  """Seconds left out at both ends of each clip, where actors hold a T-pose. They hold
  it still, so no other criterion would exclude it. In LAFAN1 it lasts up to 3.4 s at
  the start and 2.7 s at the end."""

  moving_speed: NotNegative = 0.3
  """Above this speed (m/s) the motion must be along the heading."""

  max_quiet: NotNegative = 0.35
  """Maximum RMS joint speed below ``moving_speed``, rad/s, for standing still."""

  plain_standing: bool = False
  """Of standing still, take only what has hanging arms, both feet on the floor and an
  upright torso."""

  chunk_s: Annotated[float, Field(ge=0.1)] = 1.5
  """Length of the pieces into which stretches are cut, s."""

  min_s: Positive = 0.5
  """Minimum length of a stretch, s."""

  balance_by: BalanceBy = "speed"
  """``kind``: standing still, slow, turning on the spot, forward at several speeds,
  forward and turning, sideways, backward. ``speed``: bins of ``bin_width``."""

  bin_width: Annotated[float, Field(ge=0.1)] = 0.5
  """Width of the speed bins, m/s."""

  max_bin_s: Positive = 90.0
  """Maximum seconds per bin and split; rarer ones are kept entirely."""

  min_bin_s: NotNegative = 0.0
  """Rarer bins of the training split are repeated up to this many seconds."""

  max_repeats: Annotated[int, Field(ge=1, le=1000)] = 4
  """Maximum number of times that a rare piece is listed."""

  seed: Seed = 0
  name: str = ""
  description: str = "Standing, walking, jogging and running straight ahead, upright"
  plot: PictureFile | None = None
  """Write a plot of the selection."""


@dataclass(frozen=True)
class Measures:
  """Quantities for the selection, per input row (T,)."""

  speed: np.ndarray
  """Speed of the root, m/s, smoothed."""
  turn: np.ndarray
  """|heading rate|, rad/s, smoothed."""
  drift: np.ndarray
  """Angle between velocity and heading, degrees."""
  tilt: np.ndarray
  """Angle between the torso's z axis and the vertical, degrees."""
  height: np.ndarray
  """Height of the pelvis, m."""
  joint_speed: np.ndarray
  """RMS speed of the joints, rad/s, smoothed."""
  hands: np.ndarray
  """Height of the higher wrist above the pelvis, m."""
  lift: np.ndarray
  """Height of one foot above the other, m."""


@dataclass(frozen=True)
class Piece:
  """A piece of a stretch of one clip."""

  clip: str
  start: int
  stop: int
  speed: float
  """Mean speed, m/s."""
  seconds: float
  kind: str
  """Kind of motion, of `smp.motion.kinds`."""


def measure(clip: Clip) -> Measures:
  """Return the quantities for the selection of a clip."""
  size = max(1, round(SMOOTHING_S * clip.fps))

  def smooth(values: np.ndarray) -> np.ndarray:
    """Return the moving average of values (T, ...)."""
    return uniform_filter1d(values, size, axis=0, mode="nearest")

  quat = torch.from_numpy(clip.root_quat)
  cos, sin = (part.numpy() for part in heading(quat))
  velocity = smooth(np.gradient(clip.root_pos[:, :2], axis=0) * clip.fps)
  angle = np.unwrap(np.arctan2(sin, cos))
  forward = smooth(np.stack((cos, sin), axis=1))
  cross = forward[:, 0] * velocity[:, 1] - forward[:, 1] * velocity[:, 0]
  along = (forward * velocity).sum(axis=1)
  joint_velocity = np.gradient(clip.joint_pos, axis=0) * clip.fps
  kinematics = Kinematics(g1.load_model()).double()
  pos, joints = torch.from_numpy(clip.root_pos), torch.from_numpy(clip.joint_pos)
  body_pos, body_quat = kinematics(pos, quat, joints)
  torso = body_quat[:, kinematics.body_names.index("torso_link")]
  up = quat_to_matrix(torso)[:, 2, 2].numpy()

  def heights(names: Sequence[str]) -> np.ndarray:
    """Return the heights (T, n) of some bodies, m."""
    return body_pos[:, [kinematics.body_names.index(name) for name in names], 2].numpy()

  return Measures(
    speed=np.linalg.norm(velocity, axis=1),
    turn=np.abs(smooth(np.gradient(angle) * clip.fps)),
    drift=np.degrees(np.abs(np.arctan2(cross, along))),
    tilt=np.degrees(np.arccos(np.clip(up, -1, 1))),
    height=clip.root_pos[:, 2],
    joint_speed=smooth(np.sqrt((joint_velocity**2).mean(axis=1))),
    hands=heights(HANDS).max(axis=1) - clip.root_pos[:, 2],
    lift=np.ptp(heights(FEET), axis=1),
  )


def is_locomotion(m: Measures, cfg: SelectCfg) -> np.ndarray:
  """Return the rows (T,) of standing still or moving within the limits, upright."""
  upright = (m.tilt < cfg.max_tilt) & (m.height > cfg.min_height)
  upright &= m.hands < cfg.max_hands
  straight = upright & (m.turn < cfg.max_turn)
  moving = (m.speed >= cfg.moving_speed) & (m.drift < cfg.max_drift)
  quiet = (m.speed < cfg.moving_speed) & (m.joint_speed < cfg.max_quiet)
  chosen = straight & (moving | quiet)
  if cfg.plain_standing:
    plain = (m.hands < PLAIN_HANDS) & (m.lift < PLAIN_LIFT) & (m.tilt < PLAIN_TILT)
    chosen &= plain | ~is_still(going_of(m))
  return chosen


def going_of(m: Measures) -> Going:
  """Return what tells kinds of motion apart, per row (T,)."""
  return Going(m.speed, m.turn, m.drift, m.joint_speed)


def kind_of(m: Measures, rows: slice) -> str:
  """Return the kind of motion of some rows, by the means over them."""
  means = Going(*(values[rows].mean() for values in going_of(m)))
  return KINDS[int(kinds(means))]


def pieces_of(clip: Clip, cfg: SelectCfg) -> list[Piece]:
  """Return the selected stretches of a clip, cut into pieces of about ``chunk_s``."""
  m = measure(clip)
  rows = is_locomotion(m, cfg)
  skip = round(min(cfg.skip_s * clip.fps, len(clip)))
  rows[:skip] = False
  rows[max(0, len(rows) - skip) :] = False
  rows[rows] = penetration(qpos_of(clip)[rows]).of_itself <= cfg.max_penetration
  parts = [rows]
  if cfg.balance_by == "kind":
    # A stretch ends where standing still does, or pieces of it would be few.
    still = is_still(going_of(m))
    parts = [rows & still, rows & ~still]
  pieces = []
  for start, stop in (stretch for part in parts for stretch in _stretches(part)):
    seconds = (stop - start) / clip.fps
    if seconds < cfg.min_s:
      continue
    count = min(max(1, round(seconds / cfg.chunk_s)), stop - start)
    cuts = np.linspace(start, stop, count + 1).round().astype(int)
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
      speed, kind = float(m.speed[a:b].mean()), kind_of(m, slice(a, b))
      pieces.append(Piece(clip.name, int(a), int(b), speed, (b - a) / clip.fps, kind))
  return pieces


def _stretches(rows: np.ndarray) -> list[tuple[int, int]]:
  """Return [start, stop) of each run of true rows (T,)."""
  edges = np.flatnonzero(np.diff(np.concatenate(([0], rows.astype(int), [0]))))
  return list(zip(edges[::2], edges[1::2], strict=True))


def bin_of(piece: Piece, cfg: SelectCfg) -> str:
  """Return the name of the bin that a piece is counted in."""
  if cfg.balance_by == "kind":
    return piece.kind
  low = int(piece.speed / cfg.bin_width)
  return f"{low * cfg.bin_width:.1f}-{(low + 1) * cfg.bin_width:.1f} m/s"


def bins_of(pieces: Sequence[Piece], cfg: SelectCfg) -> list[str]:
  """Return the names of all bins up to the highest that is filled, in order."""
  if cfg.balance_by == "kind":
    return list(KINDS)
  top = max(int(piece.speed / cfg.bin_width) for piece in pieces)
  return [
    f"{b * cfg.bin_width:.1f}-{(b + 1) * cfg.bin_width:.1f} m/s" for b in range(top + 1)
  ]


def balance(pieces: list[Piece], cfg: SelectCfg) -> list[Piece]:
  """Return at most ``max_bin_s`` of each bin, drawn at random; rare bins whole."""
  generator = np.random.default_rng(cfg.seed)
  filled: dict[str, float] = {}
  chosen = []
  for index in generator.permutation(len(pieces)):
    piece = pieces[index]
    name = bin_of(piece, cfg)
    if filled.get(name, 0.0) + piece.seconds > cfg.max_bin_s:
      continue
    filled[name] = filled.get(name, 0.0) + piece.seconds
    chosen.append(piece)
  return sorted(chosen, key=lambda p: (p.clip, p.start))


def repeats(pieces: list[Piece], cfg: SelectCfg) -> dict[str, int]:
  """Return how often the pieces of each bin are listed, to last ``min_bin_s``."""
  seconds = _bin_seconds(pieces, cfg)
  return {
    name: min(cfg.max_repeats, max(1, round(cfg.min_bin_s / held)))
    for name, held in seconds.items()
  }


def repeated(pieces: list[Piece], cfg: SelectCfg) -> list[list[Piece]]:
  """Return the pieces, then those listed twice or more, then thrice or more, ..."""
  times = repeats(pieces, cfg)
  most = max(times.values(), default=1)
  return [
    [piece for piece in pieces if times[bin_of(piece, cfg)] > n] for n in range(most)
  ]


def ranges_of(pieces: list[Piece]) -> dict[str, list[list[int]]]:
  """Return the ranges per clip, with neighbouring pieces joined."""
  ranges: dict[str, list[list[int]]] = {}
  for piece in pieces:
    own = ranges.setdefault(piece.clip, [])
    if own and own[-1][1] == piece.start:
      own[-1][1] = piece.stop
    else:
      own.append([piece.start, piece.stop])
  return ranges


def select(cfg: SelectCfg) -> None:
  """Select stretches, write the motion set, print the amounts per speed.

  Raises:
    UserError: no clip matches or has such a stretch, one is unusable, a validation
      clip is not among them, or ``balance_by`` is neither word.
  """
  if cfg.balance_by not in get_args(BalanceBy):
    words = ", ".join(get_args(BalanceBy))
    raise UserError(f"--balance-by {cfg.balance_by}: must be one of {words}")
  clips, val_clips, files = choose_clips(cfg, cfg.standing_clips)
  whole = matching(files, cfg.clips)
  found = [
    piece
    for name, clip in clips.items()
    for piece in pieces_of(clip, cfg)
    if name in whole or piece.kind == STANDING
  ]
  if not found:
    raise UserError(
      f"no stretch of {', '.join(clips)} is within the limits, see --help"
    )
  train = balance([p for p in found if p.clip not in val_clips], cfg)
  val = balance([p for p in found if p.clip in val_clips], cfg)
  if not train:
    raise UserError(
      f"--val {' '.join(cfg.val)}, --max-bin-s {cfg.max_bin_s:g}: nothing is left to "
      "train on; hold out fewer clips, or allow more seconds"
    )
  check_outputs(cfg.output, cfg.plot)
  _write(cfg, train, val)
  _print_table(cfg, found, train, val)
  if cfg.plot is not None:
    _plot(cfg, clips, found, train, val)


def _write(cfg: SelectCfg, train: list[Piece], val: list[Piece]) -> None:
  entries = [
    {"clip": clip, "split": split, "ranges": ranges}
    for split, layers in (("train", repeated(train, cfg)), ("val", [val]))
    for clip, ranges in _joined(layers).items()
  ]
  data = {
    "name": cfg.name or cfg.output.stem,
    "description": f"{cfg.description}; chosen by scripts/select_clips.py.",
    "mirror": True,
    "clips": entries,
  }
  with atomic_path(cfg.output) as temporary:
    with open(temporary, "w") as file:
      yaml.dump(data, file, sort_keys=False, default_flow_style=None, width=100)


def _joined(layers: list[list[Piece]]) -> dict[str, list[list[int]]]:
  """Return the ranges per clip of all layers, each joined in itself."""
  ranges: dict[str, list[list[int]]] = {}
  for layer in layers:
    for clip, own in ranges_of(layer).items():
      ranges.setdefault(clip, []).extend(own)
  return ranges


def _bin_seconds(pieces: Sequence[Piece], cfg: SelectCfg) -> dict[str, float]:
  """Return the seconds of each bin that has any."""
  seconds: dict[str, float] = {}
  for piece in pieces:
    name = bin_of(piece, cfg)
    seconds[name] = seconds.get(name, 0.0) + piece.seconds
  return seconds


def _print_table(
  cfg: SelectCfg, found: list[Piece], train: list[Piece], val: list[Piece]
) -> None:
  table = Table(title="seconds per mean speed, or kind, of the piece")
  table.add_column(cfg.balance_by)
  for column in ("found", "train", "times", "val", "clips of train", "of val"):
    table.add_column(column, justify="right")
  columns = [_bin_seconds(p, cfg) for p in (found, train, val)]
  times = repeats(train, cfg)
  for name in bins_of(found, cfg):
    clips = [
      len({p.clip for p in part if bin_of(p, cfg) == name}) for part in (train, val)
    ]
    held = [f"{column.get(name, 0.0):.1f}" for column in columns]
    table.add_row(name, *held[:2], str(times.get(name, 1)), held[2], *map(str, clips))
  total = [f"{sum(column.values()):.1f}" for column in columns]
  table.add_row("all", *total[:2], "", total[2], "", "")
  Console().print(table)


def _plot(
  cfg: SelectCfg,
  clips: Mapping[str, Clip],
  found: list[Piece],
  train: list[Piece],
  val: list[Piece],
) -> None:
  """Plot the speed over time with the selected stretches, and the amounts per speed."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  names = sorted({piece.clip for piece in train + val})
  figure, axes = plt.subplots(
    len(names) + 1, 1, figsize=(11, 1.1 * len(names) + 2.5), constrained_layout=True
  )
  edges = np.arange(0, max(p.speed for p in found) + cfg.bin_width, cfg.bin_width)
  for pieces, label in ((found, "found"), (train, "train"), (val, "val")):
    axes[0].hist(
      [p.speed for p in pieces],
      edges,
      weights=[p.seconds for p in pieces],
      histtype="step",
      linewidth=1.5,
      label=label,
    )
  axes[0].set(xlabel="speed (m/s)", ylabel="seconds")
  axes[0].legend()
  for axis, name in zip(axes[1:], names, strict=True):
    clip = clips[name]
    axis.plot(
      np.arange(len(clip)) / clip.fps, measure(clip).speed, "0.7", linewidth=0.8
    )
    for piece in train + val:
      if piece.clip == name:
        color = "tab:blue" if piece in train else "tab:orange"
        axis.axvspan(
          piece.start / clip.fps, piece.stop / clip.fps, color=color, alpha=0.35
        )
    axis.set_ylabel(name, rotation=0, ha="right", fontsize=8)
    axis.set_ylim(0, 4.6)
    axis.margins(x=0)
  assert cfg.plot is not None
  with atomic_path(cfg.plot) as temporary:
    figure.savefig(temporary, dpi=80)
  plt.close(figure)
