"""The noise schedule and the sampler."""

import pytest
import torch
from torch import Tensor

from smp.diffusion.ddpm import CosineSchedule, ddpm_sample
from tests.references import remove_noise


@pytest.fixture
def schedule() -> CosineSchedule:
  return CosineSchedule()


def test_noise_levels_where_the_reward_looks(schedule: CosineSchedule):
  assert schedule.alphas_bar[[8, 15, 22]].tolist() == pytest.approx(
    [0.917, 0.761, 0.556], abs=1e-3
  )


def test_signal_falls_and_noise_rises_to_the_end(schedule: CosineSchedule):
  assert (schedule.alphas_bar.diff() < 0).all()
  assert schedule.alphas_bar[0] > 0.99 and schedule.alphas_bar[-1] < 1e-4
  total = schedule.signal.square() + schedule.noise.square()
  torch.testing.assert_close(total, torch.ones(50))
  assert schedule.betas.max() <= 0.999
  assert not schedule.state_dict()


def test_posterior_of_the_first_step_is_the_clean_signal(schedule: CosineSchedule):
  assert schedule.posterior_x0[0] == pytest.approx(1.0)
  assert schedule.posterior_xt[0] == pytest.approx(0.0, abs=1e-6)
  assert schedule.posterior_std[0] == pytest.approx(0.0, abs=1e-6)


def test_removing_known_noise_recovers_the_signal(schedule: CosineSchedule):
  generator = torch.Generator().manual_seed(0)
  t = torch.arange(40)
  x0 = torch.randn(40, 10, 59, generator=generator)
  eps = torch.randn(40, 10, 59, generator=generator)
  recovered = remove_noise(schedule, schedule.add_noise(x0, eps, t), eps, t)
  torch.testing.assert_close(recovered, x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("steps", "shortfall"), [(50, 0.25), (1000, 0.02)])
def test_sampler_with_the_exact_score_of_a_gaussian(steps: int, shortfall: float):
  """The best prediction of the noise in x_t of a Gaussian is linear and known.

  The variance of the posterior is exact for a single clean signal only: few steps give
  too little variance (11% and 23% less with 50 steps here), many steps give it all.
  """
  schedule = CosineSchedule(steps)
  mean, variance = torch.tensor([0.7, -0.3]), torch.tensor([0.25, 0.04])

  def exact(x: Tensor, t: int) -> Tensor:
    bar = schedule.alphas_bar[t]
    total = bar * variance + (1.0 - bar)
    return (1.0 - bar).sqrt() * (x - bar.sqrt() * mean) / total

  generator = torch.Generator().manual_seed(0)
  sample = ddpm_sample(exact, (20_000, 2), schedule, generator)
  torch.testing.assert_close(sample.mean(0), mean, atol=0.015, rtol=0.0)
  relative = sample.var(0) / variance
  # 20,000 draws know a variance to 1%.
  assert (relative > 1.0 - shortfall - 0.02).all() and (relative < 1.03).all()


def test_sampler_repeats_with_the_same_seed(schedule: CosineSchedule):
  def draw(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return ddpm_sample(lambda x, t: 0.1 * x, (4, 2), schedule, generator)

  assert torch.equal(draw(1), draw(1))
  assert not torch.equal(draw(1), draw(2))
