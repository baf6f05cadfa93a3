"""Kinds of upright locomotion: where to, how fast, and standing still."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from smp.motion.features import SLICES, FeatureSpec

STANDING = "standing still"
STILL_SPEED, STILL_TURN, STILL_JOINTS = 0.15, 0.3, 0.35
"""Limits of standing still: speed (m/s), turning rate (rad/s), RMS joint speed (rad/s).
"""
MOVING_SPEED = 0.3
"""Speed above which motion has a direction, m/s."""
TURNING = 0.8
"""Turning rate of the heading above which a kind is called turning, rad/s."""
FORWARD, SIDEWAYS = 45.0, 135.0
"""Angles between velocity and heading at which forward and sideways end, degrees."""
SPEEDS = (1.0, 2.0, 3.0)
"""Speeds that part the kinds of moving forward, m/s."""
KINDS = (
  *(STANDING, "slow", "turning on the spot"),
  f"forward up to {SPEEDS[0]:g} m/s",
  *(f"forward {low:g}-{high:g} m/s" for low, high in pairwise(SPEEDS)),
  f"forward above {SPEEDS[-1]:g} m/s",
  *("forward, turning", "sideways", "backward"),
)
"""All kinds; `kinds` returns places in it."""


class Going(NamedTuple):
  """How a robot moves, as arrays (...)."""

  speed: np.ndarray
  """Horizontal speed of the root, m/s."""
  turn: np.ndarray
  """|heading rate|, rad/s."""
  drift: np.ndarray
  """Angle between velocity and heading, degrees, 0 to 180."""
  joint_speed: np.ndarray
  """RMS speed of the joints, rad/s."""


def is_still(going: Going) -> np.ndarray:
  """Return whether it stands still (...)."""
  return (
    (going.speed < STILL_SPEED)
    & (going.turn < STILL_TURN)
    & (going.joint_speed < STILL_JOINTS)
  )


def kinds(going: Going) -> np.ndarray:
  """Return the place in `KINDS` (...)."""
  slow, turning = going.speed < MOVING_SPEED, going.turn > TURNING
  by_speed = KINDS.index("slow") + 2 + np.digitize(going.speed, SPEEDS)
  return np.select(
    [
      is_still(going),
      slow & turning,
      slow,
      going.drift >= SIDEWAYS,
      going.drift >= FORWARD,
      turning,
    ],
    [
      KINDS.index(name)
      for name in (
        *(STANDING, "turning on the spot", "slow"),
        *("backward", "sideways", "forward, turning"),
      )
    ],
    by_speed,
  )


def window_kinds(features: torch.Tensor, spec: FeatureSpec) -> np.ndarray:
  """Return the place in `KINDS` of each window (N,), from its poses.

  Args:
    features: (N, W, 59), raw units, in the frame of the window's last root.
    spec: Their layout, for the frame rate.
  """
  seconds = (spec.window - 1) / spec.fps
  pos = features[..., SLICES["root_pos"]]
  velocity = ((pos[:, -1, :2] - pos[:, 0, :2]) / seconds).double().numpy()
  joints = features[..., SLICES["joint_pos"]]
  joint_speed = joints.diff(dim=1).mul(spec.fps).square().mean(dim=2).sqrt().mean(dim=1)
  # The rate about the vertical; it is the heading's where the pelvis is near upright.
  turn = features[..., SLICES["root_ang_vel"]][..., 2].mean(dim=1).abs()
  drift = np.degrees(np.abs(np.arctan2(velocity[:, 1], velocity[:, 0])))
  speed = np.linalg.norm(velocity, axis=1)
  return kinds(Going(speed, turn.numpy(), drift, joint_speed.numpy()))
