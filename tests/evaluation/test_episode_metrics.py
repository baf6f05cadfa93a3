"""Figures of an evaluation on motion whose figures are known by construction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from smp.episodes import episode_metrics as fig
from smp.episodes.protocol import (
  COMMAND,
  EPISODE_S,
  PUSH,
  PUSHES,
  assign,
)
from smp.episodes.running_mean import running_mean
from smp.episodes.trajectory import Trajectory, join
from smp.errors import UserError
from smp.evaluation import intervals
from smp.evaluation.policy import motion_similarity
from smp.evaluation.policy.summary import episode_values, rank_within
from smp.motion.dataset import NormStats, load_stats
from smp.motion.features import FEATURE_DIM, SLICES, WINDOW, g1_spec
from smp.paths import NORM_STATS
from smp.robots import g1
from smp.tasks.registry import protocol_of

FPS = 50.0


def counts(steps: int, envs: int = 1) -> torch.Tensor:
  return torch.ones(steps, envs, dtype=torch.bool)


def times(steps: int) -> torch.Tensor:
  return torch.arange(steps, dtype=torch.float64) / FPS


def standing(steps: int, envs: int = 1, **changes: Any) -> Trajectory:
  """Robots that stand upright and still."""
  qpos = torch.zeros(steps, envs, 36)
  qpos[..., 2], qpos[..., 3] = 0.8, 1.0
  values: dict[str, Any] = {
    "fps": FPS,
    "qpos": qpos,
    "qvel": torch.zeros(steps, envs, 35),
    "action": torch.zeros(steps, envs, 29),
    "torque": torch.zeros(steps, envs, 29),
    "foot_force": torch.full((steps, envs, 2), 170.0),
    "task_reward": torch.ones(steps, envs),
    "sds_loss": torch.zeros(steps, envs, 3),
    "r_smp": torch.ones(steps, envs),
    "ended": torch.zeros(steps, envs, 2, dtype=torch.bool),
    "end_names": ("self_collision", "root_too_low"),
    "command": {
      "speed": torch.zeros(envs, 1),
      "direction": torch.tensor([[1.0, 0.0]]).expand(envs, 2).clone(),
      "facing": torch.tensor([[1.0, 0.0]]).expand(envs, 2).clone(),
      "goal": torch.zeros(envs, 2),
    },
    "max_reward": 1.0,
  }
  return Trajectory(**(values | changes))


# Intervals.


def test_wilson_against_known_values():
  """Newcombe (1998), table I: 81 of 263 and 0 of 20."""
  found = intervals.wilson(81, 263)
  assert found.low == pytest.approx(0.2553, abs=5e-5)
  assert found.high == pytest.approx(0.3662, abs=5e-5)
  found = intervals.wilson(0, 20)
  assert (found.value, found.low) == (0.0, 0.0)
  assert found.high == pytest.approx(0.1611, abs=5e-5)
  assert intervals.wilson(20, 20).high == 1.0
  assert intervals.wilson(0, 0).value is None


def test_wilson_holds_the_true_share_as_often_as_it_says():
  rng = np.random.default_rng(0)
  draws = [intervals.wilson(int(k), 30) for k in rng.binomial(30, 0.2, 2000)]
  ends = np.array([(one.low, one.high) for one in draws], dtype=float)
  held = (ends[:, 0] <= 0.2) & (ends[:, 1] >= 0.2)
  assert 0.93 < np.mean(held) < 0.98


def test_mean_against_a_known_value():
  """1, 2, 3, 4: 2.5 and t(0.975, 3) = 3.182 times 1.291 / 2."""
  found = intervals.mean(np.array([1.0, 2.0, 3.0, 4.0, np.nan]))
  assert (found.value, found.count) == (2.5, 4)
  assert found.high == pytest.approx(2.5 + 3.18245 * 1.290994 / 2, abs=1e-4)
  assert intervals.mean(np.array([0.1, 5.0]), signed=False).low == 0.0
  assert intervals.mean(np.array([3.0])).low is None
  assert intervals.mean(np.array([np.nan])).value is None


def test_poisson_interval_against_a_known_value():
  """Garwood: 10 events, 4.795 to 18.39."""
  found = intervals.per_minute(10, 120.0)
  assert found.value == 5.0
  assert found.low == pytest.approx(4.795 / 2, abs=1e-3)
  assert found.high == pytest.approx(18.39 / 2, abs=2e-3)
  assert intervals.per_minute(0, 60.0).low == 0.0


def test_jackknife_of_a_mean_is_the_usual_error():
  values = np.random.default_rng(0).normal(10.0, 1.0, 12)
  found = intervals.jackknife(lambda rows: float(values[rows].mean()), np.arange(12))
  usual = intervals.mean(values)
  assert (found.low, found.high) == pytest.approx((usual.low, usual.high))


# Speed, goals, falls, return.


def test_errors_of_speed_and_facing():
  velocity = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
  command = torch.tensor([[1.0, 0.0]])
  error = fig.velocity_error(velocity, command, counts(2))
  assert error.item() == pytest.approx(math.sqrt(2) / 2)
  assert fig.speed_along(velocity, 2 * command).flatten().tolist() == [1.0, 0.0]
  turn = math.radians(30.0)
  quat = torch.tensor([math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)])
  facing = torch.tensor([[math.cos(math.pi), math.sin(math.pi)]])
  found = fig.facing_error(quat.expand(4, 1, 4), facing, counts(4))
  assert found.item() == pytest.approx(150.0, abs=1e-3)


def test_goal_distance_and_time():
  where = torch.zeros(100, 2, 2)
  where[:, 0, 0] = (times(100) + 1 / FPS).float()  # At 1 m/s towards (1.5, 0).
  goal = torch.tensor([[1.5, 0.0], [0.0, 4.0]])
  time = fig.time_to_goal(where, goal, counts(100, 2), FPS, radius=0.51)
  assert time[0].item() == pytest.approx(1.0) and time[1].isnan()
  valid = counts(100, 2)
  valid[25:, 0] = False
  distance = fig.goal_distance(where, goal, valid)
  assert distance.tolist() == pytest.approx([1.0, 4.0])


def test_return_is_of_its_maximum_and_earns_nothing_after_a_failure():
  ended = torch.zeros(100, 2, 2, dtype=torch.bool)
  ended[49, 0, 1] = True
  motion = standing(100, 2, ended=ended, task_reward=torch.full((100, 2), 1.5))
  found = fig.normalised_return(motion.task_reward, motion.valid(), 2.0)
  assert found.tolist() == pytest.approx([0.375, 0.75])
  assert motion.failed().any(dim=0).tolist() == [True, False]


def test_a_state_that_is_not_finite_does_not_count():
  motion = standing(10, 2)
  motion.qpos[4:, 1, 0] = torch.nan
  assert motion.valid().sum(dim=0).tolist() == [10, 4]
  motion.stops = False
  assert motion.valid().sum(dim=0).tolist() == [10, 4]


def test_runs_side_by_side():
  both = join(
    [
      standing(5, 2, command={"goal": torch.zeros(2, 2)}),
      standing(5, 3, command={"goal": torch.ones(3, 2)}),
    ]
  )
  assert both.num_envs == 5 and both.command["goal"][:, 0].tolist() == [0, 0, 1, 1, 1]
  part = both.select(torch.tensor([False, True, False, True, False]))
  assert part.qpos.shape == (5, 2, 36) and part.command["goal"][:, 0].tolist() == [0, 1]


# Getting up.


def test_the_tasks_criterion_needs_calm_and_then_patience():
  head, speed = torch.full((400, 3), 1.25), torch.zeros(400, 3)
  head[:100] = 0.3
  head[150:, 1] = 1.0  # Falls back after a second.
  speed[:, 2] = 0.6  # Never calm.
  done, time = fig.stood_up(head, speed, FPS, counts(400, 3))
  assert done.tolist() == [True, False, False]
  assert time[0].item() == pytest.approx(2.02) and time[1:].isnan().all()


def test_strict_protocol_at_its_edges():
  head = torch.tensor([1.10, 1.09, 1.2, 1.2, 1.2]).expand(100, 5)
  upright = torch.tensor([0.85, 1.0, 0.84, 1.0, 1.0]).expand(100, 5)
  speed = torch.tensor([0.49, 0.0, 0.0, 0.5, 0.0]).expand(100, 5)
  spin = torch.tensor([0.99, 0.0, 0.0, 0.0, 1.0]).expand(100, 5)
  found = fig.stood_strictly(head, upright, speed, spin, FPS, counts(100, 5))
  assert found.tolist() == [True, False, False, False, False]


def test_strict_protocol_has_ten_seconds():
  head = torch.full((1000, 2), 1.3)
  head[:476, 0], head[:475, 1] = 0.3, 0.3
  calm = torch.zeros(1000, 2)
  found = fig.stood_strictly(head, 1 + calm, calm, calm, FPS, counts(1000, 2))
  assert found.tolist() == [False, True]


def test_sr3_needs_three_seconds_on_both_feet():
  head = torch.full((1000, 3), 1.2)
  head[149:, 0] = 0.3
  head[150:, 1] = 0.3
  force = torch.full((1000, 3, 2), 25.0)
  force[:, 2, 1] = 20.0
  found = fig.stood_sr3(head, torch.ones(1000, 3), force, FPS, counts(1000, 3))
  assert found.tolist() == [False, True, False]


def test_bodies_of_a_standing_robot():
  motion = standing(1)
  soles = fig.sole_positions(motion.qpos)[0, 0]
  assert soles[0, 1] > 0 > soles[1, 1]  # Left, right.
  assert soles[:, 2].abs().max() < 0.02  # The pelvis of a straight G1 is 0.79 m high.
  assert 1.2 < fig.head_height(motion.qpos).item() < 1.4
  quat = torch.tensor([math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0])  # Prone.
  assert fig.uprightness(quat).item() == pytest.approx(0.0, abs=1e-6)


# Naturalness.


def test_a_foot_that_slides_at_a_tenth_of_a_metre_per_second():
  feet = torch.zeros(100, 1, 2, 3, dtype=torch.float64)
  feet[:, 0, 0, 0] = 0.06 * times(100)
  feet[:, 0, 0, 1] = 0.08 * times(100)
  feet[:, 0, 0, 2] = times(100)  # Up and down is no skating.
  feet[:, 0, 1, 0] = 3.0 * times(100)  # A foot in the air may be as fast as it likes.
  contact = torch.zeros(100, 1, 2, dtype=torch.bool)
  contact[:, 0, 0] = True
  found = fig.foot_skate(feet, contact, counts(100), FPS)
  assert found.item() == pytest.approx(100.0, abs=1e-3)
  assert fig.foot_skate(feet, ~contact & False, counts(100), FPS).isnan().all()


def test_a_whole_robot_that_slides():
  """From recorded coordinates: an upright robot moved along at 0.1 m/s."""
  motion = standing(50)
  motion.qpos[:, 0, 0] = 0.1 * times(50).float()
  soles = fig.sole_positions(motion.qpos)
  contact = motion.foot_force > fig.CONTACT_FORCE
  found = fig.foot_skate(soles, contact, motion.valid(), FPS)
  assert found.item() == pytest.approx(100.0, abs=0.1)


def test_constant_jerk():
  joints = torch.zeros(60, 1, 29, dtype=torch.float64)
  joints[..., 3] = (58.0 * times(60) ** 3 / 6).unsqueeze(-1)
  mean, peak = fig.joint_jerk(joints, counts(60), FPS)
  assert peak.item() == pytest.approx(58.0, rel=1e-5)
  assert mean.item() == pytest.approx(2.0, rel=1e-5)


def test_no_difference_reaches_across_the_end_of_an_episode():
  joints = torch.zeros(60, 1, 29)
  joints[30:] = 1.0
  valid = counts(60)
  valid[30:] = False
  assert fig.joint_jerk(joints, valid, FPS)[1].item() == 0.0
  assert [rate.item() for rate in fig.action_rate(joints, valid)] == [0.0, 0.0]


def test_rate_of_actions():
  action = torch.zeros(41, 1, 29)
  action[::2] = 1.0  # To and fro.
  first, second = fig.action_rate(action, counts(41))
  assert (first.item(), second.item()) == (1.0, 2.0)


def test_torque_and_power():
  torque, speed = torch.zeros(4, 1, 29), torch.zeros(4, 1, 29)
  torque[..., 0], speed[..., 0] = -29.0, 2.0
  torque[3, 0, 1], speed[3, 0, 1] = 58.0, -1.0
  found = fig.effort(torque, speed, counts(4))
  expected = {"torque": 1.5, "torque_peak": 58.0, "power": 72.5, "power_peak": 116.0}
  assert {name: value.item() for name, value in found.items()} == expected


def gait(steps: int, swing: float) -> torch.Tensor:
  """Joint angles (steps, 1, 29) that are their own mirror image half a period later."""
  phase = 2 * math.pi * torch.arange(steps) / 50.0
  joints = torch.zeros(steps, 29)
  for i, name in enumerate(g1.JOINT_NAMES):
    other = g1.MIRROR_INDEX[i]
    if name.startswith("left_"):
      joints[:, i] = 0.2 + swing * torch.sin(phase + i)
      joints[:, other] = g1.MIRROR_SIGN[i] * (
        0.2 + swing * torch.sin(phase + i + math.pi)
      )
    elif name == "waist_pitch_joint":
      joints[:, i] = 0.1 + 0.1 * torch.sin(2 * phase)
    elif not name.startswith("right_"):
      joints[:, i] = 0.1 * torch.sin(phase)  # Turns to either side.
  return joints.unsqueeze(1)


def test_a_gait_that_is_its_own_mirror_image_is_symmetric():
  posture, amplitude = fig.asymmetry(gait(200, 0.3), counts(200))
  assert posture.item() == pytest.approx(0.0, abs=1e-3)
  assert amplitude.item() == pytest.approx(0.0, abs=1e-3)
  assert fig.asymmetry(gait(40, 0.3), counts(40))[0].isnan().all()


def test_a_limp_is_asymmetric():
  joints = gait(200, 0.3)
  knee = g1.JOINT_NAMES.index("left_knee_joint")
  joints[:, :, knee] += math.radians(10.0)
  posture, amplitude = fig.asymmetry(joints, counts(200))
  # Of 29 joints two differ by 10 degrees.
  assert posture.item() == pytest.approx(10.0 * math.sqrt(2 / 29), abs=1e-3)
  assert amplitude.item() == pytest.approx(0.0, abs=1e-3)
  joints[:, :, knee] = 0.0
  assert fig.asymmetry(joints, counts(200))[1].item() > 2.0


# Windows.


def stats() -> NormStats:
  one = np.ones(FEATURE_DIM, dtype=np.float32)
  return NormStats(-one, one)


def windows_with_joints(joints: torch.Tensor) -> torch.Tensor:
  features = torch.zeros(len(joints), WINDOW, FEATURE_DIM)
  features[..., SLICES["root_rot"]] = torch.tensor([1.0, 0, 0, 0, 0, 1.0])
  features[..., SLICES["joint_pos"]] = joints
  return features


def test_half_the_swing_is_half_the_amplitude():
  phase = torch.arange(WINDOW) * 0.3 + torch.rand(20, 1)
  joints = torch.sin(phase).unsqueeze(-1).expand(20, WINDOW, 29).clone()
  reference = motion_similarity.joint_amplitude(windows_with_joints(joints)).mean(dim=0)
  arm = [i for i, n in enumerate(g1.JOINT_NAMES) if "left_shoulder" in n]
  arm += [i for i, n in enumerate(g1.JOINT_NAMES) if n.startswith(("left_e", "left_w"))]
  joints[..., arm] *= 0.5
  amplitude = motion_similarity.joint_amplitude(windows_with_joints(joints))
  ratios = motion_similarity.amplitude_ratios(amplitude, reference)
  mean = {limb: ratio.mean().item() for limb, ratio in ratios.items()}
  expected = dict.fromkeys(g1.LIMBS, 1.0) | {"left_arm": 0.5}
  assert mean == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("task", ["Forward", "Steering", "Location", "Velocity"])
def test_every_group_that_an_interval_leaves_out_has_all_conditions(task):
  """Otherwise the interval is that of the conditions, not of the episodes."""
  protocol = protocol_of(f"Smp-{task}-G1")
  condition = assign(protocol, 10 * len(protocol.conditions), seed=0).condition
  groups = rank_within(condition) % motion_similarity.GROUPS
  for group in range(motion_similarity.GROUPS):
    found = np.bincount(condition[groups == group])
    assert found.tolist() == [2] * len(protocol.conditions)


def test_an_episode_that_is_no_number_diverged():
  motion = standing(200, 3)
  motion.end_names = ("diverged", "root_too_low")
  motion.qpos[120:, 1] = torch.nan
  motion.ended[120, 1, 0] = True  # As the environment says, in the same step.
  motion.ended[150, 2, 0] = True  # Of a state that is a number: too fast.
  found = episode_values(motion, protocol_of("Smp-Forward-G1"))["diverged"]
  assert found.tolist() == [0.0, 1.0, 1.0]


def test_diversity_is_none_for_one_motion_and_one_for_the_data():
  torch.manual_seed(0)
  windows = windows_with_joints(0.3 * torch.randn(40, WINDOW, 29))
  data = motion_similarity.Data(windows, stats(), "the same")
  groups = np.arange(40) % motion_similarity.GROUPS

  def found(features: torch.Tensor) -> intervals.Interval:
    return motion_similarity.diversity(features, data, groups[: len(features)])

  assert found(windows).value == pytest.approx(1.0)
  assert found(windows[torch.randperm(40)]).value == pytest.approx(1.0)
  same = found(windows[:1].expand(40, -1, -1))
  assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
  # Of joints that spread half as far, and wherever they are.
  joints = windows[..., SLICES["joint_pos"]]
  assert found(windows_with_joints(0.5 * joints + 0.7)).value == pytest.approx(0.5)
  half = found(windows[:20])
  assert half.value == pytest.approx(1.0, abs=0.05)
  assert half.value is not None and half.low is not None and half.high is not None
  assert half.low < half.value < half.high
  # Two motions, each by half of the robots: the pairs of unlike windows count.
  two = found(windows[[0, 1]].repeat(20, 1, 1)).value
  apart = motion_similarity.distances(windows[:1], windows[1:2], stats()).item()
  assert data.spread is not None
  assert two == pytest.approx(20 / 39 * apart / data.spread)
  for few in (windows[:0], windows[:1]):
    assert found(few).value is None
  alone = motion_similarity.Data(windows[:1], stats(), "one")
  assert alone.spread is None
  assert motion_similarity.diversity(windows, alone, groups).value is None


def test_frechet_distance_of_shifted_and_of_scaled_normal_points():
  rng = np.random.default_rng(0)
  points = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
  shift = np.array([1.0, -2.0, 0.0, 0.5])
  assert motion_similarity.frechet(points, points + shift) == pytest.approx(
    shift @ shift
  )
  # Twice as wide: tr(C + 4 C - 2 * 2 C) = tr(C).
  wide = points.mean(axis=0) + 2 * (points - points.mean(axis=0))
  trace = np.trace(np.cov(points, rowvar=False))
  assert motion_similarity.frechet(points, wide) == pytest.approx(trace)
  assert motion_similarity.frechet(points, points) == pytest.approx(0.0, abs=1e-9)
  assert motion_similarity.frechet_per_feature(points[:7], points) is None
  found = motion_similarity.frechet_per_feature(points, points + shift)
  assert found == pytest.approx(math.sqrt(shift @ shift / 4))


def test_windows_of_a_recording_and_their_neighbours():
  motion = standing(60, 3)
  motion.qpos[..., 7:] = 0.3 * torch.randn(60, 3, 29)
  motion.ended[20:, 1, 0] = True
  step, env = motion_similarity.window_rows(motion.valid(), 1000)
  # All whole windows: 51 of a full episode, 12 of one of 21 steps.
  assert torch.bincount(env).tolist() == [51, 12, 51]
  windows = motion_similarity.windows_of(motion, step, env)
  data = motion_similarity.Data(windows[::2], stats(), "half of them")
  near = motion_similarity.nearest(windows, data)
  assert near[::2].max() == 0.0 and near[1::2].min() > 0.1
  assert motion_similarity.per_env_mean(near, env, 4)[3].isnan()
  # None reaches back to before the steps that count.
  late, _ = motion_similarity.window_rows(fig.after(motion.valid(), 0.5, 50.0), 1000)
  assert late.min() == 25
  step, env = motion_similarity.window_rows(motion.valid(), 30)
  assert len(step) == 30 and set(env.tolist()) == {0, 1, 2}


def test_windows_do_not_depend_on_where_the_robot_is():
  motion = standing(12, 1)
  motion.qpos[:, 0, 0] = torch.arange(12) / 50.0
  moved = standing(12, 1)
  moved.qpos[:, 0, 1] = 7.0 - torch.arange(12) / 50.0
  half = math.radians(-90.0) / 2
  moved.qpos[..., 3], moved.qpos[..., 6] = math.cos(half), math.sin(half)
  step, env = torch.tensor([2]), torch.tensor([0])
  one = motion_similarity.windows_of(motion, step, env)
  torch.testing.assert_close(
    motion_similarity.windows_of(moved, step, env), one, atol=1e-5, rtol=0
  )
  assert one[0, :, SLICES["root_lin_vel"]][:, 0].mean().item() == pytest.approx(
    1.0, abs=1e-3
  )


# Protocol.

TASKS = ("Smp-Forward-G1", "Smp-Steering-G1", "Smp-Location-G1", "Smp-Getup-G1")


@pytest.mark.parametrize("task", TASKS)
def test_conditions_share_the_environments_evenly(task: str):
  protocol = protocol_of(task)
  assert protocol.seconds == EPISODE_S and not protocol.notes
  count = len(protocol.conditions)
  given = assign(protocol, 4 * count, seed=3)
  assert np.bincount(given.condition).tolist() == [4] * count
  pushes = [c.push for c in protocol.conditions if c.sweep == PUSH]
  assert pushes == list(PUSHES) == sorted(pushes)
  for i, one in enumerate(protocol.conditions):
    mine = given.condition == i
    np.testing.assert_allclose(np.linalg.norm(given.push[:, mine], axis=-1), one.push)
    asked: dict[str, Any] = one.asked
    command = {name: value[mine] for name, value in given.command.items()}
    if "speed" in asked:
      np.testing.assert_allclose(command["speed"], asked["speed"])
    if "ring" in asked:
      far, (low, high) = np.linalg.norm(command["goal"], axis=-1), asked["ring"]
      assert (far >= low - 1e-9).all() and (far <= high + 1e-9).all()
    if "angle" in asked:
      apart = np.radians(command["facing"] - command["direction"])
      cos = math.cos(math.radians(asked["angle"]))
      np.testing.assert_allclose(np.cos(apart), cos, atol=1e-9)
  with pytest.raises(UserError, match=f"{count} conditions"):
    assign(protocol, count - 1, seed=3)


def test_the_bins_that_were_asked_for():
  def bins(task: str) -> list:
    return [c for c in protocol_of(task).conditions if c.sweep == COMMAND]

  assert [c.asked["speed"] for c in bins(TASKS[0])] == [
    0.5,
    1,
    1.5,
    2,
    2.5,
    3,
    3.5,
    4,
    4.5,
    5,
  ]
  assert [c.asked["angle"] for c in bins(TASKS[1])] == [0, 45, 90, 135, 180]
  rings = [c.asked["ring"] for c in bins(TASKS[2])]
  assert rings == [(1, 2.5), (2.5, 5), (5, 7.5), (7.5, 10)]
  starts = [c.start for c in bins(TASKS[3])]
  assert starts == ["prior", "prone", "supine", "left", "right"]


def test_the_seed_decides_and_nothing_else():
  protocol = protocol_of("Smp-Steering-G1")
  one, same, other = (assign(protocol, 40, seed) for seed in (1, 1, 2))
  one, same, other = (each.command["direction"] for each in (one, same, other))
  assert np.array_equal(one, same)
  assert not np.array_equal(one, other)
  assert len({round(float(x), 6) for x in one[:, 0]}) == 40


def test_other_lengths_are_said_to_be_no_standard():
  short = protocol_of("Smp-Forward-G1", 4.0)
  assert short.notes and short.settle == 1.0 and short.steps(50.0) == 200
  for seconds in (0.0, math.nan):
    with pytest.raises(UserError, match="--seconds"):
      protocol_of("Smp-Forward-G1", seconds)
  with pytest.raises(UserError, match="no protocol"):
    protocol_of("Mjlab-Velocity-Flat-Unitree-G1")


def test_the_running_mean_is_that_of_the_steps_around_that_count():
  values = torch.randn(40, 3)
  mask = torch.rand(40, 3) > 0.3
  found = torch.from_numpy(running_mean(values.numpy(), mask.numpy(), 0.2, 50.0))
  for t in range(40):
    near = slice(max(t - 5, 0), t + 6)
    expected = fig.masked_mean(values[near], mask[near])
    torch.testing.assert_close(found[t].float(), expected.nan_to_num(0.0))


def test_one_window_is_nothing_to_compare_with():
  windows = windows_with_joints(torch.zeros(2, WINDOW, 29))
  stats = load_stats(NORM_STATS)
  assert motion_similarity.data_of(windows, g1_spec(), stats, "2 windows").spread == 0.0
  with pytest.raises(UserError, match="1 window: too few to compare with"):
    motion_similarity.data_of(windows[:1], g1_spec(), stats, "1 window")
