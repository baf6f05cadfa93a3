"""What a prior finds familiar: its error by speed, and what it tells from real motion.

Every prior sees the same poses, in the features of its own spec (`to_spec`). Errors are
raw ones, as guidance uses them: mean over timesteps 8, 15 and 22 and over several draws
of noise, which are the same for every prior and every kind of window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.errors import UserError
from smp.motion.features import (
  SLICES,
  FeatureSpec,
  MotionState,
  decode,
  encode,
  mirror_features,
  window_velocities,
)
from smp.motion.rotations import heading as heading_of
from smp.motion.rotations import rotate_z

BIN_WIDTH = 0.5
"""m/s."""
TOP_SPEED = 4.5
"""Upper end of the last bin, m/s."""
JOINT_NOISE = (0.05, 0.1, 0.2)
"""Standard deviations of noise on joint angles, rad."""
_CHUNK = 256


@dataclass(frozen=True)
class SourceWindows:
  """Windows as they lie in a file, whatever prior they were made for."""

  features: Tensor
  """(N, W, F), raw units; the windows of a clip in their order."""
  spec: FeatureSpec
  stride: int
  """Frames between the starts of two successive windows of a clip."""


@dataclass(frozen=True)
class EvaluateCfg:
  """How closely to look."""

  windows_per_bin: int = 150
  """Windows taken from each bin of speed, spread evenly."""

  auc_windows: int = 400
  """Windows told from their altered copies, spread evenly over all speeds."""

  samples: int = 256
  """Windows sampled from the prior, to score those too."""

  draws: int = 4
  """Draws of noise per window and timestep."""

  seed: int = 0

  def check(self) -> None:
    for name in ("windows_per_bin", "auc_windows", "samples", "draws"):
      if getattr(self, name) <= 0:
        raise UserError(f"{name} is {getattr(self, name)}, expected more than 0")


@dataclass(frozen=True)
class BinError:
  low: float
  """m/s."""
  high: float
  count: int
  """Windows of this speed there are (of which at most windows_per_bin were scored)."""
  median: float | None
  """Median raw error; None without windows."""


@dataclass(frozen=True)
class SetReport:
  """One prior on one set of windows."""

  windows: int
  bins: list[BinError]
  median: float
  """Median raw error over the windows the AUCs are made of."""
  auc: dict[str, float]
  """Chance that an altered window has a higher error than a real one: 1 always told
  apart, 0.5 never."""


@dataclass(frozen=True)
class PriorReport:
  """One prior."""

  prior: str
  heading: str
  velocity: str
  sets: dict[str, SetReport]
  samples: float
  """Median raw error of the prior's own samples."""

  def to_dict(self) -> dict:
    return asdict(self)


# The same poses for every prior.


def to_spec(source: SourceWindows, spec: FeatureSpec) -> Tensor:
  """The windows (N, W, F) as a prior of ``spec`` would have been trained on them.

  - Another ``heading``: the windows are anchored anew.
  - ``velocity`` "window": derived from the poses of each window.
  - ``velocity`` "clip" from "window": inside a window the two agree. At its two ends
    "clip" looks one frame beyond, and finds it in the window before or after where the
    two overlap. So the result is what converting the clip anew would give, except for a
    stride too wide for an overlap (over W - 2), where the ends stay one-sided.

  Raises:
    UserError: The windows differ from ``spec`` in anything else, such as fps or joints.
  """
  have = source.spec
  replace(have, heading=spec.heading, velocity=spec.velocity).check(spec)
  if (have.heading, have.velocity) == (spec.heading, spec.velocity):
    return source.features
  state = decode(source.features.double())
  if spec.velocity == "window" and have.velocity != "window":
    lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, have.fps)
    state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  if spec.velocity == "clip" and have.velocity == "window":
    state = _look_beyond(state, source)
  return encode(state, spec.heading).float()


def _look_beyond(state: MotionState, source: SourceWindows) -> MotionState:
  """Velocities of the end frames from the neighbouring windows.

  ``state`` holds windows (N, W, ...), each in the frame of its own anchor.
  """
  stride, last = source.stride, source.spec.window - 1
  lin, ang = state.root_lin_vel_w.clone(), state.root_ang_vel_w.clone()
  if stride > last - 1 or len(lin) < 2:
    return state
  # The same poses in both windows: they are neighbours in one clip.
  joints = state.joint_pos
  same = (joints[:-1, stride:] - joints[1:, : last + 1 - stride]).abs()
  neighbours = same.amax(dim=(1, 2)) < 1e-6
  # The last frame of a window is frame last - stride of the next one; its heading there
  # is the turn between the two anchors.
  cos, sin = heading_of(state.root_quat_w[1:, last - stride], kind=source.spec.heading)
  for velocity in (lin, ang):
    original = velocity.clone()
    following = rotate_z(cos, -sin, original[1:, last - stride])
    preceding = rotate_z(cos, sin, original[:-1, stride])
    velocity[:-1, last][neighbours] = following[neighbours]
    velocity[1:, 0][neighbours] = preceding[neighbours]
  return state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)


def speeds(features: Tensor, spec: FeatureSpec) -> Tensor:
  """Mean horizontal speed (N,) of windows, m/s, from their poses."""
  xy = features[..., SLICES["root_pos"]][..., :2]
  return (xy[:, -1] - xy[:, 0]).norm(dim=-1) * spec.fps / (spec.window - 1)


# Altered windows.


def time_reversed(features: Tensor, spec: FeatureSpec) -> Tensor:
  """Motion played backwards, anchored at its new last frame."""
  state = decode(features.double())
  flipped = MotionState(*(part.flip(1) for part in state))
  flipped = flipped._replace(
    root_lin_vel_w=-flipped.root_lin_vel_w, root_ang_vel_w=-flipped.root_ang_vel_w
  )
  return encode(flipped, spec.heading).float()


def time_shuffled(features: Tensor, generator: torch.Generator) -> Tensor:
  """The frames of each window in random order, their velocities with them."""
  n, window, _ = features.shape
  order = torch.rand(n, window, generator=generator).argsort(dim=1)
  return features.gather(1, order.unsqueeze(-1).expand_as(features))


def poses_shuffled(
  features: Tensor, spec: FeatureSpec, generator: torch.Generator
) -> Tensor:
  """The poses of each window in random order, encoded as such a motion would be.

  Anchored at its new last frame, with the velocities that these poses have: what the
  guidance would see of a robot that moved so.
  """
  state = decode(time_shuffled(features, generator).double())
  lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, spec.fps)
  state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  return encode(state, spec.heading).float()


def with_joint_noise(
  features: Tensor, scale: float, generator: torch.Generator
) -> Tensor:
  """Independent noise on every joint angle of every frame; nothing else changes, so the
  end effectors stay where they were."""
  features = features.clone()
  joints = features[..., SLICES["joint_pos"]]
  joints += scale * torch.randn(joints.shape, generator=generator)
  return features


def shrunk(features: Tensor) -> Tensor:
  """Joint angles halfway to their mean over all windows; nothing else changes."""
  features = features.clone()
  joints = features[..., SLICES["joint_pos"]]
  joints.lerp_(joints.mean(dim=(0, 1)).expand_as(joints).clone(), 0.5)
  return features


def altered_windows(
  features: Tensor, spec: FeatureSpec, seed: int
) -> dict[str, Tensor]:
  """Every kind of altered window, by name, from real ones (N, W, F)."""

  def generator() -> torch.Generator:
    return torch.Generator().manual_seed(seed)

  noisy = {
    f"joint noise {scale} rad": with_joint_noise(features, scale, generator())
    for scale in JOINT_NOISE
  }
  return {
    "time-shuffled": time_shuffled(features, generator()),
    "poses shuffled": poses_shuffled(features, spec, generator()),
    **noisy,
    "mirrored": mirror_features(features),
    "time-reversed": time_reversed(features, spec),
    "amplitude halved": shrunk(features),
  }


# Measures.


def auc(real: Tensor, altered: Tensor) -> float:
  """Chance that an error of ``altered`` (M,) exceeds one of ``real`` (N,); ties half.

  The area under the ROC curve as a count of pairs (Mann and Whitney, 1947).
  """
  ordered, altered = real.double().sort().values, altered.double()
  below = torch.searchsorted(ordered, altered, right=False)
  not_above = torch.searchsorted(ordered, altered, right=True)
  return float((below + not_above).double().mean() / (2 * len(real)))


def window_errors(
  prior: MotionPrior, features: Tensor, draws: int, seed: int
) -> Tensor:
  """Raw error (N,) of windows: mean over timesteps and draws.

  The noise of a window depends on its place and on the seed alone.
  """
  score = prior.score_at(SCORED_TIMESTEPS)
  device = prior.q_low.device
  generator = torch.Generator().manual_seed(seed)
  parts = []
  for start in range(0, len(features), _CHUNK):
    part = features[start : start + _CHUNK]
    total = torch.zeros(len(part))
    for _ in range(draws):
      shape = (len(SCORED_TIMESTEPS), *part.shape)
      noise = torch.randn(shape, generator=generator).to(device)
      total += score(part.to(device), noise).mean(dim=1).cpu()
    parts.append(total / draws)
  return torch.cat(parts)


def _spread(rows: Tensor, count: int) -> Tensor:
  """At most ``count`` of ``rows`` (n,), evenly."""
  if len(rows) <= count:
    return rows
  return rows[torch.linspace(0, len(rows) - 1, count).round().long()]


def evaluate_set(
  prior: MotionPrior, source: SourceWindows, cfg: EvaluateCfg
) -> SetReport:
  """Score one set of windows under one prior."""
  features = to_spec(source, prior.spec)
  speed = speeds(source.features, source.spec)

  def errors(windows: Tensor) -> Tensor:
    return window_errors(prior, windows, cfg.draws, cfg.seed)

  bins = []
  for i in range(round(TOP_SPEED / BIN_WIDTH)):
    low, high = i * BIN_WIDTH, (i + 1) * BIN_WIDTH
    rows = ((speed >= low) & (speed < high)).nonzero().squeeze(1)
    chosen = features[_spread(rows, cfg.windows_per_bin)]
    median = float(errors(chosen).median()) if len(chosen) else None
    bins.append(BinError(low, high, len(rows), median))
  real = features[_spread(torch.arange(len(features)), cfg.auc_windows)]
  real_errors = errors(real)
  return SetReport(
    windows=len(features),
    bins=bins,
    median=float(real_errors.median()),
    auc={
      name: auc(real_errors, errors(windows))
      for name, windows in altered_windows(real, prior.spec, cfg.seed).items()
    },
  )


def evaluate_prior(
  name: str,
  prior: MotionPrior,
  sets: dict[str, SourceWindows],
  cfg: EvaluateCfg,
  progress: Callable[[str], None] = lambda what: None,
) -> PriorReport:
  """Score every set of windows, and the prior's own samples, under one prior.

  Raises:
    UserError: Windows that do not fit the prior, or a set without windows.
  """
  cfg.check()
  reports = {}
  for set_name, source in sets.items():
    if not len(source.features):
      raise UserError(f"{set_name}: no windows to evaluate on")
    progress(f"{name}: {set_name}")
    reports[set_name] = evaluate_set(prior, source, cfg)
  progress(f"{name}: own samples")
  generator = torch.Generator(prior.q_low.device).manual_seed(cfg.seed)
  samples = prior.sample(cfg.samples, generator).cpu()
  return PriorReport(
    prior=name,
    heading=prior.spec.heading,
    velocity=prior.spec.velocity,
    sets=reports,
    samples=float(window_errors(prior, samples, cfg.draws, cfg.seed).median()),
  )
