"""The denoiser on a CPU: one pass of C code per few windows, all within the caches.

On a CPU the layers of `Denoiser` as separate tensor operations spend half of their time
moving activations. Here each thread takes a few windows and computes the whole network
on them while they stay in its caches. The products work on tiles of 32 columns whose
weights are contiguous; normalisation, modulation, gates and activations are applied as
numbers are loaded and stored.

Vectors of 16 numbers are compiled to the registers of the processor
(`smp.utils.native_code`). All arithmetic is float32 and agrees with the plain denoiser
to rounding.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from smp.diffusion.denoiser import MODULATIONS, Block, Denoiser
from smp.diffusion.native_kernel import FIELDS, KERNEL, LANES, MAX_FRAMES, TILE
from smp.utils.native_code import LaunchPool

_MAX_ROWS = 16
"""Maximum padding in rows; at least as large as R in the C code."""
BLOCK = 4
"""Windows that pass the network together, so that weights are read once for all."""


class FusedDenoiser:
  """`Denoiser.forward_modulated` on the CPU, for frozen weights.

  Args:
    denoiser: A denoiser on the CPU; its weights are copied, so it must not be trained
      further.
    threads: Number of threads; None: as many as torch uses.

  Raises:
    ValueError: `fits` rejects the sizes.
  """

  def __init__(self, denoiser: Denoiser, threads: int | None = None) -> None:
    if not fits(denoiser):
      raise ValueError("the denoiser's sizes do not fit tiles and vectors")
    self._denoiser = denoiser
    threads = threads or torch.get_num_threads()
    self._launch_pool = LaunchPool(threads)
    # Sampling and the SDS loss may be called from two threads (a viewer has its own).
    self._lock = threading.Lock()
    self._counter = np.zeros(1, np.int64)
    with torch.no_grad():
      self._pack(denoiser)
    self._workers = [self._worker() for _ in range(threads)]

  @torch.no_grad()
  def __call__(
    self, x: Tensor, modulation: Tensor, out: Tensor | None = None
  ) -> Tensor:
    """Return the noise predicted in groups of windows, each group at its own timestep.

    Args:
      x: (K, N, W, F) float32, contiguous.
      modulation: (num_layers, K, 6, D), from `Denoiser.time_modulation`.
      out: (K, N, W, F), contiguous, to write to; None: new.
    """
    modulation = modulation.contiguous()
    out = torch.empty_like(x) if out is None else out
    groups, each, window, width = x.shape
    if (window, width) != (self._denoiser.window, self._denoiser.feature_dim):
      raise ValueError(f"windows are {(window, width)}, not those of the denoiser")
    layers = self._denoiser.num_layers
    shape = (layers, groups, MODULATIONS, self._denoiser.d_model)
    for name, tensor, want in (("x", x, x.shape), ("modulation", modulation, shape)):
      if tensor.shape != want or tensor.dtype != torch.float32 or tensor.is_cuda:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {want}")
    if not x.is_contiguous() or not out.is_contiguous() or out.shape != x.shape:
      raise ValueError("x and out must be contiguous and of one shape")
    call = {"groups": groups, "each": each, "block": min(BLOCK, max(each, 1))}
    call |= {"input": x.data_ptr(), "output": out.data_ptr()}
    call["modulation"] = modulation.data_ptr()
    with self._lock:
      self._counter[0] = 0
      for job, _, _ in self._workers:
        for name, value in call.items():
          job[FIELDS.index(name)] = value
      self._launch_pool.run([launch for _, launch, _ in self._workers])
    return out

  def _pack(self, denoiser: Denoiser) -> None:
    """Copy the weights in the order in which the C code reads them."""
    eye = torch.eye(denoiser.feature_dim)
    # The convolutions next to the linear layers at both ends are folded into them.
    before = eye + denoiser.preprocess_conv.weight.squeeze(-1)
    after = eye + denoiser.postprocess_conv.weight.squeeze(-1)
    self._positions = denoiser.positions.contiguous()
    self._in = _tiles(denoiser.proj_in.weight @ before)
    self._out = _tiles(after @ denoiser.proj_out.weight)
    self._layers: list[Tensor] = []
    for block in denoiser.blocks:
      self._layers += _layer_weights(cast(Block, block))
    self._inner = cast(Block, denoiser.blocks[0]).ff.proj_out.in_features

  def _worker(self) -> tuple[np.ndarray, Any, Tensor]:
    """Return a thread's job, its recorded launch, and its scratch memory."""
    d = self._denoiser
    padded = self._out.shape[0] * TILE
    rows = BLOCK * d.window + _MAX_ROWS
    widest = max(3 * d.d_model, self._inner, padded, d.feature_dim)
    scratch = torch.zeros(rows * (2 * d.d_model + widest))
    values = {
      "counter": self._counter.ctypes.data,
      "W": d.window,
      "F": d.feature_dim,
      "D": d.d_model,
      "heads": d.nhead,
      "layers": d.num_layers,
      "inner": self._inner,
      "padded_F": padded,
      "positions": self._positions.data_ptr(),
      "w_in": self._in.data_ptr(),
      "w_out": self._out.data_ptr(),
      "scratch": scratch.data_ptr(),
    }
    fields = [values.get(name, 0) for name in FIELDS]
    job = np.array(fields + [w.data_ptr() for w in self._layers], np.int64)
    return job, KERNEL.record(job), scratch


@contextlib.contextmanager
def torch_on_one_thread() -> Iterator[None]:
  """Keep torch on one thread around `FusedDenoiser` and the operations next to it.

  After an operation on several threads, torch's own threads wait for the next one
  without giving up their cores, and would compete with the threads of the denoiser.
  """
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  try:
    yield
  finally:
    torch.set_num_threads(threads)


def fits(denoiser: Denoiser) -> bool:
  """Return whether `FusedDenoiser` accepts a denoiser of these sizes."""
  inner = cast(Block, denoiser.blocks[0]).ff.proj_out.in_features
  return (
    denoiser.d_model % TILE == 0
    and (denoiser.d_model // denoiser.nhead) % LANES == 0
    and inner % LANES == 0
    and denoiser.window <= MAX_FRAMES
  )


def usable(denoiser: Denoiser) -> bool:
  """Return whether `FusedDenoiser` can run on this machine (`smp.utils.native_code`)."""
  on_cpu = denoiser.positions.device.type == "cpu"
  return on_cpu and fits(denoiser) and KERNEL.usable


def _layer_weights(block: Block) -> list[Tensor]:
  """Return the weights of a layer in the order of the C code."""
  up = block.ff.act.proj
  # Each tile holds the gates, then the values, of the same 16 outputs.
  order = torch.arange(up.out_features).view(2, -1, LANES).transpose(0, 1).flatten()
  qkv = torch.cat((block.to_q.weight, block.to_k.weight, block.to_v.weight))
  down = block.ff.proj_out
  weights = [_tiles(qkv), _tiles(block.to_out.weight)]
  weights += [_tiles(up.weight[order]), up.bias[order].clone()]
  return weights + [_tiles(down.weight), down.bias.clone()]


def _tiles(weight: Tensor) -> Tensor:
  """Return a weight (N, K) as tiles (ceil(N / 32), K, 32), padded with zeros."""
  rows, columns = weight.shape
  padded = F.pad(weight, (0, 0, 0, -rows % TILE))
  return padded.view(-1, TILE, columns).transpose(1, 2).contiguous()
