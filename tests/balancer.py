"""A policy without training that stands, swings its arms and sways, for ever.

Stiffness alone does not hold a G1 up: with the action at zero it falls in 1.5 s.
"""

from __future__ import annotations

import math

import numpy as np

from smp.deploy.policy_spec import PolicySpec

# Fed back to each joint's own target: rad per rad, rad per rad/s.
GAINS = {
  "ankle_pitch": (4.0, 0.08),
  "hip_pitch": (3.5, 0.0),
  "knee": (1.0, 0.03),
  "ankle_roll": (0.0, 0.03),
  "hip_roll": (0.5, 0.01),
  "waist_pitch": (2.0, 0.0),
}
LEAN_BACK = 0.017
"""rad, of the ankles: the default pose is a little too far forward."""
# Of the pelvis, to the ankles' pitch, rad per unit: m/s, rad/s, gravity along its x.
FORWARD_SPEED, PITCH_SPEED, PITCH = 0.3, 0.02, 0.6
SWING_HZ, SWING = 0.7, 0.5
"""Of the shoulders; the amplitude is an action."""
SWAY = 0.1
"""rad of the hips' roll at the arms' full swing."""


def balancer(spec: PolicySpec) -> tuple[np.ndarray, np.ndarray]:
  """Weight (O, A) and bias (A,) of a linear policy for ``spec``'s robot."""
  joint = {name.removesuffix("_joint"): i for i, name in enumerate(spec.joints.names)}
  part, start = {}, 0
  for each in spec.observations:
    part[each.name], start = start, start + each.size
  weight, bias = np.zeros((start, len(joint))), np.zeros(len(joint))
  for side in ("left", "right"):
    ankle = joint[f"{side}_ankle_pitch"]
    bias[ankle] -= LEAN_BACK
    weight[part["base_lin_vel"], ankle] = FORWARD_SPEED
    weight[part["base_ang_vel"] + 1, ankle] = PITCH_SPEED
    weight[part["projected_gravity"], ankle] = PITCH
  for name, i in joint.items():
    stiffness, damping = GAINS.get(name.split("_", 1)[1], GAINS.get(name, (0.0, 0.0)))
    weight[part["joint_pos"] + i, i] -= stiffness
    weight[part["joint_vel"] + i, i] -= damping
  _sway(weight, joint, part["actions"])
  weight, bias = (each / np.array(spec.joints.action_scale) for each in (weight, bias))
  _swing(weight, bias, joint, part["actions"])
  return weight, bias


def _sway(weight: np.ndarray, joint: dict[str, int], last: int) -> None:
  """Shift the weight from foot to foot with the right arm."""
  arm = last + joint["right_shoulder_pitch"]
  for side in ("left", "right"):
    weight[arm, joint[f"{side}_hip_roll"]] = SWAY
    weight[arm, joint[f"{side}_ankle_roll"]] = -SWAY


def _swing(
  weight: np.ndarray, bias: np.ndarray, joint: dict[str, int], last: int
) -> None:
  """Let both arms' last action turn about a point: a clock that needs no time."""
  arms = np.array([joint["left_shoulder_pitch"], joint["right_shoulder_pitch"]])
  angle = 2.0 * math.pi * SWING_HZ / 50.0
  turn = np.array(
    [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
  )
  weight[np.ix_(last + arms, arms)] = turn.T
  bias[arms] = (np.eye(2) - turn) @ [SWING, 0.0]
