"""Styles of a class-conditional prior: guidance, and composition by body part.

Everything here is one linear combination of the denoiser's outputs for several labels,
with a weight for each feature:

- Classifier-free guidance (Ho and Salimans, 2022): f = f(0) + w (f(c) - f(0)), with f(0)
  the output without a label.
- Composition: f = M_upper f(x, c1) + M_lower f(x, c2), with masks over features that
  partition them.

Labels that have no weight are never evaluated, and equal ones are evaluated once. So
guidance of weight 1, and the same style above and below, are the conditional output
exactly, at the price of one evaluation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smp.diffusion.denoiser import Denoiser
from smp.errors import UserError
from smp.motion.features import FeatureSpec
from smp.robots import g1

UPPER_LIMBS = ("waist", "left_arm", "right_arm")
"""Limbs of the upper body; the legs are the lower body."""
UPPER_EE = ("torso_link", "left_wrist_yaw_link", "right_wrist_yaw_link")
LOWER_EE = ("left_ankle_roll_link", "right_ankle_roll_link")
"""End effectors of the two parts."""
LOWER_FEATURES = ("root_pos", "root_rot", "root_lin_vel", "root_ang_vel")
"""Features of the root. The legs carry it, so they are of the lower body."""


OVER = "/"
"""Between the style of the upper and that of the lower body, in one word."""


@dataclass(frozen=True)
class StyleCfg:
  """Choice of styles of a prior."""

  style: str | None = None
  """Style of the whole body; None: no style."""

  upper: str | None = None
  """Style of the upper body (waist, arms, torso); None: ``style``."""

  lower: str | None = None
  """Style of the lower body (legs and root); None: ``style``."""

  weight: float = 1.0
  """w of classifier-free guidance: 0 ignores the styles, 1 is the style itself, more
  exaggerates it. Other values than 0 and 1 take one evaluation of the denoiser more."""

  def named(self) -> bool:
    """Return whether a style is chosen."""
    return any((self.style, self.upper, self.lower))

  def parts(self) -> tuple[str | None, str | None]:
    """Return the styles of the upper and of the lower body."""
    return self.upper or self.style, self.lower or self.style

  def entry(self) -> str:
    """Return the choice as `parse_style` reads it; the whole body has a style."""
    upper, lower = self.parts()
    return f"{upper}" if upper == lower else f"{upper}{OVER}{lower}"

  def title(self) -> str:
    """Return the choice in a word or few, for titles and cards."""
    upper, lower = self.parts()
    name = upper or "no style"
    if upper != lower:
      name = f"{upper or 'no style'} over {lower or 'no style'}"
    return name if self.weight == 1.0 else f"{name} x {self.weight:g}"


def parse_style(text: str, option: str = "style") -> StyleCfg:
  """Return the choice of style that a word names: STYLE, or UPPER/LOWER by body part.

  Args:
    text: The word, as in run or guarded/run.
    option: What it was given for, for the messages.

  Raises:
    UserError: It names more than two parts, none for one of them, or the same for both.
  """
  parts = [part.strip() for part in text.split(OVER)]
  form = f"give one style, or two as in guarded{OVER}run"
  if len(parts) > 2:
    raise UserError(f"{option} '{text}': {len(parts)} parts of the body; {form}")
  if not all(parts):
    part = "style" if len(parts) == 1 else "upper style" if parts[1] else "lower style"
    raise UserError(f"{option} '{text}': the {part} is missing; {form}")
  if len(parts) == 1:
    return StyleCfg(parts[0])
  if parts[0] == parts[1]:
    raise UserError(f"{option} '{text}': one style above and below; write {parts[0]}")
  return StyleCfg(upper=parts[0], lower=parts[1])


def split_names(text: str) -> tuple[str, ...]:
  """Return the names in a list such as walk,run,guarded/run.

  Raises:
    UserError: A name is missing, malformed (`parse_style`) or given twice.
  """
  entries = [entry.strip() for entry in text.split(",")]
  if not all(entries):
    raise UserError(f"styles '{text}': a name is missing; give them as in walk,run")
  names = tuple(parse_style(entry, "styles").entry() for entry in entries)
  twice = [name for i, name in enumerate(names) if name in names[:i]]
  if twice:
    raise UserError(f"styles '{text}': '{twice[0]}' is given twice")
  return names


def find_parts(
  text: str, styles: Sequence[str], option: str = "style"
) -> tuple[int, int]:
  """Return the labels of the upper and of the lower body of a word; see `parse_style`.

  Raises:
    UserError: As `parse_style` and `find_style`.
  """
  choice = parse_style(text, option)
  if choice.style is not None:
    label = find_style(choice.style, styles, option)
    return label, label
  parts = zip(("upper", "lower"), choice.parts(), strict=True)
  upper, lower = (
    find_style(str(name), styles, f"{option} '{text}': {part} style")
    for part, name in parts
  )
  return upper, lower


def body_masks(spec: FeatureSpec) -> tuple[Tensor, Tensor]:
  """Return masks (F,) of the upper and of the lower body, float32; their sum is 1.

  Raises:
    UserError: A joint, an end effector or a feature belongs to no part, or to both.
  """
  upper: list[bool] = []
  for name, width in zip(spec.feature_names, spec.feature_dims, strict=True):
    if name == "joint_pos":
      upper += [_is_upper_joint(joint) for joint in spec.joint_names]
    elif name == "ee_pos":
      upper += [_is_upper_ee(body) for body in spec.ee_body_names for _ in range(3)]
    elif name in LOWER_FEATURES:
      upper += [False] * width
    else:
      raise UserError(f"feature '{name}' belongs to no part of the body")
  if len(upper) != sum(spec.feature_dims):
    raise UserError(
      f"parts of the body name {len(upper)} features, the prior has "
      f"{sum(spec.feature_dims)}"
    )
  mask = torch.tensor(upper).float()
  return mask, 1.0 - mask


def _is_upper_joint(joint: str) -> bool:
  if joint not in g1.JOINT_NAMES:
    raise UserError(f"joint '{joint}' belongs to no part of the body")
  return g1.limb_of(joint) in UPPER_LIMBS


def _is_upper_ee(body: str) -> bool:
  if (body in UPPER_EE) == (body in LOWER_EE):
    raise UserError(f"end effector '{body}' must belong to one part of the body")
  return body in UPPER_EE


def find_style(
  name: str, styles: Sequence[str], option: str = "style", owner: str = "prior"
) -> int:
  """Return the label of a style.

  Raises:
    UserError: The prior has no styles, or none of that name; offers the nearest.
  """
  if not styles:
    raise UserError(
      f"{option} '{name}': this prior has no styles (it is unconditional); leave the "
      "option out, or take a prior trained with labels"
    )
  if name not in styles:
    close = difflib.get_close_matches(name, styles, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise UserError(
      f"{option} '{name}': no style of this {owner}{hint} (it has {', '.join(styles)})"
    )
  return styles.index(name)


def label_weights(
  cfg: StyleCfg, styles: Sequence[str], spec: FeatureSpec
) -> dict[int, Tensor]:
  """Return the weights (F,) of each label that has any; together they sum to 1.

  The label without a style is ``len(styles)``.

  Raises:
    UserError: There is no such style, or the weight of guidance is not finite.
  """
  if not torch.tensor(cfg.weight).isfinite():
    raise UserError(f"style weight is {cfg.weight}, expected a finite number")
  none = len(styles)
  weights: dict[int, Tensor] = {}
  names = (
    "upper style" if cfg.upper else "style",
    "lower style" if cfg.lower else "style",
  )
  for name, option, mask in zip(cfg.parts(), names, body_masks(spec), strict=True):
    label = none if name is None else find_style(name, styles, option)
    shares = [(label, cfg.weight), (none, 1.0 - cfg.weight)]
    for each, share in [(none, 1.0)] if label == none else shares:
      if share:
        weights[each] = weights.get(each, torch.zeros(len(mask))) + share * mask
  return weights


class BlendedDenoiser(nn.Module):
  """Weighted sum of a conditional denoiser's outputs for several labels.

  It is used like a `Denoiser`; its modulations are those of the parts, one after the
  other in the first dimension.

  Args:
    denoiser: A conditional denoiser.
    weights: The weights (F,) of each label.
  """

  weights: Tensor

  def __init__(self, denoiser: Denoiser, weights: dict[int, Tensor]):
    super().__init__()
    self.parts = nn.ModuleList(denoiser.with_label(label) for label in weights)
    stacked = torch.stack(list(weights.values())).to(denoiser.positions.device)
    self.register_buffer("weights", stacked, persistent=False)
    self.num_styles, self.num_layers = denoiser.num_styles, denoiser.num_layers
    self.d_model, self.nhead = denoiser.d_model, denoiser.nhead
    self.window, self.feature_dim = denoiser.window, denoiser.feature_dim

  @property
  def positions(self) -> Tensor:
    """Return the position codes (W, D) of the parts."""
    return self.denoisers()[0].positions

  def denoisers(self) -> list[Denoiser]:
    """Return the parts, one for each label."""
    return [part for part in self.parts if isinstance(part, Denoiser)]

  def forward(self, x: Tensor, t: Tensor) -> Tensor:
    """Return the noise (B, W, F) predicted in ``x`` (B, W, F) at timesteps ``t`` (B,)."""
    return self.forward_modulated(x, self.time_modulation(t))

  def time_modulation(self, t: Tensor) -> Tensor:
    """Return the modulations (parts * num_layers, B, 6, D) at ``t`` (B,)."""
    return torch.cat([part.time_modulation(t) for part in self.denoisers()])

  def forward_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
    """Return the noise predicted in ``x`` (..., W, F); see `Denoiser`."""
    outputs = (
      part.forward_modulated(x, own)
      for part, own in zip(
        self.denoisers(), modulation.chunk(len(self.parts)), strict=True
      )
    )
    return blend(self.weights, outputs)


def blend(weights: Tensor, outputs: Iterable[Tensor]) -> Tensor:
  """Return the sum of ``outputs`` (..., F), each times a row of ``weights`` (K, F)."""
  pairs = zip(weights, outputs, strict=True)
  weight, output = next(pairs)
  total = weight * output
  for weight, output in pairs:
    total = torch.addcmul(total, weight, output)
  return total


def styled(
  denoiser: Denoiser, weights: dict[int, Tensor]
) -> Denoiser | BlendedDenoiser:
  """Return the denoiser of some labels' weights (F,): plain for a single one."""
  if len(weights) == 1:
    return denoiser.with_label(next(iter(weights)))
  return BlendedDenoiser(denoiser, weights)
