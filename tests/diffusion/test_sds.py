"""The fast ways to a score give what the plain one gives."""

import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable
from typing import cast, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from smp.diffusion import sds
from smp.diffusion.denoiser import Block, Denoiser
from smp.diffusion.native_denoiser import FusedDenoiser, fits
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.sds import (
  FoldedDenoiser,
  Precision,
  _fold,
  _largest_products,
  resolve_precision,
)
from smp.errors import UserError
from smp.paths import ROOT, resolve_prior

SDS_SCALE = 6.0


def _denoiser(features: int = 59, window: int = 10, **sizes: int) -> Denoiser:
  torch.manual_seed(0)
  denoiser = Denoiser(features, window, **sizes)
  with torch.no_grad():
    for weight in denoiser.parameters():
      weight.mul_(1.5)
  return denoiser.eval().requires_grad_(False)


def _plain(denoiser: Denoiser, x: Tensor, t: Tensor) -> Tensor:
  """One call for each group, each window with its own timestep."""
  return torch.stack(
    [denoiser(group, step.expand(len(group))) for group, step in zip(x, t, strict=True)]
  )


@pytest.mark.parametrize(
  "windows, features, window, sizes",
  [
    (1, 59, 10, {"d_model": 128}),
    (4, 59, 10, {"d_model": 128}),
    (9, 59, 10, {"d_model": 128}),  # Blocks of 4, 4 and 1: 10 rows.
    (
      6,
      64,
      7,
      {"d_model": 64, "nhead": 2, "num_layers": 3},
    ),  # Rows of zeros at the end.
    (3, 20, 33, {"d_model": 96, "nhead": 3, "num_layers": 1}),
  ],
)
def test_fused_denoiser_is_the_denoiser(windows, features, window, sizes):
  denoiser = _denoiser(features, window, **sizes)
  x, t = torch.randn(3, windows, window, features), torch.tensor([3, 15, 40])
  modulation = denoiser.time_modulation(t)
  one = FusedDenoiser(denoiser, threads=1)(x, modulation)
  torch.testing.assert_close(one, _plain(denoiser, x, t), rtol=1e-5, atol=1e-5)
  # Which thread takes which windows makes no difference, nor what was there before.
  two = FusedDenoiser(denoiser, threads=2)
  two(10.0 * x, modulation)
  assert torch.equal(two(x, modulation), one)


_OTHER_PROCESSOR = """
import sys, warp
warp.config.cpu_compiler_flags = f"-target-cpu {sys.argv[1]}"
import torch
from smp.diffusion.native_denoiser import FusedDenoiser
from tests.diffusion.test_sds import _denoiser, _plain
denoiser, t = _denoiser(), torch.tensor([3, 15])
x = torch.randn(2, 5, 10, 59)
fused = FusedDenoiser(denoiser, threads=2)(x, denoiser.time_modulation(t))
torch.testing.assert_close(fused, _plain(denoiser, x, t), rtol=1e-5, atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["haswell", "x86-64-v2"])
def test_fused_denoiser_on_processors_with_less(processor):
  """With vectors half as wide, and with neither those nor fused multiply-add."""
  if platform.machine().lower() not in ("x86_64", "amd64"):
    pytest.skip("compiles for other x86-64 processors than this one")
  command = [sys.executable, "-c", _OTHER_PROCESSOR, processor]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_fused_denoiser_survives_extreme_windows():
  """No overflow in exponentials: attention as sharp, activations as large as can be."""
  denoiser = _denoiser()
  with torch.no_grad():
    for block in cast(Iterable[Block], denoiser.blocks):
      block.to_q.weight.mul_(1e3)
      block.ff.act.proj.weight.mul_(1e3)
  x, t = 1e3 * torch.randn(1, 4, 10, 59), torch.tensor([8])
  fused = FusedDenoiser(denoiser)(x, denoiser.time_modulation(t))
  plain = _plain(denoiser, x, t)
  torch.testing.assert_close(
    fused, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max())
  )
  x[0, 2, 3, 4] = float("nan")
  fused = FusedDenoiser(denoiser)(x, denoiser.time_modulation(t))
  assert fused[0, 2].isnan().any()
  assert fused[0, [0, 1, 3]].isfinite().all()


def test_fused_denoiser_refuses_what_it_would_read_wrongly():
  denoiser = _denoiser()
  fused, modulation = FusedDenoiser(denoiser), denoiser.time_modulation(torch.arange(2))
  x = torch.randn(2, 3, 10, 59)
  for wrong in (x[..., :50], x[:1], x.double(), x.transpose(0, 1), x[:, :, :5]):
    with pytest.raises(ValueError):
      fused(wrong, modulation)
  odd = _denoiser(d_model=40, nhead=4)
  assert not fits(odd) and fits(denoiser)
  with pytest.raises(ValueError, match="sizes"):
    FusedDenoiser(odd)


def test_folded_weights_are_the_denoiser():
  denoiser = _denoiser()
  x, t = torch.randn(3, 5, 10, 59), torch.tensor([3, 15, 40])
  folded = FoldedDenoiser(denoiser, t, "float32")
  torch.testing.assert_close(folded(x), _plain(denoiser, x, t), rtol=1e-4, atol=2e-5)


def test_attention_in_parts_is_attention(monkeypatch):
  denoiser, t = _denoiser(), torch.tensor([3, 15, 40])
  x, folded = torch.randn(3, 5, 10, 59), FoldedDenoiser(denoiser, t, "float32")
  whole, sizes, attend = folded(x), [], sds.F.scaled_dot_product_attention

  def counted(q, k, v):
    sizes.append(len(q))
    return attend(q, k, v)

  monkeypatch.setattr(sds.F, "scaled_dot_product_attention", counted)
  monkeypatch.setattr(sds, "MAX_ATTENDED", 6)
  torch.testing.assert_close(folded(x), whole)
  assert sizes == 2 * [6, 6, 3]


@pytest.mark.parametrize("precision", get_args(Precision)[1:])
def test_float32_is_float32_whatever_the_program_allows(precision, monkeypatch):
  denoiser, seen = _denoiser(), []
  folded = FoldedDenoiser(denoiser, torch.arange(2), precision)
  matmul = torch.backends.cuda.matmul
  monkeypatch.setattr(folded, "_forward", lambda x: seen.append(matmul.fp32_precision))
  before = matmul.fp32_precision
  try:
    for allowed in ("ieee", "tf32"):  # mjlab's training sets the second.
      matmul.fp32_precision = allowed
      folded(torch.zeros(2, 1, 10, 59))
      assert matmul.fp32_precision == allowed
  finally:
    matmul.fp32_precision = before
  assert seen == 2 * ["ieee" if precision == "float32" else "tf32"]


def test_float16_is_refused_where_its_range_is_too_small():
  denoiser, t = _denoiser(), torch.arange(2)
  with torch.no_grad():
    for block in cast(Iterable[Block], denoiser.blocks):
      block.ff.act.proj.weight.mul_(100.0)
  with pytest.raises(UserError, match="float16: products .* may reach .* bfloat16"):
    FoldedDenoiser(denoiser, t, "float16")
  FoldedDenoiser(denoiser, t, "bfloat16")


def test_bounds_hold_for_the_products_of_any_window():
  """And are no larger than they must be by more than a factor of 300."""
  denoiser, t = _denoiser().double(), torch.tensor([3, 40])
  with torch.no_grad():
    cast(Block, denoiser.blocks[0]).ff.act.proj.weight[0].mul_(50.0)
  modulation = denoiser.time_modulation(t)[0]
  block = cast(Block, denoiser.blocks[0])
  inner, last = _largest_products(_fold(block, modulation))
  found_inner, found_last = 0.0, 0.0

  def watch(module, inputs, output):
    nonlocal found_inner
    found_inner = max(found_inner, float(output.abs().max()))

  for module in (block.to_q, block.to_k, block.to_v, block.ff.act):
    module.register_forward_hook(watch)
  gate = modulation[:, 5].abs()

  def watch_last(module, inputs, output):
    nonlocal found_last
    product = (output - module.bias).abs().flatten(1, 2).amax(dim=1) * gate
    found_last = max(found_last, float(product.max()))

  block.ff.proj_out.register_forward_hook(watch_last)
  column = block.ff.act.proj.weight[0] * (1.0 + modulation[0, 4])
  for x in (torch.randn(2, 500, 10, 128), column.expand(2, 1, 10, 128)):
    # The layer norm of the column is about the input that makes its product largest.
    block(x.double() - x.double().mean(dim=-1, keepdim=True), modulation.unsqueeze(1))
  assert inner / 300 < found_inner < inner
  assert last / 300 < found_last < last


def test_bounds_are_reached():
  """By the window whose layer norm lies along all weights."""
  along = F.normalize(torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -3.0, 1.0, -1.0]), dim=0)
  up, down = torch.zeros(1, 8, 6), torch.zeros(1, 3, 8)
  up[0, :, 1], up[0, :, 4], down[0, 1, 7] = 20.0 * along, 3.0 * along, 5.0
  rest = torch.zeros(1, 8, 24), torch.zeros(1, 1, 24), torch.zeros(1, 8, 8)
  layer = [*rest, up, torch.zeros(1, 1, 6), down, torch.zeros(1, 1, 8)]
  inner, last = _largest_products(layer)
  gate, value = (F.layer_norm(along, (8,), eps=0.0) @ up[0]).chunk(2)
  product = F.silu(gate) * value
  assert float(product.max()) == pytest.approx(inner, rel=1e-5)
  assert float((product @ down[0]).max()) == pytest.approx(last, rel=1e-5)


def test_a_last_product_past_float16_is_scaled():
  """Powers of two: the same numbers, in a range that holds them."""
  denoiser, t = _denoiser(), torch.tensor([3, 15])
  with torch.no_grad():
    for block in cast(Iterable[Block], denoiser.blocks):
      block.ff.proj_out.weight.mul_(1e5)
  half, full = (FoldedDenoiser(denoiser, t, p) for p in ("float16", "float32"))
  assert max(half._scales) > 1.0 and set(full._scales) == {1.0}
  x = torch.randn(2, 4, 10, 59)
  expected = full(x)
  off = (half(x) - expected).abs().max() / expected.abs().max()
  assert 0.0 < off < 5e-3


@pytest.fixture(scope="module")
def exact() -> tuple[MotionPrior, Tensor, Tensor, Tensor]:
  """The loco prior, windows from familiar to strange, noise, and float64 errors."""
  prior = MotionPrior.load(resolve_prior("loco"))
  generator = torch.Generator().manual_seed(0)
  windows = prior.sample(60, generator)
  strange = torch.linspace(0.0, 0.3, 60).view(-1, 1, 1)
  windows = windows + strange * torch.randn(windows.shape, generator=generator)
  noise = torch.randn(3, 60, 10, 59, generator=generator)
  double = MotionPrior.load(resolve_prior("loco")).double()
  steps = torch.tensor(SCORED_TIMESTEPS)
  error = double.denoising_error(windows.double(), steps, noise.double())
  return prior, windows, noise, error


def _r_smp(error: Tensor, scale: Tensor) -> Tensor:
  return torch.exp(-SDS_SCALE * (error.double() / scale).mean(dim=1))


@pytest.mark.parametrize("precision, bound", [("float32", 1e-4), ("float16", 1e-2)])
@pytest.mark.parametrize("familiar", [10, 60])
def test_r_smp_stays_within_its_bound_of_float64(exact, precision, bound, familiar):
  """Products in float16 round as on a GPU: inputs to 11 bits, sums in float32. With the
  mean error of the most familiar windows as scale, rounding weighs most."""
  prior, windows, noise, error = exact
  scale = error[:familiar].mean(dim=0)
  keep = (error / scale).mean(dim=1) < 2.0  # Elsewhere r_smp is 0 to five decimals.
  windows, noise, error = windows[keep], noise[:, keep], error[keep]
  assert keep.sum() >= 5
  found = prior.sds_loss_at(SCORED_TIMESTEPS, precision)(windows, noise)
  off = (_r_smp(found, scale) / _r_smp(error, scale) - 1.0).abs()
  assert off.max() < bound
  assert off.max() > 0.0


def test_scores_do_not_depend_on_what_was_scored_before(exact):
  prior, windows, noise, _ = exact
  scored = prior.sds_loss_at(SCORED_TIMESTEPS)
  first = scored(windows, noise).clone()
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # Tensors that torch has to resize.
    scored(windows[:7], noise[:, :7])
    assert torch.equal(scored(windows, noise), first)


def test_precision_is_that_of_the_device():
  cpu, gpu = torch.device("cpu"), torch.device("cuda")
  assert resolve_precision("auto", cpu) == "float32"
  assert resolve_precision("auto", gpu) == "float16"
  assert resolve_precision("tf32", gpu) == "tf32"
  with pytest.raises(UserError, match="tf32"):
    resolve_precision("tf32", cpu)
  with pytest.raises(UserError, match="choose one of"):
    resolve_precision("float8", gpu)
