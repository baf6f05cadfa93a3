"""Exported policies in plain MuJoCo, without mjlab and torch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import onnx
import pytest
import torch

from smp.cli.command_options import given_values, parse_options
from smp.cli.sim2sim import Sim2SimCfg, sim2sim
from smp.deploy.fixed_command import Command, heading, outside_training
from smp.deploy.mujoco_robot import Robot, State
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import PolicySpec
from smp.deploy.rollout import Rollout, figures, read_start, run, start_state
from smp.errors import UserError
from smp.motion import rotations
from smp.motion.fallen_states import FALLEN_POSES
from smp.motion.pose_classes import StartPose, start_pose
from smp.robots import g1
from smp.utils.components import scalar
from smp.viz import command_markers, policy_viewer
from smp.viz.policy_viewer import Session
from tests.deploy_fakes import (
  DIRECTION,
  FACING,
  GOAL,
  SPEED,
  can_render,
  g1_policy,
  write_policy,
)

SPEC = g1_policy()
SPEC_QPOS = np.array([1.0, 2.0, 0.8, 1.0, *[0.0] * 32])


def random_state(seed: int) -> State:
  """The robot in the air, anyhow."""
  random = np.random.default_rng(seed)
  quat = random.normal(size=4)
  joints = random.uniform(-0.5, 0.5, g1.NUM_JOINTS)
  qpos = np.concatenate((random.normal(size=3), quat / np.linalg.norm(quat), joints))
  return State(qpos, random.normal(size=35))


def part(robot: Robot, name: str) -> np.ndarray:
  """One part of the observation."""
  start = 0
  for each in robot.spec.observations:
    if each.name == name:
      return robot.observe()[start : start + each.size]
    start += each.size
  raise KeyError(name)


def make_robot(spec: PolicySpec = SPEC, **given: tuple[float, ...]) -> Robot:
  return Robot(spec, Command(spec, given))


@pytest.fixture(scope="module")
def robot() -> Robot:
  return make_robot()


@pytest.fixture(scope="module")
def acting(tmp_path_factory) -> Path:
  """A policy that moves."""
  return write_policy(tmp_path_factory.mktemp("policy") / "policy.onnx", SPEC, 0.02)


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
  """A policy that answers with zero."""
  return write_policy(tmp_path_factory.mktemp("policy") / "policy.onnx", SPEC)


def make_rollout(file: Path, **more: Any) -> Rollout:
  policy = OnnxPolicy(file)
  return Rollout(policy, make_robot(policy.spec), **more)


# What the robot sees.


@pytest.mark.parametrize("seed", range(3))
def test_observations_are_what_their_names_say(robot: Robot, seed: int):
  state = random_state(seed)
  robot.reset(state)
  turn = np.zeros(9)
  mujoco.mju_quat2Mat(turn, state.qpos[3:7])
  turn = turn.reshape(3, 3)
  spin = state.qvel[3:6]  # In the pelvis' axes, which the IMU shares.
  arm = robot.model.site("imu_in_pelvis").pos
  velocity = turn.T @ state.qvel[:3] + np.cross(spin, arm)
  close: dict[str, Any] = dict(rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(part(robot, "base_lin_vel"), velocity, **close)
  # Half, as this policy scales it.
  np.testing.assert_allclose(part(robot, "base_ang_vel"), 0.5 * spin, **close)
  down = turn.T @ [0.0, 0.0, -1.0]
  np.testing.assert_allclose(part(robot, "projected_gravity"), down, **close)
  joints = state.qpos[7:] - SPEC.joints.default_pos
  np.testing.assert_allclose(part(robot, "joint_pos"), joints, **close)
  np.testing.assert_allclose(part(robot, "joint_vel"), state.qvel[6:], **close)
  assert not part(robot, "actions").any()


def test_sensors_belong_to_the_state_after_a_step(robot: Robot):
  robot.reset()
  action = np.linspace(-1.0, 1.0, g1.NUM_JOINTS)
  for _ in range(10):
    robot.step(action)
  np.testing.assert_allclose(part(robot, "actions"), action, rtol=1e-6)
  joints = SPEC.joints
  target = np.array(joints.action_offset) + np.array(joints.action_scale) * action
  for name, value in zip(joints.names, target, strict=True):
    assert robot.data.actuator(name).ctrl[0] == pytest.approx(value)
  fresh = mujoco.MjData(robot.model)
  fresh.qpos[:], fresh.qvel[:] = robot.state()
  mujoco.mj_forward(robot.model, fresh)
  for name in ("imu_lin_vel", "imu_ang_vel"):
    want, got = fresh.sensor(name).data, robot.data.sensor(name).data
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert np.abs(want).max() > 1e-3


def test_a_policy_may_order_its_joints_otherwise():
  """Names decide which joint is which, not places."""
  order = np.random.default_rng(0).permutation(g1.NUM_JOINTS)
  joints = SPEC.joints
  mixed = {
    name: tuple(getattr(joints, name)[i] for i in order) for name in vars(joints)
  }
  default = tuple(SPEC.start_qpos[7 + i] for i in order)
  other = replace(
    SPEC,
    joints=replace(joints, **mixed),
    start_qpos=(*SPEC.start_qpos[:7], *default),
  )
  one, two = make_robot(), make_robot(other)
  action = np.linspace(-0.3, 0.3, g1.NUM_JOINTS)
  for _ in range(10):
    one.step(action)
    two.step(action[order])
  np.testing.assert_allclose(one.data.qpos, two.data.qpos, atol=1e-9)
  np.testing.assert_allclose(
    part(one, "joint_pos")[order], part(two, "joint_pos"), atol=1e-6
  )


# The command.


def test_heading_is_the_environments():
  quat = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
  quat = quat / quat.norm(dim=-1, keepdim=True)
  cos, sin = rotations.heading(quat)
  ours = heading(quat.numpy())
  np.testing.assert_allclose(ours[0], cos.numpy(), atol=1e-9)
  np.testing.assert_allclose(ours[1], sin.numpy(), atol=1e-9)


@pytest.mark.parametrize("degrees", [-170.0, -60.0, 25.0, 90.0])
def test_turning_world_and_command_together_changes_nothing(degrees: float):
  """What the policy sees of a command depends on the robot's heading alone."""
  spec = g1_policy((DIRECTION, SPEED, FACING, GOAL))
  qpos = random_state(1).qpos
  angle = math.radians(degrees)
  cos, sin = math.cos(angle), math.sin(angle)
  turn, turned = np.array([[cos, -sin], [sin, cos]]), qpos.copy()
  turned[:2] = turn @ qpos[:2]
  spin = np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)])
  mujoco.mju_mulQuat(turned[3:7], spin, qpos[3:7])
  goal = np.array([3.0, -1.0])
  base = {"speed": (1.5,), "direction": (20.0,), "facing": (-80.0,)}
  after = base | {"direction": (20.0 + degrees,), "facing": (-80.0 + degrees,)}
  one = Command(spec, base | {"goal": tuple(goal)}).observe(qpos)
  two = Command(spec, after | {"goal": tuple(turn @ goal)}).observe(turned)
  np.testing.assert_allclose(one, two, atol=1e-9)
  assert one[2] == 1.5
  np.testing.assert_allclose(np.linalg.norm([one[:2], one[3:5]], axis=1), 1.0)
  assert np.linalg.norm(one[5:]) == pytest.approx(np.linalg.norm(goal - qpos[:2]))


def test_a_robot_that_faces_x_sees_the_world_as_it_is():
  spec = g1_policy((DIRECTION, SPEED, FACING, GOAL))
  qpos = np.zeros(36)
  qpos[:4] = 1.0, 2.0, 0.8, 1.0
  given = {"direction": (90.0,), "facing": (180.0,), "goal": (4.0, 1.0)}
  seen = Command(spec, given).observe(qpos)
  np.testing.assert_allclose(seen, [0, 1, 1.0, -1, 0, 3, -1], atol=1e-9)


# Runs.


def test_a_log_holds_what_the_policy_saw_and_did(acting: Path, tmp_path: Path):
  rollout = make_rollout(acting)
  log = run(rollout, 0.5, State(*rollout.robot.default_state()))
  log.save(tmp_path / "log.npz")
  table = np.load(tmp_path / "log.npz")
  assert set(table) == {"time", "qpos", "qvel", "action", "obs", "command"}
  assert table["qpos"].shape == (25, 36) and table["qvel"].shape == (25, 35)
  np.testing.assert_allclose(table["time"], 0.02 * np.arange(25), atol=1e-9)
  for action, obs in zip(table["action"], table["obs"], strict=True):
    np.testing.assert_array_equal(action, rollout.policy(obs))
  np.testing.assert_allclose(table["obs"][:, -5:], table["command"], atol=1e-6)
  np.testing.assert_array_equal(table["action"][:-1], table["obs"][1:, 96 - 29 : 96])
  # And begins again from its own first row.
  start = read_start(tmp_path / "log.npz", rollout.robot.default_state())
  np.testing.assert_array_equal(run(rollout, 0.5, start).qpos, log.qpos)


def test_a_command_may_change_on_the_way(
  acting: Path, tmp_path: Path, capsys, monkeypatch
):
  log, filmed = tmp_path / "log.npz", []
  monkeypatch.setattr(policy_viewer, "write_video", lambda *a: filmed.extend(a[-1]))
  changes = ("0.1:speed=2", "0.06:speed=0.5", "0.1:facing=90", "9:speed=1")
  sim2sim(
    Sim2SimCfg(acting, changes=changes, seconds=0.2, log=log, video=Path("f.gif"))
  )
  assert [values["speed"][0] for values in filmed] == 3 * [1.0] + 2 * [0.5] + 5 * [2.0]
  assert "error" not in capsys.readouterr().out
  command = np.load(log)["command"]
  names = [part.name for part in OnnxPolicy(acting).spec.command]
  speed = command[:, 2 * names.index("direction") + 2]  # After the direction's two.
  np.testing.assert_allclose(speed, 3 * [1.0] + 2 * [0.5] + 5 * [2.0])
  facing = command[:, -2:]
  np.testing.assert_allclose(facing[:5], np.tile([1.0, 0.0], (5, 1)), atol=0.05)
  np.testing.assert_allclose(facing[5:], np.tile([0.0, 1.0], (5, 1)), atol=0.2)


def test_a_history_holds_the_last_frames_oldest_first(tmp_path: Path):
  """Each part's own length; before the beginning, the first frame."""
  lengths = {"joint_pos": 3, "command": 2}
  parts = tuple(
    replace(part, history_length=lengths.get(part.name, 1))
    for part in SPEC.observations
  )
  spec = replace(SPEC, observations=parts)
  plain = run(make_rollout(write_policy(tmp_path / "one.onnx", SPEC)), 0.2).obs
  log = run(make_rollout(write_policy(tmp_path / "many.onnx", spec)), 0.2).obs
  assert log.shape[1] == plain.shape[1] + 2 * 29 + 5
  for step in range(len(log)):
    past = [plain[max(0, step - ago), 9:38] for ago in (2, 1, 0)]
    np.testing.assert_allclose(log[step, 9 : 9 + 87], np.concatenate(past), atol=1e-6)
    past = [plain[max(0, step - ago), -5:] for ago in (1, 0)]
    np.testing.assert_allclose(log[step, -10:], np.concatenate(past), atol=1e-6)
  assert np.ptp(plain[:, 9:38], axis=0).max() > 0.01


def test_noise_is_that_of_training_and_follows_the_seed(still: Path):
  def seen(**more: Any) -> np.ndarray:
    return run(make_rollout(still, **more), 1.0).obs

  exact, noisy = seen(), seen(noise=1.0, seed=3)
  np.testing.assert_array_equal(noisy, seen(noise=1.0, seed=3))
  assert np.abs(noisy - seen(noise=1.0, seed=4)).max() > 0.1
  # The policy does not react: the noise is the difference.
  size = np.abs(noisy - exact).max(axis=0)
  assert 0.4 < size[:3].max() <= 0.5 + 1e-6
  assert 0.08 < size[3:6].max() <= 0.1 + 1e-6  # Scaled by a half.
  assert not size[6:].any()


@pytest.mark.parametrize("pose", FALLEN_POSES)
def test_a_robot_can_begin_on_the_floor(pose: StartPose, robot: Robot):
  state = start_state(Path(pose), robot, seed=3)
  robot.reset(state)
  assert start_pose(robot.data.body(g1.HEAD_BODY).xmat.reshape(3, 3)[2]) == pose
  assert not state.qvel.any() and 0.0 < state.qpos[2] < 0.4
  other = start_state(Path(pose), robot, seed=4)
  assert np.abs(other.qpos[7:] - state.qpos[7:]).max() > 0.05


def test_start_files_are_checked(tmp_path: Path, robot: Robot):
  default, file = robot.default_state(), tmp_path / "start.npz"

  def refuse(match: str, **arrays: Any) -> None:
    np.savez(file, **arrays)
    with pytest.raises(UserError, match=match) as error:
      read_start(file, default)
    assert "start.npz" in str(error.value) and "\n" not in str(error.value)

  good = default.qpos
  np.savez(file, qpos=good)
  np.testing.assert_array_equal(read_start(file, default).qvel, np.zeros(35))
  refuse("no array 'qpos'", pose=good)
  refuse("'qpos' has shape", qpos=good[1:])
  refuse("'qvel' has shape", qpos=good, qvel=np.zeros(36))
  refuse("not finite", qpos=np.where(np.arange(36) == 9, np.nan, good))
  refuse("unit quaternion", qpos=2.0 * good)
  refuse("'qpos' has shape", qpos=np.array(["x"] * 36))
  refuse("not a readable", qpos=np.array([{}] * 36, dtype=object))
  file.write_bytes(b"PK\x03\x04 not a zip")
  with pytest.raises(UserError, match="not a readable"):
    read_start(file, default)
  with pytest.raises(UserError, match="no such"):
    read_start(tmp_path / "gone.npz", default)


def test_figures_of_known_motions():
  steps = 100
  qpos, qvel = np.zeros((steps, 36)), np.zeros((steps, 35))
  qpos[:, 2], qpos[:, 3] = 0.75, 1.0
  qpos[:, 0] = 0.02 * np.arange(steps)
  qvel[:, 0] = 1.0
  given = {"direction": (0.0,), "speed": (1.5,), "facing": (90.0,), "goal": (1.98, 3.0)}
  command = Command(g1_policy((DIRECTION, SPEED, FACING, GOAL)), given)
  found = figures(qpos, qvel, command, 0.3)
  assert found["fall_step"] == -1 and found["speed"] == pytest.approx(1.0)
  assert found["velocity_error"] == pytest.approx(0.5)
  assert found["facing_error"] == pytest.approx(90.0)
  assert found["goal_distance"] == pytest.approx(3.0)
  # What comes after a fall does not count.
  qpos[40:, 2], qvel[40:, 0] = 0.1, 0.0
  fallen = figures(qpos, qvel, command, 0.3)
  assert fallen["fall_step"] == 40 and fallen["speed"] == pytest.approx(1.0)
  assert fallen["root_height"] == pytest.approx(0.75)
  assert figures(qpos, qvel, command, None)["fall_step"] == -1


# Viewers.


def test_a_session_keeps_time_and_starts_again(still: Path):
  rollout = make_rollout(still)
  session = Session(rollout, None)
  data = rollout.robot.data
  for _ in range(10):
    session.advance(0.05)
  assert data.time == pytest.approx(0.5, abs=0.021)
  session.advance(60.0)  # The machine was asleep: let it off.
  assert data.time == pytest.approx(0.5 + policy_viewer.BEHIND, abs=0.021)
  session.playing = False
  session.advance(0.1)
  assert data.time == pytest.approx(0.5 + policy_viewer.BEHIND, abs=0.021)
  session.playing = True
  times = []
  for _ in range(100):
    session.advance(0.1)
    times.append(data.time)
  # Zero action falls, is left to lie for a while, and begins again.
  assert max(times) < 9.0 and np.diff(times).min() < 0.0
  session.restart_fallen = False
  begin = data.time
  for _ in range(100):
    session.advance(0.1)
  assert data.time == pytest.approx(begin + 10.0, abs=0.1)


def test_a_recorded_session_keeps_what_happened_since_the_last_reset(
  still: Path, monkeypatch
):
  monkeypatch.setattr(policy_viewer, "RECORDED_S", 0.3)
  rollout = make_rollout(still)
  command, step = rollout.robot.command, rollout.robot.step_s
  session = Session(rollout, None, record=True)
  session.advance(0.1001)
  command.values["speed"] = (0.5,)
  session.advance(0.1001)
  speeds = [values["speed"] for values in session.values]
  assert len(speeds) == round(0.2 / step) and speeds[-1] == (0.5,) != speeds[0]
  assert len(rollout.log().time) == len(speeds)
  for _ in range(2):
    session.advance(0.1001)  # Of more than fits, the end is kept.
  assert len(rollout.log().time) == len(session.values) == round(0.3 / step)
  assert rollout.log().time[-1] == pytest.approx(0.4 - step)
  session.restart()
  assert not session.values
  session.advance(0.0401)
  assert len(rollout.log().time) == len(session.values) == round(0.04 / step)


def test_what_was_steered_is_written_when_the_viewer_closes(
  acting: Path, tmp_path: Path, monkeypatch, capsys
):
  def steered(session: Session, *_: object) -> None:
    session.advance(0.1001)
    session.rollout.robot.command.values["speed"] = (0.5,)
    session.advance(0.1001)

  file = tmp_path / "by_hand.npz"
  monkeypatch.setattr(policy_viewer, "serve", steered)
  sim2sim(Sim2SimCfg(acting, viewer="viser", log=file))
  assert f"wrote {file}" in capsys.readouterr().out
  with np.load(file) as log:
    assert len(log["time"]) == len(log["command"]) > 5
    assert (log["command"][-1] != log["command"][0]).any()
  monkeypatch.setattr(policy_viewer, "serve", lambda *_: None)
  sim2sim(Sim2SimCfg(acting, viewer="viser", log=tmp_path / "nothing.npz"))
  assert "nothing was written" in capsys.readouterr().out
  assert [path.name for path in tmp_path.iterdir() if "nothing" in path.name] == []


def test_a_page_shows_and_steers(still: Path):
  viser = pytest.importorskip("viser")
  spec = g1_policy((DIRECTION, SPEED, FACING, GOAL))
  file = write_policy(still.with_name("all.onnx"), spec)
  policy = OnnxPolicy(file)
  # Without meshes, whose conversion takes seconds.
  rollout = Rollout(policy, make_robot(policy.spec))
  server = viser.ViserServer(host="localhost", port=0, verbose=False)
  try:
    page = policy_viewer.PolicyPage(server, Session(rollout, None), "title")
    page.tick(0.1)
    assert "0.1 s" in page.note.content
    sliders = {
      str(handle.label): handle
      for handle in server.gui._gui_input_handle_from_uuid.values()
      if hasattr(handle, "label")
    }
    sliders["Speed (m/s)"].value = 1.5
    sliders["Goal y (m)"].value = -3.0
    assert rollout.robot.command.values["speed"] == (1.5,)
    assert rollout.robot.command.values["goal"] == (2.0, -3.0)
    page.tick(0.02)
    offset = np.array([2.0, -3.0]) - rollout.robot.data.qpos[:2]
    np.testing.assert_allclose(page._balls["goal"].position[:2], offset, atol=1e-6)
  finally:
    server.stop()


def test_the_window_draws_the_command_and_stops_when_closed(still: Path):
  rollout = make_rollout(still)
  scene = mujoco.MjvScene(rollout.robot.model, maxgeom=10)

  class Lock:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

  viewer = SimpleNamespace(
    lock=Lock, user_scn=scene, sync=lambda: None, is_running=lambda: False
  )
  for _ in range(2):
    assert not policy_viewer._refresh_window(viewer, Session(rollout, None), 0.1)
  # Velocity and facing, drawn anew each time.
  assert scene.ngeom == 2
  assert rollout.robot.data.time == pytest.approx(0.1, abs=0.021)


def test_no_display_is_one_line(still: Path, monkeypatch):
  monkeypatch.setattr(sys, "platform", "linux")
  for name in ("DISPLAY", "WAYLAND_DISPLAY"):
    monkeypatch.delenv(name, raising=False)
  with pytest.raises(UserError, match="no display"):
    policy_viewer.show_window(Session(make_rollout(still), None))


@pytest.mark.slow
def test_a_video_is_written(acting: Path, tmp_path: Path, capsys):
  if not can_render():
    pytest.skip("no OpenGL library to render with")
  file = tmp_path / "out.mp4"
  sim2sim(Sim2SimCfg(acting, seconds=0.12, video=file))
  assert file.stat().st_size > 500
  assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


# From the command line.

SCRIPT = Path(__file__).parents[2] / "scripts" / "sim2sim.py"


@pytest.mark.slow
def test_runs_without_mjlab_torch_and_warp(acting: Path, tmp_path: Path):
  code = (
    "import sys\n"
    "from smp.cli.sim2sim import main\n"
    "import smp.viz.policy_viewer, mjviser\n"
    "main()\n"
    "found = {name.split('.')[0] for name in sys.modules}\n"
    "print(sorted(found & {'torch', 'mjlab', 'warp', 'rsl_rl', 'smp'}))\n"
  )
  log = tmp_path / "log.npz"
  words = [str(acting), "--seconds", "0.2", "--log", str(log), "--speed", "1.5"]
  words += ["--report", "--changes", "3:speed=0"]
  done = subprocess.run(
    [sys.executable, "-c", code, *words], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[-1] == "['smp']"
  assert any("times real time" in line for line in lines)
  assert np.load(log)["command"][0, 2] == 1.5


def test_is_faster_than_real_time_on_one_core(acting: Path):
  rollout = make_rollout(acting)
  run(rollout, 0.1)
  begin = time.process_time()  # Whatever else this machine does.
  run(rollout, 10.0)
  assert 10.0 / (time.process_time() - begin) >= 5.0


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path):
  (tmp_path / "policy.onnx").write_bytes(b"not a network")
  done = subprocess.run(
    [sys.executable, str(SCRIPT), str(tmp_path / "policy.onnx")],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1 and "policy.onnx: not a readable ONNX file" in lines[0]


@pytest.mark.parametrize(
  "options, message",
  [
    (
      {"command": ("goal=1,2",)},
      "--goal: Smp-Test-G1 takes --direction, --speed, --facing",
    ),
    ({"command": ("speed=-1",)}, "--speed -1: give"),
    ({"command": ("facing=nan",)}, "--facing nan: give"),
    ({"command": ("speed=1,2",)}, "--speed 1 2: give 1 numbers (m/s)"),
    ({"command": ("speed",)}, "--command speed: write NAME=VALUE"),
    ({"command": ("speed=1", "speed=2")}, "--command speed=2: speed is given twice"),
    ({"changes": ("speed=1",)}, "--changes speed=1: write SECONDS:NAME=VALUE"),
    ({"changes": ("-1:speed=1",)}, "--changes -1:speed=1: write SECONDS"),
    ({"changes": ("1:goal=1,2",)}, "--goal: Smp-Test-G1 takes"),
    (
      {"changes": ("3:speed=1", "2:speed=0"), "report": True},
      "--changes: at 2, 3 s; with --report let the command change once",
    ),
    (
      {"changes": ("1:speed=1",), "report": True},
      "--changes 1:...: with --report give more than 1 s",
    ),
    ({"changes": ("1:speed=1",), "viewer": "viser"}, "--changes: leave out --viewer"),
    ({"seconds": 0.0}, "--seconds 0"),
    ({"noise": -1.0}, "--noise -1"),
    ({"seed": -1}, "--seed -1"),
    (
      {"video": Path("out.txt")},
      "--video out.txt: give a name that ends in .mp4 or .gif",
    ),
    ({"log": Path("out.csv")}, "--log out.csv: give a name that ends in .npz"),
    ({"viewer": "viser", "report": True}, "--viewer viser runs until"),
    ({"viewer": "viser", "seconds": 3.0}, "--viewer viser runs until"),
    ({"start": Path("gone.npz")}, "gone.npz: no such start file"),
    ({"start": Path("prome")}, "--start prome: neither a .npz file nor one of prone,"),
  ],
)
def test_options_that_do_not_fit(acting: Path, options: dict, message: str):
  with pytest.raises(UserError) as error:
    sim2sim(Sim2SimCfg(acting, **options))
  assert message in str(error.value) and "\n" not in str(error.value)


def test_commands_outside_training_are_noted(acting: Path, capsys):
  sim2sim(Sim2SimCfg(acting, seconds=0.02, command=("speed=3",)))
  assert "note: speed 3 (trained: 0.5 to 2 m/s)" in capsys.readouterr().out


# Files that are not what they should be.


def refused(path: Path) -> str:
  """The error of a policy that cannot be run."""
  with pytest.raises(UserError) as error:
    make_rollout(path)
  text = str(error.value)
  assert "\n" not in text
  return text


def test_files_that_are_no_policies(tmp_path: Path):
  file = tmp_path / "policy.onnx"
  assert "no such policy file" in refused(file)
  file.write_bytes(b"")
  assert "not a readable ONNX file" in refused(file)
  write_policy(file, SPEC)
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  assert "policy.onnx" in refused(file)
  write_policy(file, SPEC)
  model = onnx.load(str(file))
  del model.metadata_props[:]
  onnx.save(model, str(file))
  assert "without the metadata 'smp'" in refused(file)
  write_policy(file, g1_policy(()), metadata=SPEC.dumps())
  assert "the network maps" in refused(file)


def test_policies_of_another_robot(tmp_path: Path):
  file = tmp_path / "policy.onnx"
  names = ("tail_joint", *SPEC.joints.names[1:])
  joints = replace(SPEC.joints, names=names)
  text = refused(write_policy(file, replace(SPEC, joints=joints)))
  assert "joint 'tail_joint' is not in the model" in text
  fewer = {name: getattr(SPEC.joints, name)[1:] for name in vars(SPEC.joints)}
  sizes = {"joint_pos": 28, "joint_vel": 28, "last_action": 28}
  parts = [replace(p, size=sizes.get(p.source, p.size)) for p in SPEC.observations]
  spec = replace(
    SPEC,
    joints=replace(SPEC.joints, **fewer),
    observations=tuple(parts),
    start_qpos=(*SPEC.start_qpos[:7], *SPEC.start_qpos[8:]),
  )
  text = refused(write_policy(file, spec))
  assert "does not know the model's joint 'left_hip_pitch_joint'" in text
  geoms = SPEC.physics.geoms | {"tail": {"contype": 1.0}}
  physics = replace(SPEC.physics, geoms=geoms)
  text = refused(write_policy(file, replace(SPEC, physics=physics)))
  assert "geom 'tail' is not in the model" in text
  physics = replace(SPEC.physics, options={"warp_speed": 9.0})
  text = refused(write_policy(file, replace(SPEC, physics=physics)))
  assert "'warp_speed'" in text


def test_policies_of_another_version(tmp_path: Path):
  file = tmp_path / "policy.onnx"
  head, *rest = SPEC.observations

  def with_first(**changes: Any) -> PolicySpec:
    return replace(SPEC, observations=(replace(head, **changes), *rest))

  text = refused(write_policy(file, with_first(sensor="imu_smell")))
  assert "sensor 'imu_smell' is not in the model" in text
  text = refused(write_policy(file, with_first(source="foresight")))
  assert "no observation 'foresight'" in text
  unknown = (DIRECTION, SPEED, replace(FACING, kind="dance"))
  text = refused(write_policy(file, replace(SPEC, command=unknown)))
  assert "no command component of kind 'dance'" in text


def test_actions_that_are_no_numbers(tmp_path: Path):
  file = write_policy(tmp_path / "policy.onnx", SPEC, gain=float("nan"))
  with pytest.raises(UserError, match="an action at 0.00 s is not a number"):
    run(make_rollout(file), 1.0)


def test_actions_are_clipped_as_in_training(tmp_path: Path):
  spec = replace(SPEC, clip_actions=0.25)
  file = write_policy(tmp_path / "policy.onnx", spec, gain=10.0)
  assert np.abs(OnnxPolicy(file)(np.ones(spec.observation_size))).max() == 0.25


# The metadata.


def test_metadata_comes_back_as_it_was():
  assert PolicySpec.loads(SPEC.dumps()) == SPEC


def change(path: str, value: Any) -> str:
  """The metadata with one entry replaced, or removed where ``value`` is ...."""
  table = json.loads(SPEC.dumps())
  *parents, last = path.split(".")
  inside = table
  for name in parents:
    inside = inside[int(name) if name.isdecimal() else name]
  if value is ...:
    del inside[last]
  else:
    inside[last] = value
  return json.dumps(table)


@pytest.mark.parametrize(
  "path, value, message",
  [
    ("format", 99, "format 99, this version reads 1, 2, 3"),
    ("task", ..., "'task' is missing"),
    ("task", 3, "'task' is 3, expected a valid string"),
    ("joints.stiffness", [1.0], "'joints.stiffness' has 1 values, not 29"),
    ("joints.stiffness", "stiff", "'joints.stiffness' is 'stiff'"),
    ("joints.damping", [float("nan")] * 29, "'joints.damping[0]' is nan"),
    ("joints", [], "'joints' is [], expected a table"),
    ("physics.timestep", 0.0, "'physics.timestep' is 0.0, expected greater than 0"),
    ("physics.timestep", True, "'physics.timestep' is True"),
    ("physics.decimation", 0, "'physics.decimation' is 0, expected greater than 0"),
    ("physics.options", {"gravity": ["down"]}, "'physics.options.gravity[0]'"),
    ("command", [], "the command has 0 values, observed 5"),
    ("start_qpos", [0.0] * 3, "'start_qpos' has 3 values, not 36"),
    ("start_qpos", [0.0] * 36, "'start_qpos' has a quaternion of length 0"),
    ("fallen_below", "low", "'fallen_below' is 'low'"),
    ("fallen_below", -0.2, "'fallen_below' is -0.2, expected above 0"),
    ("clip_actions", 0.0, "'clip_actions' is 0.0, expected above 0"),
    ("control_hz", 100.0, "'control_hz' is 100, but an action lasts 0.02 s"),
    ("joints.names", ["left_knee_joint"] * 29, "has 'left_knee_joint' twice"),
    ("joints.stiffness", [0.0] * 29, "'joints.stiffness' of left_hip_pitch_joint is 0"),
    ("joints.effort_limit", [-5.0] * 29, "is -5, expected above 0"),
    ("joints.damping", [-1.0] * 29, "'joints.damping' of left_hip_pitch_joint is -1"),
    ("observations.0.scale", [0.0], "has a scale of 0"),
    ("observations.0.noise", [0.2, -0.2], "is from 0.2 to -0.2"),
  ],
)
def test_damaged_metadata_is_named(path: str, value: Any, message: str):
  with pytest.raises(UserError) as error:
    PolicySpec.loads(change(path, value))
  assert message in str(error.value) and "\n" not in str(error.value)


def test_metadata_of_the_former_format_still_loads():
  """There the name of a component said what it is."""
  spec = g1_policy((DIRECTION, SPEED, FACING, GOAL))
  table = json.loads(spec.dumps())
  table["format"] = 1
  for part in table["command"]:
    for name in ("kind", "along", "least", "meaning"):
      del part[name]
  found = PolicySpec.loads(json.dumps(table))
  silent = tuple(replace(part, meaning="") for part in spec.command)
  assert found == replace(spec, command=silent)
  table["command"][0]["name"] = "dance"
  with pytest.raises(UserError, match="'speed' goes along 'direction', which is no"):
    PolicySpec.loads(json.dumps(table))


def options_of(monkeypatch, *words: str) -> Sim2SimCfg:
  monkeypatch.setattr(sys, "argv", ["sim2sim", *words])
  return parse_options(Sim2SimCfg)


def test_each_component_is_an_option(tmp_path: Path, monkeypatch, capsys):
  height = scalar("height", "m", "how high to hold the pelvis", 0.5, 0.8)
  file = str(write_policy(tmp_path / "policy.onnx", g1_policy((height, GOAL))))
  cfg = options_of(monkeypatch, file, "--height", "0.6", "--goal", "1", "-2")
  assert given_values(cfg.command) == {"height": (0.6,), "goal": (1.0, -2.0)}
  assert type(cfg) is Sim2SimCfg and cfg.policy == Path(file)
  both = options_of(monkeypatch, file, "--command", "height=0.7", "--seconds", "3")
  assert given_values(both.command) == {"height": (0.7,)} and both.seconds == 3.0
  with pytest.raises(UserError, match="--speed: Smp-Test-G1 takes --height, --goal"):
    options_of(monkeypatch, file, "--speed", "1")
  with pytest.raises(UserError, match="--secnds: .*did you mean --seconds"):
    options_of(monkeypatch, file, "--secnds", "1")
  with pytest.raises(SystemExit):
    options_of(monkeypatch, file, "--help")
  assert "How high to hold the pelvis, m." in " ".join(capsys.readouterr().out.split())


def test_a_command_of_a_new_kind_is_seen_shown_and_noted():
  """The metadata alone says what a component is."""
  height = scalar("height", "m", "", 0.5, 0.8)
  far = replace(GOAL, name="door")
  spec = g1_policy((replace(FACING, name="look"), height, far))
  command = Command(spec, {"height": (0.9,), "look": (90.0,)})
  seen = command.observe(SPEC_QPOS)
  np.testing.assert_allclose(seen, [0.0, 1.0, 0.9, 1.0, -2.0], atol=1e-9)
  assert outside_training(spec, command) == "height 0.9 (trained: 0.5 to 0.8 m)"
  assert [arrow.name for arrow in command_markers.arrows(command, np.zeros(2))] == [
    "look"
  ]
  assert list(command_markers.balls(command)) == ["door"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_metadata_that_is_no_table(text: str):
  with pytest.raises(UserError):
    PolicySpec.loads(text)
