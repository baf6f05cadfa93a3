"""The score of windows at timesteps that never change: the prior's part of a reward.

`MotionPrior.denoising_error` says what is computed, in the plain way. `ScoreFunction`
computes the same with everything prepared that can be: time embeddings and modulations
do not depend on the windows, the normalisation is one multiplication and one addition,
and the products are those of the device at hand:

- On a CPU, `smp.diffusion.fused.FusedDenoiser`: C, float32.
- On a GPU, `FoldedDenoiser`: modulations and gates are part of the weights, one set for
  each timestep, so that a layer is a handful of batched products, in bfloat16, TF32 or
  float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp.diffusion.denoiser import NORM_EPS, Block, Denoiser
from smp.diffusion.fused import FusedDenoiser, fits, torch_on_one_thread
from smp.errors import UserError

if TYPE_CHECKING:
  from smp.diffusion.prior import MotionPrior

Precision = Literal["auto", "float32", "tf32", "bfloat16"]
"""Of the products; sums, norms and errors are float32 always. ``auto``: bfloat16 on a
GPU, float32 on a CPU."""


class ScoreFunction(nn.Module):
  """`MotionPrior.denoising_error` at fixed timesteps.

  No host synchronisation, no branch on values, and from the second call with as many
  windows on no allocation of its own: fit for a CUDA graph. It computes on the device
  that the prior is on when it is made, with the weights as they are then.

  Args:
    prior: The prior.
    timesteps: K of them, each within the prior's schedule.
    precision: See `Precision`.

  Raises:
    UserError: a timestep outside the schedule, or no such precision.
  """

  signal: Tensor
  noise_scale: Tensor
  gain: Tensor
  offset: Tensor

  def __init__(
    self, prior: MotionPrior, timesteps: Sequence[int], precision: Precision = "auto"
  ):
    super().__init__()
    count = prior.schedule.num_timesteps
    wrong = [t for t in timesteps if not 0 <= t < count]
    if wrong or not timesteps:
      raise UserError(
        f"timesteps {tuple(timesteps)}: give at least one, each from 0 to {count - 1}"
      )
    device = prior.q_low.device
    steps = torch.tensor(tuple(timesteps), device=device)
    gain, offset = prior.affine()
    buffers = {
      "signal": prior.schedule.signal[steps].view(-1, 1, 1, 1),
      "noise_scale": prior.schedule.noise[steps].view(-1, 1, 1, 1),
      "gain": gain,
      "offset": offset,
    }
    for name, value in buffers.items():
      self.register_buffer(name, value.clone(), persistent=False)
    self.precision = resolve_precision(precision, device)
    with torch.no_grad():
      modulation = prior.denoiser.time_modulation(steps)
      self._predict = make_predictor(prior.denoiser, modulation, self.precision)
    self._noised = torch.empty(0)

  @torch.no_grad()
  def forward(self, features: Tensor, noise: Tensor) -> Tensor:
    """Errors (N, K) of raw ``features`` (N, W, F) under ``noise`` (K, N, W, F)."""
    if isinstance(self._predict, _OnCpu):
      with torch_on_one_thread():
        return self._score(features, noise)
    return self._score(features, noise)

  def _score(self, features: Tensor, noise: Tensor) -> Tensor:
    if self._noised.shape != noise.shape:
      self._noised = torch.empty_like(noise)
    clean = torch.addcmul(self.offset, features, self.gain)
    noised = torch.mul(noise, self.noise_scale, out=self._noised)
    noised.addcmul_(clean, self.signal)
    error = self._predict(noised).sub_(noise).square_()
    return error.mean(dim=(-2, -1)).transpose(0, 1)


Predictor = Callable[[Tensor], Tensor]
"""Predicted noise (K, N, W, F), float32, in (K, N, W, F): each group its timestep. The
result is the caller's to change, until the next call."""


def make_predictor(
  denoiser: Denoiser, modulation: Tensor, precision: Precision
) -> Predictor:
  """The fastest denoiser there is for a device, at fixed timesteps.

  Args:
    denoiser: On the device.
    modulation: (num_layers, K, 6, D), from `Denoiser.time_modulation`.
    precision: Not "auto".
  """
  if modulation.is_cuda or precision == "bfloat16":
    return FoldedDenoiser(denoiser, modulation, precision)
  if fits(denoiser):
    return _OnCpu(denoiser, modulation)
  modulation = modulation.unsqueeze(2)
  return lambda x: denoiser.forward_modulated(x, modulation)


def resolve_precision(precision: str, device: torch.device) -> Precision:
  """The precision that a device computes in.

  Raises:
    UserError: no such precision, or none of this device.
  """
  if precision not in get_args(Precision):
    raise UserError(
      f"precision '{precision}': choose one of {', '.join(get_args(Precision))}"
    )
  if precision == "auto":
    return "bfloat16" if device.type == "cuda" else "float32"
  if precision == "tf32" and device.type != "cuda":
    raise UserError("precision 'tf32' is for NVIDIA GPUs; use float32 or auto here")
  return cast(Precision, precision)


class _OnCpu:
  """`FusedDenoiser` with its modulation and its output at hand."""

  def __init__(self, denoiser: Denoiser, modulation: Tensor) -> None:
    self._fused = FusedDenoiser(denoiser)
    self._modulation = modulation
    self._out = torch.empty(0)

  def __call__(self, x: Tensor) -> Tensor:
    if self._out.shape != x.shape:
      self._out = torch.empty_like(x)
    return self._fused(x, self._modulation, out=self._out)


class FoldedDenoiser(nn.Module):
  """`Denoiser.forward_modulated` at fixed timesteps, all that is fixed in its weights.

  With n the layer norm of x, W (n (1 + scale) + shift) is (W diag(1 + scale)) n plus
  W shift, and gate * (W y + b) is (diag(gate) W) y plus gate * b. The convolutions next
  to the linear layers at both ends are products with them. What flows from block to
  block stays float32.
  """

  def __init__(self, denoiser: Denoiser, modulation: Tensor, precision: Precision):
    super().__init__()
    self._heads = denoiser.nhead
    # Said in each call: mjlab's training allows TF32 for the whole program.
    self._allow_tf32 = precision != "float32"
    self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    eye = torch.eye(denoiser.feature_dim, device=modulation.device)
    before = eye + denoiser.preprocess_conv.weight.squeeze(-1)
    after = eye + denoiser.postprocess_conv.weight.squeeze(-1)
    # Both ends are not rounded to bfloat16: the error is a small difference there.
    self.w_in = nn.Buffer((denoiser.proj_in.weight @ before).t().contiguous())
    self.w_out = nn.Buffer((after @ denoiser.proj_out.weight).t().contiguous())
    self.positions = nn.Buffer(denoiser.positions.clone())
    self._layers: list[list[Tensor]] = []
    for block, each in zip(denoiser.blocks, modulation, strict=True):
      self._layers.append(self._fold(cast(Block, block), each))

  def _fold(self, block: Block, modulation: Tensor) -> list[Tensor]:
    """Weights (K, in, out) and biases (K, 1, out) of a block at K timesteps."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.unbind(1)
    qkv = torch.cat((block.to_q.weight, block.to_k.weight, block.to_v.weight))
    up, down = block.ff.act.proj, block.ff.proj_out

    def into(weight: Tensor, scale: Tensor) -> Tensor:
      return (weight * (1.0 + scale).unsqueeze(1)).transpose(1, 2).contiguous()

    def out_of(weight: Tensor, gate: Tensor) -> Tensor:
      return (weight * gate.unsqueeze(2)).transpose(1, 2).contiguous()

    folded = [
      into(qkv, scale_a),
      (shift_a @ qkv.t()).unsqueeze(1),
      out_of(block.to_out.weight, gate_a),
      into(up.weight, scale_f),
      (shift_f @ up.weight.t() + up.bias).unsqueeze(1),
      out_of(down.weight, gate_f),
    ]
    folded = [tensor.detach().to(self._dtype) for tensor in folded]
    return folded + [(gate_f * down.bias).unsqueeze(1).detach()]

  @torch.no_grad()
  def forward(self, x: Tensor) -> Tensor:
    """Predicted noise (K, N, W, F) in ``x`` (K, N, W, F), float32."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = self._allow_tf32
    try:
      return self._forward(x)
    finally:
      torch.backends.cuda.matmul.allow_tf32 = allowed

  def _forward(self, x: Tensor) -> Tensor:
    groups, each, window, _ = x.shape
    h = (x @ self.w_in + self.positions).flatten(1, 2)
    for qkv, qkv_bias, merge, up, up_bias, down, down_bias in self._layers:
      y = torch.baddbmm(qkv_bias, self._norm(h), qkv)
      y = self._attend(y.view(groups * each, window, -1)).view_as(h)
      h = h + torch.bmm(y, merge)
      gate, value = torch.baddbmm(up_bias, self._norm(h), up).chunk(2, dim=-1)
      h = h + torch.bmm(F.silu(gate) * value, down) + down_bias
    return (h @ self.w_out).view(groups, each, window, -1)

  def _norm(self, h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=NORM_EPS).to(self._dtype)

  def _attend(self, qkv: Tensor) -> Tensor:
    """(B, W, 3 * D) -> (B, W, D)."""
    q, k, v = qkv.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
