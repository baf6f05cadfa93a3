"""Checks of the contents of motion files, before they become windows.

A file of the right shape can still be wrong: another order of a quaternion, another
unit, columns swapped, rows missing. `judge` examines the resulting motion of the robot
and reports `Finding`s. Thresholds come from the 36 LAFAN1 clips on the G1 with a
margin; the docstring under each states the values of those clips.
docs/motion-formats.md has the detection rates for random damage.

Impossible motion is refused; doubtful motion gives a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from smp.data.clip_kinematics import Poses, find_poses
from smp.data.familiar import (
  JOINTS,
  LENGTHS,
  RATE,
  STANDING_UP,
  STATISTICS,
  Familiar,
  Statistic,
  load_familiar,
  signature,
)
from smp.errors import UserError
from smp.robots import g1

UNIT_TOLERANCE, UNIT_DOUBT = 2e-2, 2e-3
"""Maximum deviation of a quaternion's length from 1: to be accepted, and to be accepted
without a warning. Real clips: 1e-6; numbers with two decimals: 1e-2."""
JOINT_TOLERANCE = 0.5
"""Maximum excess of an angle over its joint's limits, rad; beyond it a file is refused.

Retargeted motion may touch a limit; half a radian beyond it is another robot's file."""
MAX_HEIGHT, MIN_HEIGHT = 1.5, -0.3
"""Bounds of the pelvis height, m. Real clips: 0.03 to 0.97."""
LEAST_HEIGHT = 0.1
"""Minimum pelvis height in the highest row, m, for a wrong unit to be suggested."""
MAX_LIFT = 0.5
"""Maximum height of the robot's lowest part in all rows, m: unsupported above."""
MAX_FLOAT = 0.06
"""Maximum height of the robot's lowest part in its lowest row, m. Real clips: 0.03."""
DOUBTFUL_DEPTH, MAX_DEPTH = -0.2, -0.5
"""Minimum height of the robot's lowest part, m. Real clips: -0.121, lying."""
MAX_SPEED, MAX_TURN, MAX_JOINT_SPEED = 8.5, 18.0, 60.0
"""Maxima for the root, m/s and rad/s, and for a joint, rad/s. Real: 5.6, 11.7, 37."""
MAX_JUMP = 8.0
"""Maximum difference between a step's velocity (RMS over the bodies) and that of the
steps around it, m/s. Real clips: 5.6."""
DOUBTFUL_JUMP = 6.5
MISSING_RATIO, MISSING_REST = 1.62, 0.22
"""Thresholds for a missing row: minimum ratio of a step to the step expected from the
rows around it, and maximum share of the squared remainder. Real: see `_missing`."""
MOVING = 0.3
"""Mean speed of the bodies, m/s, above which a repeated row counts as a stop."""
ISAAC: tuple[str, ...] = (
  *("left_hip_pitch_joint", "right_hip_pitch_joint", "waist_yaw_joint"),
  *("left_hip_roll_joint", "right_hip_roll_joint", "waist_roll_joint"),
  *("left_hip_yaw_joint", "right_hip_yaw_joint", "waist_pitch_joint"),
  *("left_knee_joint", "right_knee_joint"),
  *("left_shoulder_pitch_joint", "right_shoulder_pitch_joint"),
  *("left_ankle_pitch_joint", "right_ankle_pitch_joint"),
  *("left_shoulder_roll_joint", "right_shoulder_roll_joint"),
  *("left_ankle_roll_joint", "right_ankle_roll_joint"),
  *("left_shoulder_yaw_joint", "right_shoulder_yaw_joint"),
  *("left_elbow_joint", "right_elbow_joint"),
  *("left_wrist_roll_joint", "right_wrist_roll_joint"),
  *("left_wrist_pitch_joint", "right_wrist_pitch_joint"),
  *("left_wrist_yaw_joint", "right_wrist_yaw_joint"),
)
"""Joints in breadth-first order, as in Isaac Lab."""
UPSIDE_DOWN = 0.55
"""Share of rows with the pelvis' vertical pointing down. Real clips: 0.15."""
MAX_REASONS = 3


@dataclass(frozen=True)
class Finding:
  """A problem that a check found in a motion."""

  text: str
  """Message: the value found, the value expected, the probable cause."""
  refuse: bool
  rows: tuple[int, ...] = ()
  """Affected rows, from 0; empty: the motion as a whole."""
  kind: str = ""
  guess: str = ""
  """End of the message, which an option that is found replaces."""


@dataclass(frozen=True)
class Rows:
  """A motion as read from a file, in m, rad and wxyz."""

  path: Path
  fps: float
  root_pos: np.ndarray
  """(T, 3)"""
  root_quat: np.ndarray
  """(T, 4), of any length."""
  joint_pos: np.ndarray
  """(T, 29)"""
  lines: np.ndarray
  """(T,): line of the file of each row, from 1."""
  filled: tuple[int, ...] = ()
  """Joints that the file lacks, and that are taken as zero."""
  quaternion_order: str = "xyzw"
  """Quaternion order used to read the file; empty: it has no quaternion."""

  def __len__(self) -> int:
    return len(self.root_pos)


def judge(
  rows: Rows, familiar: Familiar | None = None, explain: bool = True
) -> list[Finding]:
  """Return the findings about a motion, the most serious first.

  Args:
    rows: Finite.
    familiar: Default: the shipped one.
    explain: Search for an option with which there would be no findings.
  """
  familiar = familiar or load_familiar()
  findings = _judge(rows, familiar)
  if not findings or not explain:
    return findings
  option = _better_reading(rows, familiar)
  if option:
    # With another option nothing is wrong, so the doubt becomes a certainty.
    first = findings[0]
    certain = len(rows) >= LENGTHS[0] and option.startswith(_CERTAIN)
    findings = [
      replace(each, text=each.text.removesuffix(f"; {each.guess}")) for each in findings
    ]
    text = f"{findings[0].text}; read with {option} it looks right"
    findings[0] = replace(findings[0], text=text, refuse=first.refuse or certain)
  return findings


_CERTAIN = ("--length", "--angle", "--quaternion", "--joint", "--up")
"""Options whose fit is conclusive. Another frame rate or height fits many motions."""


def _judge(rows: Rows, familiar: Familiar) -> list[Finding]:
  lengths = np.linalg.norm(rows.root_quat, axis=1)
  findings = [*_units(rows, lengths), *joint_limits(rows), *_height(rows)]
  quat = rows.root_quat / np.maximum(lengths, 1e-9)[:, None]
  if len(rows) > 1:
    findings += _speeds(rows, quat)
  if not any(finding.refuse for finding in findings):
    poses = find_poses(rows.root_pos, quat, rows.joint_pos)
    findings += _upright(rows, poses)
    findings += _floor(poses)
    findings += _steps(rows, poses)
    if not any(finding.refuse for finding in findings):
      findings += _figures(rows, poses, familiar)
  return sorted(findings, key=lambda finding: not finding.refuse)


def _better_reading(rows: Rows, familiar: Familiar) -> str:
  """Return the option that removes all findings about a motion; empty: none."""
  for option, other in _readings(rows):
    # `_judge` runs the fast checks first, and most readings fail those.
    if not _judge(other, familiar):
      return option
  return ""


def _readings(rows: Rows) -> Iterator[tuple[str, Rows]]:
  """Yield the motion as other options would have read it, with the option."""
  for unit, size in (("cm", 0.01), ("mm", 0.001), ("in", 0.0254)):
    # If the pelvis stays on the floor in that unit, the unit is not the problem.
    if LEAST_HEIGHT < np.abs(rows.root_pos[:, 2]).max() * size < MAX_HEIGHT:
      small = replace(rows, root_pos=rows.root_pos * size)
      yield f"--length-unit {unit}", small
  degrees = replace(rows, joint_pos=np.radians(rows.joint_pos))
  if np.abs(rows.joint_pos).max() > 4:
    yield "--angle-unit deg", degrees
    scaled = replace(degrees, root_pos=rows.root_pos * 0.01)
    yield "--angle-unit deg --length-unit cm", scaled
  lowered, upright = _lowered(rows)
  # For an upright robot, try a shift of the height before other axes.
  if upright:
    yield from lowered
  for order, index in (("wxyz", [1, 2, 3, 0]), ("xyzw", [3, 0, 1, 2])):
    if rows.quaternion_order not in ("", order):
      quat = rows.root_quat[:, index]
      yield f"--quaternion-order {order}", replace(rows, root_quat=quat)
  index = [ISAAC.index(name) for name in g1.JOINT_NAMES]
  other = rows.joint_pos[:, index]
  yield "--joint-order isaac", replace(rows, joint_pos=other)
  if np.median(np.abs(rows.root_pos[:, 1])) < MAX_HEIGHT:
    yield "--up-axis y", _y_up(rows)
  if not upright:
    yield from lowered
  for fps in (15.0, 20.0, 30.0, 50.0, 60.0, 100.0, 120.0):
    # Short motions are hardly checked, so any rate would fit.
    if fps != rows.fps and len(rows) * RATE / fps >= LENGTHS[1]:
      yield f"--input-fps {fps:g}", replace(rows, fps=fps)


def _lowered(rows: Rows) -> tuple[list[tuple[str, Rows]], bool]:
  """Return the motion shifted onto the floor, if needed, and whether it is upright."""
  length = np.linalg.norm(rows.root_quat, axis=1, keepdims=True)
  if length.min() < 0.5 or np.abs(rows.root_pos).max() > 1e4:
    return [], False
  poses = find_poses(rows.root_pos, rows.root_quat / length, rows.joint_pos)
  upright = float(np.median(poses.up[:, 2])) > STANDING_UP
  off = float(np.quantile(poses.lowest, 0.25))
  if abs(off) <= MAX_FLOAT:
    return [], upright
  how = "lower" if off > 0 else "higher"
  moved = replace(rows, root_pos=rows.root_pos - (0.0, 0.0, off))
  return [(f"z {abs(off):.2f} m {how}", moved)], upright


def _y_up(rows: Rows) -> Rows:
  turn = Rotation.from_euler("x", 90, degrees=True)
  length = np.linalg.norm(rows.root_quat, axis=1, keepdims=True)
  unit = rows.root_quat / np.maximum(length, 1e-9)
  unit[length[:, 0] < 1e-9] = (1, 0, 0, 0)
  turned = (turn * Rotation.from_quat(unit[:, [1, 2, 3, 0]])).as_quat()
  return replace(
    rows,
    root_pos=turn.apply(rows.root_pos),
    root_quat=turned[:, [3, 0, 1, 2]] * length,
  )


def report(
  rows: Rows,
  findings: Sequence[Finding],
  accept: bool = False,
  ranges: Sequence[tuple[int, int]] = (),
) -> list[str]:
  """Return the doubts about a motion as messages; raise what is impossible.

  Args:
    rows: The motion.
    findings: Of `judge`.
    accept: Treat impossible motion as doubtful.
    ranges: Rows [start, stop) that are used; findings elsewhere do not count.

  Raises:
    UserError: names the file and the row of what is impossible.
  """
  doubts = []
  for finding in findings:
    at = [r for r in finding.rows if not ranges or _inside(r, finding.kind, ranges)]
    if finding.rows and not at:
      continue
    where = f"row {rows.lines[at[0]]}: " if at else ""
    more = f" (and {len(at) - 1} more rows)" if len(at) > 1 else ""
    text = f"{rows.path}: {where}{finding.text}{more}"
    if finding.refuse and not accept:
      raise UserError(f"{text}; --accept-doubtful reads it all the same")
    doubts.append(text)
  return doubts


def _inside(row: int, kind: str, ranges: Sequence[tuple[int, int]]) -> bool:
  """Return whether a row is used; for a step between two rows, whether both are."""
  first = row - 1 if kind == "step" else row
  return any(start <= first and row < stop for start, stop in ranges)


def _at(bad: np.ndarray) -> tuple[int, ...]:
  return tuple(int(row) for row in np.flatnonzero(bad))


# Single rows.


def _units(rows: Rows, lengths: np.ndarray) -> Iterator[Finding]:
  off = np.abs(lengths - 1)
  worst = int(off.argmax())
  if off[worst] > UNIT_TOLERANCE:
    bad = _at(off > UNIT_TOLERANCE)
    yield Finding(
      f"the root quaternion has length {lengths[bad[0]]:.3f}, expected 1: other columns, "
      "or angles, where the quaternion should be?",
      True,
      bad,
    )
  elif off[worst] > UNIT_DOUBT:
    yield Finding(
      f"the root quaternion has length {lengths[worst]:.4f}, expected 1 to within "
      f"{UNIT_DOUBT}; it is normalised",
      False,
      (worst,),
    )


def joint_limits(rows: Rows) -> Iterator[Finding]:
  """Yield findings about joints far outside their limits."""
  limits = g1.load_model().jnt_range[1:]
  over = np.maximum(limits[:, 0] - rows.joint_pos, rows.joint_pos - limits[:, 1])
  bad = _at((over > JOINT_TOLERANCE).any(axis=1))
  if not bad:
    return
  joint = int(over[bad[0]].argmax())
  radians = np.radians(rows.joint_pos)
  inside = (radians > limits[:, 0] - 0.3) & (radians < limits[:, 1] + 0.3)
  if np.abs(rows.joint_pos).max() > 4 and inside.mean() > 0.98:
    guess = "joint angles look like degrees: try --angle-unit deg"
  else:
    guess = (
      "is this a clip of the 29-joint G1? another order of the joints, or columns?"
    )
  yield Finding(
    f"{g1.JOINT_NAMES[joint]} is {rows.joint_pos[bad[0], joint]:.3f} rad, far outside its "
    f"limits [{limits[joint, 0]:.2f}, {limits[joint, 1]:.2f}]; {guess}",
    True,
    bad,
    guess=guess,
  )


def _height(rows: Rows) -> Iterator[Finding]:
  height = rows.root_pos[:, 2]
  bad = (height > MAX_HEIGHT) | (height < MIN_HEIGHT)
  if not bad.any():
    return
  middle = float(np.median(height))
  across = np.median(rows.root_pos[:, 1])
  guess = "is the floor at z = 0?"
  for unit, size in (("cm", 100.0), ("mm", 1000.0), ("in", 39.37)):
    if 0.25 < middle / size < 1.0:
      guess = f"positions look like {unit}: try --length-unit {unit}"
      break
  else:
    if 0.4 < across < 1.0 and np.ptp(rows.root_pos[:, 1]) < 1.0:
      guess = "y looks like the height: try --up-axis y"
  yield Finding(
    f"the pelvis is at z = {height[bad][0]:.2f} m, expected 0 to 1; {guess}",
    True,
    _at(bad),
    guess=guess,
  )


def _speeds(rows: Rows, quat: np.ndarray) -> Iterator[Finding]:
  step = np.linalg.norm(np.diff(rows.root_pos, axis=0), axis=1)
  cosine = np.abs((quat[1:] * quat[:-1]).sum(axis=1))
  turn = 2 * np.arccos(cosine.clip(max=1.0))
  joint = np.abs(np.diff(rows.joint_pos, axis=0))
  advice = "rows missing, or two motions in one file? leave it out by 'ranges'"
  fast = step * rows.fps > MAX_SPEED
  if fast.any():
    guess = advice
    if fast.mean() > 0.3:
      guess = "--length-unit or --input-fps?"
    r = _at(fast)[0]
    yield Finding(
      f"the root moves {step[r]:.2f} m from the row before, {step[r] * rows.fps:.1f} m/s; "
      f"real clips reach 5.6; {guess}",
      True,
      _after(fast),
      "step",
      guess,
    )
  fast = turn * rows.fps > MAX_TURN
  if fast.any():
    r = _at(fast)[0]
    yield Finding(
      f"the root turns {np.degrees(turn[r]):.0f} degrees from the row before, "
      f"{turn[r] * rows.fps:.1f} rad/s; real clips reach 12; {advice}",
      True,
      _after(fast),
      "step",
    )
  fast = joint.max(axis=1) * rows.fps > MAX_JOINT_SPEED
  if fast.any():
    r = _at(fast)[0]
    j = int(joint[r].argmax())
    yield Finding(
      f"{g1.JOINT_NAMES[j]} turns {joint[r, j]:.2f} rad from the row before, "
      f"{joint[r, j] * rows.fps:.0f} rad/s; real clips reach 37; {advice}",
      True,
      _after(fast),
      "step",
    )


def _after(bad: np.ndarray) -> tuple[int, ...]:
  """Return the second row of each bad step."""
  return tuple(row + 1 for row in _at(bad))


# Poses of the robot.


def _upright(rows: Rows, poses: Poses) -> Iterator[Finding]:
  up = poses.up[:, 2]
  if (up < 0).mean() <= UPSIDE_DOWN and np.median(up) > 0.3:
    return
  middle = float(np.median(rows.root_pos[:, 2]))
  if middle < 0.5:
    return  # A low pelvis means that the robot lies, which is no error.
  yield Finding(
    f"the robot is upside down, or lies, in {100 * (up < 0.3).mean():.0f} % of the rows with "
    f"its pelvis at {middle:.2f} m: another --quaternion-order, or --up-axis?",
    True,
    _at(up < 0.3)[:1],
  )


def _floor(poses: Poses) -> Iterator[Finding]:
  low = float(poses.lowest.min())
  if low > MAX_FLOAT:
    grave = low > MAX_LIFT
    yield Finding(
      f"nothing of the robot comes nearer to the floor than {low:.2f} m in any row; real "
      "clips stand on it: another --length-unit, or a height that is off?",
      grave,
    )
  for bound, refuse in ((MAX_DEPTH, True), (DOUBTFUL_DEPTH, False)):
    deep = poses.lowest < bound
    if deep.any():
      yield Finding(
        f"the robot reaches {-poses.lowest[deep][0]:.2f} m under the floor; real clips at "
        "most 0.12, lying: another order of the joints, or a height that is off?",
        refuse,
        _at(deep),
      )
      return


# Steps between rows.


def _steps(rows: Rows, poses: Poses) -> list[Finding]:
  if len(rows) < 6:
    return []
  where = poses.links.reshape(len(rows), -1)
  step = np.diff(where, axis=0)
  speed = np.sqrt((step**2).sum(axis=1) * 3 / step.shape[1]) * rows.fps
  return [*_repeated(rows, speed), *_missing(rows, step)]


def _repeated(rows: Rows, speed: np.ndarray) -> Iterator[Finding]:
  data = np.concatenate((rows.root_pos, rows.root_quat, rows.joint_pos), axis=1)
  same = (np.diff(data, axis=0) == 0).all(axis=1)
  if not same.any():
    return
  count = int(same.sum())
  if count > 0.15 * len(same):
    moving = np.flatnonzero(~same)
    if not len(moving):
      return  # A pose that is held throughout is no repetition.
    every = len(same) / max(len(moving), 1)
    yield Finding(
      f"{count} of {len(rows)} rows repeat the row before them: a motion of fewer rows "
      f"written at a higher rate? leave them out; at {rows.fps:g} rows a second the others "
      f"are {rows.fps / every:.0f} a second (--input-fps)",
      False,
    )
    return
  # A repeated row is a stop if the motion goes on at both sides of it: `before` and
  # `after` are the speeds of the nearest rows that are not repeated.
  moved = np.where(same, -1.0, speed)
  before = _carried(moved)
  after = _carried(moved[::-1])[::-1]
  stop = same & (np.minimum(before, after) > 0.02)
  if stop.any():
    yield Finding(
      "repeats the row before it in the middle of motion; leave it out",
      False,
      _after(stop),
    )


def _carried(values: np.ndarray) -> np.ndarray:
  """Return each value, or, where it is negative, the last one that is not."""
  index = np.maximum.accumulate(np.where(values >= 0, np.arange(len(values)), 0))
  return values[index]


def _expected(step: np.ndarray) -> np.ndarray:
  """Return the steps (T - 4, D) that are expected from their neighbours.

  Cubic interpolation through the two steps before and the two after; the two outer
  steps at either end are left out.
  """
  return (-step[:-4] + 4 * step[1:-3] + 4 * step[3:-1] - step[4:]) / 6


def body_jumps(rows: Rows, poses: Poses) -> np.ndarray:
  """Return each step's deviation (T - 5,) from the expected one, m/s.

  RMS over the bodies; see `_expected`.
  """
  if len(rows) < 6:
    return np.zeros(0)
  step = np.diff(poses.links.reshape(len(rows), -1), axis=0)
  off = ((step[2:-2] - _expected(step)) ** 2).sum(axis=1)
  return np.sqrt(off * 3 / step.shape[1]) * rows.fps


def _missing(rows: Rows, step: np.ndarray) -> Iterator[Finding]:
  """Yield findings about steps that deviate from the steps around them.

  The expected step, by cubic interpolation of the steps around it, is ``e``. In real
  motion the component of a step along ``e`` is 0.0 to 2.4 times ``e``, and where it is
  more than 1.6 times ``e``, the remainder is large, too. Where a row is missing, the
  step is 2 ``e`` with hardly any remainder.
  """
  e, s = _expected(step), step[2:-2]
  bodies = step.shape[1] / 3
  ee = (e * e).sum(axis=1) + 1e-12
  ratio = (s * e).sum(axis=1) / ee
  rest = ((s - ratio[:, None] * e) ** 2).sum(axis=1) / ee
  moving = np.sqrt(ee / bodies) * rows.fps > MOVING
  missing = moving & (ratio > MISSING_RATIO) & (rest < MISSING_REST * (ratio - 1) ** 2)
  if missing.any():
    at = tuple(row + 3 for row in _at(missing))
    first = ratio[missing][0]
    yield Finding(
      f"all bodies move {first:.1f} times as far from the row before as in the rows "
      f"around: {max(1, round(first - 1))} row(s) missing?",
      False,
      at,
      "step",
    )
  jump = np.sqrt(((s - e) ** 2).sum(axis=1) / bodies) * rows.fps
  for bound, refuse in ((2 * MAX_JUMP, True), (DOUBTFUL_JUMP, False)):
    bad = (jump > bound) & ~missing
    if bad.any():
      yield Finding(
        f"the bodies jump: their velocity is {jump[bad][0]:.1f} m/s off that of the rows "
        "around; real clips at most 5.6; leave it out by 'ranges'",
        refuse,
        tuple(row + 3 for row in _at(bad)),
        "step",
      )
      return


# Statistics of the whole motion.


def figures_of(rows: Rows, poses: Poses, familiar: Familiar) -> tuple[np.ndarray, int]:
  """Return the signature of a motion at 30 rows per second, and its number of rows."""
  pos, joints = rows.root_pos, rows.joint_pos
  if abs(rows.fps / RATE - 1) > 0.02:
    pos, joints, poses = _at_rate(rows, poses)
  if len(pos) < LENGTHS[0]:
    return np.full(len(STATISTICS), np.nan), len(pos)
  return signature(poses, pos, joints, familiar), len(pos)


def _at_rate(rows: Rows, poses: Poses) -> tuple[np.ndarray, np.ndarray, Poses]:
  """Return the motion resampled linearly to `RATE` rows per second."""
  count = int((len(rows) - 1) * RATE / rows.fps) + 1
  times = np.arange(count) * rows.fps / RATE
  low = np.minimum(times.astype(int), len(rows) - 2)
  share = times - low

  def between(values: np.ndarray) -> np.ndarray:
    """Return values (T, ...) interpolated at the new times."""
    part = share.reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1 - part) + values[low + 1] * part

  names = ("links", "soles", "sole_up", "lowest", "up")
  return (
    between(rows.root_pos),
    between(rows.joint_pos),
    Poses(*(between(getattr(poses, name)) for name in names)),
  )


def _figures(rows: Rows, poses: Poses, familiar: Familiar) -> list[Finding]:
  figures, count = figures_of(rows, poses, familiar)
  strange = familiar.strange(figures, count)
  if rows.filled:
    strange[[i for i, figure in enumerate(STATISTICS) if _depends(figure, rows)]] = 0.0
  found = [i for i in np.argsort(-strange) if strange[i] > 0]
  if not found:
    return []
  texts, kinds = [], set()
  for i in found:
    figure = STATISTICS[i]
    text = _say(figure, float(figures[i]), rows.fps)
    key = (figure.kind if figure.kind != "swap" else "swap", figure.joints[:1])
    if key not in kinds and text not in texts:
      kinds.add(key)
      texts.append(text)
  shown = "; ".join(texts[:MAX_REASONS])
  more = f"; and {len(texts) - MAX_REASONS} more" if len(texts) > MAX_REASONS else ""
  return [Finding(f"unlike real motion of this robot: {shown}{more}", False)]


def _depends(figure: Statistic, rows: Rows) -> bool:
  """Return whether a statistic is meaningless where some joints are filled in."""
  together = ("swap", "sides", "flip", "scale", "offset", "rarity", "rate_rarity")
  return figure.kind in together or bool(set(figure.joints) & set(rows.filled))


def _say(figure: Statistic, value: float, fps: float) -> str:
  """Return a strange statistic in words."""
  joints = [JOINTS[j] for j in figure.joints]
  kind = figure.kind
  if kind == "swap":
    return f"{joints[0]} and {joints[1]} look exchanged (--joint-order)"
  if kind == "sides":
    return "left and right look exchanged (--joint-order)"
  if kind == "flip":
    return f"the sign of {joints[0]} looks flipped"
  if kind == "scale":
    return f"{joints[0]} looks scaled, by some {np.exp(-value):.2f}"
  if kind == "offset":
    return f"{joints[0]} looks shifted by some {value:+.2f} rad"
  if kind in ("low", "middle", "high"):
    return f"{joints[0]} is at {value:+.2f} rad where real clips are not"
  if kind == "speed":
    return f"{joints[0]} moves at {np.exp(value):.2f} rad/s (RMS)"
  if kind == "joint_frequency":
    return f"{joints[0]} moves too smoothly or too roughly"
  if kind in ("frequency", "root_frequency", "joint_speed"):
    return f"it moves too slowly or too fast for {fps:g} rows a second (--input-fps)"
  if kind.startswith("foot_height"):
    return f"feet are {value:+.2f} m from the floor while standing"
  if kind.startswith("skate"):
    return f"feet slide at {value:.2f} m/s on the floor"
  if kind.startswith("carried"):
    return "the root does not move as the feet on the floor carry it"
  if kind.startswith("sole") or kind == "stance":
    return "soles do not lie on the floor"
  return "poses or speeds that real clips do not have"


def warn(messages: Sequence[str]) -> None:
  """Print messages as warnings on stderr."""
  for message in messages:
    print(f"warning: {message}", file=sys.stderr)
