"""Limits of a GPU's hardware, and the number of its kernel launches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch

from smp.benchmark.timing import time_call
from smp.diffusion.denoiser import Block, Denoiser

_SIZE = 8192
"""Rows and columns of the matrices, and the square root of the number of floats, that
rates are measured with."""


@dataclass(frozen=True)
class Rates:
  """Measured rates of the device: the bounds of a roofline."""

  flops: float
  """Operations per second of a large product in the precision of the SDS loss."""
  bytes: float
  """Bytes per second, read and written, of a large copy."""


def measure_rates(device: str, dtype: torch.dtype, seconds: float) -> Rates:
  """Measure the rates of matrix products and copies on a device."""
  size = _SIZE if torch.device(device).type == "cuda" else _SIZE // 8
  a = torch.randn(size, size, device=device).to(dtype)
  b, out = a.clone(), torch.empty_like(a)
  product = time_call(lambda: torch.mm(a, b, out=out), seconds, device)
  source = torch.randn(size, size, device=device)
  target = torch.empty_like(source)
  copy = time_call(lambda: target.copy_(source), seconds, device)
  return Rates(
    flops=2.0 * size**3 / (1e-3 * product.median),
    bytes=2.0 * source.numel() * source.element_size() / (1e-3 * copy.median),
  )


def score_flops(denoiser: Denoiser, windows: int) -> float:
  """Return the operations of the products in one SDS loss of ``windows`` windows.

  These are two for every weight of a linear layer and every frame, and those of the
  attention. The convolutions at both ends are one product with the layer next to them.
  """
  d, window, features = denoiser.d_model, denoiser.window, denoiser.feature_dim
  inner = cast(Block, denoiser.blocks[0]).ff.proj_out.in_features
  weights = denoiser.num_layers * (4 * d * d + 3 * inner * d) + 2 * features * d
  attention = denoiser.num_layers * 2 * window * d
  return 2.0 * windows * window * (weights + attention)


def score_bytes(denoiser: Denoiser, windows: int, timesteps: int) -> float:
  """Return the bytes that must cross the memory bus: windows, noise and weights, once."""
  numbers = denoiser.window * denoiser.feature_dim
  inputs = windows * numbers * (1 + timesteps) + windows * timesteps
  weights = sum(parameter.numel() for parameter in denoiser.parameters())
  return 4.0 * (inputs + weights)


def count_launches(call: Callable[[], object]) -> int:
  """Count the kernels, copies and graphs that one call launches on the GPU."""
  call()
  with torch.profiler.profile(
    activities=[
      torch.profiler.ProfilerActivity.CPU,
      torch.profiler.ProfilerActivity.CUDA,
    ]
  ) as profile:
    call()
    torch.cuda.synchronize()
  asks = (
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaMemcpy",
    "cudaMemset",
    "GraphLaunch",
  )
  return sum(
    event.count for event in profile.key_averages() if any(a in event.key for a in asks)
  )
