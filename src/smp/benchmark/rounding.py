"""Rounding errors of r_smp in each precision of a device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import get_args

import torch

from smp.diffusion.prior import MotionPrior
from smp.diffusion.sds import Precision, SdsLoss, resolve_precision
from smp.errors import UserError


@dataclass(frozen=True)
class Rounding:
  """Relative errors of r_smp over windows: maximum and median."""

  precision: str
  most: float
  median: float


@torch.no_grad()
def measure_rounding(
  prior: MotionPrior, timesteps: tuple[int, ...], sds_scale: float, windows: int = 256
) -> list[Rounding]:
  """Measure the errors of r_smp relative to float64 on samples of the prior.

  Every precision is measured that the device has and the weights allow. The running
  means are those of the samples' own errors: the smallest that training can reach,
  where rounding weighs most.
  """
  device = prior.q_low.device
  generator = torch.Generator(device).manual_seed(0)
  features = prior.sample(windows, generator)
  shape = (len(timesteps), *features.shape)
  noise = torch.randn(shape, generator=generator, device=device)
  steps = torch.tensor(timesteps, device=device)
  exact = copy.deepcopy(prior).double()
  truth = exact.denoising_error(features.double(), steps, noise.double())
  scale = truth.mean(dim=0)
  found = []
  for precision in get_args(Precision):
    try:
      if resolve_precision(precision, device) != precision:
        continue
      score = SdsLoss(prior, timesteps, precision)
    except UserError:
      continue
    error = score(features, noise).double() - truth
    off = (torch.exp(-sds_scale * (error / scale).mean(dim=1)) - 1.0).abs()
    found.append(Rounding(precision, float(off.max()), float(off.median())))
  return found
