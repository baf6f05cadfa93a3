"""Denoising diffusion: the noise schedule and the sampler.

Formulas: Ho et al., Denoising Diffusion Probabilistic Models (2020); the cosine
schedule is from Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models
(2021); deterministic steps are those of Song et al., Denoising Diffusion Implicit
Models (2021). Timesteps count from 0 (least noise) to T - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smp.errors import UserError

NUM_TIMESTEPS = 50
OFFSET = 0.008
"""Offset s of the cosine schedule, which keeps the first noise levels away from zero.
"""
MAX_BETA = 0.999
STRIDE = 2
"""Timesteps from one step of multi-step score matching to the next."""

EpsModel = Callable[[Tensor, int], Tensor]
"""Maps (noised x, one timestep for all of x) to the predicted noise, shaped like x."""


class CosineSchedule(nn.Module):
  """Noise levels of T timesteps.

  All buffers are (T,) float32, computed in float64, and not part of a state dict: they
  follow from T.

  Attributes:
    betas: Variance of the noise each step adds.
    alphas_bar: Share of the clean signal's variance left at each timestep.
    signal: sqrt(alphas_bar), the factor on the clean signal.
    noise: sqrt(1 - alphas_bar), the factor on the noise.
    posterior_x0, posterior_xt, posterior_std: Mean weights and standard deviation of
      x_{t-1} given x_0 and x_t (equations 6 and 7 of Ho et al.).
  """

  betas: Tensor
  alphas_bar: Tensor
  signal: Tensor
  noise: Tensor
  posterior_x0: Tensor
  posterior_xt: Tensor
  posterior_std: Tensor

  def __init__(self, num_timesteps: int = NUM_TIMESTEPS):
    super().__init__()
    self.num_timesteps = num_timesteps
    time = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    # Proportional to the signal variance at T + 1 times; their ratios give the betas.
    level = torch.cos((time + OFFSET) / (1.0 + OFFSET) * math.pi / 2.0) ** 2
    betas = (1.0 - level[1:] / level[:-1]).clamp(max=MAX_BETA)
    bar = torch.cumprod(1.0 - betas, dim=0)
    before = torch.cat((bar.new_ones(1), bar[:-1]))
    values = {
      "betas": betas,
      "alphas_bar": bar,
      "signal": bar.sqrt(),
      "noise": (1.0 - bar).sqrt(),
      "posterior_x0": before.sqrt() * betas / (1.0 - bar),
      "posterior_xt": (1.0 - betas).sqrt() * (1.0 - before) / (1.0 - bar),
      "posterior_std": (betas * (1.0 - before) / (1.0 - bar)).sqrt(),
    }
    for name, value in values.items():
      self.register_buffer(name, value.float(), persistent=False)

  def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Add noise ``eps`` (B, ...) to ``x0`` (B, ...) up to timesteps ``t`` (B,)."""
    shape = t.shape + (1,) * (x0.dim() - t.dim())
    return self.signal[t].view(shape) * x0 + self.noise[t].view(shape) * eps


def ddpm_sample(
  eps_model: EpsModel,
  shape: tuple[int, ...],
  schedule: CosineSchedule,
  generator: torch.Generator | None = None,
) -> Tensor:
  """Sample from pure noise through all T timesteps (ancestral sampling).

  Args:
    eps_model: Predicts the noise in x at one timestep.
    shape: Shape of the sample, first dimension the batch.
    schedule: Its device is where sampling happens.
    generator: Source of the noise, on the same device; None: torch's own.

  Returns:
    The sample, float32, in the space the model was trained in.
  """
  device = schedule.betas.device
  x = torch.randn(shape, generator=generator, device=device)
  for t in reversed(range(schedule.num_timesteps)):
    # Estimate the clean sample, then draw x_{t-1} given that and x_t.
    x0 = (x - schedule.noise[t] * eps_model(x, t)) / schedule.signal[t]
    x = schedule.posterior_x0[t] * x0 + schedule.posterior_xt[t] * x
    if t > 0:
      noise = torch.randn(shape, generator=generator, device=device)
      x = x + schedule.posterior_std[t] * noise
  return x


@dataclass(frozen=True)
class ScoreStep:
  """A step of multi-step score matching, for K windows that began at K timesteps.

  With f the noise predicted in x, it leads to keep * x + add * f.
  """

  timesteps: Tensor
  """(K,) where the step is."""
  weight: Tensor
  """(K, 1, 1, 1) weight of f in the error; the weights of all steps sum to 1."""
  keep: Tensor
  """(K, 1, 1, 1)."""
  add: Tensor
  """(K, 1, 1, 1)."""


def score_path(
  schedule: CosineSchedule, timesteps: Sequence[int], count: int
) -> list[ScoreStep]:
  """Return the steps of multi-step score matching, DDIM steps without noise.

  From a window noised to timestep t they lead through t - 2, t - 4, ... and from the
  last to a clean window x'. With x_t = a_t x_0 + s_t eps, the noise that x' implies is
  eps' = (x_t - a_t x') / s_t, and its error is eps' - eps = (a_t / s_t) (x_0 - x'). So
  one step is the SDS loss, and more have its units.

  DDIM adds (c_u - c_t) f to x / a from t to u, with c = s / a (equation 13 of Song et
  al.). So eps' is a mean of the noises predicted on the way, each weighted by its share
  of c_t, which is what `ScoreStep.weight` says.

  Source: the SMP paper (Mu et al., arXiv 2512.03028) takes three such steps of stride 2
  for styles that conflict. Its released code (MimicKit, ``ESM_SDS_loss``) takes the
  noise implied by the clean window too, after its one step.

  Args:
    schedule: The noise schedule.
    timesteps: K of them, where the windows are noised to.
    count: Number of steps, at least 1.

  Raises:
    UserError: There is no step, or there are more than timesteps to the clean window.
  """
  most = min(timesteps) // STRIDE + 1
  if not 1 <= count <= most:
    raise UserError(
      f"score_steps is {count}, expected 1 to {most}: they are {STRIDE} timesteps apart "
      f"and the first is at timesteps {tuple(timesteps)}"
    )
  device = schedule.betas.device
  at = [
    torch.tensor([t - STRIDE * step for t in timesteps], device=device)
    for step in range(count)
  ]
  signal = [schedule.signal[t].view(-1, 1, 1, 1) for t in at]
  noise = [schedule.noise[t].view(-1, 1, 1, 1) for t in at]
  ratio = [s / a for s, a in zip(noise, signal, strict=True)]
  # The last step is to the clean window, signal 1 and noise 0.
  signal.append(torch.ones_like(signal[0]))
  ratio.append(torch.zeros_like(ratio[0]))
  return [
    ScoreStep(
      timesteps=at[i],
      weight=(ratio[i] - ratio[i + 1]) / ratio[0],
      keep=signal[i + 1] / signal[i],
      add=signal[i + 1] * (ratio[i + 1] - ratio[i]),
    )
    for i in range(count)
  ]
