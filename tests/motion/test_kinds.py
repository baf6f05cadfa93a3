"""Kinds of locomotion: each found from motion that is made to be of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smp.motion.clips import Clip, clip_windows
from smp.motion.features import FPS, g1_spec, mirror_features
from smp.motion.kinds import KINDS, MOVING_SPEED, STANDING, Going, kinds, window_kinds

FRAMES = 30


def moving(speed: float, angle: float, turn: float, start: float, swing: float) -> Clip:
  """A clip that moves at ``angle`` (degrees) to its heading and turns (rad/s).

  Args:
    speed: m/s.
    angle: Direction of motion, from the heading, positive to the left.
    turn: Rate of the heading.
    start: Heading in the first frame, rad.
    swing: Amplitude of a knee at 2 Hz, rad.
  """
  t = np.arange(FRAMES) / FPS
  heading = start + turn * t
  course = heading + np.radians(angle)
  step = speed / FPS * np.stack((np.cos(course), np.sin(course)), axis=1)
  pos = np.concatenate((step.cumsum(axis=0), np.full((FRAMES, 1), 0.76)), axis=1)
  quat = np.stack((np.cos(heading / 2), 0 * t, 0 * t, np.sin(heading / 2)), axis=1)
  joints = np.zeros((FRAMES, 29))
  joints[:, 3] = swing * np.sin(4 * np.pi * t)
  return Clip("made", FPS, pos, quat, joints)


CASES = {
  STANDING: (0.05, 0.0, 0.1, 0.02),
  "slow": (0.2, 0.0, 0.0, 0.5),
  "turning on the spot": (0.1, 0.0, 1.2, 0.5),
  "forward up to 1 m/s": (0.6, 20.0, 0.2, 0.5),
  "forward 1-2 m/s": (1.5, -20.0, 0.2, 0.5),
  "forward 2-3 m/s": (2.5, 0.0, 0.0, 0.5),
  "forward above 3 m/s": (3.5, 0.0, 0.0, 0.5),
  "forward, turning": (1.5, 0.0, -1.2, 0.5),
  "sideways": (0.6, 90.0, 0.0, 0.5),
  "backward": (0.6, 180.0, 0.0, 0.5),
}


def test_every_kind_has_a_case():
  assert tuple(CASES) == KINDS


@pytest.mark.parametrize("start", [0.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_window_is_of_the_kind_that_it_was_made_as(kind: str, start: float):
  speed, angle, turn, swing = CASES[kind]
  features = clip_windows(moving(speed, angle, turn, start, swing))
  for windows in (features, mirror_features(features)):
    found = window_kinds(windows, g1_spec())
    assert {KINDS[i] for i in found} == {kind}


def test_trembling_on_the_spot_is_no_standing_still():
  features = clip_windows(moving(0.0, 0.0, 0.0, 0.0, 0.0))
  assert (window_kinds(features, g1_spec()) == KINDS.index(STANDING)).all()
  noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
  features[..., 9:38] += 0.03 * noise[..., 9:38]
  assert (window_kinds(features, g1_spec()) == KINDS.index("slow")).all()


def test_directions_part_at_45_and_135_degrees():
  drift = np.array([44.0, 46.0, 134.0, 136.0])
  going = Going(np.full(4, 0.5), np.zeros(4), drift, np.ones(4))
  names = [KINDS[i] for i in kinds(going)]
  assert names == ["forward up to 1 m/s", "sideways", "sideways", "backward"]
  # Below the speed that has a direction, the angle is noise.
  slow = going._replace(speed=np.full(4, MOVING_SPEED - 0.01))
  assert {KINDS[i] for i in kinds(slow)} == {"slow"}
