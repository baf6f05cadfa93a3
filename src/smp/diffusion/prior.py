"""The frozen motion prior: the result of pretraining that everything else uses."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from smp.diffusion.ddpm import CosineSchedule, EpsModel, ddpm_sample, score_path
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.labelled import WindowLabels
from smp.diffusion.native_denoiser import FusedDenoiser, torch_on_one_thread, usable
from smp.diffusion.reference import REFERENCE_KEY, Reference
from smp.diffusion.sds import Precision, SdsLoss
from smp.diffusion.styles import (
  BlendedDenoiser,
  StyleCfg,
  blend,
  body_masks,
  label_weights,
  styled,
)
from smp.errors import UserError
from smp.motion.dataset import MIN_SPAN
from smp.motion.features import FeatureSpec
from smp.utils.files import atomic_path
from smp.utils.schema import Size, read_as

FORMAT_VERSION = 1
STYLES_VERSION = 2
"""Version of the format for priors with styles, which earlier programs cannot read."""
METADATA_KEY = "smp_prior"
STYLES_KEY, STYLE_REFERENCES_KEY = "styles", "style_reference_errors"
"""Fields of the metadata of a prior with styles."""
SCORED_TIMESTEPS = (8, 15, 22)
"""Timesteps of the reward and of evaluation: neither all signal nor all noise."""


class MotionPrior(nn.Module):
  """Denoiser, noise schedule, normalisation and feature layout, frozen.

  This is the only place that normalises: features go in and come out in raw units.

  Attributes:
    q_low, q_high: (F,) raw values that normalise to -1 and +1.
    spec: Layout of the features; compare with `FeatureSpec.check` before use.
    info: Provenance in plain JSON types: training data, config, git revision, licence,
      history of the losses.
    reference: Reference errors on motion of its kind, if they were measured; else None.
    styles: Names of the styles, in the order of the labels; empty: unconditional.
    style_references: Reference errors of styles, on their own motion under their label.
    style: The styles that it is used with (`with_style`).
  """

  q_low: Tensor
  q_high: Tensor

  def __init__(
    self,
    denoiser: Denoiser,
    q_low: Tensor,
    q_high: Tensor,
    spec: FeatureSpec,
    num_timesteps: int,
    info: dict[str, Any] | None = None,
    reference: Reference | None = None,
    styles: Sequence[str] = (),
    style_references: Mapping[str, Reference] | None = None,
  ):
    super().__init__()
    if denoiser.num_styles != len(styles):
      raise ValueError(f"{len(styles)} names for {denoiser.num_styles} styles")
    self.denoiser: Denoiser | BlendedDenoiser = denoiser
    self.styles, self.style = tuple(styles), StyleCfg()
    self.style_references = dict(style_references or {})
    self.schedule = CosineSchedule(num_timesteps)
    self.register_buffer("q_low", q_low.detach().float().clone())
    self.register_buffer("q_high", q_high.detach().float().clone())
    self.spec = spec
    self.info = info or {}
    self.reference = reference
    self.eval().requires_grad_(False)

  def with_style(self, style: StyleCfg) -> MotionPrior:
    """Return this prior under a choice of styles; everything else stays the same.

    Without a choice it is this prior. Sampling, scores and reference errors of the
    result are those of the styles. It is for use, not to be saved.

    Raises:
      UserError: There is no such style, or the prior is unconditional.
    """
    if not style.named():
      return self
    weights = label_weights(style, self.styles, self.spec)
    prior = copy.copy(self)
    # A copy of a module shares its tables of parameters and modules.
    prior._modules = {**self._modules, "denoiser": styled(self.network(), weights)}
    prior.style = style
    prior.reference = self._style_reference(style)
    return prior.requires_grad_(False)

  def network(self) -> Denoiser:
    """Return the denoiser; of a composition, that of one of its labels."""
    if isinstance(self.denoiser, BlendedDenoiser):
      return self.denoiser.denoisers()[0]
    return self.denoiser

  def _style_reference(self, style: StyleCfg) -> Reference | None:
    """Return the reference errors of a style, or of two, by their share of features."""
    upper, lower = (
      self.reference if name is None else self.style_references.get(name)
      for name in style.parts()
    )
    if upper is None or lower is None or upper is lower:
      return lower if upper is not None else None
    share = float(body_masks(self.spec)[0].mean())
    pairs = zip(upper.median, lower.median, strict=True)
    median = tuple(share * a + (1.0 - share) * b for a, b in pairs)
    return replace(lower, median=median)

  # Units.

  def normalize(self, features: Tensor) -> Tensor:
    """Normalise raw features (..., F) to about [-1, 1], without clipping."""
    return (features - self.q_low) / self._span() * 2.0 - 1.0

  def denormalize(self, normalized: Tensor) -> Tensor:
    """Return raw features (..., F); the inverse of `normalize`."""
    return (normalized + 1.0) * 0.5 * self._span() + self.q_low

  def affine(self) -> tuple[Tensor, Tensor]:
    """Return gain and offset (F,): normalised = features * gain + offset."""
    gain = 2.0 / self._span()
    return gain, -1.0 - self.q_low * gain

  def _span(self) -> Tensor:
    span = self.q_high - self.q_low
    return torch.where(span < MIN_SPAN, torch.ones_like(span), span)

  # Use.

  @torch.no_grad()
  def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Generate ``n`` windows (n, W, F) in raw units."""
    steps = torch.arange(self.schedule.num_timesteps, device=self.q_low.device)
    modulation = self.denoiser.time_modulation(steps)

    predict = _sampler(self.denoiser, modulation)
    shape = (n, self.denoiser.window, self.denoiser.feature_dim)
    on_cpu = steps.device.type == "cpu"
    with torch_on_one_thread() if on_cpu else contextlib.nullcontext():
      return self.denormalize(ddpm_sample(predict, shape, self.schedule, generator))

  def sds_loss_at(
    self,
    timesteps: Sequence[int],
    precision: Precision = "auto",
    score_steps: int = 1,
    labels: WindowLabels | None = None,
  ) -> SdsLoss:
    """Return `denoising_error` at timesteps fixed beforehand, which is faster.

    The loss computes on the device that the prior is on now, with its present weights.
    With more ``score_steps`` than 1 it is `multi_step_error`. With ``labels`` each
    window is judged under its own, and the prior must be under no style.
    """
    return SdsLoss(self, timesteps, precision, score_steps, labels)

  @torch.no_grad()
  def denoising_error(
    self,
    features: Tensor,
    timesteps: Tensor,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
  ) -> Tensor:
    """Return the SDS loss of windows: the error of the denoiser on known noise.

    It is low on familiar motion.

    Args:
      features: Windows (N, W, F), raw units.
      timesteps: (K,) int64, in [0, T). They are not checked, as that would wait for the
        device; `sds_loss_at` checks, and saves work where the timesteps never change.
      noise: (K, N, W, F) standard normal; None: drawn from ``generator``.
      generator: Source of the noise, on the device of ``features``; None: torch's own.

    Returns:
      (N, K): mean over W and F of (predicted noise - noise)^2.
    """
    if noise is None:
      shape = (len(timesteps), *features.shape)
      noise = torch.randn(shape, generator=generator, device=features.device)
    signal = self.schedule.signal[timesteps].view(-1, 1, 1, 1)
    noise_scale = self.schedule.noise[timesteps].view(-1, 1, 1, 1)
    noised = signal * self.normalize(features) + noise_scale * noise
    # The K * N windows go through the denoiser together.
    modulation = self.denoiser.time_modulation(timesteps).unsqueeze(2)
    predicted = self.denoiser.forward_modulated(noised, modulation)
    return (predicted - noise).square().mean(dim=(-2, -1)).transpose(0, 1)

  @torch.no_grad()
  def multi_step_error(
    self, features: Tensor, timesteps: Sequence[int], noise: Tensor, score_steps: int
  ) -> Tensor:
    """Return the error of the clean windows that several DDIM steps lead to.

    It is in the units of `denoising_error`, which it is for one step; see
    `smp.diffusion.ddpm.score_path`.

    Args:
      features: Windows (N, W, F), raw units.
      timesteps: K of them, in [0, T).
      noise: (K, N, W, F) standard normal.
      score_steps: Number of steps; the last must be at a timestep.

    Returns:
      (N, K): mean over W and F of (signal / noise of the timestep * (clean window -
      window))^2, normalised windows.
    """
    steps = score_path(self.schedule, timesteps, score_steps)
    signal, noise_scale = (
      level[steps[0].timesteps].view(-1, 1, 1, 1)
      for level in (self.schedule.signal, self.schedule.noise)
    )
    window = self.normalize(features)
    x = signal * window + noise_scale * noise
    for step in steps:
      modulation = self.denoiser.time_modulation(step.timesteps).unsqueeze(2)
      x = step.keep * x + step.add * self.denoiser.forward_modulated(x, modulation)
    error = signal / noise_scale * (x - window)
    return error.square().mean(dim=(-2, -1)).transpose(0, 1)

  # Files.

  def save(self, path: str | os.PathLike[str]) -> None:
    """Write the prior as safetensors, with its description as JSON in the metadata."""
    if isinstance(self.denoiser, BlendedDenoiser):
      raise ValueError("a composition is saved as the prior that it is made from")
    description: dict[str, Any] = {
      "format_version": STYLES_VERSION if self.styles else FORMAT_VERSION,
      "spec": self.spec.to_dict(),
      "d_model": self.denoiser.d_model,
      "nhead": self.denoiser.nhead,
      "num_layers": self.denoiser.num_layers,
      "num_timesteps": self.schedule.num_timesteps,
      "info": self.info,
    }
    if self.styles:
      description[STYLES_KEY] = list(self.styles)
      description[STYLE_REFERENCES_KEY] = {
        name: each.to_dict() for name, each in self.style_references.items()
      }
    if self.reference is not None:
      description[REFERENCE_KEY] = self.reference.to_dict()
    tensors = {
      name: value.detach().cpu().contiguous()
      for name, value in self.state_dict().items()
    }
    _write(path, tensors, {METADATA_KEY: json.dumps(description)})

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> MotionPrior:
    """Read a prior onto the CPU.

    The caller checks its `spec` before working with features.

    Raises:
      UserError: The file is missing, cut short, not a prior, or holds a tensor of
        another name or shape.
    """
    path = Path(path)
    description, tensors, _ = _read(path)
    parsed = _parse(path, description)
    spec = parsed.spec
    prior = cls(
      Denoiser(
        feature_dim=sum(spec.feature_dims),
        window=spec.window,
        d_model=parsed.d_model,
        nhead=parsed.nhead,
        num_layers=parsed.num_layers,
        num_styles=len(parsed.styles),
      ),
      torch.zeros(sum(spec.feature_dims)),
      torch.zeros(sum(spec.feature_dims)),
      spec,
      parsed.num_timesteps,
      parsed.info,
      parsed.reference_error,
      parsed.styles,
      parsed.style_reference_errors,
    )
    check_tensors(path, tensors, prior.state_dict())
    prior.load_state_dict(tensors)
    return prior


def store_reference(path: str | os.PathLike[str], reference: Reference) -> None:
  """Store reference errors in the file of a prior, replacing any that it has.

  Weights and the rest of the description stay as they are, to the bit.

  Raises:
    UserError: The file is not a prior, or cannot be written.
  """
  MotionPrior.load(path)
  description, tensors, metadata = _read(Path(path))
  description[REFERENCE_KEY] = reference.to_dict()
  _write(path, tensors, {**metadata, METADATA_KEY: json.dumps(description)})


def _write(
  path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]
) -> None:
  content = save(tensors, metadata)
  with atomic_path(path) as temporary:
    # save_file would create a file that only its owner may read.
    temporary.write_bytes(content)


def _sampler(denoiser: Denoiser | BlendedDenoiser, modulation: Tensor) -> EpsModel:
  """Return the fastest function for predicted noise, one timestep at a time."""
  if isinstance(denoiser, BlendedDenoiser):
    parts, weights = denoiser.denoisers(), denoiser.weights
    each = [
      _sampler(part, own)
      for part, own in zip(parts, modulation.chunk(len(parts)), strict=True)
    ]
    return lambda x, t: blend(weights, (predict(x, t) for predict in each))
  if not usable(denoiser):
    return lambda x, t: denoiser.forward_modulated(x, modulation[:, t : t + 1])
  fused = FusedDenoiser(denoiser)
  return lambda x, t: fused(x.unsqueeze(0), modulation[:, t : t + 1]).squeeze(0)


def check_tensors(
  path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
  """Raise an error unless the tensors are exactly those of the network described.

  Raises:
    UserError: A tensor is missing, unknown, of another shape or type, or not finite;
      the message names the first one.
  """
  fix = "the file is damaged or from another program; train or download it again"
  for name, want in expected.items():
    if name not in found:
      raise UserError(f"{path}: tensor '{name}' is missing; {fix}")
    have = found[name]
    if have.shape != want.shape or have.dtype != want.dtype:
      raise UserError(
        f"{path}: tensor '{name}' is {have.dtype} {tuple(have.shape)}, "
        f"expected {want.dtype} {tuple(want.shape)}; {fix}"
      )
    if not bool(have.isfinite().all()):
      raise UserError(f"{path}: tensor '{name}' has non-finite values; {fix}")
  unknown = sorted(set(found) - set(expected))
  if unknown:
    raise UserError(f"{path}: unknown tensor '{unknown[0]}'; {fix}")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
  """Return the description, the tensors, and the metadata with the description."""
  if not path.is_file():
    raise UserError(f"{path}: no such file; give the path of a prior (.safetensors)")
  try:
    with safe_open(path, framework="pt") as file:
      metadata = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}
  except (SafetensorError, OSError, ValueError) as error:
    raise UserError(
      f"{path}: not a safetensors file, or cut short ({error}); train or copy it again "
      "(a published .pt prior must go through scripts/import_prior.py first)"
    ) from error
  if METADATA_KEY not in metadata:
    raise UserError(
      f"{path}: a safetensors file without '{METADATA_KEY}' metadata, so not a motion "
      "prior; give one written by scripts/pretrain.py or scripts/import_prior.py"
    )
  try:
    description = json.loads(metadata[METADATA_KEY])
  except (json.JSONDecodeError, RecursionError) as error:
    raise UserError(
      f"{path}: metadata '{METADATA_KEY}' is not JSON ({error}); train or copy it again"
    ) from error
  return description, tensors, metadata


@dataclass(frozen=True)
class _Description:
  """Metadata of a prior's file."""

  spec: FeatureSpec
  d_model: Size
  nhead: Size
  num_layers: Size
  num_timesteps: Size
  info: dict[str, Any] = field(default_factory=dict)
  reference_error: Reference | None = None
  styles: tuple[str, ...] = ()
  style_reference_errors: dict[str, Reference] = field(default_factory=dict)


def _parse(path: Path, description: Any) -> _Description:
  """Return the metadata, checked."""
  fix = "train or copy it again"
  if not isinstance(description, dict):
    raise UserError(f"{path}: metadata '{METADATA_KEY}' is not a table; {fix}")
  version = description.get("format_version")
  if version not in (FORMAT_VERSION, STYLES_VERSION):
    raise UserError(
      f"{path}: format_version is {version}, this program reads {FORMAT_VERSION} and "
      f"{STYLES_VERSION}; "
      "use the matching version of the program or train again"
    )
  parsed = read_as(_Description, description, f"{path}: metadata", fix)
  if parsed.reference_error is not None:
    parsed.reference_error.check(f"{path}: metadata", parsed.num_timesteps)
  for each in parsed.style_reference_errors.values():
    each.check(f"{path}: metadata", parsed.num_timesteps)
  if len(set(parsed.styles)) != len(parsed.styles):
    raise UserError(f"{path}: metadata '{STYLES_KEY}' names a style twice; {fix}")
  check_heads(str(path), parsed.d_model, parsed.nhead)
  return parsed


def check_heads(where: str, d_model: int, nhead: int) -> None:
  """Raise an error for sizes that the attention cannot be split into.

  Raises:
    UserError: ``d_model`` is odd or not a multiple of ``nhead``.
  """
  if d_model % nhead or d_model % 2:
    raise UserError(
      f"{where}: d_model {d_model} must be even and a multiple of nhead {nhead}"
    )
