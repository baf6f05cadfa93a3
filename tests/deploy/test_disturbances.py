"""What is changed about a robot, the figures of its runs, and the safety layer in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from smp.cli.sim2sim import Sim2SimCfg, sim2sim
from smp.deploy.deploy_file import describe_deploy
from smp.deploy.disturbances import Disturbances, Pusher, check_bounds, disturb
from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot, State
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.report import _speeds, report
from smp.deploy.rollout import Log, Rollout, run
from smp.deploy.safety import Phase, Safety, SafetyCfg
from smp.errors import UserError
from smp.robots import g1
from smp.utils.components import scalar
from tests.deploy_fakes import DIRECTION, SPEED, robot_policy, write_policy

COMMAND = (
  scalar("vx", "m/s", "forward", -0.5, 3.0, 0.0),
  scalar("vy", "m/s", "to the left", -0.6, 0.6, 0.0),
  scalar("yaw_rate", "rad/s", "turning left", -1.5, 1.5, 0.0),
)
SPEC = robot_policy(COMMAND)


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
  """A policy that answers with zero."""
  return write_policy(tmp_path_factory.mktemp("policy") / "policy.onnx", SPEC)


def make(**changes: Any) -> Robot:
  robot = Robot(SPEC, Command(SPEC, {}))
  disturb(robot, Disturbances(**changes))
  return robot


def air(robot: Robot) -> State:
  """The default pose above the floor: joints alone decide what moves."""
  qpos = robot.default_state().qpos
  qpos[2] += 5.0
  return State(qpos, np.zeros(35))


def driven(robot: Robot, steps: int) -> np.ndarray:
  """Joint angles after each of some steps of an action."""
  robot.reset(air(robot))
  found = []
  for _ in range(steps):
    robot.step(np.full(29, 0.3))
    found.append(robot.data.qpos[7:].copy())
  return np.stack(found)


def test_none_is_none():
  robot, plain = make(), Robot(SPEC, Command(SPEC, {}))
  np.testing.assert_array_equal(driven(robot, 5), driven(plain, 5))


@pytest.mark.parametrize("delay, late", [(20.0, 1), (40.0, 2)])
def test_a_delay_of_whole_steps_is_the_same_motion_later(delay: float, late: int):
  """In the air, where the default pose is nearly a rest."""
  now, then = driven(make(), 8), driven(make(delay=delay), 8 + late)
  moved = np.abs(now[0] - now[-1]).max()
  assert np.abs(then[late:] - now).max() < 0.15 * moved
  assert np.abs(then[late - 1] - now[0]).max() > 0.0


def test_half_a_delay_lies_between():
  joint = 3
  places = [driven(make(delay=d), 1)[0, joint] for d in (0.0, 10.0, 20.0)]
  assert places[0] > places[1] > places[2]


def test_friction_holds_for_feet_and_floor():
  robot = make(friction=0.4)
  collide = (robot.model.geom_contype != 0) | (robot.model.geom_conaffinity != 0)
  assert collide.any()
  assert (robot.model.geom_friction[collide, 0] == 0.4).all()


def test_a_payload_weighs():
  plain, loaded = make(), make(payload=5.0)
  assert loaded.model.body_mass.sum() == pytest.approx(
    plain.model.body_mass.sum() + 5.0
  )
  # As MuJoCo knows it too: the inverse weight of the torso is less.
  torso = plain.model.body(g1.HEAD_BODY).id
  ours, theirs = loaded.model.body_invweight0[torso], plain.model.body_invweight0[torso]
  assert (ours < theirs).all()
  # A point at the centre of mass, as in training: no inertia of its own.
  np.testing.assert_array_equal(loaded.model.body_inertia, plain.model.body_inertia)


def test_gains_are_scaled_and_stay_so():
  robot, plain = make(gain_scale=0.8), make()
  for _ in range(2):
    gains, theirs = robot.model.actuator_gainprm, plain.model.actuator_gainprm
    np.testing.assert_allclose(gains[:, 0], 0.8 * theirs[:, 0])
    bias, theirs = robot.model.actuator_biasprm, plain.model.actuator_biasprm
    np.testing.assert_allclose(bias[:, 1:3], 0.8 * theirs[:, 1:3])
    robot.reset()


def test_pushes_come_at_their_times_with_their_size(still: Path):
  def speeds(seed: int, **push: float) -> np.ndarray:
    robot = make()
    pusher = Pusher(Disturbances(**push), seed)
    rollout = Rollout(OnnxPolicy(still), robot, pusher=pusher)
    return run(rollout, 0.6, air(robot)).qvel[:, :2]

  calm, pushed = speeds(0), speeds(0, push=0.7, push_every=0.2)
  jumps = np.linalg.norm(np.diff(pushed - calm, axis=0), axis=1)
  # In the row after the push, which comes between an observation and its action.
  assert np.flatnonzero(jumps > 0.5).tolist() == [10, 20]
  np.testing.assert_allclose(jumps[[10, 20]], 0.7, atol=0.05)
  np.testing.assert_array_equal(pushed, speeds(0, push=0.7, push_every=0.2))
  assert np.abs(pushed - speeds(1, push=0.7, push_every=0.2)).max() > 0.1


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"delay": -1.0}, "--delay -1: give 0 to 200"),
    ({"friction": 0.0}, "--friction 0: give 0.01 to 5"),
    ({"payload": 500.0}, "--payload 500"),
    ({"push": float("nan")}, "--push nan"),
    ({"push_every": 0.0}, "--push-every 0"),
    ({"gain_scale": 0.0}, "--gain-scale 0: give 0.1 to 10"),
  ],
)
def test_impossible_values_are_one_line(changes: dict, message: str, still: Path):
  with pytest.raises(UserError) as error:
    check_bounds(Disturbances(**changes))
  assert message in str(error.value) and "\n" not in str(error.value)
  with pytest.raises(UserError):
    sim2sim(Sim2SimCfg(still, **changes))


def test_a_time_between_pushes_needs_a_push(still: Path):
  with pytest.raises(UserError, match="--push-every: add --push"):
    sim2sim(Sim2SimCfg(still, push_every=3.0))


# Figures.


def motion(robot: Robot, velocity: Any = (0.0, 0.0), yaw_rate: float = 0.0) -> Log:
  """A robot that glides over the floor without moving its joints, facing along y."""
  time = 0.02 * np.arange(150)
  qpos = np.tile(robot.default_state().qpos, (150, 1))
  qvel = np.zeros((150, 35))
  angle = np.pi / 2 + yaw_rate * time
  qpos[:, 3], qpos[:, 6] = np.cos(angle / 2), np.sin(angle / 2)
  # Forward is along the heading.
  qvel[:, 0] = np.cos(angle) * velocity[0] - np.sin(angle) * velocity[1]
  qvel[:, 1] = np.sin(angle) * velocity[0] + np.cos(angle) * velocity[1]
  qvel[:, 5] = yaw_rate
  qpos[:, :2] = np.cumsum(0.02 * qvel[:, :2], axis=0)
  command = np.tile(robot.command.observe(qpos[0]), (150, 1))
  return Log(time, qpos, qvel, np.zeros((150, 29)), np.zeros((150, 3)), command)


def test_figures_of_known_motions():
  robot = Robot(SPEC, Command(SPEC, {"vx": (1.0,), "yaw_rate": (0.4,)}))
  found = report(motion(robot, (1.0, 0.0), 0.4), robot)
  assert found["velocity_error"] == pytest.approx(0.0, abs=1e-9)
  assert found["yaw_rate_error"] == pytest.approx(0.0, abs=1e-9)
  assert "drift" not in found and "stopped" not in found
  assert found["falls"] == found["falls_per_hour"] == 0.0
  assert found["speed_ratio"] == pytest.approx(1.0)
  off = report(motion(robot, (0.7, 0.4), 0.1), robot)
  assert off["velocity_error"] == pytest.approx(0.5)
  assert off["speed_ratio"] == pytest.approx(0.7)  # Sideways, it does not count.
  assert off["yaw_rate_error"] == pytest.approx(0.3)
  assert off["mean_yaw_rate_error"] == pytest.approx(0.3)
  swings = motion(robot, (1.0, 0.0), 0.4)
  swings.qvel[:, 5] += 0.6 * np.sin(2 * np.pi * 2.0 * swings.time)
  found = report(swings, robot)
  assert found["yaw_rate_error"] == pytest.approx(0.6 * 2 / np.pi, abs=0.02)
  assert found["mean_yaw_rate_error"] < 0.05


def test_the_speed_of_a_foot_is_that_of_the_point_that_touches():
  """However it turns; the body's centre of mass lies elsewhere than its origin."""
  model = g1.load_model()
  data, random = mujoco.MjData(model), np.random.default_rng(0)
  data.qpos[:] = model.qpos0
  data.qpos[7:] += random.normal(scale=0.2, size=model.nq - 7)
  data.qvel[:] = random.normal(size=model.nv)
  mujoco.mj_forward(model, data)
  body = model.body("left_ankle_roll_link").id
  assert np.linalg.norm(data.xipos[body] - data.xpos[body]) > 0.01
  points = data.xpos[body] + random.normal(scale=0.1, size=(5, 3))
  expected = []
  for point in points:
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, point, body)
    expected.append(np.hypot(*(jacobian @ data.qvel)[:2]))
  np.testing.assert_allclose(_speeds(model, data, body, points), expected, rtol=1e-6)


def test_standing_drifting_and_slipping():
  robot = Robot(SPEC, Command(SPEC, {}))
  low = motion(robot, (0.02, 0.0))
  low.qpos[:, 2] -= _height(robot)  # The feet touch the floor.
  found = report(low, robot)
  assert found["drift"] == pytest.approx(0.02 * 2.0, abs=1e-3)
  assert "speed_ratio" not in found
  assert found["foot_slip"] == pytest.approx(0.02, abs=1e-6)
  assert found["feet_lifted"] == 0.0 and found["joint_speed"] == 0.0
  # A hop, and a joint that moves.
  low.qpos[100:120, 2] += 0.05
  low.qvel[:, 10] = 0.29
  found = report(low, robot)
  assert found["feet_lifted"] == 1.0  # The pose is crooked: one foot stands.
  assert found["joint_speed"] == pytest.approx(0.29 / np.sqrt(29))


def _height(robot: Robot) -> float:
  """How far the lowest point of the default pose is above the floor, and a millimetre."""
  qpos = robot.default_state().qpos
  data = mujoco.MjData(robot.model)
  for height in np.arange(-0.2, 0.3, 0.001):
    data.qpos[:] = qpos
    data.qpos[2] -= height
    mujoco.mj_kinematics(robot.model, data)
    mujoco.mj_collision(robot.model, data)
    if data.ncon and data.contact.dist.min() < -0.001:
      return float(height)
  raise AssertionError("never touches")


def test_a_fall_ends_what_counts():
  robot = Robot(SPEC, Command(SPEC, {"vx": (1.0,)}))
  log = motion(robot, (1.0, 0.0))
  log.qpos[100:, 2] = 0.1
  log.qvel[100:] = 5.0
  found = report(log, robot)
  assert found["falls"] == 1.0 and found["seconds"] == pytest.approx(2.0)
  assert found["falls_per_hour"] == pytest.approx(1800.0)
  assert found["velocity_error"] == pytest.approx(0.0, abs=1e-9)
  # Nothing is a fall where no height is.
  robot.spec = replace(SPEC, fallen_below=None)
  found = report(log, robot)
  assert found["falls"] == 0.0 and "falls_per_hour" not in found


def test_a_direction_and_a_speed_have_a_ratio_too():
  spec = robot_policy((DIRECTION, SPEED))
  robot = Robot(spec, Command(spec, {"direction": (90.0,), "speed": (2.0,)}))
  assert report(motion(robot, (1.5, 0.0)), robot)["speed_ratio"] == pytest.approx(0.75)


def stopping(robot: Robot, after: int) -> Log:
  """A robot that is told to stop from 2 m/s at 1.6 s, and does so some steps later."""
  robot.command.values = STOP[0]
  log = motion(robot, (2.0, 0.0))
  robot.command.values = STOP[-1]
  log.qvel[80 + after :, :2] *= 0.1
  log.command[80:] = 0.0
  return log


STOP = [{"vx": (2.0,), "vy": (0.0,), "yaw_rate": (0.0,)}] * 80
STOP += [{"vx": (0.0,), "vy": (0.0,), "yaw_rate": (0.0,)}] * 70


def test_the_time_to_stop_is_of_the_time_after_the_change():
  robot = Robot(SPEC, Command(SPEC, {}))
  found = report(stopping(robot, 30), robot, STOP)
  assert found["stopped"] == 1.0 and found["stop_time"] == pytest.approx(0.6)
  # The other figures are of the command before.
  assert found["velocity_error"] == pytest.approx(0.0, abs=1e-9)
  assert found["speed_ratio"] == pytest.approx(1.0)
  assert found["seconds"] == pytest.approx(3.0) and "drift" not in found
  # It must stay slow for half a second: before the end, and before a fall.
  late = report(stopping(robot, 50), robot, STOP)
  assert late["stopped"] == 0.0 and "stop_time" not in late
  fallen = stopping(robot, 30)
  fallen.qpos[130:, 2] = 0.1
  found = report(fallen, robot, STOP)
  assert found["falls"] == 1.0 and found["stopped"] == 0.0
  # What fell before was never told to stop.
  fallen.qpos[70:, 2] = 0.1
  assert "stopped" not in report(fallen, robot, STOP)
  # Nor was what is told to walk on.
  walk = STOP[80:] + STOP[:70]
  assert {"drift"} < set(report(motion(robot), robot, walk)) - {"stopped", "stop_time"}
  assert "stopped" not in report(motion(robot), robot, walk)


def test_the_report_is_a_table_and_a_line_of_json(still: Path, capsys):
  sim2sim(Sim2SimCfg(still, seconds=1.5, report=True, delay=10.0, payload=1.0))
  lines = capsys.readouterr().out.strip().splitlines()
  found = json.loads(lines[-1])
  assert {"falls", "drift", "velocity_error", "joint_speed"} <= set(found)
  assert any("joint speed" in line and "rad/s" in line for line in lines[:-1])


def test_the_report_takes_one_change_of_the_command(still: Path, capsys):
  """Its errors are those of a run that ends there."""
  walk = Sim2SimCfg(still, command=("vx=2",), report=True)

  def reported(**changes: Any) -> dict[str, float]:
    sim2sim(replace(walk, **changes))
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

  found, alone = reported(seconds=1.24, changes=("1.2:vx=0",)), reported(seconds=1.2)
  assert found.pop("seconds") == 1.24 > alone.pop("seconds")
  assert found.pop("stopped") == 0.0 and found == alone
  sim2sim(replace(walk, seconds=1.1, changes=("1.2:vx=0", "1.2:vy=0")))
  shown = capsys.readouterr().out
  assert "note: the run ends before the command changes, at 1.2 s" in shown
  assert "stopped" not in json.loads(shown.strip().splitlines()[-1])


# The safety layer in a run.


def guarded(still: Path, cfg: SafetyCfg | None = None) -> Rollout:
  return Rollout(OnnxPolicy(still), make(), safety=Safety(describe_deploy(SPEC), cfg))


def test_a_run_begins_with_a_soft_start_on_a_stand(still: Path):
  rollout = guarded(still)
  start = rollout.robot.default_state()
  start.qpos[10] += 0.6  # A bent knee.
  rollout.reset(start)
  data = rollout.robot.data
  assert data.time == 0.0 and not data.qvel[:6].any()
  np.testing.assert_allclose(data.qpos[:7], start.qpos[:7])
  # Gravity is what stiffness leaves.
  assert np.abs(data.qpos[7:] - SPEC.joints.default_pos).max() < 0.15
  assert rollout.robot.held is None
  rollout.step()
  assert rollout.safety is not None and rollout.safety.phase is Phase.HAND_OVER


def test_a_robot_that_falls_is_stopped_and_damps(still: Path, capsys):
  """The policy that answers with zero falls."""
  rollout = guarded(still, SafetyCfg(start_s=0.2, tilt=0.5))
  run(rollout, 3.0)
  assert rollout.safety is not None and rollout.safety.phase is Phase.STOPPED
  assert "tilted by" in rollout.safety.reason
  model = rollout.robot.model
  assert not model.actuator_gainprm[:, 0].any()
  assert (model.actuator_biasprm[:, 2] < 0.0).all()
  rollout.reset()  # Stands again, with its gains.
  assert rollout.safety.reason == "" and model.actuator_gainprm[:, 0].all()
  sim2sim(Sim2SimCfg(still, seconds=4.0, safety=True))
  assert "the safety layer stopped the robot: tilted by" in capsys.readouterr().out


def test_targets_beyond_the_ranges_are_not_sent(tmp_path: Path):
  wild = replace(SPEC, joints=replace(SPEC.joints, action_scale=(40.0,) * 29))
  file = write_policy(tmp_path / "policy.onnx", wild, 1.0)
  robot = Robot(wild, Command(wild, {}))
  rollout = Rollout(OnnxPolicy(file), robot, safety=Safety(describe_deploy(wild)))
  rollout.reset()
  rollout.step()
  effort = np.array(wild.joints.effort_limit) / np.array(wild.joints.stiffness)
  low, high = np.array([robot.model.joint(n).range for n in wild.joints.names]).T
  target = robot.data.ctrl[robot.ctrl]
  assert (target >= low - effort).all() and (target <= high + effort).all()
