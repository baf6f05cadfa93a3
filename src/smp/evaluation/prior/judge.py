"""Evaluation of a prior: errors on real and altered windows, and its samples.

Every prior sees the same poses, in the features of its own spec
(`source.convert_features`). Errors are SDS losses, as in the reward: mean over
timesteps 8, 15 and 22 and over several draws of noise, which are the same for every
prior and every kind of window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.reference_errors import clips_of, sds_losses
from smp.errors import UserError
from smp.evaluation.prior.eval_windows import (
  HELD_OUT,
  OWN,
  EvalWindows,
  rows_to_spec,
  speeds,
)
from smp.evaluation.prior.sample_quality import (
  Distances,
  SampleReport,
  canonicalized,
  judge_samples,
  likeness,
)
from smp.motion.dataset import NormStats
from smp.motion.features import (
  SLICES,
  FeatureSpec,
  MotionState,
  decode,
  encode,
  mirror_features,
  window_velocities,
)
from smp.motion.kinds import KINDS, window_kinds
from smp.utils.limits import Count, Seed, check_limits
from smp.utils.rows import evenly_spaced

BIN_WIDTH = 0.5
"""Width of the bins of speed, m/s."""
TOP_SPEED = 4.5
"""Upper end of the last bin, m/s."""
JOINT_NOISE = (0.05, 0.1, 0.2)
"""Standard deviations of noise on joint angles, rad."""


@dataclass(frozen=True)
class EvaluationData:
  """Data that all priors are evaluated on."""

  sets: dict[str, EvalWindows]
  """Windows by name: `OWN`, or `HELD_OUT`, or both."""
  stats: NormStats
  """Quantiles that scale the distances between windows."""
  others: dict[str, EvalWindows] = field(default_factory=dict)
  """Windows of other kinds of motion, by kind."""


@dataclass(frozen=True)
class EvaluateCfg:
  """Numbers of windows, samples and draws of an evaluation."""

  windows_per_bin: Count = 150
  """Windows taken from each bin of speed, evenly spread."""

  auc_windows: Count = 400
  """Windows compared with their altered copies, and with as many of each other kind,
  evenly spread over their clips."""

  samples: Count = 512
  """Windows sampled from the prior, and held-out windows compared with them. Distances
  to the nearest window depend on the number: keep it when you compare."""

  real_windows: Count = 2048
  """Windows that samples are compared with, evenly spread over their clips."""

  by_kind: bool = False
  """Also report errors by kind of upright locomotion, ``windows_per_bin`` of each."""

  draws: Count = 4
  """Draws of noise per window and timestep."""

  seed: Seed = 0

  def check(self) -> None:
    """Raise ``UserError`` for a number outside its limits."""
    check_limits(self)


@dataclass(frozen=True)
class BinError:
  """Error of a prior on the windows of one bin of speed."""

  low: float
  """m/s."""
  high: float
  count: int
  """Number of windows of this speed, of which at most windows_per_bin were measured."""
  median: float | None
  """Median SDS loss; None without windows."""


@dataclass(frozen=True)
class KindError:
  """Error of a prior on the windows of one kind of upright locomotion."""

  kind: str
  count: int
  """Number of windows of this kind, of which at most windows_per_bin were measured."""
  median: float | None
  """Median SDS loss; None without windows."""


@dataclass(frozen=True)
class Separability:
  """Separability of windows from real ones of the prior's kind."""

  windows: int
  """Number of windows, of which at most auc_windows were measured."""
  median: float
  """Median SDS loss."""
  auc: float
  """Probability that one of them has a higher error than a real one: 1 perfectly
  separable, 0.5 chance."""


@dataclass(frozen=True)
class SetReport:
  """Results of one prior on one set of windows."""

  windows: int
  bins: list[BinError]
  median: float
  """Median SDS loss of the windows that the AUCs are computed from."""
  altered: dict[str, Separability]
  """Results of altered copies of these windows, against these windows."""
  kinds: list[KindError] = field(default_factory=list)
  """Results by kind of motion, if asked for."""


@dataclass(frozen=True)
class PriorReport:
  """Results of one prior."""

  prior: str
  heading: str
  velocity: str
  sets: dict[str, SetReport]
  held_out_auc: float | None
  """Probability that a held-out window has a higher error than an own one; None without
  both."""
  others: dict[str, Separability]
  """Other kinds of motion, against the held-out windows, or the own ones without any.
  """
  seen: dict[str, list[str]]
  """Sets and kinds, except `OWN`, with clips that the prior lists as training clips."""
  samples: SampleReport
  held_out_reference: Distances | None
  """Held-out windows compared with own ones as samples are; None without both."""

  def to_dict(self) -> dict:
    """Return the fields as plain types."""
    return asdict(self)


# Altered windows.


def time_reversed(features: Tensor, spec: FeatureSpec) -> Tensor:
  """Return the motion played backwards, anchored at its new last frame."""
  state = decode(features.double())
  flipped = MotionState(*(part.flip(1) for part in state))
  flipped = flipped._replace(
    root_lin_vel_w=-flipped.root_lin_vel_w, root_ang_vel_w=-flipped.root_ang_vel_w
  )
  return encode(flipped, spec.heading).float()


def time_shuffled(features: Tensor, generator: torch.Generator) -> Tensor:
  """Return each window with its frames in random order, including velocities."""
  n, window, _ = features.shape
  order = torch.rand(n, window, generator=generator).argsort(dim=1)
  return features.gather(1, order.unsqueeze(-1).expand_as(features))


def poses_shuffled(
  features: Tensor, spec: FeatureSpec, generator: torch.Generator
) -> Tensor:
  """Return each window with its poses in random order, encoded as such a motion.

  Each is anchored at its new last frame and has the velocities of these poses, as the
  reward would see a robot that moved like this.
  """
  state = decode(time_shuffled(features, generator).double())
  lin, ang = window_velocities(state.root_pos_w, state.root_quat_w, spec.fps)
  state = state._replace(root_lin_vel_w=lin, root_ang_vel_w=ang)
  return encode(state, spec.heading).float()


def with_joint_noise(
  features: Tensor, scale: float, generator: torch.Generator
) -> Tensor:
  """Add independent noise (rad) to every joint angle; nothing else changes.

  The end effectors thus stay where they were.
  """
  features = features.clone()
  joints = features[..., SLICES["joint_pos"]]
  joints += scale * torch.randn(joints.shape, generator=generator)
  return features


def shrunk(features: Tensor) -> Tensor:
  """Move joint angles halfway to their mean over all windows; nothing else changes."""
  features = features.clone()
  joints = features[..., SLICES["joint_pos"]]
  joints.lerp_(joints.mean(dim=(0, 1)).expand_as(joints).clone(), 0.5)
  return features


def altered_windows(
  features: Tensor, spec: FeatureSpec, seed: int
) -> dict[str, Tensor]:
  """Return every kind of altered window, by name, from real ones (N, W, F)."""

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
  """Return the probability that an error of ``altered`` (M,) exceeds ``real`` (N,).

  Ties count half. This is the area under the ROC curve as a count of pairs (Mann and
  Whitney, 1947).
  """
  ordered, altered = real.double().sort().values, altered.double()
  # Real errors below each altered one, and not above it; their mean counts ties half.
  below = torch.searchsorted(ordered, altered, right=False)
  not_above = torch.searchsorted(ordered, altered, right=True)
  return float((below + not_above).double().mean() / (2 * len(real)))


def window_errors(
  prior: MotionPrior, features: Tensor, draws: int, seed: int
) -> Tensor:
  """Compute the SDS loss (N,) of windows: mean over timesteps and draws.

  The noise of a window depends only on its position and the seed.
  """
  return sds_losses(prior, features, SCORED_TIMESTEPS, draws, seed).mean(dim=1)


def evaluate_set(
  prior: MotionPrior, source: EvalWindows, cfg: EvaluateCfg
) -> tuple[SetReport, Tensor]:
  """Evaluate a prior on one set of windows; return the errors of the real ones too."""
  speed = speeds(source.features, source.spec)

  def errors(windows: Tensor) -> Tensor:
    return window_errors(prior, windows, cfg.draws, cfg.seed)

  def median(inside: Tensor) -> tuple[int, float | None]:
    """Return the number of true rows (N,), and the median error of some of them."""
    rows = inside.nonzero().squeeze(1)
    if not len(rows):
      return 0, None
    chosen = rows[evenly_spaced(len(rows), cfg.windows_per_bin)]
    found = errors(rows_to_spec(source, chosen, prior.spec)).median()
    return len(rows), float(found)

  bins = []
  for i in range(round(TOP_SPEED / BIN_WIDTH)):
    low, high = i * BIN_WIDTH, (i + 1) * BIN_WIDTH
    bins.append(BinError(low, high, *median((speed >= low) & (speed < high))))
  kinds = []
  if cfg.by_kind:
    found = torch.from_numpy(window_kinds(source.features, source.spec))
    kinds = [KindError(kind, *median(found == i)) for i, kind in enumerate(KINDS)]
  chosen = evenly_spaced(len(source.features), cfg.auc_windows)
  real = rows_to_spec(source, chosen, prior.spec)
  real_errors = errors(real)
  altered = {
    name: separability(len(source.features), errors(windows), real_errors)
    for name, windows in altered_windows(real, prior.spec, cfg.seed).items()
  }
  middle = float(real_errors.median())
  report = SetReport(len(source.features), bins, middle, altered, kinds)
  return report, real_errors


def separability(windows: int, errors: Tensor, real: Tensor) -> Separability:
  """Compare errors (n,) of some of ``windows`` windows with those of real ones (m,)."""
  return Separability(windows, float(errors.median()), auc(real, errors))


def evaluate_prior(
  name: str,
  prior: MotionPrior,
  data: EvaluationData,
  cfg: EvaluateCfg,
  progress: Callable[[str], None] = lambda what: None,
) -> PriorReport:
  """Evaluate one prior on every set and kind of windows, and its samples.

  Raises:
    UserError: Windows that do not fit the prior, or a set without windows.
  """
  cfg.check()
  _check(prior, data)
  reports, errors, others = {}, {}, {}
  for set_name, source in data.sets.items():
    progress(f"{name}: {set_name}")
    reports[set_name], errors[set_name] = evaluate_set(prior, source, cfg)
  real = errors[HELD_OUT if HELD_OUT in errors else OWN]
  for kind, source in data.others.items():
    progress(f"{name}: {kind}")
    rows = evenly_spaced(len(source.features), cfg.auc_windows)
    windows = rows_to_spec(source, rows, prior.spec)
    scored = window_errors(prior, windows, cfg.draws, cfg.seed)
    others[kind] = separability(len(source.features), scored, real)
  progress(f"{name}: own samples")
  return PriorReport(
    prior=name,
    heading=prior.spec.heading,
    velocity=prior.spec.velocity,
    sets=reports,
    held_out_auc=auc(errors[OWN], errors[HELD_OUT]) if len(errors) == 2 else None,
    others=others,
    seen=seen_clips(prior, data),
    samples=_evaluate_samples(prior, data, cfg),
    held_out_reference=held_out_reference(data, cfg),
  )


def _check(prior: MotionPrior, data: EvaluationData) -> None:
  """Raise an error for windows that do not fit the prior, naming their set."""
  for name, source in {**data.others, **data.sets}.items():
    if not len(source.features):
      raise UserError(f"{name}: no windows to evaluate on")
    have = replace(
      source.spec, heading=prior.spec.heading, velocity=prior.spec.velocity
    )
    try:
      have.check(prior.spec)
    except UserError as error:
      raise UserError(f"windows '{name}' do not fit the prior: {error}") from None


def seen_clips(prior: MotionPrior, data: EvaluationData) -> dict[str, list[str]]:
  """Return the clips, held-out or of other kinds, that ``prior`` was trained on.

  A prior that lists no clips (a published one) has none.
  """
  trained = {clip for clip, split in clips_of(prior).items() if split == "train"}
  unseen = {name: source for name, source in data.sets.items() if name != OWN}
  found = {
    name: [clip for clip in source.clips if clip in trained]
    for name, source in {**unseen, **data.others}.items()
  }
  return {name: clips for name, clips in found.items() if clips}


def _real(source: EvalWindows, count: int) -> Tensor:
  chosen = source.features[evenly_spaced(len(source.features), count)]
  return canonicalized(chosen, source.spec)


def held_out_reference(data: EvaluationData, cfg: EvaluateCfg) -> Distances | None:
  """Return how held-out real windows compare with the own ones; None without both.

  This is what to expect of samples that are as good as real motion.
  """
  if len(data.sets) < 2:
    return None
  own, held_out = data.sets[OWN], data.sets[HELD_OUT]
  stand_ins, real = _real(held_out, cfg.samples), _real(own, cfg.real_windows)
  return likeness(stand_ins, real, own.spec, data.stats)


def _evaluate_samples(
  prior: MotionPrior, data: EvaluationData, cfg: EvaluateCfg
) -> SampleReport:
  generator = torch.Generator(prior.q_low.device).manual_seed(cfg.seed)
  samples = prior.sample(cfg.samples, generator).cpu()
  error = float(window_errors(prior, samples, cfg.draws, cfg.seed).median())
  source = data.sets.get(OWN) or data.sets[HELD_OUT]
  real = _real(source, cfg.real_windows)
  return judge_samples(samples, prior.spec, error, real, data.stats)
