"""Multi-step score matching: DDIM steps from the noised window to a clean one."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from smp.diffusion.ddpm import score_path
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.diffusion.sds import on_cpu
from smp.diffusion.styles import BlendedDenoiser, StyleCfg
from smp.errors import UserError
from tests.diffusion.test_styles import FEATURES, STEPS, make_prior, windows

CHOICES = [
  StyleCfg(),
  StyleCfg("run"),
  StyleCfg("run", upper="walk"),
  StyleCfg(lower="crouch", weight=2.0),
]
"""A prior without labels, under one, and under several of them."""


def noise_for(x: Tensor) -> Tensor:
  return torch.randn(3, *x.shape, generator=torch.Generator().manual_seed(2))


class ExactScore(nn.Module):
  """The noise predicted by the score of independent Gaussians."""

  def __init__(self, prior: MotionPrior, mean: Tensor, std: Tensor) -> None:
    super().__init__()
    self.schedule, self.mean, self.std = prior.schedule, mean, std

  def time_modulation(self, t: Tensor) -> Tensor:
    """Return signal and noise (2, K, 1, 1)."""
    levels = torch.stack((self.schedule.signal[t], self.schedule.noise[t]))
    return levels.unsqueeze(-1).unsqueeze(-1)

  def forward_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
    signal, noise = modulation
    variance = (signal * self.std).square() + noise.square()
    return noise * (x - signal * self.mean) / variance


@pytest.mark.parametrize("count", [1, 2, 3])
def test_steps_of_an_exact_score_reproduce_the_closed_form(count: int):
  """Of each factor between the levels of noise, and of the posterior at the end."""
  prior, x = make_prior(()), windows()
  mean, std = 0.3 * windows(1, 7)[0, 0], 0.2 + windows(1, 8)[0, 0].abs()
  prior.denoiser = cast(Denoiser, ExactScore(prior, mean, std))
  noise = noise_for(x)
  found = prior.multi_step_error(x, STEPS, noise, count)
  schedule = prior.schedule.double()
  for k, t in enumerate(STEPS):
    a = [schedule.signal[t - 2 * i] for i in range(count)]
    s = [schedule.noise[t - 2 * i] for i in range(count)]
    variance = [(a * std) ** 2 + s**2 for a, s in zip(a, s, strict=True)]
    away = a[0] * (x - mean) + s[0] * noise[k]
    for i in range(count - 1):
      away = away * (a[i + 1] * a[i] * std**2 + s[i + 1] * s[i]) / variance[i]
    end = mean + away * a[-1] * std**2 / variance[-1]
    expected = (a[0] / s[0] * (end - x)).square().mean(dim=(-2, -1))
    torch.testing.assert_close(found[:, k], expected.float(), rtol=1e-3, atol=1e-5)


def test_a_distribution_of_one_window_has_no_error_after_any_steps():
  prior, x = make_prior(()), windows(1).expand(4, -1, -1)
  prior.denoiser = cast(Denoiser, ExactScore(prior, x[0], torch.tensor(0.0)))
  for count in (1, 3):
    error = prior.multi_step_error(x, STEPS, noise_for(x), count)
    assert float(error.max()) < 1e-6


@pytest.mark.parametrize("style", CHOICES)
def test_one_step_is_the_sds_loss_to_the_bit(style: StyleCfg):
  """Of the same products in the same order."""
  prior, x = make_prior().with_style(style), windows()
  noise, t = noise_for(x), torch.tensor(STEPS)
  gain, offset = prior.affine()
  signal, scale = (
    level[t].view(-1, 1, 1, 1)
    for level in (prior.schedule.signal, prior.schedule.noise)
  )
  noised = (noise * scale).addcmul(torch.addcmul(offset, x, gain), signal)
  modulation = prior.denoiser.time_modulation(t).unsqueeze(2)
  plain = prior.denoiser.forward_modulated(noised, modulation)
  plain = (plain - noise).square().mean(dim=(-2, -1)).transpose(0, 1)
  assert torch.equal(prior.sds_loss_at(STEPS, score_steps=1)(x, noise), plain)
  torch.testing.assert_close(
    prior.multi_step_error(x, STEPS, noise, 1),
    prior.denoising_error(x, t, noise),
    rtol=1e-4,
    atol=1e-5,
  )


@pytest.mark.parametrize("style", CHOICES)
@pytest.mark.parametrize("d_model, nhead", [(32, 4), (64, 2)])
def test_the_prepared_score_is_the_plain_one(style: StyleCfg, d_model: int, nhead: int):
  """With and without compiled C, and in every call."""
  prior = make_prior()
  torch.manual_seed(1)
  prior.denoiser = Denoiser(FEATURES, 10, d_model, nhead, num_styles=3)
  prior = prior.requires_grad_(False).with_style(style)
  blended = isinstance(prior.denoiser, BlendedDenoiser)
  assert blended == (style.title() not in ("no style", "run"))
  x, score = windows(), prior.sds_loss_at(STEPS, score_steps=3)
  assert not any(map(on_cpu, score._predictors)) or d_model == 64
  for factor in (1.0, 3.0, 1.0):
    noise = factor * noise_for(x)
    expected = prior.multi_step_error(x, STEPS, noise, 3)
    torch.testing.assert_close(score(x, noise), expected, rtol=1e-4, atol=1e-5)
    one = prior.sds_loss_at(STEPS)(x, noise)
    assert not torch.allclose(one, expected, rtol=1e-2)


def test_inputs_stay_and_memory_is_reused():
  prior, x = make_prior(), windows()
  noise = noise_for(x)
  kept, score = (x.clone(), noise.clone()), prior.sds_loss_at(STEPS, score_steps=3)
  first = score(x, noise)
  memory = score._noised.data_ptr()
  assert torch.equal(score(x, noise), first)
  assert score._noised.data_ptr() == memory
  assert torch.equal(x, kept[0]) and torch.equal(noise, kept[1])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_folded_weights_are_those_of_each_step(precision):
  prior, x = make_prior().with_style(StyleCfg("run")), windows()
  noise = noise_for(x)
  torch.testing.assert_close(
    prior.sds_loss_at(STEPS, precision, score_steps=3)(x, noise),
    prior.multi_step_error(x, STEPS, noise, 3),
    rtol=0.05,
    atol=0.0,
  )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_weights_of_the_steps_sum_to_one(count: int):
  path = score_path(make_prior().schedule, STEPS, count)
  total = torch.stack([step.weight for step in path]).sum(dim=0)
  torch.testing.assert_close(total, torch.ones(3, 1, 1, 1))
  assert all(bool((step.weight > 0.0).all()) for step in path)
  assert [step.timesteps.tolist() for step in path] == [
    [t - 2 * i for t in STEPS] for i in range(count)
  ]


@pytest.mark.parametrize("count", [0, -1, 6])
def test_a_bad_number_of_steps_is_one_line(count: int):
  message = f"score_steps is {count}, expected 1 to 5: .* first is at timesteps .8, 15"
  with pytest.raises(UserError, match=message) as caught:
    make_prior().sds_loss_at(STEPS, score_steps=count)
  assert "\n" not in str(caught.value)
