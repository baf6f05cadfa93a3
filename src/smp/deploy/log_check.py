"""Why a controller's actions are not those that its policy gives for what it measured.

The observations are computed from a log's raw signals, and the actions from them by the
policy. Where these are not the logged ones, known mistakes are made on purpose
(`smp.deploy.mistakes`), one at a time: the mistake with which they are the logged ones is
the controller's, or the log's. What one mistake explains in part is kept, and the search
goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from smp.deploy.controller import gravity, observed, refuse_unmeasured, scaled, targets
from smp.deploy.deploy_file import describe_deploy
from smp.deploy.mistakes import (
  FARTHEST_STEP,
  Fit,
  Mistake,
  action_mistakes,
  gather,
  joint_swaps,
  target_mistakes,
)
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.robot_log import RobotLog
from smp.errors import UserError

TOLERANCE = 1e-3
"""Largest difference of an action that counts as none."""
_LONGEST = 1500
"""Steps of a log that are searched; all are compared."""
_ROWS, _FEW = 32, 6
"""Steps at which a mistake is tried, and at which it is tried first."""
_MOST_FINDINGS = 4
_WORTH = 0.7
"""A mistake is kept that leaves less than this share of the difference."""
_PROMISING = 1.5
"""A mistake is tried at all steps if at few it is not this much worse than the best."""
_REFINEMENTS = 24
_TILT, _MOTION, _SPIN = 0.02, 0.02, 0.05
"""Ranges below which a log says nothing about the IMU (1), the joints (rad), and the
gyroscope (rad/s)."""
_ROUNDING, _GLITCHES = 5.0, 0.01
"""What a fitted size may leave, as a multiple of the tolerance, and share of the steps
that may be off once a mistake is found."""
CONTROL_RATE, MISSED_STEPS = "control rate", "missed steps"
"""Kinds of mistakes that the time stamps show."""
_JITTER = 0.25
"""Share of the period by which a row may come early or late."""


@dataclass(frozen=True)
class Finding:
  """A mistake that explains a difference."""

  kind: str
  text: str
  left: float
  """Share of the difference that it leaves; 0 where it explains all."""


@dataclass(frozen=True)
class Check:
  """Result of `check_log`."""

  steps: int
  """Steps that were compared."""
  largest: float
  """Largest difference of an action."""
  where: str
  """Time and joint of the largest difference, and time of the first; "" if none."""
  findings: tuple[Finding, ...]
  unexplained: bool
  """Whether a difference is left that no known mistake explains."""
  notes: tuple[str, ...]
  """What this log cannot show."""

  @property
  def agrees(self) -> bool:
    """Return whether the log is what the policy would have done."""
    return not self.findings and not self.unexplained


def check_log(policy: OnnxPolicy, log: RobotLog, tolerance: float = TOLERANCE) -> Check:
  """Compare a log's actions with those of the policy, and find out why they differ.

  Args:
    policy: The policy.
    log: The log.
    tolerance: Largest difference of an action that counts as none.

  Raises:
    UserError: The policy observes what a log does not have, or the log is too short.
  """
  search = _Search(policy, log, tolerance)
  difference = search.difference(np.arange(search.first, len(log.time)))
  if not np.isfinite(difference).all():
    row = search.first + int(np.argmin(np.isfinite(difference).all(axis=1)))
    raise UserError(
      f"the log's row {row} ({log.time[row]:.2f} s) gives an action that is not a finite "
      "number: its measurements are far beyond what a robot can do"
    )
  findings = _rate(log.time, search.deploy.step_dt)
  unexplained = False
  if difference.max() > tolerance:
    more, unexplained = search.run()
    findings += more
  if log.target is not None:
    more, missed = _check_targets(search, log.target, tolerance)
    findings += more
    unexplained |= missed
  return Check(
    len(difference),
    float(difference.max()),
    _where(search, difference, tolerance),
    tuple(findings),
    unexplained,
    _notes(search, log),
  )


def _where(search: _Search, difference: np.ndarray, tolerance: float) -> str:
  if difference.max() <= tolerance:
    return ""
  row, joint = np.unravel_index(np.argmax(difference), difference.shape)
  first = int(np.argmax(difference.max(axis=1) > tolerance))
  time = search.log.time[search.first :]
  return (
    f"first at {time[first]:.2f} s, most at {time[row]:.2f} s "
    f"({search.deploy.joint_names[joint]})"
  )


def _rate(time: np.ndarray, period: float) -> list[Finding]:
  """Return findings on the time stamps (T,), s."""
  steps = np.diff(time)
  usual = float(np.median(steps))
  if not abs(usual / period - 1.0) < _JITTER:
    text = f"rows are {usual:g} s apart, the policy acts every {period:g} s"
    return [Finding(CONTROL_RATE, text, 0.0)]
  off = np.abs(steps - period) > _JITTER * period
  if off.any():
    text = (
      f"{int(off.sum())} of {len(steps)} steps take longer or shorter than {period:g} s, "
      f"the first at {time[int(np.argmax(off))]:.2f} s"
    )
    return [Finding(MISSED_STEPS, text, 0.0)]
  return []


def _notes(search: _Search, log: RobotLog) -> tuple[str, ...]:
  """Return what the log cannot show, because nothing happens in it."""
  signals, notes = log.signals, []
  if signals.command.size and not np.ptp(signals.command, axis=0).any():
    notes.append("the command is constant: its order, scale and delay are not tested")
  if np.abs(gravity(signals.quat)[:, :2]).max() < _TILT:
    notes.append("the robot does not tilt: the IMU's frame is hardly tested")
  if np.ptp(signals.gyro, axis=0).max() < _SPIN:
    notes.append("the robot does not turn: the gyroscope is hardly tested")
  still = np.ptp(signals.joint_pos, axis=0) < _MOTION
  if still.any():
    names = [n for n, s in zip(search.deploy.joint_names, still, strict=True) if s]
    notes.append(f"{len(names)} joints hardly move, such as {names[0]}")
  if log.target is None:
    notes.append("no array 'target': scale, offset and order of actions are not tested")
  return tuple(notes)


def _check_targets(
  search: _Search, found: np.ndarray, tolerance: float
) -> tuple[list[Finding], bool]:
  """Return findings on the position targets (T, A), and whether some are left."""
  deploy, action = search.deploy, _undone(search.log.action, search.kept)
  before = float(np.abs(targets(deploy, action) - found).max())
  if before <= tolerance:
    return [], False
  left = [
    (float(np.abs(mistake.change(action) - found)[1:].max()), mistake)
    for mistake in target_mistakes(deploy, action, found)
  ]
  # The first that explains all; rounding decides between those.
  best, mistake = min(left, key=lambda each: max(each[0], tolerance))
  if best > max(tolerance, _WORTH * before):
    return [], True
  explained = best <= tolerance
  finding = Finding(mistake.kind, mistake.text, 0.0 if explained else best / before)
  return [finding], not explained


class _Search:
  """The search for mistakes in one log."""

  def __init__(self, policy: OnnxPolicy, log: RobotLog, tolerance: float) -> None:
    self.deploy = describe_deploy(policy.spec, policy.path.name)
    refuse_unmeasured(self.deploy, "check_log")
    self.policy, self.log, self.tolerance = policy, log, tolerance
    frames = max(t.history_length for t in self.deploy.observations.values())
    # Earlier steps depend on what was before the log.
    self.first = 2 * frames + FARTHEST_STEP
    if len(log.time) < self.first + _ROWS:
      raise UserError(
        f"a log of {len(log.time)} rows is too short; log {self.first + _ROWS} or more"
      )
    self.kept: list[Mistake] = []
    self._signals = type(log.signals)(*(each[:_LONGEST] for each in log.signals))
    self._rows = np.zeros(0, int)

  def difference(self, rows: np.ndarray, also: Sequence[Mistake] = ()) -> np.ndarray:
    """Return how far actions (R, A) are from the logged ones, mistakes made."""
    whole = len(rows) > _ROWS
    actions = self._act(self.log.signals if whole else self._signals, rows, also)
    return np.abs(actions - self.log.action[rows])

  def _act(self, signals, rows: np.ndarray, also: Sequence[Mistake]) -> np.ndarray:
    made = [*self.kept, *also]

    def apply(stage: str, value):
      for mistake in made:
        if mistake.stage == stage:
          value = mistake.change(value)
      return value

    signals = signals._replace(last_action=_undone(signals.last_action, made))
    values = apply("values", observed(self.deploy, apply("signals", signals)))
    frames = scaled(self.deploy, values).astype(np.float32)
    layouts = [m.change for m in made if m.stage == "layout"]
    observations = (layouts or [gather])[-1](self.deploy, frames, rows)
    return apply("output", np.stack([self.policy(each) for each in observations]))

  def run(self) -> tuple[list[Finding], bool]:
    """Return what was found, and whether a difference is left."""
    findings: list[Finding] = []
    last = min(len(self.log.time), _LONGEST)
    every = np.arange(self.first, last)
    self._rows = every[np.linspace(0, len(every) - 1, _ROWS).astype(int)]
    before = now = _size(self.difference(self._rows))
    while now > self.tolerance and len(findings) < _MOST_FINDINGS:
      mistake, left = self._best(now)
      if mistake is None or left > _WORTH * now:
        break
      self.kept.append(mistake)
      share = 0.0 if left <= self.tolerance else left / before
      findings.append(Finding(mistake.kind, mistake.text, share))
      now = left
    return findings, self._unexplained(bool(findings))

  def _unexplained(self, found: bool) -> bool:
    """Return whether a difference is left, but for a glitch here and there."""
    rest = self.difference(np.arange(self.first, len(self.log.time)))
    off = float((rest.max(axis=1) > _ROUNDING * self.tolerance).mean())
    return off > _GLITCHES or not found

  def _best(self, now: float) -> tuple[Mistake | None, float]:
    """Return the first mistake that explains all, or the one that explains most."""
    best: Mistake | None = None
    least = now
    for mistake, left in self._tried():
      if left < least:
        best, least = mistake, left
      if left <= self.tolerance:
        break
    return best, least

  def _tried(self) -> Iterable[tuple[Mistake, float]]:
    least = np.inf
    for each in (*action_mistakes(self.deploy, self.log), *joint_swaps(self.deploy)):
      mistake = self._fitted(each) if isinstance(each, Fit) else each
      few = self._left(mistake, self._rows[:: _ROWS // _FEW])
      if few > _PROMISING * least:
        continue
      left = self._left(mistake, self._rows)
      least = min(least, left)
      yield mistake, left

  def _left(self, mistake: Mistake, rows: np.ndarray) -> float:
    return _size(self.difference(rows, (mistake,)))

  def _fitted(self, fit: Fit) -> Mistake:
    """Return a mistake of a size, such as a scale, with the size that explains most."""
    rows = self._rows[:: _ROWS // _FEW]
    left = [self._left(fit.at(size), rows) for size in fit.grid]
    best = int(np.argmin(left))
    low, high = fit.grid[max(0, best - 1)], fit.grid[min(len(left) - 1, best + 1)]
    golden = (5**0.5 - 1) / 2
    for _ in range(_REFINEMENTS):
      one, two = high - golden * (high - low), low + golden * (high - low)
      if self._left(fit.at(one), rows) < self._left(fit.at(two), rows):
        high = two
      else:
        low = one
    return fit.at((low + high) / 2)


def _undone(action: np.ndarray, made: Iterable[Mistake]) -> np.ndarray:
  """Return the network's outputs (T, A) from the logged ones."""
  for mistake in made:
    action = action if mistake.undo is None else mistake.undo(action)
  return action


def _size(difference: np.ndarray) -> float:
  return float(np.sqrt(np.mean(difference**2)))
