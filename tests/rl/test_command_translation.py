"""Commands of one task in the words of another: geometry, mirrors, what suits whom."""

from __future__ import annotations

import math

import pytest
import torch

from smp.rl.command_translation import (
  ARC_SPEED,
  AT_GOAL,
  FACING_TIME,
  GOAL_TIME,
  LEAD_TIME,
  MAX_FACING,
  MAX_TURN,
  TOP_SPEED,
  TURN_TIME,
  VELOCITY_KINDS,
  goal_of_speed,
  goal_of_velocity,
  leads_ahead,
  leads_aside,
  leads_straight,
  stands,
  steering_of_velocity,
  travel_of_goal,
  travel_of_velocity,
)


def velocity(vx: float, vy: float = 0.0, yaw_rate: float = 0.0) -> torch.Tensor:
  return torch.tensor([[vx, vy, yaw_rate]])


def test_the_goal_of_a_straight_velocity_is_straight_ahead_of_it():
  for vx, vy in ((0.0, 0.0), (1.5, 0.0), (-0.5, 0.3)):
    expected = GOAL_TIME * torch.tensor([[vx, vy]])
    torch.testing.assert_close(goal_of_velocity(velocity(vx, vy)), expected)


def test_the_goal_of_a_turn_lies_at_half_the_angle_at_the_same_distance():
  for vx, vy in ((2.0, 0.0), (1.0, 0.7)):
    straight, goal = (
      goal_of_velocity(velocity(vx, vy, yaw_rate))[0] for yaw_rate in (0.0, 1.0)
    )
    assert goal.norm() == pytest.approx(float(straight.norm()))
    before, after = (float(torch.atan2(g[1], g[0])) for g in (straight, goal))
    assert after - before == pytest.approx(0.5 * GOAL_TIME, abs=1e-5)


def test_the_goal_of_a_mirrored_velocity_is_mirrored():
  command = torch.randn(20, 3)
  mirrored = goal_of_velocity(command * torch.tensor([1.0, -1.0, -1.0]))
  expected = goal_of_velocity(command) * torch.tensor([1.0, -1.0])
  torch.testing.assert_close(mirrored, expected)


def test_the_steering_of_a_velocity_leads_where_it_does():
  command = velocity(-0.3, 0.4)
  direction, speed, facing = steering_of_velocity(command)[0].split((2, 1, 2))
  torch.testing.assert_close(direction, torch.tensor([-0.6, 0.8]))
  assert float(speed) == pytest.approx(0.5)
  torch.testing.assert_close(facing, torch.tensor([1.0, 0.0]))


def test_the_steering_of_a_turn_goes_and_faces_the_side_it_turns_to():
  x, y, *_ = steering_of_velocity(velocity(1.0, 0.0, 0.5))[0].tolist()
  assert math.atan2(y, x) == pytest.approx(0.5 * TURN_TIME)
  *_, speed, forward, left = steering_of_velocity(velocity(0.0, 0.0, 0.5))[0].tolist()
  assert speed == 0.0
  assert math.atan2(left, forward) == pytest.approx(0.5 * FACING_TIME)
  *_, forward, left = steering_of_velocity(velocity(0.0, 0.0, -9.0))[0].tolist()
  assert math.atan2(left, forward) == pytest.approx(-MAX_FACING)


def test_the_steering_of_a_mirrored_velocity_is_mirrored():
  command = torch.randn(20, 3)
  mirrored = steering_of_velocity(command * torch.tensor([1.0, -1.0, -1.0]))
  expected = steering_of_velocity(command) * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
  torch.testing.assert_close(mirrored, expected)


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    ((0.0, 0.0, 0.0), True),
    ((0.0, 0.0, 0.5), False),
    ((1.0, 0.3, 1.0), True),
    ((1.0, -0.3, 1.0), True),
    ((1.0, 0.5, 0.0), False),
    ((-1.0, 0.0, 0.0), False),
    ((-1.0, -0.2, 0.0), False),
  ],
)
def test_what_leads_ahead(command, expected):
  assert bool(leads_ahead(velocity(*command))) is expected


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    ((0.0, 0.0, 0.0), False),
    ((0.1, 0.0, 0.0), False),
    ((1.0, 0.1, 0.5), True),
    ((1.0, -0.1, -0.5), True),
    ((1.0, 0.3, 0.0), False),
    ((1.0, 0.0, 1.0), False),
    ((-1.0, 0.0, 0.0), False),
  ],
)
def test_what_leads_straight(command, expected):
  assert bool(leads_straight(velocity(*command))) is expected


def test_the_travel_of_a_velocity_leads_to_the_side_it_turns_to():
  x, y, speed = travel_of_velocity(velocity(1.5, 0.0, 0.5))[0].tolist()
  assert speed == pytest.approx(1.5)
  assert math.atan2(y, x) == pytest.approx(0.5 * LEAD_TIME)
  command = torch.randn(20, 3)
  mirrored = travel_of_velocity(command * torch.tensor([1.0, -1.0, -1.0]))
  expected = travel_of_velocity(command) * torch.tensor([1.0, -1.0, 1.0])
  torch.testing.assert_close(mirrored, expected)


def test_the_travel_of_a_goal_is_an_arc_to_it_that_ends_there():
  angles = torch.tensor([0.0, 0.3, 1.0, -2.0, 3.0])
  goal = 5.0 * torch.stack((angles.cos(), angles.sin()), dim=-1)
  x, y, speed = travel_of_goal(goal).unbind(dim=-1)
  torch.testing.assert_close(torch.atan2(y, x), angles.clamp(-MAX_TURN, MAX_TURN))
  torch.testing.assert_close(torch.hypot(x, y), torch.ones(5))
  expected = [TOP_SPEED, TOP_SPEED, ARC_SPEED, ARC_SPEED, ARC_SPEED]
  assert speed.tolist() == pytest.approx(expected)
  # It slows down on the way, and stands at the goal, whatever its bearing.
  ahead = torch.stack((torch.linspace(0.0, 4.0, 81), torch.zeros(81)), dim=-1)
  speed = travel_of_goal(ahead)[:, 2]
  assert bool((speed.diff() >= 0.0).all()) and float(speed[-1]) == TOP_SPEED
  near = AT_GOAL - 0.01
  for here in ((near, 0.0), (0.0, near), (-near, 0.0), (0.0, 0.0)):
    assert travel_of_goal(torch.tensor([here])).tolist() == [[1.0, 0.0, 0.0]]
  assert float(travel_of_goal(torch.tensor([[AT_GOAL + 0.01, 0.0]]))[0, 2]) > 0.0
  # Mirrored, it is the mirror image.
  goal, mirror = 3.0 * torch.randn(50, 2), torch.tensor([1.0, -1.0, 1.0])
  torch.testing.assert_close(
    travel_of_goal(goal * mirror[:2]), travel_of_goal(goal) * mirror
  )


def test_a_goal_of_a_speed_is_where_the_direction_leads():
  turned = torch.tensor([[math.cos(0.3), math.sin(0.3), 2.0]])
  torch.testing.assert_close(goal_of_speed(turned), 2.0 * GOAL_TIME * turned[:, :2])
  ahead = torch.tensor([[1.0, 0.0, 1.5]])
  torch.testing.assert_close(goal_of_speed(ahead), goal_of_velocity(velocity(1.5)))
  slow = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.1], [0.0, 1.0, 0.0]])
  assert stands(slow).tolist() == [True, False, True]


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    ((0.0, 0.0, 0.0), "stand"),
    ((0.0, 0.0, 0.5), "turn"),
    ((0.1, 0.0, -0.5), "turn"),
    ((0.0, 0.5, 0.0), "aside"),
    ((-0.5, 0.0, 1.0), "aside"),
    ((1.0, 0.0, 0.0), "straight"),
    ((2.5, 0.0, 0.0), "straight fast"),
    ((2.5, 0.0, 0.8), "fast"),
    ((0.1, 0.0, 0.0), ""),
    ((1.0, 0.0, 1.0), ""),
  ],
)
def test_the_kinds_of_a_velocity(command, expected):
  found = [name for name, of in VELOCITY_KINDS.items() if bool(of(velocity(*command)))]
  assert found == expected.split()
  vx, vy, yaw_rate = command
  for of in VELOCITY_KINDS.values():
    assert bool(of(velocity(vx, -vy, -yaw_rate))) is bool(of(velocity(*command)))


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    ((0.0, 0.5, 0.0), True),
    ((-0.5, 0.0, 0.0), True),
    ((-0.3, -0.3, 1.0), True),
    ((0.25, 0.5, 0.0), True),
    ((0.5, 0.5, 0.0), False),
    ((1.0, 0.0, 0.5), False),
    ((0.0, 0.0, 1.0), False),
    ((0.0, 0.0, 0.0), False),
  ],
)
def test_what_leads_aside(command, expected):
  assert bool(leads_aside(velocity(*command))) is expected
