"""How task reward and prior reward form the reward."""

from __future__ import annotations

import math

import pytest
import torch

from smp.mdp.composition import RewardForm, compose, smp_reward_of

MU = torch.tensor([0.6, 0.3, 0.1])


def form(composition, **changes) -> RewardForm:
  values = {
    "sds_scale": 6.0,
    "task_reward_weight": 0.5,
    "smp_reward_weight": 0.5,
    **changes,
  }
  return RewardForm(composition, **values)


def some(count: int = 200):
  generator = torch.Generator().manual_seed(0)
  task = torch.rand(count, generator=generator)
  error = torch.rand(count, 3, generator=generator)
  return task, error, torch.zeros(count)


def test_errors_equal_to_mu_give_the_exponential_of_the_sharpness():
  r = smp_reward_of(MU.expand(4, 3), MU, sds_scale=6.0)
  torch.testing.assert_close(r, torch.full((4,), math.exp(-6.0)))
  assert smp_reward_of(torch.zeros(1, 3), MU, 6.0) == 1.0


def test_a_diverged_robot_earns_nothing():
  error = torch.tensor([[math.nan, 0.1, 0.1], [math.inf, 0.1, 0.1]])
  assert torch.equal(smp_reward_of(error, MU, 6.0), torch.zeros(2))


def test_each_composition():
  task, error, floor = some()
  r = smp_reward_of(error, MU, 6.0)
  expected = {
    "product": task * r,
    "weighted_sum": 0.2 * task + 0.7 * r,
    "task_only": task,
    "prior_only": r,
  }
  for name, value in expected.items():
    found = compose(
      task, error, floor, MU, form(name, task_reward_weight=0.2, smp_reward_weight=0.7)
    )
    torch.testing.assert_close(found, value)


@pytest.mark.parametrize("name", ["product", "weighted_sum", "task_only", "prior_only"])
def test_no_reward_is_above_the_largest(name):
  task, error, floor = some(1000)
  this = form(name)
  assert compose(task, error, floor, MU, this).max() <= this.max_reward(1.0)
  best = compose(torch.ones(1), torch.zeros(1, 3), torch.zeros(1), MU, this)
  assert best == pytest.approx(this.max_reward(1.0))


def test_a_floor_leaves_some_of_the_task_reward_and_no_more():
  task, error, _ = some()
  r = smp_reward_of(error, MU, 6.0)
  for floor in (0.25, 1.0):
    found = compose(task, error, torch.full_like(task, floor), MU, form("product"))
    torch.testing.assert_close(found, task * (floor + (1 - floor) * r))
