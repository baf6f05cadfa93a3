"""The network that predicts the noise in a window of motion.

A diffusion transformer over the frames of the window (Peebles and Xie, Scalable
Diffusion Models with Transformers, 2023) with PixArt's shared time modulation
("adaLN-single", Chen et al., PixArt-alpha, 2023) and SwiGLU feed-forward (Shazeer, GLU
Variants Improve Transformer, 2020).
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_FEATURES = 256
BASE = 10000.0
"""Ratio of the slowest to the fastest sinusoid, for timesteps and for positions."""
FEED_FORWARD_FACTOR = 4
NORM_EPS = 1e-5
LABEL_STD = 0.02
"""Standard deviation of the embeddings of labels before training."""
MODULATIONS = 6
"""Shift, scale and gate, for the attention and for the feed-forward of a block."""


def sinusoidal_time(t: Tensor, dim: int = TIME_FEATURES) -> Tensor:
  """Return features (..., dim) of timesteps ``t`` (...), cosines before sines."""
  half = dim // 2
  index = torch.arange(half, dtype=torch.float32, device=t.device)
  angle = t.float().unsqueeze(-1) * torch.exp(index * (-math.log(BASE) / half))
  return torch.cat((angle.cos(), angle.sin()), dim=-1)


def sinusoidal_positions(length: int, dim: int) -> Tensor:
  """Return position codes (length, dim), sines and cosines interleaved.

  Source: Vaswani et al., Attention Is All You Need (2017).
  """
  index = torch.arange(0, dim, 2, dtype=torch.float64)
  frequency = torch.exp(index * (-math.log(BASE) / dim))
  angle = torch.arange(length, dtype=torch.float64).unsqueeze(-1) * frequency
  return torch.stack((angle.sin(), angle.cos()), dim=-1).view(length, dim).float()


class TimestepEmbedder(nn.Module):
  """Two linear layers over sinusoidal features of a timestep."""

  def __init__(self, dim: int):
    super().__init__()
    self.linear_1 = nn.Linear(TIME_FEATURES, dim)
    self.linear_2 = nn.Linear(dim, dim)

  def forward(self, t: Tensor) -> Tensor:
    """Return embeddings (B, D) of timesteps ``t`` (B,)."""
    features = sinusoidal_time(t).to(self.linear_1.weight.dtype)
    return self.linear_2(F.silu(self.linear_1(features)))


class AdaLNSingle(nn.Module):
  """Map of timesteps (B,) to the modulation (B, 6, D) that all blocks share."""

  def __init__(self, dim: int):
    super().__init__()
    self.timestep_embedder = TimestepEmbedder(dim)
    self.linear = nn.Linear(dim, MODULATIONS * dim)

  def forward(self, t: Tensor, label: Tensor | None = None) -> Tensor:
    """Return the shared modulation (B, 6, D) of timesteps ``t`` (B,).

    ``label`` (B, D) or (D,) is added to the embedding of the timestep.
    """
    embedding = self.timestep_embedder(t)
    if label is not None:
      embedding = embedding + label
    modulation = self.linear(F.silu(embedding))
    return modulation.unflatten(-1, (MODULATIONS, -1))


class SwiGLU(nn.Module):
  """Linear layer whose output is gated by its SiLU half (Shazeer, 2020)."""

  def __init__(self, dim: int, inner: int):
    super().__init__()
    self.proj = nn.Linear(dim, 2 * inner)

  def forward(self, x: Tensor) -> Tensor:
    """Return SiLU(gate) * value (..., inner) of ``x`` (..., dim)."""
    gate, value = self.proj(x).chunk(2, dim=-1)
    return F.silu(gate) * value


class FeedForward(nn.Module):
  """Feed-forward of a block: SwiGLU, then a projection back to the width."""

  def __init__(self, dim: int):
    super().__init__()
    self.act = SwiGLU(dim, FEED_FORWARD_FACTOR * dim)
    self.proj_out = nn.Linear(FEED_FORWARD_FACTOR * dim, dim)

  def forward(self, x: Tensor) -> Tensor:
    """Return the feed-forward of ``x`` (..., D)."""
    return self.proj_out(self.act(x))


class Block(nn.Module):
  """Attention over frames, then a feed-forward, both modulated by the timestep."""

  def __init__(self, dim: int, nhead: int):
    super().__init__()
    self.dim = dim
    self.nhead = nhead
    self.scale_shift_table = nn.Parameter(
      torch.randn(1, 1, MODULATIONS, dim) / math.sqrt(dim)
    )
    self.to_q = nn.Linear(dim, dim, bias=False)
    self.to_k = nn.Linear(dim, dim, bias=False)
    self.to_v = nn.Linear(dim, dim, bias=False)
    self.to_out = nn.Linear(dim, dim, bias=False)
    self.ff = FeedForward(dim)

  def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
    """Return the block's output (..., W, D).

    Args:
      x: (..., W, D).
      modulation: (..., 6, D), with the table of this block already added.
    """
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (
      part.unsqueeze(-2) for part in modulation.unbind(-2)
    )
    x = x + gate_a * self._attend(self._norm(x) * (1.0 + scale_a) + shift_a)
    return x + gate_f * self.ff(self._norm(x) * (1.0 + scale_f) + shift_f)

  def _norm(self, x: Tensor) -> Tensor:
    return F.layer_norm(x, (self.dim,), eps=NORM_EPS)

  def _attend(self, x: Tensor) -> Tensor:
    # Use one batch dimension and one of heads: the fast kernels take no other shape.
    flat = x.flatten(0, -3)

    def heads(y: Tensor) -> Tensor:
      return y.unflatten(-1, (self.nhead, -1)).transpose(1, 2)

    q, k, v = heads(self.to_q(flat)), heads(self.to_k(flat)), heads(self.to_v(flat))
    attended = F.scaled_dot_product_attention(q, k, v)
    return self.to_out(attended.transpose(1, 2).flatten(-2)).view_as(x)


class Denoiser(nn.Module):
  """Network that predicts the noise in windows of ``feature_dim`` numbers a frame.

  ``forward(x, t)`` is `forward_modulated` with `time_modulation`. Call the two apart
  where the timesteps are known beforehand: the modulation depends on nothing else, but
  the label of a conditional denoiser.

  A denoiser of ``num_styles`` labels is class-conditional: the embedding of a label is
  added to that of the timestep (Peebles and Xie), and one more embedding stands for no
  label, for classifier-free guidance (Ho and Salimans, 2022). Labels are 0 to
  num_styles - 1; num_styles is "no label".

  Attributes:
    label: The label that `time_modulation` takes where none is given.
  """

  positions: Tensor

  def __init__(
    self,
    feature_dim: int,
    window: int,
    d_model: int = 128,
    nhead: int = 4,
    num_layers: int = 2,
    num_styles: int = 0,
  ):
    super().__init__()
    self.num_styles = num_styles
    self.label = num_styles
    self.feature_dim = feature_dim
    self.window = window
    self.d_model = d_model
    self.nhead = nhead
    self.num_layers = num_layers
    self.preprocess_conv = nn.Conv1d(feature_dim, feature_dim, 1, bias=False)
    self.proj_in = nn.Linear(feature_dim, d_model, bias=False)
    self.adaln_single = AdaLNSingle(d_model)
    self.blocks = nn.ModuleList(Block(d_model, nhead) for _ in range(num_layers))
    self.proj_out = nn.Linear(d_model, feature_dim, bias=False)
    self.postprocess_conv = nn.Conv1d(feature_dim, feature_dim, 1, bias=False)
    self.register_buffer(
      "positions", sinusoidal_positions(window, d_model), persistent=False
    )
    # Last, so that the other weights begin as those of an unconditional denoiser.
    if num_styles:
      self.label_embedding = nn.Embedding(num_styles + 1, d_model)
      nn.init.normal_(self.label_embedding.weight, std=LABEL_STD)

  def with_label(self, label: int) -> Denoiser:
    """Return a copy that takes ``label`` where none is given."""
    if not 0 <= label <= self.num_styles:
      raise ValueError(f"label {label} of a denoiser with {self.num_styles} styles")
    labelled = copy.deepcopy(self)
    labelled.label = label
    return labelled

  def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the noise (B, W, F) predicted in ``x`` (B, W, F) at timesteps ``t`` (B,).

    ``labels`` (B,) int64 are those of the windows; None: `label`.
    """
    return self.forward_modulated(x, self.time_modulation(t, labels))

  def time_modulation(self, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return the modulation (num_layers, B, 6, D) of all blocks at ``t`` (B,).

    ``labels`` (B,) int64 are added; None: `label`.
    """
    embedded = None
    if self.num_styles:
      table = self.label_embedding.weight
      embedded = table[self.label if labels is None else labels]
    shared = self.adaln_single(t, embedded)
    tables = torch.stack(
      [cast(Block, block).scale_shift_table[0] for block in self.blocks]
    )
    return tables + shared

  def forward_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
    """Return the noise predicted in ``x`` (..., W, F).

    Args:
      x: Noised windows, normalised.
      modulation: (num_layers, ..., 6, D); its middle dimensions broadcast against the
        leading ones of ``x``, so that windows at one timestep share one modulation.
    """
    x = _pointwise_residual(x, self.preprocess_conv.weight)
    x = self.proj_in(x) + self.positions
    for block, block_modulation in zip(self.blocks, modulation, strict=True):
      x = block(x, block_modulation)
    return _pointwise_residual(self.proj_out(x), self.postprocess_conv.weight)


def _pointwise_residual(x: Tensor, weight: Tensor) -> Tensor:
  """Add to ``x`` its 1x1 convolution over channels.

  Written as a matrix product, which needs no transpose.
  """
  return x + F.linear(x, weight.squeeze(-1))
