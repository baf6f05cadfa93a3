"""Selection of get-ups in long clips: from the ground to standing.

A rise is found by the height of the pelvis: the last row with it low, then the first
with it high. The get-up begins earlier, at the pose of rest before it: by the time the
pelvis leaves the ground many actors have already turned over and knelt. The row of rest
is the last one that is nearly as low and as still as the minimum over the preceding
seconds; the torso's orientation there determines the class of the pose.

The range runs from the second before the rest to the second after standing. The fall
before it, and the next fall after it, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.table import Table
from scipy.ndimage import uniform_filter1d

from smp.data.choice import ChoiceCfg, check_outputs, choose_clips
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.motion.dataset import Split
from smp.motion.kinematics import Kinematics
from smp.motion.pose_classes import START_POSES, StartPose, start_pose
from smp.motion.rotations import quat_to_matrix
from smp.robots import g1
from smp.utils.files import atomic_path
from smp.utils.limits import NotNegative, PictureFile
from smp.utils.tables import plain_console

SMOOTHING_S = 0.3
STILLNESS_S = 0.15
"""Weight of speed against height: 0.1 m/s counts as 1.5 cm of height."""

REST_TOLERANCE = 0.03
"""Tolerance, m, for rows as good as the lowest and stillest one. The last such row is
taken, because the range would otherwise hold whole seconds of lying."""

ARM_SPAN, ARM_DROP, STANDING_HEIGHT = 0.75, 0.2, 0.6
"""Criterion of a T-pose: minimum horizontal distance of the wrists, maximum height
difference of wrists and shoulders, minimum pelvis height (m)."""

T_POSE_MARGIN_S = 0.5
"""Margin around a T-pose that is left out, too: the arms move to it and back."""


@dataclass(frozen=True)
class SelectGetupsCfg(ChoiceCfg):
  """Cut the get-ups out of LAFAN1 clips, classified by their start pose.

  Example: uv run scripts/select_getups.py --output configs/motions/mine.yaml
  --val fallAndGetUp1_subject4

  Rises outside the limits below are left out, and printed with the reason.
  """

  clips: tuple[str, ...] = ("fallAndGetUp*",)

  low: NotNegative = 0.35
  """Maximum pelvis height on the ground, m."""

  high: NotNegative = 0.68
  """Minimum pelvis height of standing, m."""

  max_rise_s: NotNegative = 6.0
  """Maximum time from the pose of rest to standing, s; also the range of the search for
  that pose."""

  max_rest_height: NotNegative = 0.25
  """Maximum pelvis height at rest, m. Lying and sitting are below 0.23 in LAFAN1;
  squats, kneeling and all fours begin at 0.28 and are left out."""

  max_rest_speed: NotNegative = 0.6
  """Maximum speed of the bodies at rest (RMS, weighted by mass), m/s. This excludes
  rolls through a fall and up again, which use the fall's momentum."""

  max_tilt: NotNegative = 35.0
  """Maximum torso tilt of standing, reached within the second after, degrees."""

  sink: float = 0.6
  """Pelvis height, m, below which the second after ends early: the next fall."""

  before_s: NotNegative = 1.0
  """Time kept before the rest, s, as far as it is on the ground, without the fall."""

  after_s: NotNegative = 1.0
  """Time kept after the pelvis is high, s."""

  name: str = ""
  plot: PictureFile | None = None
  """Write a plot of the pelvis height over time with the selected stretches."""

  poses: PictureFile | None = None
  """Write a picture of every start pose, one row or more per class."""


@dataclass(frozen=True)
class Measures:
  """Quantities for the selection, per input row (T,)."""

  height: np.ndarray
  """Height of the pelvis, m."""
  mass_height: np.ndarray
  """Mean height of the bodies, weighted by mass, m."""
  speed: np.ndarray
  """RMS speed of the bodies, weighted by mass, m/s, smoothed."""
  torso_up: np.ndarray
  """(T, 3) vertical in the torso's frame: x to its front, y to its left."""
  t_pose: np.ndarray
  """Whether both arms are stretched out to the sides, standing."""


@dataclass(frozen=True)
class Getup:
  """One rise to standing; all rows are input rows."""

  clip: str
  start: int
  rest: int
  """The row of the pose of rest."""
  low: int
  """The last row with a low pelvis."""
  stood: int
  """The first row with a high pelvis."""
  stop: int
  """The end of the range, not included."""
  pose: StartPose
  fault: str = ""
  """Reason for leaving it out; empty if it is selected."""

  @property
  def rows(self) -> int:
    """Return the number of rows of the range."""
    return self.stop - self.start


def measure(clip: Clip) -> Measures:
  """Return the quantities for the selection of a clip."""
  model = g1.load_model()
  kinematics = Kinematics(model).double()
  parts = (clip.root_pos, clip.root_quat, clip.joint_pos)
  body_pos, body_quat = kinematics(*(torch.from_numpy(part) for part in parts))
  pos, index = body_pos.numpy(), kinematics.body_names.index
  mass = model.body_mass[1:] / model.body_mass[1:].sum()
  velocity = np.gradient(pos, axis=0) * clip.fps
  speed = np.sqrt((velocity**2).sum(axis=-1) @ mass)
  wrists = pos[:, [index("left_wrist_yaw_link"), index("right_wrist_yaw_link")]]
  shoulder = pos[:, index("left_shoulder_pitch_link"), 2]
  span = np.linalg.norm(wrists[:, 0, :2] - wrists[:, 1, :2], axis=1)
  drop = np.abs(wrists[:, :, 2] - shoulder[:, None]).max(axis=1)
  height = clip.root_pos[:, 2]
  return Measures(
    height=height,
    mass_height=pos[:, :, 2] @ mass,
    speed=uniform_filter1d(
      speed, max(1, round(SMOOTHING_S * clip.fps)), mode="nearest"
    ),
    torso_up=quat_to_matrix(body_quat[:, index("torso_link")])[:, 2].numpy(),
    t_pose=(span > ARM_SPAN) & (drop < ARM_DROP) & (height > STANDING_HEIGHT),
  )


def rises(height: np.ndarray, low: float, high: float) -> list[tuple[int, int, int]]:
  """Return every rise of a height (T,) from below ``low`` to above ``high``.

  Returns:
    Triples of rows: the first low one since it last was high, the last low one, and the
    first high one after that.
  """
  found = []
  down = last = None
  for row, value in enumerate(height):
    if value < low:
      down, last = (row if down is None else down), row
    elif value > high and down is not None and last is not None:
      found.append((down, last, row))
      down = last = None
  return found


def without_t_poses(m: Measures, fps: float) -> tuple[int, int]:
  """Return the rows [first, stop) between the T-poses at the ends of a clip, if any."""
  other, margin = np.flatnonzero(~m.t_pose), round(T_POSE_MARGIN_S * fps)
  if not len(other):
    return 0, 0
  first, stop = int(other[0]), int(other[-1]) + 1
  first = first + margin if m.t_pose[0] else 0
  return first, (stop - margin if m.t_pose[-1] else len(m.t_pose))


def find_getups(clip: Clip, cfg: SelectGetupsCfg) -> list[Getup]:
  """Return all rises of a clip; those that are no get-ups carry their fault."""
  m = measure(clip)
  limits = without_t_poses(m, clip.fps)
  return [
    _getup(clip, m, limits, rise, cfg) for rise in rises(m.height, cfg.low, cfg.high)
  ]


def _rows(seconds: float, clip: Clip) -> int:
  """Return the rows of a time, at most those of the clip; the time may be infinite."""
  return round(min(seconds * clip.fps, len(clip)))


def _getup(
  clip: Clip,
  m: Measures,
  limits: tuple[int, int],
  rise: tuple[int, int, int],
  cfg: SelectGetupsCfg,
) -> Getup:
  down, low, stood = rise
  # If the rise alone takes too long, use its last low row as the rest.
  earliest = min(max(down, stood - _rows(cfg.max_rise_s, clip)), low)
  part = slice(earliest, low + 1)
  restless = m.mass_height[part] + STILLNESS_S * m.speed[part]
  near = np.flatnonzero(restless <= restless.min() + REST_TOLERANCE)
  rest = earliest + int(near[-1])
  start = max(down, rest - _rows(cfg.before_s, clip), limits[0])
  stop = min(stood + _rows(cfg.after_s, clip) + 1, limits[1])
  sunk = np.flatnonzero(m.height[stood:stop] < cfg.sink)
  stop = stood + int(sunk[0]) if len(sunk) else stop
  pose = start_pose(m.torso_up[rest])
  getup = Getup(clip.name, start, rest, low, stood, max(stop, start), pose)
  fault = _fault(getup, m, limits, clip.fps, cfg)
  return Getup(**{**vars(getup), "fault": fault})


def _fault(
  getup: Getup,
  m: Measures,
  limits: tuple[int, int],
  fps: float,
  cfg: SelectGetupsCfg,
) -> str:
  """Return the reason why a rise is no get-up; empty: it is one."""
  if getup.rest < limits[0] or getup.stood >= limits[1]:
    return "in the T-pose at an end of the clip"
  seconds = (getup.stood - getup.rest) / fps
  if seconds > cfg.max_rise_s:
    return f"takes {seconds:.1f} s, limit {cfg.max_rise_s:g}"
  height = m.height[getup.rest]
  if height > cfg.max_rest_height:
    return f"not on the ground: pelvis at {height:.2f} m, limit {cfg.max_rest_height:g}"
  speed = m.speed[getup.rest]
  if speed > cfg.max_rest_speed:
    return f"never at rest: {speed:.2f} m/s, limit {cfg.max_rest_speed:g}"
  up = m.torso_up[getup.stood : getup.stop, 2].max()
  tilt = float(np.degrees(np.arccos(np.clip(up, -1, 1))))
  if tilt > cfg.max_tilt:
    return f"does not end upright: torso at {tilt:.0f} degrees, limit {cfg.max_tilt:g}"
  return ""


def select(cfg: SelectGetupsCfg) -> list[Getup]:
  """Select get-ups, write the motion set, print the amounts per start pose.

  Returns:
    Every rise that was found, those with a fault too.

  Raises:
    UserError: no clip matches, one is unusable, a validation clip is not among them, or
      there is no get-up.
  """
  clips, val, _ = choose_clips(cfg)
  cfg = replace(cfg, val=val)
  found = [getup for clip in clips.values() for getup in find_getups(clip, cfg)]
  chosen = [getup for getup in found if not getup.fault]
  if not chosen:
    raise UserError(
      f"no get-up in {', '.join(clips)}; {len(found)} rises are outside the "
      "limits, see --help"
    )
  if all(_split(cfg, getup.clip) == "val" for getup in chosen):
    raise UserError(
      f"--val {' '.join(cfg.val)}: nothing is left to train on; hold out fewer clips"
    )
  check_outputs(cfg.output, cfg.plot, cfg.poses)
  _write(cfg, chosen)
  _print_table(cfg, clips, found)
  if cfg.plot is not None:
    _plot(cfg, clips, found)
  if cfg.poses is not None:
    _picture(cfg.poses, clips, chosen)
  return found


def _split(cfg: SelectGetupsCfg, clip: str) -> Split:
  return "val" if clip in cfg.val else "train"


def _write(cfg: SelectGetupsCfg, chosen: list[Getup]) -> None:
  ranges: dict[str, list[list[int]]] = {}
  for getup in chosen:
    ranges.setdefault(getup.clip, []).append([getup.start, getup.stop])
  data = {
    "name": cfg.name or cfg.output.stem,
    "description": "Get-ups from lying or sitting to standing, with the second before "
    "and the second after; chosen by scripts/select_getups.py.",
    "mirror": True,
    "clips": [
      {"clip": clip, "split": _split(cfg, clip), "ranges": own}
      for clip, own in ranges.items()
    ],
  }
  with atomic_path(cfg.output) as temporary:
    with open(temporary, "w") as file:
      yaml.dump(data, file, sort_keys=False, default_flow_style=None, width=100)


def counts(getups: list[Getup], mirror: bool = False) -> dict[StartPose, int]:
  """Return the number of get-ups from each start pose.

  With mirrors, each counts twice, once with its sides swapped.
  """
  poses: list[StartPose] = [getup.pose for getup in getups]
  if mirror:
    swap: dict[StartPose, StartPose] = {"left": "right", "right": "left"}
    poses = [*poses, *(swap.get(pose, pose) for pose in poses)]
  return {pose: poses.count(pose) for pose in START_POSES}


def _print_table(
  cfg: SelectGetupsCfg, clips: dict[str, Clip], found: list[Getup]
) -> None:
  console = plain_console()
  # Keep the table narrow enough for a terminal of 80 columns.
  table = Table(title="get-ups per start pose", box=None, padding=(0, 1, 0, 0))
  for column in ("clip", "split", "rises", "kept", *START_POSES, "s"):
    left = column in ("clip", "split")
    table.add_column(column, justify="left" if left else "right", no_wrap=True)

  def row(label: str, split: str, getups: list[Getup], mirror: bool = False) -> None:
    """Add a row of counts to the table."""
    kept = [getup for getup in getups if not getup.fault]
    seconds = sum(getup.rows / clips[getup.clip].fps for getup in kept)
    times = 2 if mirror else 1
    table.add_row(
      label,
      split,
      "" if mirror else str(len(getups)),
      str(len(kept) * times),
      *map(str, counts(kept, mirror).values()),
      f"{seconds * times:.1f}",
    )

  for name in clips:
    row(name, _split(cfg, name), [g for g in found if g.clip == name])
  for split in ("train", "val"):
    own = [g for g in found if _split(cfg, g.clip) == split]
    if own:
      row("all", split, own)
      row("with mirrors", split, own, mirror=True)
      missing = [
        pose
        for pose, count in counts([g for g in own if not g.fault], mirror=True).items()
        if not count
      ]
      if missing:
        console.print(f"warning: no {split} get-up starts {', '.join(missing)}")
  console.print(table)
  for getup in found:
    if getup.fault:
      console.print(f"left out: {getup.clip} {getup.low}-{getup.stood}: {getup.fault}")


def _plot(cfg: SelectGetupsCfg, clips: dict[str, Clip], found: list[Getup]) -> None:
  """Plot the pelvis height over time, selected stretches coloured by start pose."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt
  from matplotlib.patches import Patch

  colors = {pose: f"C{i}" for i, pose in enumerate(START_POSES)}
  figure, axes = plt.subplots(
    len(clips),
    1,
    figsize=(16, 1.9 * len(clips) + 0.6),
    squeeze=False,
    layout="constrained",
  )
  for axis, (name, clip) in zip(axes[:, 0], clips.items(), strict=True):
    axis.plot(np.arange(len(clip)), clip.root_pos[:, 2], "0.3", linewidth=0.8)
    for getup in found:
      if getup.clip != name:
        continue
      color = "0.75" if getup.fault else colors[getup.pose]
      axis.axvspan(getup.start, getup.stop, color=color, alpha=0.4, linewidth=0)
      axis.plot(getup.rest, clip.root_pos[getup.rest, 2], ".", color=color)
    for level in (cfg.low, cfg.high):
      axis.axhline(level, color="0.8", linewidth=0.6, zorder=0)
    axis.set_title(f"{name} ({_split(cfg, name)})", fontsize=9, loc="left")
    axis.set(ylabel="pelvis (m)", ylim=(0, 1))
    axis.margins(x=0)
  axes[-1, 0].set_xlabel("input row")
  handles = [Patch(color=color, alpha=0.4) for color in (*colors.values(), "0.75")]
  figure.legend(
    handles, (*colors, "left out"), loc="outside upper right", ncols=6, fontsize=9
  )
  assert cfg.plot is not None
  with atomic_path(cfg.plot) as temporary:
    figure.savefig(temporary, dpi=80)
  plt.close(figure)


def _picture(path: Path, clips: dict[str, Clip], chosen: list[Getup]) -> None:
  """Write a picture of the start poses, ten to a row."""
  from smp.viz.offscreen import film_strip

  rows, labels = [], []
  for pose in START_POSES:
    own = [getup for getup in chosen if getup.pose == pose]
    for first in range(0, len(own), 10):
      part = own[first : first + 10]
      rows.append(np.stack([qpos_row(clips[g.clip], g.rest) for g in part]))
      labels.append(f"{pose}, {first + 1}-{first + len(part)} of {len(own)}")
  film_strip(rows, path, labels)


def qpos_row(clip: Clip, row: int) -> np.ndarray:
  """Return one pose (36,) for MuJoCo: root xyz, root wxyz, joint angles."""
  parts = (clip.root_pos[row], clip.root_quat[row], clip.joint_pos[row])
  return np.concatenate(parts)
