"""The replay buffer: what it returns, and that rewards are formed when it is asked."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from smp.errors import UserError
from smp.mdp.composition import RewardForm, compose
from smp.rl.replay import Batch, ReplayBuffer, Step, check_memory

MU = torch.tensor([0.6, 0.3])
PRODUCT = RewardForm("product", 6.0, 0.5, 0.5)
TASK = RewardForm("task_only", 6.0, 0.5, 0.5)
ENVS, GAMMA = 3, 0.9


def make_step(time: int, terminated=(), truncated=(), task: float = 1.0) -> Step:
  """A step whose observations say when and where it happened."""
  env = torch.arange(ENVS).float()
  obs = torch.stack((torch.full((ENVS,), float(time)), env), dim=-1)
  ended = torch.zeros(2, ENVS, dtype=torch.bool)
  ended[0, list(terminated)] = True
  ended[1, list(truncated)] = True
  return Step(
    obs=obs,
    critic_obs=obs,
    action=obs,
    next_obs=obs + torch.tensor([0.5, 0.0]),  # Told apart from the next row's.
    next_critic_obs=obs + torch.tensor([0.5, 0.0]),
    task=torch.full((ENVS,), task),
    error=torch.full((ENVS, 2), 0.1 + 0.01 * time),
    floor=torch.zeros(ENVS),
    extra=torch.zeros(ENVS),
    terminated=ended[0],
    truncated=ended[1],
  )


def make_buffer(capacity: int = 50) -> ReplayBuffer:
  return ReplayBuffer(capacity, ENVS, 2, 2, 2, 2, "cpu")


def filled(steps: int, capacity: int = 50, ends=()) -> ReplayBuffer:
  """A buffer of ``steps`` steps; ``ends`` are (time, env, kind)."""
  buffer = make_buffer(capacity)
  for time in range(steps):
    here = {
      k: [e for t, e, kind in ends if t == time and kind == k] for k in ("x", "o")
    }
    buffer.push(make_step(time, here["x"], here["o"]))
  return buffer


def rows_of(batch: Batch, time: int, env: int) -> torch.Tensor:
  return (batch.obs[:, 0] == time) & (batch.obs[:, 1] == env)


def test_returns_add_up_discounted_rewards_of_n_steps():
  batch = filled(20).sample(400, 3, GAMMA, MU, TASK)
  expected = 1 + GAMMA + GAMMA**2
  torch.testing.assert_close(batch.reward, torch.full((400,), expected))
  torch.testing.assert_close(batch.discount, torch.full((400,), GAMMA**3))
  # The observation after the third step, of the same environment.
  torch.testing.assert_close(batch.next_obs[:, 0], batch.obs[:, 0] + 2.5)
  assert torch.equal(batch.next_obs[:, 1], batch.obs[:, 1])


def test_a_failure_ends_the_return_and_has_no_value():
  batch = filled(20, ends=[(10, 1, "x")]).sample(2000, 3, GAMMA, MU, TASK)
  for start, taken in ((10, 1), (9, 2), (8, 3)):
    rows = rows_of(batch, start, 1)
    assert rows.any()
    total = sum(GAMMA**k for k in range(taken))
    found = batch.reward[rows]
    torch.testing.assert_close(found, torch.full_like(found, total))
    assert (batch.discount[rows] == 0.0).all()
  assert (batch.discount[rows_of(batch, 10, 0)] > 0).all()
  assert (batch.discount[rows_of(batch, 7, 1)] > 0).all()


def test_a_time_out_bootstraps_from_the_true_last_observation():
  batch = filled(20, ends=[(10, 2, "o")]).sample(2000, 3, GAMMA, MU, TASK)
  for start, taken in ((10, 1), (9, 2), (8, 3)):
    rows = rows_of(batch, start, 2)
    assert rows.any()
    found = batch.discount[rows]
    torch.testing.assert_close(found, torch.full_like(found, GAMMA**taken))
    # What step 10 led to, not what step 11 began with.
    assert (batch.next_obs[rows, 0] == 10.5).all()


def test_rewards_are_those_of_the_scale_and_form_of_today():
  buffer = filled(20)
  buffer.push(replace(make_step(20), floor=torch.full((ENVS,), 0.5)))
  for mu in (MU, 3 * MU):
    for form in (PRODUCT, RewardForm("weighted_sum", 2.0, 0.3, 0.7)):
      torch.manual_seed(0)
      batch = buffer.sample(300, 1, GAMMA, mu, form)
      time = batch.obs[:, 0]
      error = (0.1 + 0.01 * time).unsqueeze(-1).expand(-1, 2)
      floor = torch.where(time == 20, 0.5, 0.0)
      expected = compose(torch.ones(300), error, floor, mu, form)
      torch.testing.assert_close(batch.reward, expected)


def test_rewards_outside_of_the_composition_are_added():
  buffer = make_buffer()
  step = make_step(0, task=0.0)
  buffer.push(replace(step, extra=torch.full((ENVS,), -0.25)))
  batch = buffer.sample(10, 1, GAMMA, MU, PRODUCT)
  torch.testing.assert_close(batch.reward, torch.full((10,), -0.25))


def test_only_the_last_steps_are_kept_and_none_crosses_the_seam():
  buffer = filled(137, capacity=50)
  batch = buffer.sample(3000, 3, GAMMA, MU, TASK)
  times = batch.obs[:, 0]
  assert times.min() == 137 - 50 and times.max() == 137 - 3
  torch.testing.assert_close(batch.next_obs[:, 0], times + 2.5)


def test_a_batch_splits_into_parts_that_are_all_of_it():
  size = 4
  whole = Batch(*(torch.rand(3 * size, 2) for _ in fields(Batch)))
  parts = whole.split(size)
  assert [len(part.reward) for part in parts] == 3 * [size]
  for field in fields(Batch):
    joined = torch.cat([getattr(part, field.name) for part in parts])
    torch.testing.assert_close(joined, getattr(whole, field.name), rtol=0, atol=0)


def test_too_few_steps_are_no_batch():
  with pytest.raises(ValueError, match="2 steps stored, 3 needed"):
    filled(2).sample(4, 3, GAMMA, MU, TASK)


def test_what_is_saved_comes_back():
  for steps in (7, 61):
    old, new = filled(steps, ends=[(5, 0, "x")]), make_buffer()
    new.load_state_dict(old.state_dict())
    torch.manual_seed(0)
    a = old.sample(100, 3, GAMMA, MU, PRODUCT)
    torch.manual_seed(0)
    b = new.sample(100, 3, GAMMA, MU, PRODUCT)
    for field in fields(Batch):
      assert torch.equal(getattr(a, field.name), getattr(b, field.name))
    for buffer in (old, new):
      buffer.push(make_step(1000))
    assert torch.equal(old.state_dict()["obs"], new.state_dict()["obs"])


def test_a_buffer_of_another_size_is_refused():
  state = filled(10, capacity=40).state_dict()
  with pytest.raises(ValueError, match="up to 40 steps"):
    make_buffer(50).load_state_dict(state)
  state = filled(10).state_dict()
  state["action"] = state["action"][..., :1]
  with pytest.raises(ValueError, match=r"action has shape \(10, 3, 1\), expected"):
    make_buffer().load_state_dict(state)
  with pytest.raises(ValueError, match="obs has shape None"):
    make_buffer().load_state_dict({"capacity": 50})


def test_too_little_memory_is_said_with_how_much_is_needed():
  with pytest.raises(UserError, match=r"needs 1024\.0 GiB.*--agent.replay-steps"):
    check_memory(2**40, "cpu", 8000)


def test_no_return_runs_from_a_loaded_step_into_a_new_episode():
  state = filled(6, ends=((5, 1, "x"),)).state_dict()
  buffer = make_buffer()
  buffer.load_state_dict(state)
  for time in range(100, 106):
    buffer.push(make_step(time))
  batch = buffer.sample(4000, 3, GAMMA, MU, TASK)
  crossing = (batch.obs[:, 0] < 6) & (batch.next_obs[:, 0] >= 100)
  assert not crossing.any()
  # The last step of before counts as a time-out, unless it was a failure.
  last = rows_of(batch, 5, 0)
  assert last.any() and torch.allclose(batch.discount[last], torch.tensor(GAMMA))
  failed = rows_of(batch, 5, 1)
  assert failed.any() and not batch.discount[failed].any()
