"""Denoising diffusion: the noise schedule and the sampler.

Formulas: Ho et al., Denoising Diffusion Probabilistic Models (2020); the cosine
schedule is from Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models
(2021). Timesteps count from 0 (least noise) to T - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

NUM_TIMESTEPS = 50
OFFSET = 0.008
"""Offset s of the cosine schedule, which keeps the first noise levels away from zero.
"""
MAX_BETA = 0.999

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
