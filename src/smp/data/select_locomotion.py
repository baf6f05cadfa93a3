"""Selection of forward locomotion in long clips.

The criteria are measured on the input rows: root speed (smoothed over half a second),
turning rate of the heading, angle between motion and heading, tilt and height of the
pelvis, and, for standing, the speed of the joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table
from scipy.ndimage import uniform_filter1d

from smp.data.choice import ChoiceCfg, choose_clips
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.motion.contact import penetration
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import heading, quat_to_matrix
from smp.robots import g1
from smp.utils.files import atomic_path

SMOOTHING_S = 0.5


@dataclass(frozen=True)
class SelectCfg(ChoiceCfg):
  """Select standing, walking, jogging and running forward in LAFAN1 clips.

  Example: uv run scripts/select_clips.py --output configs/motions/mine.yaml
  --val run2_subject4
  """

  clips: tuple[str, ...] = ("walk*", "run*", "sprint*")

  max_turn: float = 0.8
  """Maximum turning rate of the heading, rad/s."""

  max_drift: float = 25.0
  """Maximum angle between velocity and heading while moving, degrees."""

  max_tilt: float = 35.0
  """Maximum tilt of the torso, degrees; this excludes hunched and sneaking gaits."""

  min_height: float = 0.68
  """Minimum height of the pelvis, m."""

  max_penetration: float = 0.0
  """Maximum penetration of parts of the robot, m. In a quarter of the retargeted
  frames of forward locomotion a hand or wrist is inside the hip. The tasks end episodes
  at such contacts, so a prior that has learnt them works against the task."""

  skip_s: float = 4.0
  """Seconds left out at both ends of each clip, where actors hold a T-pose. They hold
  it still, so no other criterion would exclude it. In LAFAN1 it lasts up to 3.4 s at
  the start and 2.7 s at the end."""

  moving_speed: float = 0.3
  """Above this speed (m/s) the motion must be along the heading."""

  max_quiet: float = 0.35
  """Maximum RMS joint speed below ``moving_speed``, rad/s, for standing still."""

  chunk_s: float = 1.5
  """Length of the pieces into which stretches are cut, s."""

  min_s: float = 0.5
  """Minimum length of a stretch, s."""

  bin_width: float = 0.5
  """Width of the speed bins, m/s."""

  max_bin_s: float = 90.0
  """Maximum seconds per speed bin and split; rarer speeds are kept entirely."""

  seed: int = 0
  name: str = ""
  description: str = "Standing, walking, jogging and running straight ahead, upright"
  plot: Path | None = None
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


@dataclass(frozen=True)
class Piece:
  """A piece of a stretch of one clip."""

  clip: str
  start: int
  stop: int
  speed: float
  """Mean speed, m/s."""
  seconds: float


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
  _, body_quat = kinematics(pos, quat, joints)
  torso = body_quat[:, kinematics.body_names.index("torso_link")]
  up = quat_to_matrix(torso)[:, 2, 2].numpy()
  return Measures(
    speed=np.linalg.norm(velocity, axis=1),
    turn=np.abs(smooth(np.gradient(angle) * clip.fps)),
    drift=np.degrees(np.abs(np.arctan2(cross, along))),
    tilt=np.degrees(np.arccos(np.clip(up, -1, 1))),
    height=clip.root_pos[:, 2],
    joint_speed=smooth(np.sqrt((joint_velocity**2).mean(axis=1))),
  )


def is_locomotion(m: Measures, cfg: SelectCfg) -> np.ndarray:
  """Return the rows (T,) of standing still or moving straight ahead, upright."""
  upright = (m.tilt < cfg.max_tilt) & (m.height > cfg.min_height)
  straight = upright & (m.turn < cfg.max_turn)
  moving = (m.speed >= cfg.moving_speed) & (m.drift < cfg.max_drift)
  quiet = (m.speed < cfg.moving_speed) & (m.joint_speed < cfg.max_quiet)
  return straight & (moving | quiet)


def pieces_of(clip: Clip, cfg: SelectCfg) -> list[Piece]:
  """Return the selected stretches of a clip, cut into pieces of about ``chunk_s``."""
  m = measure(clip)
  rows = is_locomotion(m, cfg)
  skip = round(cfg.skip_s * clip.fps)
  rows[:skip] = False
  rows[max(0, len(rows) - skip) :] = False
  qpos = np.concatenate((clip.root_pos, clip.root_quat, clip.joint_pos), axis=1)
  rows[rows] = penetration(qpos[rows]).of_itself <= cfg.max_penetration
  good = np.concatenate(([False], rows, [False]))
  edges = np.flatnonzero(np.diff(good.astype(int)))
  pieces = []
  for start, stop in zip(edges[::2], edges[1::2], strict=True):
    seconds = (stop - start) / clip.fps
    if seconds < cfg.min_s:
      continue
    count = max(1, round(seconds / cfg.chunk_s))
    cuts = np.linspace(start, stop, count + 1).round().astype(int)
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
      speed = float(m.speed[a:b].mean())
      pieces.append(Piece(clip.name, int(a), int(b), speed, (b - a) / clip.fps))
  return pieces


def balance(pieces: list[Piece], cfg: SelectCfg) -> list[Piece]:
  """Return at most ``max_bin_s`` of each speed, drawn at random; rare speeds whole."""
  generator = np.random.default_rng(cfg.seed)
  filled: dict[int, float] = {}
  chosen = []
  for index in generator.permutation(len(pieces)):
    piece = pieces[index]
    speed_bin = int(piece.speed / cfg.bin_width)
    if filled.get(speed_bin, 0.0) + piece.seconds > cfg.max_bin_s:
      continue
    filled[speed_bin] = filled.get(speed_bin, 0.0) + piece.seconds
    chosen.append(piece)
  return sorted(chosen, key=lambda p: (p.clip, p.start))


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
    UserError: no clip matches or has such a stretch, one is unusable, or a validation
      clip is not among them.
  """
  clips, val_clips = choose_clips(cfg)
  found = [piece for clip in clips.values() for piece in pieces_of(clip, cfg)]
  if not found:
    raise UserError(
      f"no stretch of {', '.join(clips)} is within the limits, see --help"
    )
  train = balance([p for p in found if p.clip not in val_clips], cfg)
  val = balance([p for p in found if p.clip in val_clips], cfg)
  _write(cfg, train, val)
  _print_table(cfg, found, train, val)
  if cfg.plot is not None:
    _plot(cfg, clips, found, train, val)


def _write(cfg: SelectCfg, train: list[Piece], val: list[Piece]) -> None:
  entries = [
    {"clip": clip, "split": split, "ranges": ranges}
    for split, pieces in (("train", train), ("val", val))
    for clip, ranges in ranges_of(pieces).items()
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


def _bin_seconds(pieces: list[Piece], cfg: SelectCfg, bins: int) -> np.ndarray:
  seconds = np.zeros(bins)
  for piece in pieces:
    seconds[min(int(piece.speed / cfg.bin_width), bins - 1)] += piece.seconds
  return seconds


def _print_table(
  cfg: SelectCfg, found: list[Piece], train: list[Piece], val: list[Piece]
) -> None:
  bins = 1 + max(int(p.speed / cfg.bin_width) for p in found)
  table = Table(title="seconds per mean speed of the piece")
  for column in ("speed (m/s)", "found", "train", "val", "clips of train", "of val"):
    table.add_column(column, justify="right")
  columns = [_bin_seconds(p, cfg, bins) for p in (found, train, val)]
  for b in range(bins):
    clips = [
      len({p.clip for p in part if int(p.speed / cfg.bin_width) == b})
      for part in (train, val)
    ]
    table.add_row(
      f"{b * cfg.bin_width:.1f}-{(b + 1) * cfg.bin_width:.1f}",
      *(f"{column[b]:.1f}" for column in columns),
      *map(str, clips),
    )
  table.add_row("all", *(f"{column.sum():.1f}" for column in columns), "", "")
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
