"""The get-up task's rewards and ends, at hand-computed states and at their edges."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import mujoco
import numpy as np
import pytest
import torch

from smp.mdp import robot_state
from smp.mdp.init_states import INIT_MODES
from smp.mdp.metrics import head_height
from smp.mdp.rewards import hold_head_high, raise_head
from smp.mdp.terminations import StandUpSuccess, out_of_distribution
from smp.motion.rotations import quat_normalize
from smp.robots import g1
from tests.fakes import fake_env

STEP_DT = 0.02
ABOVE_PELVIS = float(head_height(fake_env(1))[0]) - 0.8
"""Of an upright robot with straight joints, m."""


def env_with_heads(heights: list[float], vertical_speeds: list[float]) -> Any:
  """Upright robots with heads at these heights (m), moving up at these speeds (m/s)."""
  env = fake_env(len(heights))
  env.scene.env_origins[:, 2] = 5.0  # The floor may be anywhere.
  env.sim_data.qpos[:, 2] = torch.tensor(heights) - ABOVE_PELVIS + 5.0
  env.sim_data.qvel[:, 2] = torch.tensor(vertical_speeds)
  env.episode_length_buf = torch.ones(len(heights), dtype=torch.long)
  env.step_dt = STEP_DT
  env.extras = {"log": {}}
  kinds = torch.zeros(len(heights), dtype=torch.long)
  smp_term = SimpleNamespace(init_mode=kinds)
  env.command_manager = SimpleNamespace(get_term=lambda _: smp_term)
  env.smp_term = smp_term
  return env


def test_head_counts_from_the_floor_of_its_own_origin():
  env = env_with_heads([0.3, 1.2], [0.0, 0.0])
  torch.testing.assert_close(head_height(env), torch.tensor([0.3, 1.2]))


def test_reward_for_raising_the_head():
  env = env_with_heads(
    [0.2, 0.2, 0.2, 0.8999, 0.9001, 1.2], [0.0, 0.15, 2.0, -1, -1, 0]
  )
  expected = [math.exp(-6.25), math.exp(-1.0), 1.0, math.exp(-156.25), 1.0, 1.0]
  reward = raise_head(env, height=0.9, speed=0.25, scale=100.0)
  torch.testing.assert_close(reward, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_raising_counts_the_turn_of_the_body_too():
  """A body that pitches up lifts the head, although the pelvis stays where it is."""
  env = env_with_heads([0.5], [0.0])
  half = math.pi / 4  # Prone: pitched forward by 90 degrees.
  env.sim_data.qpos[0, 3:7] = torch.tensor([math.cos(half), 0, math.sin(half), 0])
  env.sim_data.qvel[0, 3:6] = torch.tensor([0.0, -1.0, 0.0])  # rad/s, body axes.
  assert raise_head(env, height=0.9, speed=0.25, scale=100.0).item() == 1.0


def test_the_turn_of_the_body_is_in_its_own_axes():
  """As MuJoCo keeps it: the world's axes would give another velocity of the head."""
  env = fake_env(4)
  generator = torch.Generator().manual_seed(0)
  qpos, qvel = env.sim_data.qpos, env.sim_data.qvel
  qpos[:, 3:7] = quat_normalize(torch.randn(4, 4, generator=generator))
  qpos[:, 7:] = 0.3 * torch.randn(4, 29, generator=generator)
  qvel.copy_(torch.randn(4, 35, generator=generator))
  model = g1.load_model()
  data, body = mujoco.MjData(model), model.body(g1.HEAD_BODY).id
  _, velocity = robot_state.head_w(env.scene["robot"])
  for i in range(4):
    data.qpos[:], data.qvel[:] = qpos[i].double(), qvel[i].double()
    mujoco.mj_forward(model, data)
    point = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(g1.HEAD_OFFSET)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, point, body)
    np.testing.assert_allclose(velocity[i], jacobian @ data.qvel, atol=1e-4)


def test_reward_for_a_high_head():
  env = env_with_heads([0.1, 0.6, 1.1, 1.3], [0.0] * 4)
  expected = [math.exp(-1.0), math.exp(-0.25), 1.0, 1.0]
  reward = hold_head_high(env, height=1.1, scale=1.0)
  torch.testing.assert_close(reward, torch.tensor(expected))


def test_unfamiliar_motion_at_its_edges():
  env = env_with_heads([0.3] * 4, [0.0] * 4)
  edge = -math.log(0.02) / 6.0
  mean = torch.tensor([edge + 1e-3, edge - 1e-3, edge + 1e-3, math.nan])
  # The mean over timesteps counts, not each of them.
  error = torch.stack((0.5 * mean, mean, 1.5 * mean), dim=1)
  env.smp_term.sds_loss = lambda: error
  env.episode_length_buf = torch.tensor([6, 6, 5, 6])
  ended = out_of_distribution(env, sds_scale=6.0, minimum=0.02, grace_steps=5)
  assert ended.tolist() == [True, False, False, False]


LIMITS: dict[str, Any] = {"height": 1.2, "speed": 0.5, "stand_steps": 25, "hold_s": 2.0}


def stood_up(env: Any) -> StandUpSuccess:
  env.num_envs, env.device = len(env.episode_length_buf), "cpu"
  return StandUpSuccess(cast(Any, None), env)


def steps_until_done(term: StandUpSuccess, env: Any, most: int = 300) -> int | None:
  for step in range(1, most + 1):
    if term(env, **LIMITS)[0]:
      return step
  return None


def test_success_takes_standing_up_and_two_seconds_more():
  env = env_with_heads([1.2001], [0.0])
  assert steps_until_done(stood_up(env), env) == 25 + round(2.0 / STEP_DT)


def test_a_lower_head_starts_it_all_over():
  env = env_with_heads([1.21], [0.0])
  term = stood_up(env)
  for _ in range(124):
    assert not term(env, **LIMITS)[0]
  env.sim_data.qpos[:, 2] -= 0.02
  assert not term(env, **LIMITS)[0] and term.steps[0] == 0
  env.sim_data.qpos[:, 2] += 0.02
  assert steps_until_done(term, env) == 125


@pytest.mark.parametrize("speed", [0.49, 0.51])
def test_only_who_is_slow_has_stood_up(speed: float):
  env = env_with_heads([1.25], [0.0])
  env.sim_data.qvel[0, 0] = speed
  assert steps_until_done(stood_up(env), env) == (125 if speed < 0.5 else None)


def test_a_push_does_not_matter_once_it_stands():
  env = env_with_heads([1.25], [0.0])
  term = stood_up(env)
  for _ in range(25):
    term(env, **LIMITS)
  env.sim_data.qvel[0, 0] = 1.0
  assert steps_until_done(term, env) == 100


def test_reset_clears_the_counter_of_its_environments_only():
  env = env_with_heads([1.25, 1.25], [0.0, 0.0])
  term = stood_up(env)
  for _ in range(10):
    term(env, **LIMITS)
  term.reset(torch.tensor([1]))
  assert term.steps.tolist() == [10, 0]


def test_success_is_logged_by_the_start_of_the_episode_that_ended():
  env = env_with_heads([1.25, 1.25, 0.3, 1.25], [0.0] * 4)
  env.smp_term.init_mode[:] = torch.tensor([0, 1, 1, 3])
  term = stood_up(env)
  term.reset(slice(None))  # The first reset ends no episode.
  done = torch.zeros(4)
  for _ in range(125):
    done = term(env, **LIMITS)
  assert done.tolist() == [True, True, False, True]
  env.smp_term.init_mode[:] = 2  # The next episodes are drawn before terms reset.
  term.reset(torch.arange(3))
  env.extras["log"] = {}
  term(env, **LIMITS)
  log = {name: float(env.extras["log"][f"Success/{name}"]) for name in INIT_MODES}
  assert log == {"prior": 1.0, "prone": 0.5, "supine": 0.0, "left": 0.0, "right": 0.0}


def test_logged_share_forgets_slowly():
  env = env_with_heads([1.25], [0.0])
  term = stood_up(env)
  for _ in range(StandUpSuccess.MEMORY):
    term._kind[0], term._done[0] = 0, True
    term.reset(torch.arange(1))
  assert term._share[0] == pytest.approx(1.0)
  term._kind[0], term._done[0] = 0, False
  term.reset(torch.arange(1))
  assert term._share[0] == pytest.approx(1.0 - 1.0 / StandUpSuccess.MEMORY)


def end_episodes(term: StandUpSuccess, count: int, done: bool) -> None:
  """The first ``count`` robots end episodes that began from the prior."""
  term._kind[:count], term._done[:count] = 0, done
  term.reset(torch.arange(count))


def test_each_episode_counts_once():
  term = stood_up(env_with_heads([1.25] * 6, [0.0] * 6))
  end_episodes(term, 4, True)
  end_episodes(term, 2, False)
  assert term._share[0] == pytest.approx(4 / 6)
  term.reset(torch.arange(6))  # No step since: no episode.
  term.reset(slice(None))
  assert term._share[0] == pytest.approx(4 / 6) and term._seen[0] == 6
  assert not term._share[1:].any()


def test_many_episodes_at_once_are_all_that_is_remembered():
  many = 3 * StandUpSuccess.MEMORY
  term = stood_up(env_with_heads([1.25] * many, [0.0] * many))
  end_episodes(term, many, False)
  end_episodes(term, many, True)
  assert term._share[0] == pytest.approx(1.0)


# The task itself.


@pytest.mark.slow
def test_episodes_start_on_the_ground_in_both_ways(getup_env):
  torch.manual_seed(0)
  getup_env.reset()
  smp_term = getup_env.command_manager.get_term("smp")
  assert head_height(getup_env).max() < 0.6
  assert 0 < (smp_term.init_mode > 0).sum() < 16
  assert smp_term.init_mode.max() < len(INIT_MODES)


@pytest.mark.slow
def test_the_termination_sees_this_steps_error(getup_env, monkeypatch):
  """Of the step it ends, not of the one before: terminations run before rewards."""
  getup_env.reset()
  smp_term = getup_env.command_manager.get_term("smp")
  monkeypatch.setattr(smp_term.style, "sds_loss_fn", lambda *_: torch.zeros(16, 3))
  for _ in range(6):
    *_, terminated, _, _ = getup_env.step(torch.zeros(16, 29))
    assert not terminated.any()
  monkeypatch.setattr(
    smp_term.style, "sds_loss_fn", lambda *_: torch.full((16, 3), 1.0)
  )
  *_, terminated, timed_out, extras = getup_env.step(torch.zeros(16, 29))
  assert terminated.all() and not timed_out.any()
  assert extras["log"]["Episode_Termination/out_of_distribution"] == 16


@pytest.mark.slow
def test_success_is_a_time_out(getup_env):
  getup_env.reset()
  getup_env.step(torch.zeros(16, 29))
  index = getup_env.termination_manager.active_terms.index("stood_up")
  term = getup_env.termination_manager._term_cfgs[index].func
  term.steps[3] = 124
  robot = getup_env.scene["robot"]
  pose = torch.tensor([[0.0, 0.0, 0.79, 1.0, 0.0, 0.0, 0.0]])
  pose[:, :3] += getup_env.scene.env_origins[3]
  ids = torch.tensor([3])
  robot.write_root_link_pose_to_sim(pose, env_ids=ids)
  robot.write_joint_state_to_sim(torch.zeros(1, 29), torch.zeros(1, 29), env_ids=ids)
  robot.write_root_link_velocity_to_sim(torch.zeros(1, 6), env_ids=ids)
  *_, terminated, timed_out, _ = getup_env.step(torch.zeros(16, 29))
  assert timed_out[3] and timed_out.sum() == 1
  assert term.steps[3] == 0
