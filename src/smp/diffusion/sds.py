"""The SDS loss of windows at fixed timesteps: the prior's part of a reward.

`MotionPrior.denoising_error` is the plain definition. `SdsLoss` computes the same with
everything prepared that can be: time embeddings and modulations do not depend on the
windows, the normalisation is one multiplication and one addition, and the products are
those of the device at hand:

- On a CPU, `smp.diffusion.native_denoiser.FusedDenoiser`: C, float32.
- On a GPU, `FoldedDenoiser`: modulations and gates are part of the weights, one set for
  each timestep, so that a layer is a handful of batched products, in float16, bfloat16,
  TF32 or float32.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smp.diffusion.ddpm import CosineSchedule, score_path
from smp.diffusion.denoiser import NORM_EPS, Block, Denoiser
from smp.diffusion.labelled import LabelledOnCpu, WindowLabels, modulation_table
from smp.diffusion.native_denoiser import FusedDenoiser, torch_on_one_thread, usable
from smp.diffusion.styles import BlendedDenoiser, blend, body_masks
from smp.errors import UserError
from smp.motion.features import FeatureSpec


class Scorable(Protocol):
  """Part of a motion prior that the SDS loss is computed from."""

  denoiser: Denoiser | BlendedDenoiser
  schedule: CosineSchedule
  q_low: Tensor
  spec: FeatureSpec

  def affine(self) -> tuple[Tensor, Tensor]:
    """Return gain and offset (F,) that normalise features."""
    ...


Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
"""Precision of the products; sums, norms and errors are always float32. ``auto``:
float16 on a GPU (as fast as bfloat16, and as exact as TF32), float32 on a CPU."""

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types of the 16-bit precisions."""


def products_in(precision: str) -> tuple[torch.dtype, Literal["ieee", "tf32"]]:
  """Return the matrix type and the float32 product mode of a precision (not "auto").

  The mode is the argument of `float32_products`.
  """
  kind = "ieee" if precision == "float32" else "tf32"
  return HALF.get(precision, torch.float32), kind


class SdsLoss(nn.Module):
  """`MotionPrior.denoising_error` at fixed timesteps, or `multi_step_error`.

  It never synchronises with the host, never branches on values, and from the second
  call with the same number of windows allocates nothing of its own, so it fits a CUDA
  graph. It computes on the device of the prior at the time of construction, with the
  weights of that time. On a CPU, labels of which one composes two are the exception: as
  many windows are evaluated twice as have it.

  Args:
    prior: The prior.
    timesteps: K of them, each within the prior's schedule.
    precision: See `Precision`.
    score_steps: Steps of multi-step score matching (`smp.diffusion.ddpm.score_path`).
    labels: The label of each window; None: that of the prior.

  Raises:
    UserError: A timestep is outside the schedule, there is no such precision, or there
      are too many steps.
  """

  signal: Tensor
  noise_scale: Tensor
  gain: Tensor
  offset: Tensor
  weight: Tensor
  keep: Tensor
  add: Tensor

  def __init__(
    self,
    prior: Scorable,
    timesteps: Sequence[int],
    precision: Precision = "auto",
    score_steps: int = 1,
    labels: WindowLabels | None = None,
  ):
    super().__init__()
    count = prior.schedule.num_timesteps
    wrong = [t for t in timesteps if not 0 <= t < count]
    if wrong or not timesteps:
      raise UserError(
        f"timesteps {tuple(timesteps)}: give at least one, each from 0 to {count - 1}"
      )
    device = prior.q_low.device
    path = score_path(prior.schedule, timesteps, score_steps)
    steps = path[0].timesteps
    gain, offset = prior.affine()
    buffers = {
      "signal": prior.schedule.signal[steps].view(-1, 1, 1, 1),
      "noise_scale": prior.schedule.noise[steps].view(-1, 1, 1, 1),
      "gain": gain,
      "offset": offset,
      "weight": torch.stack([step.weight for step in path]),
      "keep": torch.stack([step.keep for step in path]),
      "add": torch.stack([step.add for step in path]),
    }
    for name, value in buffers.items():
      self.register_buffer(name, value.clone(), persistent=False)
    self.precision = resolve_precision(precision, device)
    self._predictors = [
      make_predictor(prior.denoiser, step.timesteps, self.precision)
      if labels is None
      else make_labelled_predictor(
        prior.denoiser, step.timesteps, self.precision, labels, prior.spec
      )
      for step in path
    ]
    self._noised = torch.empty(0)

  @torch.no_grad()
  def forward(self, features: Tensor, noise: Tensor) -> Tensor:
    """Return errors (N, K) of raw ``features`` (N, W, F) under ``noise`` (K, N, W, F)."""
    if all(map(on_cpu, self._predictors)):
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

  def _predict(self, x: Tensor) -> Tensor:
    """Return the noise predicted in ``x`` (K, N, W, F), which several steps change."""
    first, *others = self._predictors
    total = first(x)
    if not others:
      return total
    x.mul_(self.keep[0]).addcmul_(total, self.add[0])
    total.mul_(self.weight[0])
    last = len(others)
    for i, predict in enumerate(others, 1):
      predicted = predict(x)
      total.addcmul_(predicted, self.weight[i])
      if i < last:
        x.mul_(self.keep[i]).addcmul_(predicted, self.add[i])
    return total


Predictor = Callable[[Tensor], Tensor]
"""Maps (K, N, W, F), each group at its own timestep, to the predicted noise (K, N, W,
F), float32. The caller may change the result until the next call, and each predictor
has a result of its own."""


def make_predictor(
  denoiser: Denoiser | BlendedDenoiser, timesteps: Tensor, precision: Precision
) -> Predictor:
  """Return the fastest denoiser for a device, at fixed timesteps.

  Args:
    denoiser: The denoiser, on the device.
    timesteps: (K,), on the device.
    precision: Any but "auto".

  Raises:
    UserError: float16 is asked for, and its range is too small for this denoiser.
  """
  if isinstance(denoiser, BlendedDenoiser):
    parts = [make_predictor(p, timesteps, precision) for p in denoiser.denoisers()]
    return _Blended(parts, denoiser.weights)
  if timesteps.is_cuda or precision in HALF:
    return FoldedDenoiser(denoiser, timesteps, precision)
  with torch.no_grad():
    modulation = denoiser.time_modulation(timesteps)
  if usable(denoiser):
    return _OnCpu(denoiser, modulation)
  modulation = modulation.unsqueeze(2)
  return lambda x: denoiser.forward_modulated(x, modulation)


def make_labelled_predictor(
  denoiser: Denoiser | BlendedDenoiser,
  timesteps: Tensor,
  precision: Precision,
  labels: WindowLabels,
  spec: FeatureSpec,
) -> Predictor:
  """Return the fastest denoiser for windows that have labels of their own.

  Labels cannot be folded into weights, so on a GPU it is the plain denoiser; 16-bit
  products are TF32 there. Where a choice composes two labels, compiled C evaluates its
  windows under both. The plain denoiser evaluates all windows under two labels, which
  fixes all shapes; the masks leave those of a single label as they are.

  Args:
    denoiser: The denoiser, on the device, without a choice of labels.
    timesteps: (K,), on the device.
    precision: Any but "auto".
    labels: The labels of the windows.
    spec: What the windows contain, which says what belongs to which part of the body.
  """
  if isinstance(denoiser, BlendedDenoiser):
    raise ValueError("windows have labels, and the denoiser has some too")
  masks = None
  if labels.composes():
    masks = torch.stack(body_masks(spec)).to(timesteps.device)
  if usable(denoiser):
    lower_mask = None if masks is None else masks[1]
    predictor = LabelledOnCpu(denoiser, timesteps, labels, lower_mask)
  else:
    predictor = _Labelled(denoiser, timesteps, precision, labels.index, labels.choices)
    if masks is not None:
      lower = _Labelled(denoiser, timesteps, precision, labels.index, labels.lower)
      predictor = _Blended([predictor, lower], masks)
  if labels.weight == 1.0:
    return predictor
  none = denoiser.with_label(denoiser.num_styles)
  parts = [predictor, make_predictor(none, timesteps, precision)]
  shares = torch.tensor([[labels.weight], [1.0 - labels.weight]])
  return _Blended(parts, shares.to(timesteps.device))


def resolve_precision(precision: str, device: torch.device) -> Precision:
  """Return the precision that a device computes in.

  Raises:
    UserError: There is no such precision, or the device does not support it.
  """
  if precision not in get_args(Precision):
    raise UserError(
      f"precision '{precision}': choose one of {', '.join(get_args(Precision))}"
    )
  if precision == "auto":
    return "float16" if device.type == "cuda" else "float32"
  if precision == "tf32" and device.type != "cuda":
    raise UserError("precision 'tf32' is for NVIDIA GPUs; use float32 or auto here")
  return cast(Precision, precision)


class _OnCpu:
  """`FusedDenoiser` with its modulation and its output tensor."""

  def __init__(self, denoiser: Denoiser, modulation: Tensor) -> None:
    self._fused = FusedDenoiser(denoiser)
    self._modulation = modulation
    self._out = torch.empty(0)

  def __call__(self, x: Tensor) -> Tensor:
    if self._out.shape != x.shape:
      self._out = torch.empty_like(x)
    return self._fused(x, self._modulation, out=self._out)


class _Labelled:
  """`Denoiser` with the modulation of each window's own label."""

  def __init__(
    self,
    denoiser: Denoiser,
    timesteps: Tensor,
    precision: Precision,
    index: Tensor,
    choices: tuple[int, ...],
  ) -> None:
    self._denoiser, self._index = copy.deepcopy(denoiser), index
    self._table = modulation_table(denoiser, timesteps, choices)
    _, self._matmul = products_in(precision)

  def __call__(self, x: Tensor) -> Tensor:
    with float32_products(self._matmul):
      return self._denoiser.forward_modulated(
        x, self._table.index_select(2, self._index)
      )


class _Blended:
  """Weighted sum of the predictors of several labels (`smp.diffusion.styles`)."""

  def __init__(self, parts: Sequence[Predictor], weights: Tensor) -> None:
    self.parts, self._weights = parts, weights.clone()

  def __call__(self, x: Tensor) -> Tensor:
    return blend(self._weights, (predict(x) for predict in self.parts))


def on_cpu(predictor: Predictor) -> bool:
  """Return whether a predictor is compiled C on the CPU."""
  parts = predictor.parts if isinstance(predictor, _Blended) else [predictor]
  return all(isinstance(part, (_OnCpu, LabelledOnCpu)) for part in parts)


MAX_ATTENDED = 65_535
"""Maximum number of windows in one call of attention: the kernels map windows to a
dimension of CUDA's grid that is no longer. Three timesteps of 16,384 environments are
49,152."""


class FoldedDenoiser(nn.Module):
  """`Denoiser.forward_modulated` at fixed timesteps, folded into the weights.

  With n the layer norm of x, W (n (1 + scale) + shift) is (W diag(1 + scale)) n plus W
  shift, and gate * (W y + b) is (diag(gate) W) y plus gate * b. The convolutions next
  to the linear layers at both ends are multiplied into them. Weights are folded in
  float64, on the host. The residual stream between blocks stays float32.

  Args:
    denoiser: The denoiser, on the device to compute on.
    timesteps: (K,), on the same device.
    precision: Precision of the products; those at both ends are at least TF32.

  Raises:
    UserError: float16 is asked for, and its range is too small for these weights.
  """

  def __init__(self, denoiser: Denoiser, timesteps: Tensor, precision: Precision):
    super().__init__()
    device = denoiser.positions.device
    exact = copy.deepcopy(denoiser).cpu().double()
    self._heads = denoiser.nhead
    # The mode is set in each call, as mjlab's training allows TF32 for the whole
    # program.
    self._dtype, self._matmul = products_in(precision)
    eye = torch.eye(denoiser.feature_dim, dtype=torch.float64)
    before = eye + exact.preprocess_conv.weight.squeeze(-1)
    after = eye + exact.postprocess_conv.weight.squeeze(-1)
    # Both ends stay float32: the error is a small difference of their results.
    w_in = (exact.proj_in.weight @ before).t().contiguous()
    w_out = (after @ exact.proj_out.weight).t().contiguous()
    self.w_in = nn.Buffer(w_in.detach().float().to(device))
    self.w_out = nn.Buffer(w_out.detach().float().to(device))
    self.positions = nn.Buffer(denoiser.positions.clone())
    self._layers: list[list[Tensor]] = []
    self._scales: list[float] = []
    """Divisor of the last product of each layer, which keeps it within float16."""
    with torch.no_grad():
      modulation = exact.time_modulation(timesteps.cpu())
      folded = [
        _fold(cast(Block, block), each)
        for block, each in zip(exact.blocks, modulation, strict=True)
      ]
    for layer in folded:
      inner, last = _largest_products(layer)
      scale = 1.0
      if precision == "float16":
        largest = torch.finfo(torch.float16).max
        if inner > largest:
          raise UserError(
            f"precision float16: products of this denoiser may reach {inner:.0f}, past "
            "the largest float16; use --env.commands.smp.precision bfloat16"
          )
        # A power of two divides without rounding.
        scale = 2.0 ** max(0, math.ceil(math.log2(last / largest)))
      *products, down, down_bias = layer
      products = [
        tensor.to(device, self._dtype) for tensor in (*products, down / scale)
      ]
      self._layers.append([*products, down_bias.to(device, torch.float32)])
      self._scales.append(scale)

  @torch.no_grad()
  def forward(self, x: Tensor) -> Tensor:
    """Return the noise predicted in ``x`` (K, N, W, F), float32, in the same shape."""
    with float32_products(self._matmul):
      return self._forward(x)

  def _forward(self, x: Tensor) -> Tensor:
    groups, each, window, _ = x.shape
    h = (x @ self.w_in + self.positions).flatten(1, 2)
    for layer, scale in zip(self._layers, self._scales, strict=True):
      qkv, qkv_bias, merge, up, up_bias, down, down_bias = layer
      y = torch.baddbmm(qkv_bias, self._norm(h), qkv)
      y = self._attend(y.view(groups * each, window, -1)).view_as(h)
      h = h + torch.bmm(y, merge)
      gate, value = torch.baddbmm(up_bias, self._norm(h), up).chunk(2, dim=-1)
      # `down` was divided by the scale, to keep its product within float16.
      h = torch.add(h, torch.bmm(F.silu(gate) * value, down), alpha=scale) + down_bias
    return (h @ self.w_out).view(groups, each, window, -1)

  def _norm(self, h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=NORM_EPS).to(self._dtype)

  def _attend(self, qkv: Tensor) -> Tensor:
    """Return the attention (B, W, D) of queries, keys and values (B, W, 3 * D)."""
    qkv = qkv.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
    parts = [
      F.scaled_dot_product_attention(part[0], part[1], part[2])
      for part in qkv.split(MAX_ATTENDED, dim=1)
    ]
    attended = parts[0] if len(parts) == 1 else torch.cat(parts)
    return attended.transpose(1, 2).flatten(-2)


def _fold(block: Block, modulation: Tensor) -> list[Tensor]:
  """Return the weights (K, in, out) and biases (K, 1, out) of a block at K timesteps.

  In this order: queries, keys and values; their merge; up, both halves; down. Merge has
  no bias.
  """
  shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.unbind(1)
  qkv = torch.cat((block.to_q.weight, block.to_k.weight, block.to_v.weight))
  up, down = block.ff.act.proj, block.ff.proj_out

  # 1 + scale multiplies the inputs of a product, the gate its outputs.
  def into(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight * (1.0 + scale).unsqueeze(1)).transpose(1, 2).contiguous()

  def out_of(weight: Tensor, gate: Tensor) -> Tensor:
    return (weight * gate.unsqueeze(2)).transpose(1, 2).contiguous()

  return [
    into(qkv, scale_a),
    (shift_a @ qkv.t()).unsqueeze(1),
    out_of(block.to_out.weight, gate_a),
    into(up.weight, scale_f),
    (shift_f @ up.weight.t() + up.bias).unsqueeze(1),
    out_of(down.weight, gate_f),
    (gate_f * down.bias).unsqueeze(1),
  ]


def _largest_products(layer: list[Tensor]) -> tuple[float, float]:
  """Return bounds on the largest entries of a layer's products, for any windows.

  The first is for all products but the last, the second for the last one.

  A layer norm of D numbers has a length of at most sqrt(D). So a product with it is
  bounded by the length of the weight's column (Cauchy-Schwarz), and the length of the
  product by the weight's largest singular value.
  """
  qkv, qkv_bias, merge, up, up_bias, down, _ = layer
  width = qkv.shape[-2]

  def entries(weight: Tensor, bias: Tensor) -> Tensor:
    return width**0.5 * weight.norm(dim=-2) + bias.squeeze(-2).abs()

  # Bounds on queries, keys and values; on the length of the values, which attention
  # averages; and on the merge of them.
  projected = entries(qkv, qkv_bias)
  values = projected[..., 2 * width :].norm(dim=-1).max()
  # |SiLU(gate) * value| is at most |gate * value| in each entry. Its length is at most
  # the length of the gates times the largest value, which bounds the last product.
  gate, value = entries(up, up_bias).chunk(2, dim=-1)
  w_gate, b_gate = up.chunk(2, dim=-1)[0], up_bias.squeeze(-2).chunk(2, dim=-1)[0]
  gates = width**0.5 * torch.linalg.matrix_norm(w_gate, ord=2) + b_gate.norm(dim=-1)
  inner = projected.max(), values * merge.norm(dim=-2).max(), (gate * value).max()
  last = gates.max() * value.max() * down.norm(dim=-2).max()
  return max(float(bound) for bound in inner), float(last)


@contextlib.contextmanager
def float32_products(kind: str) -> Iterator[None]:
  """Multiply float32 matrices in "ieee" float32 or in "tf32" within the context.

  The previous choice of the program is restored. This uses the only interface of torch
  that can always be read.
  """
  matmul = torch.backends.cuda.matmul
  before = matmul.fp32_precision
  matmul.fp32_precision = kind
  try:
    yield
  finally:
    matmul.fp32_precision = before
