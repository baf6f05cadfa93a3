"""One robot whose physics breaks down harms nobody else."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import load_rl_cfg

from smp.mdp.smp_term import SmpTerm
from smp.rl.runner import SmpRunner
from smp.sim.engine import make_env
from tests.conftest import small_env_cfg, style_of

pytestmark = pytest.mark.slow
ENVS, BROKEN = 4, 2
TASK = "Smp-Forward-G1"


def build(engine: str, task: str = TASK) -> ManagerBasedRlEnv:
  cfg = small_env_cfg(task, num_envs=ENVS)
  env = make_env(cfg, engine, "cpu", threads=1)
  env.reset()
  return env


@pytest.fixture(scope="module", params=["native", "warp"])
def twins(request):
  """Two environments of the same seed."""
  pair = build(request.param), build(request.param)
  yield pair
  for env in pair:
    env.close()


@pytest.fixture(scope="module")
def native():
  env = build("native")
  yield env
  env.close()


def smp_term_of(env: ManagerBasedRlEnv) -> SmpTerm:
  return SmpTerm.of(env)


def others(values: torch.Tensor) -> torch.Tensor:
  return values[[i for i in range(ENVS) if i != BROKEN]]


def bad_names(log: dict[str, Any]) -> list[str]:
  return [name for name, value in log.items() if not math.isfinite(value)]


def step(env: ManagerBasedRlEnv) -> tuple[Any, ...]:
  return env.step(torch.zeros(ENVS, 29))


def all_finite(*parts: torch.Tensor) -> bool:
  return all(bool(torch.isfinite(part).all()) for part in parts)


def test_nan_stays_in_its_environment_which_starts_anew(twins):
  sound, broken = twins
  pool = smp_term_of(broken).init_states.generated.root_pos.clone()
  counts = style_of(smp_term_of(broken)).normalizer.count.item()
  for env in twins:
    step(env)
  before = broken.termination_manager.get_term_cfg("diverged").func.count.item()
  broken.sim.data.qpos[BROKEN, 7:] = math.nan
  results = [step(env) for env in twins]
  obs, reward, terminated, timed_out, extras = results[1]

  assert terminated[BROKEN] and not timed_out[BROKEN]
  assert not others(terminated).any()
  # Its neighbours' physics, reward and score are those of a world without it.
  for name in ("qpos", "qvel"):
    pair = (others(getattr(env.sim.data, name)[:]) for env in twins)
    torch.testing.assert_close(*pair, rtol=0, atol=0)
  torch.testing.assert_close(others(reward), others(results[0][1]), rtol=0.5, atol=0.01)
  assert reward[BROKEN] == 0.0
  assert all_finite(reward, *obs.values(), broken.sim.data.qpos[:])
  assert all_finite(smp_term_of(broken).window.buffer.window().root_pos_w)

  term = smp_term_of(broken)
  assert all_finite(style_of(term).normalizer.mean, term.r_smp())
  assert style_of(term).normalizer.count.item() == counts + 2 * ENVS - 1
  assert torch.equal(term.init_states.generated.root_pos, pool)
  assert extras["log"]["Smp/diverged"] == before + 1
  assert "Smp/diverged" in results[0][4]["log"]
  assert bad_names(extras["log"]) == []
  # It goes on as any other.
  for _ in range(3):
    obs, reward, _, _, extras = step(broken)
  assert all_finite(reward, *obs.values())
  assert broken.episode_length_buf[BROKEN] == 3
  assert extras["log"]["Smp/diverged"] == before + 1


@pytest.mark.parametrize(
  "name, value", [("qpos", math.inf), ("qvel", math.nan), ("qvel", 1e30), ("qvel", 5e3)]
)
def test_other_ways_to_break_down(native, name, value):
  native.reset()
  getattr(native.sim.data, name)[BROKEN, 12] = value
  obs, reward, terminated, _, extras = step(native)
  assert terminated[BROKEN]
  assert all_finite(reward, *obs.values(), native.sim.data.qvel[:])
  assert max(part.abs().max() for part in obs.values()) < 1e4
  assert bad_names(extras["log"]) == []


def test_nan_after_the_check_is_hidden_then_ended(native):
  """As when a push breaks a robot: nobody looks at its state before it is observed."""
  native.reset()
  push = native.event_manager.apply

  def poison(mode: str, **options: Any) -> None:
    push(mode=mode, **options)
    if mode == "interval":
      native.sim.data.qvel[BROKEN, 12] = math.nan

  native.event_manager.apply = poison
  try:
    obs, reward, terminated, *_ = step(native)
  finally:
    native.event_manager.apply = push
  assert not terminated[BROKEN]
  assert all_finite(reward, *obs.values())
  obs, _, terminated, *_ = step(native)
  assert terminated[BROKEN]
  assert all_finite(*obs.values(), native.sim.data.qvel[:])


@pytest.mark.parametrize("task", ["Smp-Steering-G1", "Smp-Location-G1", "Smp-Getup-G1"])
def test_every_task_ends_it(task):
  env = build("native", task)
  env.sim.data.qpos[BROKEN, 2] = math.nan
  obs, reward, terminated, _, extras = step(env)
  assert terminated[BROKEN] and not others(terminated).all()
  assert all_finite(reward, *obs.values())
  assert bad_names(extras["log"]) == []
  env.close()


def test_training_goes_on_over_nan(native, monkeypatch):
  """Networks and the normaliser of observations stay finite."""
  agent = asdict(load_rl_cfg(TASK))
  agent.update(logger="tensorboard", num_steps_per_env=6)
  agent["algorithm"].update(num_learning_epochs=1, num_mini_batches=1)
  runner = SmpRunner(RslRlVecEnvWrapper(native), agent, None, "cpu")
  original, calls = runner.env.step, []

  def poisoned(actions: torch.Tensor) -> Any:
    calls.append(1)
    if len(calls) in (3, 8):
      native.sim.data.qvel[BROKEN] = math.nan
    return original(actions)

  monkeypatch.setattr(runner.env, "step", poisoned)
  before = native.termination_manager.get_term_cfg("diverged").func.count.item()
  runner.learn(2)
  after = native.termination_manager.get_term_cfg("diverged").func.count.item()
  assert after - before == 2
  state = runner.alg.save()
  assert all_finite(*state["actor_state_dict"].values())
  assert all_finite(*state["critic_state_dict"].values())
