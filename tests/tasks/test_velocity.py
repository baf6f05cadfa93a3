"""Smp-Velocity-G1: its configuration, its metrics, and its training's rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg

from smp.episodes.protocol import COMMAND, assign
from smp.episodes.trajectory import Trajectory
from smp.evaluation.policy import recording
from smp.mdp.commands import VelocityCommandCfg
from smp.mdp.rewards import TaskReward, track_velocity_and_yaw_rate
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.rl.off_policy import extra_weights, prepare_env_cfg, value_range
from smp.rl.td3 import COST_SHARE, DEFAULT_SHARE, DEFAULT_SHARE_SCALE, Td3Cfg
from smp.sim import make_env
from smp.tasks import velocity
from tests.conftest import small_env_cfg
from tests.evaluation.test_episode_metrics import standing

TASK = "Smp-Velocity-G1"
FPS, SECONDS, SETTLE = 50.0, 14, 2.0


# What the actor sees.


def test_the_actor_sees_what_a_robot_measures_over_five_frames():
  actor = load_env_cfg(TASK).observations["actor"]
  assert "base_lin_vel" not in actor.terms and actor.history_length == 5
  assert "base_lin_vel" in load_env_cfg(TASK).observations["critic"].terms


def test_other_tasks_are_as_they_were():
  for task in ("Smp-Forward-G1", "Smp-Steering-G1", "Smp-Location-G1"):
    cfg = load_env_cfg(task)
    assert "base_lin_vel" in cfg.observations["actor"].terms
    assert not cfg.observations["actor"].history_length
    assert not {"payload", "motor_gains", "actuator_delay"} & set(cfg.events)
    actuators = cfg.scene.entities["robot"].articulation.actuators  # pyright: ignore[reportOptionalMemberAccess]
    assert all(actuator.delay_max_lag == 0 for actuator in actuators)


def test_each_variation_of_the_robot_can_be_left_out_by_its_name():
  events = load_env_cfg(TASK).events
  assert set(events) == {
    "push_robot",
    "foot_friction",
    "encoder_bias",
    "base_com",
    "payload",
    "motor_gains",
    "actuator_delay",
  }


# Rewards.


@pytest.fixture(scope="module")
def env() -> Iterator[ManagerBasedRlEnv]:
  cfg = small_env_cfg(TASK, 8)
  prepare_env_cfg(cfg)
  env = make_env(cfg, "native", "cpu", threads=1)
  env.reset()
  yield env
  env.close()


@pytest.mark.slow
def test_costs_are_outside_of_the_composition(env):
  costs = extra_weights(env)
  assert set(costs) == {
    "action_rate",
    "joint_limits",
    "torque",
    "self_collision",
    "foot_slip",
    "joint_speed_at_rest",
    "feet_up_at_rest",
  }
  assert all(weight < 0.0 for weight in costs.values())
  assert "self_collision" not in env.termination_manager.active_terms


@pytest.mark.slow
def test_the_atoms_begin_below_zero_where_there_are_costs(env):
  low, high = value_range(env, Td3Cfg())
  best = DEFAULT_SHARE ** (SmpTerm.of(env).cfg.sds_scale / DEFAULT_SHARE_SCALE)
  assert DEFAULT_SHARE < best < 1.0
  assert high == pytest.approx(best) and low == pytest.approx(-COST_SHARE * high)
  assert value_range(env, Td3Cfg(value_range=(0.0, 0.5))) == (0.0, 0.5)
  manager = env.reward_manager
  weights = {name: manager.get_term_cfg(name).weight for name in extra_weights(env)}
  try:
    for name in weights:
      manager.get_term_cfg(name).weight = 0.0
    assert value_range(env, Td3Cfg()) == pytest.approx((0.0, best))
    manager.get_term_cfg("torque").weight = 0.1
    assert value_range(env, Td3Cfg()) == pytest.approx((0.0, 1.1 * best))
  finally:
    for name, weight in weights.items():
      manager.get_term_cfg(name).weight = weight


@pytest.mark.slow
def test_costs_are_small_beside_the_best_reward(env):
  """A robot that stands has to be able to earn more than it pays."""
  manager = env.reward_manager
  total = torch.zeros(8)
  for _ in range(10):
    env.step(torch.zeros(8, 29))
    env._manual_reset_pending[:] = False
    columns = [manager.active_terms.index(name) for name in extra_weights(env)]
    total += manager._step_reward[:, columns].sum(dim=-1) / 10
  assert -0.2 < total.min() <= total.max() < 0.0


def test_episodes_start_at_the_commanded_speed():
  smp_term = cast(SmpTermCfg, load_env_cfg(TASK).commands["smp"])
  assert smp_term.init_speed_bandwidth == 0.2
  task = cast(VelocityCommandCfg, load_env_cfg(TASK).commands["command"])
  assert task.resampling_time_range == (3.0, 8.0)


# How it is judged.


def recorded(commands: list[tuple[float, float, float]], **changes: Any) -> Trajectory:
  """Robots that stand upright and still, one for each command."""
  names = ("vx", "vy", "yaw_rate")
  command = dict(zip(names, torch.tensor(commands).T.unsqueeze(-1), strict=True))
  steps = round(SECONDS * FPS)
  return standing(steps, len(commands), **{"command": command, **changes})


def judged(trajectory: Trajectory) -> dict[str, torch.Tensor]:
  return velocity.values(trajectory, trajectory.valid(), SETTLE)


STAND, WALK, SPIN = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.5)


def test_a_robot_that_stands_still_drifts_nowhere():
  found = judged(recorded([STAND, WALK, SPIN]))
  assert found["velocity_error"].tolist() == [0.0, 1.0, 0.0]
  assert found["yaw_rate_error"].tolist() == [0.0, 0.0, 0.5]
  for name in ("drift", "joint_speed", "feet_lifted"):
    # Only where it was told to stand.
    assert found[name][0] == 0.0 and found[name][1:].isnan().all()
  assert found["speed_ratio"][1] == 0.0
  assert found["speed_ratio"][[0, 2]].isnan().all()


def test_a_pelvis_that_swings_with_each_step_turns_as_fast_on_average():
  trajectory = recorded([WALK, WALK, (1.0, 0.0, 0.5)])
  time = torch.arange(len(trajectory.qvel)) / FPS
  swing = 0.6 * torch.sin(2 * torch.pi * 2.0 * time)
  trajectory.qvel[:, 0, 5] = swing
  trajectory.qvel[:, 1, 5] = swing + 0.2
  found = judged(trajectory)
  assert float(found["yaw_rate_error"][0]) == pytest.approx(
    0.6 * 2 / torch.pi, abs=0.01
  )
  mean = found["mean_yaw_rate_error"]
  torch.testing.assert_close(mean, torch.tensor([0.0, 0.2, 0.5]), atol=0.02, rtol=0.0)


def test_velocity_is_judged_in_the_heading_frame():
  trajectory = recorded([WALK, (0.0, 1.0, 0.0)])
  trajectory.qpos[..., 3] = trajectory.qpos[..., 6] = 0.5**0.5  # Facing +y.
  trajectory.qvel[..., 1] = 0.8
  found = judged(trajectory)
  assert found["velocity_error"][0].item() == pytest.approx(0.2, abs=1e-5)
  assert found["speed_ratio"][0].item() == pytest.approx(0.8, abs=1e-5)
  assert found["speed_ratio"][1].item() == pytest.approx(0.0, abs=1e-5)


def test_stillness_is_judged_once_it_has_settled():
  trajectory = recorded([STAND] * 3)
  settled = round(SETTLE * FPS)
  trajectory.qpos[:settled, 0, 0] = torch.linspace(-3.0, 0.0, settled)
  trajectory.qvel[:settled, 0, 6:] = 5.0
  trajectory.foot_force[20 : settled - 1, 0] = 0.0
  # Drifts by 1 mm a step; trembles; lifts each foot once, one after the other.
  trajectory.qpos[:, 1, 1] = 0.001 * torch.arange(trajectory.steps)
  trajectory.qvel[:, 2, 6:] = 0.3
  trajectory.foot_force[300:310, 2, 0] = 0.0
  trajectory.foot_force[400:410, 2, 1] = 0.0
  found = judged(trajectory)
  assert found["drift"][0] == 0.0 and found["joint_speed"][0] == 0.0
  assert found["drift"][1].item() == pytest.approx(0.5, abs=2e-3)  # In 10 s, not 12.
  assert found["joint_speed"][2].item() == pytest.approx(0.3, abs=1e-5)
  assert found["feet_lifted"].tolist() == [0.0, 0.0, 2.0]


def test_nothing_counts_after_a_fall():
  trajectory = recorded([STAND])
  trajectory.ended[300:] = True
  trajectory.qpos[301:, 0, 0] = 100.0
  trajectory.qvel[301:] = 100.0
  found = judged(trajectory)
  assert found["drift"].item() == 0.0 and found["velocity_error"].item() == 0.0


def test_commands_of_the_evaluation_are_ones_that_are_trained():
  cfg = cast(VelocityCommandCfg, load_env_cfg(TASK).commands["command"])
  conditions = velocity.SPEC.protocol.conditions
  asked = [c.asked for c in conditions if c.sweep == COMMAND]
  assert {"vx": 0.0, "vy": 0.0, "yaw_rate": 0.0} in asked
  for command in asked:
    for name, value in command.items():
      low, high = getattr(cfg, f"{name}_range")
      assert isinstance(value, float) and low <= value <= high
  labels = [c.label for c in conditions]
  assert len(set(labels)) == len(labels)


def test_one_task_reward_tracks_velocity_and_yaw_rate():
  rewards = load_env_cfg(TASK).rewards
  tasks = [term for term in rewards.values() if term.func is TaskReward]
  assert [term.params["task"] for term in tasks] == [track_velocity_and_yaw_rate]
  # Going straight, to turn by 0.25 rad/s on average costs a tenth at least.
  drift = 0.25 * 0.25
  assert math.exp(-tasks[0].params["mean_yaw_scale"] * drift) < 0.9
  assert math.exp(-tasks[0].params["yaw_scale"] * drift) > 0.95  # To and fro does not.


# Stopping.


def test_the_time_to_stop_is_until_the_robot_stays_slow():
  trajectory = recorded([(2.0, 0.0, 0.0)] * 4 + [STAND])
  later = {name: torch.zeros(5, 1) for name in trajectory.command}
  change = round(8.0 * FPS)
  trajectory.later, trajectory.change_step = later, change
  trajectory.qvel[: change + 40, :4, 0] = 2.0  # Stops after 0.8 s,
  trajectory.qvel[change + 60 : change + 70, 1, 1] = 1.0  # staggers before it stays,
  trajectory.qvel[change:, 2, 0] = 1.0  # goes on,
  trajectory.ended[change + 50 :, 3] = True  # or falls.
  found = judged(trajectory)
  left = (trajectory.steps - change) / FPS
  expected = torch.tensor([0.8, 1.4, left, left])
  torch.testing.assert_close(found["stop_time"][:4], expected)
  assert found["stop_time"][4].isnan()
  # Errors count until the command changes.
  assert found["velocity_error"].tolist() == [0.0] * 5
  assert found["drift"][:4].isnan().all()


@pytest.mark.slow
def test_some_commands_change_on_the_way():
  protocol = velocity.SPEC.protocol
  stops = [c for c in protocol.conditions if c.then]
  assert [c.asked["vx"] for c in stops] == list(velocity.STOPS)
  count = len(protocol.conditions)
  assignment = assign(protocol, count, seed=0)
  changes = torch.from_numpy(assignment.changes)
  assert changes.sum() == len(stops)
  short = replace(protocol, seconds=1.0, change_at=0.5, push_times=())
  motion = recording.rollout(
    short,
    replace(assignment, push=assignment.push[:0]),
    0,
    lambda env: lambda obs: torch.zeros(count, 29),
    None,
    recording.Machine("native", "cpu", 1),
  )
  assert motion.change_step == 25
  for name, value in motion.command.items():
    assert (motion.later[name][changes] == 0.0).all()
    assert torch.equal(motion.later[name][~changes], value[~changes])
  assert (motion.command["vx"][changes] > 0.0).all()
  found = velocity.values(motion, motion.valid(), 0.1)
  assert torch.equal(found["stop_time"].isnan(), ~changes)
