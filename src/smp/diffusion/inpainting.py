"""Motions of any length from a prior of short windows.

A window is sampled, then further windows are appended. Each of them begins with the
last frames of the motion so far. These frames are known, so they are inpainted. The
method follows RePaint (Lugmayr et al., arXiv 2201.09865): sample as usual, but at every
step of the reverse process replace the sampled values of the known part by the known
ones, noised to that step's level. Each step is taken more than once, so that the two
parts come to agree.

Images have a fixed frame of reference; windows do not. A window is expressed in the
frame of its last root, and how far the motion travels and turns until then is what is
being sampled. So the known frames cannot simply be copied. Instead, each step

1. estimates the clean window and decodes it;
2. finds the turn about z and the horizontal shift that bring its first frames closest
to the known ones (`fit_anchor`), and moves it there;
3. joins its other frames to the known ones, derives the velocities of these poses (that
of the last known frame depends on the first new one), and encodes the result, which the
encoder anchors at its own last frame;
4. noises the first rows of the result and writes them over the sampled ones.

The known frames are thus expressed relative to the estimated end of the window, which
becomes more exact as the noise decreases. Fixing that end beforehand would forbid what
is to be sampled: starting, stopping and turning. Early estimates, however, carry little
information, and as each is made from rows written by the previous one, an error can
confirm itself: of 384 continuations of lying poses by the getup prior, 6 turned the
robot around at the seam. Therefore the estimate is combined with the turn of the known
frames, continued at the same rate. The two have equal weight where noise and signal are
equally strong; the continued turn weighs more before and less after (by the ratio of
noise variance to signal variance). With it none of the 384 continuations turn around,
and runners in a bend stay in it longer.

The denoiser's last estimate of the known frames differs from them by about the lowest
noise level of the schedule, and the new frames fit that estimate, so they would begin
with a jump. They are therefore shifted, in features, by the difference at the last
known frame (`_Inpainter._finish`). For the loco prior this reduces the turn of the root
at a seam from 3.5 times to 1.3 times that between other frames, and the change of the
joint angles from 1.5 times to 1.0 times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.motion.features import (
  Anchor,
  MotionState,
  anchor_of,
  decode,
  encode,
  window_velocities,
)
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import HeadingKind
from smp.robots import g1

OVERLAP = 6
"""Known frames at the beginning of every further window."""
RESAMPLE = 2
"""Repetitions of each step of the reverse process; 1 means no resampling, which fits
less well where motions turn."""


def check_overlap(prior: MotionPrior, overlap: int) -> None:
  """Raise an error for an overlap that leaves no known or no new frame.

  Raises:
    UserError: The overlap is out of range; the message states the range.
  """
  most = prior.spec.window - 1
  if not 1 <= overlap <= most:
    raise UserError(
      f"overlap is {overlap}, expected 1 to {most}: windows of this prior have "
      f"{prior.spec.window} frames, at least one of them known and one new"
    )


def generate_motion(
  prior: MotionPrior,
  n: int,
  frames: int,
  overlap: int = OVERLAP,
  resample: int = RESAMPLE,
  generator: torch.Generator | None = None,
) -> MotionState:
  """Sample ``n`` motions: a first window, then its continuation.

  Args:
    prior: A prior for the G1.
    n: Number of motions.
    frames: Frames of each motion, at the prior's rate.
    overlap: See `extend_motion`.
    resample: See `extend_motion`.
    generator: Source of all noise, on the prior's device; None: torch's own.

  Returns:
    Motions (n, frames, ...), world frame. The first window ends at the origin, facing
    along x.

  Raises:
    UserError: ``overlap`` is not possible.
  """
  check_overlap(prior, overlap)
  start = decode(prior.sample(n, generator))
  new = max(0, frames - prior.spec.window)
  motion = extend_motion(prior, start, new, overlap, resample, generator)
  return cut(motion, 0, frames)


@torch.no_grad()
def extend_motion(
  prior: MotionPrior,
  start: MotionState,
  frames: int,
  overlap: int = OVERLAP,
  resample: int = RESAMPLE,
  generator: torch.Generator | None = None,
) -> MotionState:
  """Append frames sampled by the prior to motions.

  The continuation does not depend on where a motion is or which way it faces: the same
  noise continues it in the same way.

  Args:
    prior: A prior for the G1.
    start: (n, M, ...), world frame, M at least ``overlap``. Only its poses are used.
    frames: Number of frames to append; M + frames must be at least 3, for velocities to
      exist.
    overlap: Known frames at the beginning of every window, 1 to W - 1. Few are fast,
      but two are needed to tell the speed, and three the acceleration.
    resample: Repetitions of each step of the reverse process.
    generator: Source of all noise, on the prior's device; None: torch's own.

  Returns:
    Motions (n, M + frames, ...). The poses of ``start`` come first, bit by bit;
    velocities and end effectors are derived from the poses of the whole motion.

  Raises:
    UserError: ``overlap`` is not possible, or longer than ``start``.
  """
  check_overlap(prior, overlap)
  before = start.joint_pos.shape[1]
  if before < overlap:
    raise UserError(
      f"cannot continue a motion of {before} frames with an overlap of {overlap}"
    )
  inpainter = _Inpainter(prior, overlap, resample, generator)
  motion, total = start, before + frames
  while (length := motion.joint_pos.shape[1]) < total:
    motion = _join(motion, inpainter.following(cut(motion, length - overlap, length)))
  motion = with_velocities(cut(motion, 0, total), prior.spec.fps)
  return motion._replace(ee_pos_w=inpainter.ee_positions(motion))


class _Inpainter:
  """Sampler of the continuation of known frames, one window at a time."""

  def __init__(
    self,
    prior: MotionPrior,
    overlap: int,
    resample: int,
    generator: torch.Generator | None,
  ) -> None:
    self.prior, self.overlap, self.resample = prior, overlap, resample
    self.generator, self.device = generator, prior.q_low.device
    self.kinematics = Kinematics(g1.load_model()).to(self.device)
    steps = torch.arange(prior.schedule.num_timesteps, device=self.device)
    self.modulation = prior.denoiser.time_modulation(steps)

  def following(self, known: MotionState) -> MotionState:
    """Return the W - overlap frames after ``known`` (n, overlap, ...), world frame."""
    schedule, heading = self.prior.schedule, self.prior.spec.heading
    known = known._replace(ee_pos_w=self.ee_positions(known))
    # Compute at the origin: float32 loses digits far from it.
    there = anchor_of(known, heading)
    known = decode(encode(known, heading))
    self.turn = expected_turn(known, self.prior.spec.window, heading)
    n, window = len(known.joint_pos), self.prior.spec.window
    x = self._noise(n, window)
    for t in range(schedule.num_timesteps - 1, 0, -1):
      for repeat in range(self.resample):
        if repeat > 0:
          keep = 1.0 - schedule.betas[t]
          x = keep.sqrt() * x + (1.0 - keep).sqrt() * self._noise(n, window)
        x = self._step(x, known, t)
    features, anchor = self._finish(x, known)
    return cut(decode(features, _compose(there, anchor)), self.overlap, window)

  def _step(self, x: Tensor, known: MotionState, t: int) -> Tensor:
    """Take the reverse step from timestep ``t`` to ``t - 1``, with inpainting.

    Args:
      x: Noised windows (n, W, F), normalised.
      known: Known frames (n, overlap, ...), in their own frame.
      t: The current timestep, at least 1.
    """
    schedule = self.prior.schedule
    x0 = self._clean(x, t)
    joined = self._joined(self.prior.denormalize(x0), known, t)
    given = encode(joined, self.prior.spec.heading)[:, : self.overlap]
    given = schedule.signal[t - 1] * self.prior.normalize(given)
    given = given + schedule.noise[t - 1] * self._noise(*given.shape[:2])
    # The other frames follow the posterior of ordinary DDPM sampling.
    x = schedule.posterior_x0[t] * x0 + schedule.posterior_xt[t] * x
    x = x + schedule.posterior_std[t] * self._noise(*x.shape[:2])
    return torch.cat((given, x[:, self.overlap :]), dim=1)

  def _finish(self, x: Tensor, known: MotionState) -> tuple[Tensor, Anchor]:
    """Return the clean window, aligned with the last known frame, and its anchor.

    The window (n, W, F) is in raw units; the anchor is in the frame of ``known``.
    """
    features = self.prior.denormalize(self._clean(x, 0))
    joined = self._joined(features, known, 0)
    last = slice(self.overlap - 1, self.overlap)
    off = encode(joined, self.prior.spec.heading)[:, last] - features[:, last]
    return features + off, anchor_of(joined, self.prior.spec.heading)

  def _clean(self, x: Tensor, t: int) -> Tensor:
    """Return the denoiser's estimate of the clean window in ``x``, normalised."""
    schedule = self.prior.schedule
    eps = self.prior.denoiser.forward_modulated(x, self.modulation[:, t : t + 1])
    return (x - schedule.noise[t] * eps) / schedule.signal[t]

  def _joined(self, features: Tensor, known: MotionState, t: int) -> MotionState:
    """Return the window in the frame of ``known``, with ``known`` as its first frames."""
    noise, signal = self.prior.schedule.noise[t], self.prior.schedule.signal[t]
    weight = (noise / signal).square()
    first = cut(decode(features), 0, self.overlap)
    anchor = fit_anchor(first, known, self.turn, weight)
    new = cut(decode(features, anchor), self.overlap, features.shape[1])
    return with_velocities(_join(known, new), self.prior.spec.fps)

  def ee_positions(self, motion: MotionState) -> Tensor:
    """Return end-effector positions (n, T, E, 3), m, world frame."""
    return self.kinematics.ee_positions(
      motion.root_pos_w, motion.root_quat_w, motion.joint_pos
    )

  def _noise(self, n: int, frames: int) -> Tensor:
    shape = (n, frames, self.prior.denoiser.feature_dim)
    return torch.randn(shape, generator=self.generator, device=self.device)


def expected_turn(known: MotionState, window: int, heading: HeadingKind) -> Tensor:
  """Return the expected turn (n,), rad about z, from the last known to the last frame.

  The window begins with ``known`` (n, T, ...); its turn is assumed to go on evenly.
  """
  last = known.joint_pos.shape[1] - 1
  before = anchor_of(cut(known, 0, 1), heading)
  now = anchor_of(known, heading)
  sin = before.cos * now.sin - before.sin * now.cos
  cos = before.cos * now.cos + before.sin * now.sin
  # The known turn per frame, times the number of frames to come.
  return torch.atan2(sin, cos) * ((window - 1 - last) / max(last, 1))


def fit_anchor(
  motion: MotionState, target: MotionState, turn: Tensor, weight: Tensor
) -> Anchor:
  """Return the anchor that aligns ``motion`` (n, T, ...) with ``target`` (n, T, ...).

  The turn about z and the horizontal shift minimise the sum of squared horizontal
  distances between the roots and end effectors of the two. The closed form is that of
  Horn (JOSA A 4, 629, 1987), in the plane.

  Args:
    motion: The motion to move.
    target: The motion to align with.
    turn: Prior estimate of the turn (n,), rad.
    weight: Weight of that estimate, (); 0: none, 1: that of a perfect fit with this
      turn.
  """
  a, b = _seen_from_above(motion), _seen_from_above(target)
  mean_a, mean_b = a.mean(dim=1), b.mean(dim=1)
  a, b = a - mean_a.unsqueeze(1), b - mean_b.unsqueeze(1)
  # The sums of |a| |b| cos and |a| |b| sin of the angles from a to b have the best turn
  # as the direction. The guess adds a vector in its own direction, as long as the sums
  # of a perfect fit times the weight.
  guess = weight * b.square().sum(dim=(1, 2))
  dot = (a * b).sum(dim=(1, 2)) + guess * turn.cos()
  cross = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(dim=1)
  angle = torch.atan2(cross + guess * turn.sin(), dot)
  turned = Anchor(torch.zeros_like(mean_b), angle.cos(), angle.sin())
  return turned._replace(pos_xy=mean_b - _carry(turned, mean_a))


def _seen_from_above(motion: MotionState) -> Tensor:
  """Return the xy of roots and end effectors in all frames: (n, T * 6, 2)."""
  points = torch.cat((motion.root_pos_w.unsqueeze(-2), motion.ee_pos_w), dim=-2)
  return points[..., :2].flatten(1, 2)


def _carry(anchor: Anchor, xy: Tensor) -> Tensor:
  """Transform points (n, 2) from the frame of ``anchor`` to its parent frame."""
  x, y = xy.unbind(-1)
  turned = (anchor.cos * x - anchor.sin * y, anchor.sin * x + anchor.cos * y)
  return anchor.pos_xy + torch.stack(turned, dim=-1)


def _compose(outer: Anchor, inner: Anchor) -> Anchor:
  """Move ``inner`` from the frame of ``outer`` to the parent frame of ``outer``."""
  return Anchor(
    _carry(outer, inner.pos_xy),
    outer.cos * inner.cos - outer.sin * inner.sin,
    outer.sin * inner.cos + outer.cos * inner.sin,
  )


def with_velocities(motion: MotionState, fps: float) -> MotionState:
  """Return poses (..., T, .) with the velocities they have as one motion."""
  lin, ang = window_velocities(motion.root_pos_w, motion.root_quat_w, fps)
  return motion._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)


def cut(motion: MotionState, start: int, stop: int) -> MotionState:
  """Return frames ``start`` to ``stop`` (exclusive) of motions (n, T, ...)."""
  return MotionState(*(part[:, start:stop] for part in motion))


def _join(before: MotionState, after: MotionState) -> MotionState:
  pairs = zip(before, after, strict=True)
  return MotionState(*(torch.cat(pair, dim=1) for pair in pairs))
