"""The fast ways to a score give what the plain one gives."""

import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable
from typing import cast

import pytest
import torch
from torch import Tensor

from smp.diffusion.denoiser import Block, Denoiser
from smp.diffusion.fused import FusedDenoiser, fits
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.score import FoldedDenoiser, resolve_precision
from smp.errors import UserError
from smp.paths import ROOT, resolve_prior

SHARPNESS = 6.0


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
from smp.diffusion.fused import FusedDenoiser
from tests.test_score import _denoiser, _plain
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
  folded = FoldedDenoiser(denoiser, denoiser.time_modulation(t), "float32")
  torch.testing.assert_close(folded(x), _plain(denoiser, x, t), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_float32_is_float32_whatever_the_program_allows(precision, monkeypatch):
  denoiser, seen = _denoiser(), []
  folded = FoldedDenoiser(
    denoiser, denoiser.time_modulation(torch.arange(2)), precision
  )
  matmul = torch.backends.cuda.matmul
  monkeypatch.setattr(folded, "_forward", lambda x: seen.append(matmul.allow_tf32))
  before = matmul.allow_tf32
  try:
    for allowed in (True, False):
      matmul.allow_tf32 = allowed
      folded(torch.zeros(2, 1, 10, 59))
      assert matmul.allow_tf32 == allowed
  finally:
    matmul.allow_tf32 = before
  assert seen == 2 * [precision != "float32"]


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
  return torch.exp(-SHARPNESS * (error.double() / scale).mean(dim=1))


@pytest.mark.parametrize("precision, bound", [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_r_smp_stays_within_its_bound_of_float64(exact, precision, bound):
  """Products in bfloat16 round as on a GPU: inputs to 8 bits, sums in float32."""
  prior, windows, noise, error = exact
  scale = error.mean(dim=0)
  found = prior.score_at(SCORED_TIMESTEPS, precision)(windows, noise)
  off = (_r_smp(found, scale) / _r_smp(error, scale) - 1.0).abs()
  assert off.max() < bound
  assert off.max() > 0.0


def test_scores_do_not_depend_on_what_was_scored_before(exact):
  prior, windows, noise, _ = exact
  score = prior.score_at(SCORED_TIMESTEPS)
  first = score(windows, noise).clone()
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # Tensors that torch has to resize.
    score(windows[:7], noise[:, :7])
    assert torch.equal(score(windows, noise), first)


def test_precision_is_that_of_the_device():
  cpu, gpu = torch.device("cpu"), torch.device("cuda")
  assert resolve_precision("auto", cpu) == "float32"
  assert resolve_precision("auto", gpu) == "bfloat16"
  assert resolve_precision("tf32", gpu) == "tf32"
  with pytest.raises(UserError, match="tf32"):
    resolve_precision("tf32", cpu)
  with pytest.raises(UserError, match="choose one of"):
    resolve_precision("float16", gpu)
