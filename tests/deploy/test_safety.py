"""Properties of the safety layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smp.deploy.deploy_file import describe_deploy
from smp.deploy.safety import MotorCommand, Phase, Safety, SafetyCfg
from tests.deploy_fakes import robot_policy

DEPLOY = describe_deploy(robot_policy(()))
LOW, HIGH = np.array(DEPLOY.joint_pos_lower), np.array(DEPLOY.joint_pos_upper)
DEFAULT = np.array(DEPLOY.default_joint_pos)
EFFORT = DEPLOY.by_joint(DEPLOY.effort_limit)
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])
REST = np.zeros(29)
CFG = SafetyCfg(start_s=1.0, hand_over_s=0.2)


def vectors(size: float) -> st.SearchStrategy[np.ndarray]:
  return arrays(float, 29, elements=st.floats(-size, size))


def pitched(angle: float) -> np.ndarray:
  return np.array([math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0])


def torque(command: MotorCommand, q: np.ndarray, dq: np.ndarray) -> np.ndarray:
  return command.kp * (command.target - q) - command.kd * dq


def past_start(safety: Safety) -> None:
  """Bring a layer to where the policy acts."""
  for _ in range(61):
    safety.step(DEFAULT, REST, UPRIGHT, DEFAULT)
  assert safety.phase is Phase.POLICY


@settings(max_examples=200, deadline=None)
@given(vectors(2.0), vectors(30.0), vectors(1e4))
def test_no_torque_and_no_target_beyond_the_limits(offset, velocity, wanted):
  """Whatever the policy wants, wherever the robot is, while it is not stopped."""
  safety = Safety(DEPLOY, CFG)
  past_start(safety)
  q = np.clip(DEFAULT + offset, LOW - 0.09, HIGH + 0.09)
  command = safety.step(q, velocity, UPRIGHT, wanted)
  assert safety.phase is Phase.POLICY
  size = np.abs(torque(command, q, velocity))
  assert (size <= EFFORT * (1 + 1e-9) + 1e-9).all()
  # A target beyond the range is one that the torque forces.
  beyond = (command.target < LOW - 1e-9) | (command.target > HIGH + 1e-9)
  assert np.allclose(size[beyond], EFFORT[beyond])


def test_what_is_within_the_limits_passes_unchanged():
  safety = Safety(DEPLOY, CFG)
  past_start(safety)
  wanted = DEFAULT + 0.05
  wanted = np.clip(wanted, LOW, HIGH)
  command = safety.step(DEFAULT, REST, UPRIGHT, wanted)
  np.testing.assert_allclose(command.target, wanted)
  np.testing.assert_array_equal(command.kp, DEPLOY.by_joint(DEPLOY.stiffness))
  np.testing.assert_array_equal(command.kd, DEPLOY.by_joint(DEPLOY.damping))


@settings(max_examples=50, deadline=None)
@given(vectors(1.0), vectors(0.3))
def test_the_soft_start_leads_from_any_pose_to_the_default_without_a_jump(
  offset, wanted
):
  """With joints that follow; then the policy takes over, without a jump either."""
  start = np.clip(DEFAULT + offset, LOW, HIGH)
  safety, before = Safety(DEPLOY, CFG), start
  policy = np.clip(DEFAULT + wanted, LOW, HIGH)
  safety.begin(start)
  largest = np.abs(DEFAULT - start).max() * 1.5 / 50 + 1e-9  # The cubic's slope.
  for step in range(80):
    assert safety.wants_policy() == (step >= 50)
    command = safety.step(before, REST, UPRIGHT, policy if step >= 50 else None)
    if step < 50:
      assert safety.phase is Phase.START
      assert np.abs(command.target - before).max() <= largest
    else:
      assert np.abs(command.target - before).max() <= 0.3 / 10 + 1e-9
    if step == 49:
      np.testing.assert_allclose(command.target, DEFAULT, atol=1e-12)
    before = command.target
  np.testing.assert_allclose(before, policy, atol=1e-12)


@pytest.mark.parametrize(
  "measured, reason",
  [
    ({"quat": pitched(1.1)}, "tilted by 1.10 rad"),
    ({"quat": pitched(math.pi)}, "tilted by 3.14 rad"),
    ({"quat": 2.0 * UPRIGHT}, "quaternion has length 2.00"),
    ({"quat": np.zeros(4)}, "quaternion has length 0.00"),
    ({"quat": np.full(4, np.nan)}, "not a number"),
    ({"q": np.where(np.arange(29) == 3, np.inf, DEFAULT)}, "not a number"),
    (
      {"q": np.where(np.arange(29) == 3, HIGH + 0.2, DEFAULT)},
      "left_knee_joint is 0.20 rad beyond its range",
    ),
    (
      {"q": np.where(np.arange(29) == 9, LOW - 0.3, DEFAULT)},
      "right_knee_joint is 0.30",
    ),
    (
      {"dq": np.where(np.arange(29) == 4, -50.0, 0.0)},
      "left_ankle_pitch_joint moves at",
    ),
    ({"wanted": np.full(29, np.nan)}, "the policy's target is not a number"),
    ({"wanted": None}, "the policy's target is not a number"),
  ],
)
def test_a_stop_damps_and_lasts_until_a_new_begin(measured, reason: str):
  safety = Safety(DEPLOY, CFG)
  past_start(safety)
  now = {"q": DEFAULT, "dq": REST, "quat": UPRIGHT, "wanted": DEFAULT} | measured
  for each in (now, {"q": DEFAULT, "dq": REST, "quat": UPRIGHT, "wanted": DEFAULT}):
    command = safety.step(each["q"], each["dq"], each["quat"], each["wanted"])
    assert safety.phase is Phase.STOPPED and reason in safety.reason
    assert not command.kp.any() and (command.kd > 0).all()
    assert np.isfinite(command.target).all()
  assert not safety.wants_policy()
  safety.begin(DEFAULT)
  safety.step(DEFAULT, REST, UPRIGHT, None)
  assert safety.phase is Phase.START and safety.reason == ""


def test_it_stops_in_the_soft_start_too():
  safety = Safety(DEPLOY, CFG)
  safety.begin(DEFAULT)
  safety.step(DEFAULT, REST, pitched(-1.2), None)
  assert safety.phase is Phase.STOPPED


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.99, 0.99), st.floats(0.0, 2 * math.pi))
def test_a_tilt_below_the_limit_does_not_stop(tilt: float, yaw: float):
  """Whichever way the robot faces."""
  turn = np.array([math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)])
  w, z = turn[0], turn[3]
  c, s = math.cos(tilt / 2), math.sin(tilt / 2)
  quat = np.array([w * c, -z * s, w * s, z * c])
  safety = Safety(DEPLOY, CFG)
  past_start(safety)
  safety.step(DEFAULT, REST, quat, DEFAULT)
  assert safety.phase is Phase.POLICY


def test_without_times_the_policy_acts_at_once():
  safety = Safety(DEPLOY, SafetyCfg(start_s=0.0, hand_over_s=0.0))
  safety.begin(DEFAULT)
  assert safety.wants_policy()
  wanted = np.clip(DEFAULT + 0.1, LOW, HIGH)
  command = safety.step(DEFAULT, REST, UPRIGHT, wanted)
  np.testing.assert_allclose(command.target, wanted)
