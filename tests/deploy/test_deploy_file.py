"""deploy.yaml: what a controller reads of a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smp.deploy.controller import Controller, gravity, targets
from smp.deploy.deploy_file import (
  check_against,
  deploy_path,
  describe_deploy,
  read_deploy,
  write_deploy,
)
from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import STYLE, Observation, PolicySpec
from smp.deploy.rollout import Rollout, run
from smp.errors import UserError
from smp.robots import g1
from smp.utils.components import scalar
from tests.deploy_fakes import g1_policy, robot_policy, write_policy

VELOCITY = (
  scalar("vx", "m/s", "forward", -0.5, 3.0, 0.0),
  scalar("vy", "m/s", "to the left", -0.6, 0.6, 0.0),
  scalar("yaw_rate", "rad/s", "turning left", -1.5, 1.5, 0.0),
)
SDK = """
LeftHipPitch LeftHipRoll LeftHipYaw LeftKnee LeftAnklePitch LeftAnkleRoll RightHipPitch
RightHipRoll RightHipYaw RightKnee RightAnklePitch RightAnkleRoll WaistYaw WaistRoll
WaistPitch LeftShoulderPitch LeftShoulderRoll LeftShoulderYaw LeftElbow LeftWristRoll
LeftWristPitch LeftWristYaw RightShoulderPitch RightShoulderRoll RightShoulderYaw
RightElbow RightWristRoll RightWristPitch RightWristYaw
""".split()
"""Names in the SDK's enumeration of the G1's motors, by index."""


def shuffled(spec: PolicySpec) -> PolicySpec:
  """The same policy with its joints in another order."""
  order = np.random.default_rng(0).permutation(g1.NUM_JOINTS)
  joints = spec.joints
  mixed = {
    name: tuple(getattr(joints, name)[i] for i in order) for name in vars(joints)
  }
  default = tuple(spec.start_qpos[7 + i] for i in order)
  return replace(
    spec,
    joints=replace(joints, **mixed),
    start_qpos=(*spec.start_qpos[:7], *default),
  )


@pytest.fixture
def written(tmp_path: Path) -> Path:
  """The deploy file of a policy."""
  return write_deploy(robot_policy(VELOCITY), tmp_path / "policy.onnx")


def test_motors_are_the_sdks():
  theirs = [name.replace("_", "").removesuffix("joint") for name in g1.MOTOR_NAMES]
  assert theirs == [name.lower() for name in SDK]


def test_it_comes_back_as_it_was(tmp_path: Path):
  for spec in (g1_policy(), robot_policy(VELOCITY), shuffled(robot_policy(()))):
    path = write_deploy(spec, tmp_path / "walk.onnx")
    assert path == deploy_path(tmp_path / "walk.onnx") == tmp_path / "walk.deploy.yaml"
    found = read_deploy(path)
    assert found == describe_deploy(spec, "walk.onnx")
    check_against(found, spec, path)


def test_its_entries_are_those_of_the_known_controllers(written: Path):
  """Read with nothing but YAML, as a C++ controller does."""
  table, spec = yaml.safe_load(written.read_text()), robot_policy(VELOCITY)
  assert table["joint_ids_map"] == list(range(29)) and table["step_dt"] == 0.02
  assert table["stiffness"] == list(spec.joints.stiffness)
  assert table["default_joint_pos"] == list(spec.joints.default_pos)
  ranges = table["commands"]["base_velocity"]["ranges"]
  assert ranges == {
    "lin_vel_x": [-0.5, 3.0],
    "lin_vel_y": [-0.6, 0.6],
    "ang_vel_z": [-1.5, 1.5],
  }
  action = table["actions"]["JointPositionAction"]
  assert action["offset"] == list(spec.joints.action_offset)
  assert action["clip"] is None and action["joint_ids"] is None
  assert list(table["observations"]) == [
    "base_ang_vel",
    "projected_gravity",
    "joint_pos_rel",
    "joint_vel_rel",
    "last_action",
    "velocity_commands",
  ]
  for name, term in table["observations"].items():
    assert len(term["scale"]) == term["size"], name
    assert {"params", "clip", "scale", "history_length"} <= set(term)
  assert table["observations"]["joint_vel_rel"]["history_length"] == 3


def test_gains_follow_the_motors_and_the_rest_the_policy():
  spec = shuffled(robot_policy(VELOCITY))
  found = describe_deploy(spec)
  for i, name in enumerate(spec.joints.names):
    motor = g1.JOINT_NAMES.index(name)
    assert found.joint_ids_map[i] == motor
    assert found.stiffness[motor] == spec.joints.stiffness[i]
    assert found.default_joint_pos[i] == spec.joints.default_pos[i]
    low, high = g1.load_model().joint(name).range
    assert (found.joint_pos_lower[i], found.joint_pos_upper[i]) == (low, high)


def styled(spec: PolicySpec) -> PolicySpec:
  """A policy that observes one of two styles, too."""
  part = Observation(
    STYLE, STYLE, 2, "1", "", (1.0,), (0.0, 0.0), choices=("walk", "run")
  )
  return replace(spec, observations=(*spec.observations, part))


@pytest.mark.parametrize("style", ["", "run"])
@pytest.mark.parametrize("order", ["as the motors", "shuffled"])
def test_a_controller_that_reads_only_the_file_does_what_sim2sim_does(
  tmp_path: Path, order: str, style: str
):
  """From what an IMU and encoders say, by motor; in closed loop."""
  spec = robot_policy(VELOCITY)
  spec = shuffled(spec) if order == "shuffled" else spec
  spec = styled(spec) if style else spec
  spec = replace(spec, clip_actions=0.1)
  file = write_policy(tmp_path / "policy.onnx", spec, 0.03)
  policy = OnnxPolicy(file)
  command = Command(spec, {"vx": (0.5,), "yaw_rate": (-0.3,)})
  robot = Robot(spec, command)
  robot.style = style
  log = run(Rollout(policy, robot), 0.5)
  deploy = read_deploy(write_deploy(spec, file))
  controller, robot = Controller(deploy, policy, style or None), Robot(spec, command)
  motor_q = [robot.model.joint(name).qposadr[0] for name in g1.MOTOR_NAMES]
  motor_v = [robot.model.joint(name).dofadr[0] for name in g1.MOTOR_NAMES]
  motors = [robot.model.actuator(name).id for name in g1.MOTOR_NAMES]
  for step in range(len(log.time)):
    data = robot.data
    np.testing.assert_allclose(data.qpos, log.qpos[step], atol=1e-6)
    target = controller.step(
      data.qpos[motor_q],
      data.qvel[motor_v],
      data.qpos[3:7],
      data.sensor("imu_ang_vel").data,
      np.array([0.5, 0.0, -0.3]),
    )
    np.testing.assert_allclose(controller.observation, log.obs[step], atol=1e-5)
    np.testing.assert_allclose(controller.action, log.action[step], atol=1e-6)
    robot.step(log.action[step])
    np.testing.assert_allclose(data.ctrl[motors], target, atol=1e-6)
  assert np.abs(log.action).max() == pytest.approx(0.1)


def test_a_controller_clips_what_its_network_says():
  deploy = describe_deploy(replace(robot_policy(VELOCITY), clip_actions=0.5))
  controller = Controller(deploy, lambda seen: np.full(29, 5.0))
  measured = (np.zeros(29), np.zeros(29), np.eye(4)[0], np.zeros(3), np.zeros(3))
  for _ in range(2):
    controller.step(*measured)
  assert (controller.action == 0.5).all()
  assert (controller.observation == 0.5).sum() == 29  # The last action, as in training.


def test_a_controller_takes_the_styles_of_its_policy():
  deploy = describe_deploy(styled(robot_policy(VELOCITY)))
  assert deploy.styles == ("walk", "run")
  controller = Controller(deploy, lambda seen: np.zeros(29))
  measured = (np.zeros(29), np.zeros(29), np.eye(4)[0], np.zeros(3), np.zeros(3))
  controller.step(*measured)
  seen = [controller.observation[-2:]]  # The first, if none is chosen.
  for style in deploy.styles:
    controller.choose_style(style)
    controller.step(*measured)
    seen.append(controller.observation[-2:])
  np.testing.assert_array_equal(seen, np.eye(2)[[0, 0, 1]])
  with pytest.raises(UserError, match="policy.onnx knows walk, run; did you mean run"):
    controller.choose_style("rum")
  with pytest.raises(UserError, match="observes no style"):
    Controller(describe_deploy(robot_policy(VELOCITY)), lambda seen: seen, "run")


def test_the_names_of_styles_are_as_many_as_its_values(tmp_path: Path):
  path = write_deploy(styled(robot_policy(VELOCITY)), tmp_path / "policy.onnx")
  assert (
    "choices" not in yaml.safe_load(path.read_text())["observations"]["last_action"]
  )
  edit(path, "observations.style.choices", ["walk"])
  with pytest.raises(
    UserError, match="'observations.style.choices' has 1 names, not 2"
  ):
    read_deploy(path)


def test_gravity_is_the_rotations():
  for quat in np.random.default_rng(0).normal(size=(20, 4)):
    quat /= np.linalg.norm(quat)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    down = matrix.reshape(3, 3).T @ [0.0, 0.0, -1.0]
    np.testing.assert_allclose(gravity(quat), down, atol=1e-12)


def test_targets_are_clipped_where_actions_were():
  spec = replace(robot_policy(VELOCITY), clip_actions=0.5)
  action = np.random.default_rng(0).normal(size=(10, 29))
  clipped = np.clip(action, -0.5, 0.5)
  offset, scale = spec.joints.action_offset, spec.joints.action_scale
  want = np.array(offset) + np.array(scale) * clipped
  np.testing.assert_allclose(targets(describe_deploy(spec), action), want)


def test_a_policy_with_base_velocity_is_refused():
  with pytest.raises(
    UserError, match="observes base_lin_vel, which joint encoders and"
  ):
    Controller(describe_deploy(g1_policy()), lambda seen: seen)


def edit(path: Path, place: str, value: Any) -> None:
  """Change an entry of a file, or remove it where ``value`` is ...."""
  table = yaml.safe_load(path.read_text())
  *parents, last = place.split(".")
  inside: Any = table
  for name in parents:
    inside = inside[name]
  key: Any = int(last) if isinstance(inside, list) else last
  if value is ...:
    del inside[key]
  else:
    inside[key] = value
  path.write_text(yaml.safe_dump(table, sort_keys=False))


ACTION = "actions.JointPositionAction"


@pytest.mark.parametrize(
  "place, value, message",
  [
    ("stiffness.3", 0.0, "'stiffness' of left_knee_joint is 0, expected above 0"),
    ("damping.4", -1.0, "'damping' of left_ankle_pitch_joint is -1"),
    ("effort_limit.0", 0.0, "'effort_limit' of left_hip_pitch_joint is 0"),
    ("joint_names.4", "left_knee_joint", "'joint_names' has left_knee_joint twice"),
    ("joint_names.0", "FL_hip_joint", "FL_hip_joint, no joint of a unitree_g1_29dof"),
    ("joint_ids_map.3", 9, "'joint_ids_map[3]' is 9, left_knee_joint is motor 3"),
    (f"{ACTION}.scale", [0.25] * 12, "scale' has 12 values, not 29"),
    (f"{ACTION}.scale.1", 0.0, "scale' of left_hip_roll_joint is 0"),
    ("actions", {}, "'actions' is not one JointPositionAction"),
    (
      "default_joint_pos.3",
      9.0,
      "'default_joint_pos' of left_knee_joint is 9, outside",
    ),
    ("joint_pos_lower.3", 9.0, "limits of left_knee_joint are 9 to"),
    ("step_dt", 0.0, "'step_dt' is 0.0, expected greater than 0"),
    ("step_dt", "fast", "'step_dt' is 'fast'"),
    ("stiffness", ..., "'stiffness' is missing"),
    ("gains", [1.0], "unknown field 'gains'"),
    ("robot", "unitree_h1", "'robot' is 'unitree_h1'"),
    ("format", 7, "'format' is 7"),
    ("history_order", "newest_first", "'history_order' is 'newest_first'"),
    ("observations.joint_pos_rel.size", 12, "'observations.joint_pos_rel.size' is 12"),
    (
      "observations.base_ang_vel.scale",
      [1.0],
      "'observations.base_ang_vel.scale' has 1",
    ),
    ("observations.base_ang_vel.scale.0", 0.0, "base_ang_vel.scale' has a 0"),
    (
      "observations.base_ang_vel.history_length",
      7,
      "'observations' have 294 values for 29 joints",
    ),
    ("observations.joint_pos_rel", ..., "for 29 joints, 'policy' maps 282 to 29"),
    ("observations.base_ang_vel.signal", "nose", "'observations.base_ang_vel.signal'"),
  ],
)
def test_nonsense_is_one_line(written: Path, place: str, value: Any, message: str):
  edit(written, place, value)
  with pytest.raises(UserError) as error:
    read_deploy(written)
  text = str(error.value)
  assert message in text and "policy.deploy.yaml: " in text and "\n" not in text


@pytest.mark.parametrize(
  "text",
  ["", "3", "a: [", "\x00", "- 1", "!!python/name:os.x", "a: 2020-13-45", "a: 1\na: 2"],
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str):
  path = tmp_path / "x.deploy.yaml"
  path.write_text(text)
  with pytest.raises(UserError, match="x.deploy.yaml: ") as error:
    read_deploy(path)
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match="gone.yaml: cannot read"):
    read_deploy(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
  "place, value, message",
  [
    (f"{ACTION}.scale.3", 0.25, "(left_knee_joint) is 0.25, the policy was trained"),
    ("stiffness.3", 100.0, "'stiffness[3]' (left_knee_joint) is 100, the policy was"),
    ("step_dt", 0.005, "'step_dt' is 0.005, the policy was trained with 0.02"),
    ("observations.joint_vel_rel.scale.0", 0.1, "joint_vel_rel.scale[0]' is 0.1,"),
    ("commands.base_velocity.ranges.lin_vel_x.1", 9.0, "lin_vel_x[1]' is 9"),
    ("policy.iteration", 3, "'policy.iteration' is 3, the policy was trained with 7"),
  ],
)
def test_what_the_policy_was_not_trained_with_is_named(
  written: Path, place: str, value: Any, message: str
):
  edit(written, place, value)
  deploy = read_deploy(written)  # By itself it is possible.
  with pytest.raises(UserError) as error:
    check_against(deploy, robot_policy(VELOCITY), written)
  assert message in str(error.value) and "\n" not in str(error.value)


def test_observations_in_another_order_are_seen(written: Path):
  table = yaml.safe_load(written.read_text())
  terms = list(table["observations"].items())
  table["observations"] = dict([terms[1], terms[0], *terms[2:]])
  written.write_text(yaml.safe_dump(table, sort_keys=False))
  with pytest.raises(UserError, match="stand in another order"):
    check_against(read_deploy(written), robot_policy(VELOCITY), written)


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 10**6), st.binary(min_size=0, max_size=6), st.integers(0, 40))
def test_a_damaged_file_is_refused_in_a_line_or_sound(
  written: Path, place: int, bytes_put: bytes, cut: int
):
  """Whatever is overwritten, cut out, or put in."""
  whole = write_deploy(robot_policy(VELOCITY), written.with_name("x.onnx")).read_bytes()
  at = place % len(whole)
  written.write_bytes(whole[:at] + bytes_put + whole[at + cut :])
  try:
    deploy = read_deploy(written)
  except UserError as error:
    assert "\n" not in str(error)
  else:
    assert len(deploy.joint_names) == 29
