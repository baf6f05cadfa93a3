"""Metrics of recorded episodes, computed from trajectories, one value per episode.

Arrays are (T, N, ...), T steps of N environments. ``valid`` (T, N) marks the steps that
count. A metric without a value in an episode is nan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from smp.episodes.stopping import held_since
from smp.episodes.trajectory import Trajectory
from smp.motion.head import STAND_UP, Head
from smp.motion.kinematics import Kinematics
from smp.motion.mirror import mirror_joints
from smp.motion.rotations import heading, quat_rotate
from smp.robots import g1

SOLE = (0.04, 0.0, -0.037)
"""Centre of a sole in the frame of the ankle's roll link, m: mjlab's foot site."""
FEET = ("left_ankle_roll_link", "right_ankle_roll_link")
CONTACT_FORCE = 1.0
"""Force from the floor, N, above which a foot is in contact."""
MIN_STEPS = 50
"""Minimum number of steps (1 s) for the symmetry metrics."""
_CHUNK = 64
"""Environments per pass of the forward kinematics."""


# Means.


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
  """Return the mean (N,) over steps of ``values`` (T, N) where ``mask`` (T, N) holds."""
  count = mask.sum(dim=0)
  total = torch.where(mask, values, torch.zeros_like(values)).double().sum(dim=0)
  return torch.where(count > 0, total / count.clamp(min=1), torch.nan).float()


def masked_std(values: Tensor, mask: Tensor) -> Tensor:
  """Return the standard deviation (N,) over steps where ``mask`` (T, N) holds."""
  mean = masked_mean(values, mask)
  return masked_mean((values - mean).square(), mask).sqrt()


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
  """Return the maximum (N,) over steps where ``mask`` (T, N) holds."""
  most = torch.where(mask, values, torch.full_like(values, -torch.inf)).amax(dim=0)
  return torch.where(mask.any(dim=0), most, torch.nan)


def all_of(mask: Tensor, steps: int) -> Tensor:
  """Return whether ``steps`` successive steps all count: (T - steps + 1, N)."""
  return mask.unfold(0, steps, 1).all(dim=-1)


def after(valid: Tensor, seconds: float, fps: float) -> Tensor:
  """Return the valid steps (T, N) from ``seconds`` on."""
  late = torch.arange(len(valid)) >= round(seconds * fps)
  return valid & late.unsqueeze(-1)


# Speed, facing, goals.


def velocity_error(velocity: Tensor, command: Tensor, valid: Tensor) -> Tensor:
  """Return the mean |v_cmd - v| (N,), m/s, of velocities (T, N, 2) and (N, 2)."""
  return masked_mean((velocity - command).norm(dim=-1), valid)


def speed_along(velocity: Tensor, command: Tensor) -> Tensor:
  """Return the speed in the commanded direction (T, N), m/s."""
  unit = command / command.norm(dim=-1, keepdim=True).clamp(min=1e-9)
  return (velocity * unit).sum(dim=-1)


def facing_error(quat: Tensor, facing: Tensor, valid: Tensor) -> Tensor:
  """Return the mean angle between heading and commanded facing (N,), degrees.

  Args:
    quat: (T, N, 4), wxyz.
    facing: (N, 2), unit vectors.
    valid: (T, N), the steps that count.
  """
  cos, sin = heading(quat)
  x, y = facing.unbind(-1)
  angle = torch.atan2(cos * y - sin * x, cos * x + sin * y).abs()
  return masked_mean(angle.rad2deg(), valid)


def goal_distance(position: Tensor, goal: Tensor, valid: Tensor) -> Tensor:
  """Return the distance to the goal at the last step that counts (N,), m."""
  last = (valid.sum(dim=0) - 1).clamp(min=0)
  end = position[last, torch.arange(len(last))]
  return torch.where(valid.any(dim=0), (end - goal).norm(dim=-1), torch.nan)


def time_to_goal(
  position: Tensor, goal: Tensor, valid: Tensor, fps: float, radius: float
) -> Tensor:
  """Return the time (N,), s, of the first step within ``radius`` m of the goal.

  The time is nan for environments that never get there.
  """
  return first_time((position - goal).norm(dim=-1).le(radius) & valid, fps)


def first_time(event: Tensor, fps: float) -> Tensor:
  """Return the time (N,), s, at which ``event`` (T, N) first holds; nan: never.

  The first step ends at 1 / fps.
  """
  step = event.long().argmax(dim=0)
  return torch.where(event.any(dim=0), (step + 1) / fps, torch.nan)


def tracking(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return the metrics (N,) of a task that commands a "speed" along a "direction".

  Args:
    trajectory: N episodes.
    valid: (T, N) steps that count.
    settle: Seconds at the beginning that are left out.
  """
  settled = after(valid, settle, trajectory.fps)
  velocity = trajectory.qvel[..., :2]
  command = trajectory.command["speed"] * trajectory.command["direction"]
  along = speed_along(velocity, command)
  return {
    "velocity_error": velocity_error(velocity, command, settled),
    "speed": masked_mean(along, settled),
    "speed_spread": masked_std(along, settled),
  }


# Falls and return.


def normalised_return(reward: Tensor, valid: Tensor, most: float) -> Tensor:
  """Return the task return divided by its maximum for this length (N,), 0 to 1.

  Steps after a failure earn nothing. The prior's reward is not included. Source: Mu et
  al. (arXiv 2512.03028) report returns like this.
  """
  earned = torch.where(valid, reward, torch.zeros_like(reward)).double().sum(dim=0)
  return (earned / (most * len(reward))).float()


# Getting up.


def stood_up(
  head: Tensor, speed: Tensor, fps: float, valid: Tensor
) -> tuple[Tensor, Tensor]:
  """Evaluate the task's own criterion (`smp.mdp.terminations.StandUpSuccess`).

  `smp.motion.head.StandUp` has its numbers.

  Returns:
    Success (N,) bool, and the time at which the robot stood (N,), s.
  """
  up, still = (head >= STAND_UP.height) & valid, speed < STAND_UP.speed
  first, hold = round(STAND_UP.still_s * fps), round(STAND_UP.hold_s * fps)
  if len(head) < first + hold:
    never = torch.zeros(head.shape[1], dtype=torch.bool)
    return never, torch.full(head.shape[1:], torch.nan)
  calm = all_of(up & still, first)
  kept = all_of(up, first + hold)
  done = calm[: len(kept)] & kept
  return done.any(dim=0), first_time(done, fps)


def stood_strictly(
  head: Tensor, upright: Tensor, speed: Tensor, spin: Tensor, fps: float, valid: Tensor
) -> Tensor:
  """Return success (N,) bool by the protocol "strict".

  Within 10 s, for 0.5 s in a row: head at 1.10 m, upright by 0.85, slower than 0.5 m/s
  and 1 rad/s. Upright is the z component of the pelvis's own z axis.
  """
  standing = (head >= 1.10) & (upright >= 0.85) & (speed < 0.5) & (spin < 1.0) & valid
  return _held(standing[: round(10.0 * fps)], 0.5, fps)


def stood_sr3(
  head: Tensor, upright: Tensor, foot_force: Tensor, fps: float, valid: Tensor
) -> Tensor:
  """Return success (N,) bool by the protocol "SR3".

  For 3 s in a row, all within 20 s: head at 1.15 m, upright by 0.90, and over 20 N on
  each foot.
  """
  loaded = (foot_force > 20.0).all(dim=-1)
  standing = (head >= 1.15) & (upright >= 0.90) & loaded & valid
  return _held(standing[: round(20.0 * fps)], 3.0, fps)


def _held(condition: Tensor, seconds: float, fps: float) -> Tensor:
  """Return whether a condition (T, N) holds for so long at any time (N,), bool."""
  since = held_since(condition.cpu().numpy(), round(seconds * fps))
  return torch.from_numpy(since >= 0)


# Naturalness and effort.


def foot_skate(feet: Tensor, contact: Tensor, valid: Tensor, fps: float) -> Tensor:
  """Return the mean horizontal speed of a foot in contact (N,), mm/s.

  The speed is taken between two valid steps with the same foot in contact at both.

  Args:
    feet: Positions of the soles (T, N, F, 3), m.
    contact: (T, N, F) bool.
    valid: (T, N), the steps that count.
    fps: Steps per second.
  """
  speed = feet[..., :2].diff(dim=0).norm(dim=-1) * fps * 1000.0
  down = contact & valid.unsqueeze(-1)
  both = down[1:] & down[:-1]
  total = torch.where(both, speed, torch.zeros_like(speed)).sum(dim=(0, 2))
  count = both.sum(dim=(0, 2))
  return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def joint_jerk(joint_pos: Tensor, valid: Tensor, fps: float) -> tuple[Tensor, Tensor]:
  """Return mean and peak |third derivative| of the joints (N,), rad/s^3.

  Third differences of their angles (T, N, J); the mean and the peak are over joints
  too.
  """
  jerk = joint_pos.double().diff(n=3, dim=0).mul(fps**3).abs().float()
  whole = all_of(valid, 4)
  return masked_mean(jerk.mean(dim=-1), whole), masked_max(jerk.amax(dim=-1), whole)


def action_rate(action: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
  """Return mean |first| and |second difference| per step of actions (T, N, A): (N,).

  The unit is that of the action.
  """
  first = masked_mean(action.diff(dim=0).abs().mean(dim=-1), all_of(valid, 2))
  second = action.diff(n=2, dim=0).abs().mean(dim=-1)
  return first, masked_mean(second, all_of(valid, 3))


def effort(torque: Tensor, joint_vel: Tensor, valid: Tensor) -> dict[str, Tensor]:
  """Return mean and peak (N,) of torque (Nm) and mechanical power (W) at control rate.

  Torques and velocities are (T, N, J); power is the sum over joints of |torque *
  speed|.
  """
  power = (torque * joint_vel).abs().sum(dim=-1)
  size = torque.abs()
  return {
    "torque": masked_mean(size.mean(dim=-1), valid),
    "torque_peak": masked_max(size.amax(dim=-1), valid),
    "power": masked_mean(power, valid),
    "power_peak": masked_max(power, valid),
  }


def asymmetry(joint_pos: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
  """Return the distance of joint statistics from their mirror images (N,), degrees.

  First the mean angles: RMS over joints of the differences. Then the same of the
  amplitudes (standard deviations over the episode). Both are 0 for a gait that is its
  own mirror image half a period later.
  """
  mask = valid.unsqueeze(-1).expand_as(joint_pos).flatten(1)
  flat = joint_pos.flatten(1)
  shape = joint_pos.shape[1:]
  mean = masked_mean(flat, mask).view(shape)
  std = masked_std(flat, mask).view(shape)
  index = list(g1.MIRROR_INDEX)
  off = (mean - mirror_joints(mean)).square().mean(dim=-1).sqrt().rad2deg()
  size = (std - std[:, index]).square().mean(dim=-1).sqrt().rad2deg()
  long_enough = valid.sum(dim=0) >= MIN_STEPS
  return torch.where(long_enough, off, torch.nan), torch.where(
    long_enough, size, torch.nan
  )


# Positions of bodies, from the recorded coordinates.


def sole_positions(qpos: Tensor) -> Tensor:
  """Return the positions of the soles (T, N, 2, 3), m, for ``qpos`` (T, N, 36)."""
  kinematics = Kinematics(g1.load_model())
  index = [kinematics.body_names.index(name) for name in FEET]
  sole = torch.tensor(SOLE)
  parts = []
  for part in qpos.split(_CHUNK, dim=1):
    pos, quat = kinematics(part[..., :3], part[..., 3:7], part[..., 7:])
    pos, quat = pos[..., index, :], quat[..., index, :]
    parts.append(pos + quat_rotate(quat, sole.expand_as(pos)))
  return torch.cat(parts, dim=1)


def head_height(qpos: Tensor) -> Tensor:
  """Return the height of the head above the floor (T, N), m."""
  at, _ = Head(g1.load_model())(qpos[..., :3], qpos[..., 3:7], qpos[..., 7:])
  return at[..., 2]


def uprightness(quat: Tensor) -> Tensor:
  """Return the z component of the body's own z axis (T, N): 1 upright, 0 lying."""
  x, y = quat[..., 1], quat[..., 2]
  return 1.0 - 2.0 * (x * x + y * y)
