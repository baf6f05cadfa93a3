"""Generative state initialisation: a pool of windows sampled from the prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from smp.diffusion.prior import MotionPrior
from smp.motion.contact import outside_limits, penetration
from smp.motion.features import (
  MotionState,
  decode,
  encode,
  qpos_of,
  window_velocities,
)
from smp.motion.kinematics import Kinematics

SAMPLE_CHUNK = 1024
"""Windows sampled in one batch: bounds memory, and is large enough for a GPU."""

MAX_ROUNDS = 8
"""How often windows that physics cannot hold are drawn again before some are kept."""


@dataclass
class StartReport:
  """What became of the windows sampled so far."""

  sampled: int = 0
  in_itself: int = 0
  """Rejected: the last frame has a part of the robot inside another."""
  outside_limits: int = 0
  """Rejected: the last frame has a joint outside its limits."""
  lifted: int = 0
  """Kept, after lifting the whole window so that its last frame is above the floor."""
  lift_sum: float = 0.0
  """m, over all lifted windows."""
  lift_max: float = 0.0
  """m."""
  unsound: int = 0
  """Kept although they should have been rejected, after ``MAX_ROUNDS`` draws."""

  def __str__(self) -> str:
    mean = self.lift_sum / max(1, self.lifted)
    text = (
      f"{self.sampled} windows sampled; rejected {self.in_itself} in self-collision, "
      f"{self.outside_limits} outside joint limits; lifted {self.lifted} by "
      f"{1000 * mean:.0f} mm on average, {1000 * self.lift_max:.0f} mm at most"
    )
    return text + (f"; kept {self.unsound} unsound ones" if self.unsound else "")


class StartPool:
  """Windows that the frozen prior generated, ready to start episodes from.

  The prior generates positions, joint angles, end effectors and velocities as
  independent numbers. Only the root pose and the joint angles are taken from it:
  end effectors follow from the joints by kinematics, velocities from finite
  differences of the poses, as for every other window of this project. With ``repair``
  a window whose last frame reaches into the floor is lifted out of it, and one whose
  last frame is in self-collision or outside the joint limits is drawn again.

  Windows stand with their last frame at the origin, facing along x; heights are above
  the floor. Replacement is in order, so the oldest go first. All of this happens when
  the pool is filled; drawing from it is an index.
  """

  def __init__(
    self,
    prior: MotionPrior,
    kinematics: Kinematics,
    size: int,
    device: str | torch.device,
    repair: bool = True,
  ) -> None:
    self._prior = prior
    self._kinematics = kinematics
    self._repair = repair
    window = prior.spec.window
    joints = len(prior.spec.joint_names)
    ee = len(prior.spec.ee_body_names)
    self.root_pos = torch.zeros(size, window, 3, device=device)
    self.root_quat = torch.zeros(size, window, 4, device=device)
    self.joint_pos = torch.zeros(size, window, joints, device=device)
    self.ee_pos = torch.zeros(size, window, ee, 3, device=device)
    self.report = StartReport()
    self._next = 0

  @property
  def size(self) -> int:
    return self.root_pos.shape[0]

  @torch.no_grad()
  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest windows by new samples."""
    for rounds_left in reversed(range(MAX_ROUNDS)):
      missing = count
      while missing > 0:
        n = min(missing, SAMPLE_CHUNK)
        missing -= n
        count -= self._store(self._sample(n), keep_all=rounds_left == 0)
      if count == 0:
        return

  def _sample(self, n: int) -> MotionState:
    """``n`` new windows (n, W, ...), standing on their anchor."""
    # Generated windows miss their own anchor by millimetres.
    return decode(encode(decode(self._prior.sample(n))))

  def _store(self, state: MotionState, keep_all: bool) -> int:
    """Put the sound windows of a batch in the place of the oldest; how many."""
    keep, lift = self._judge(state, keep_all)
    count, device = int(keep.sum()), self.root_pos.device
    slots = (self._next + torch.arange(count, device=device)) % self.size
    root_pos = state.root_pos_w[keep].to(device)
    root_pos[..., 2] += lift[keep].unsqueeze(-1)
    self.root_pos[slots] = root_pos
    self.root_quat[slots] = state.root_quat_w[keep].to(device)
    self.joint_pos[slots] = state.joint_pos[keep].to(device)
    self._derive(slots)
    self._next = (self._next + count) % self.size
    return count

  def _judge(
    self, state: MotionState, keep_all: bool
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Which windows (n,) to keep, and how far (n,) to lift them, m."""
    n, device = len(state.root_pos_w), self.root_pos.device
    self.report.sampled += n
    if not self._repair:
      everything = torch.ones(n, dtype=torch.bool, device=device)
      return everything, torch.zeros(n, device=device)
    qpos = qpos_of(state)[:, -1]
    overlap = penetration(qpos)
    limits = outside_limits(qpos[:, 7:]) > 0.0
    inside = overlap.of_itself > 0.0
    keep = ~(limits | inside)
    if keep_all:
      self.report.unsound += int((~keep).sum())
      keep[:] = True
    else:
      self.report.in_itself += int(inside.sum())
      self.report.outside_limits += int((limits & ~inside).sum())
    lifts = overlap.of_floor[keep & (overlap.of_floor > 0.0)]
    self.report.lifted += len(lifts)
    self.report.lift_sum += float(lifts.sum())
    self.report.lift_max = max(self.report.lift_max, float(lifts.max(initial=0.0)))
    lift = torch.from_numpy(overlap.of_floor).float()
    return torch.from_numpy(keep).to(device), lift.to(device)

  def draw(self, count: int) -> MotionState:
    """``count`` windows (count, W, ...) drawn uniformly, with replacement."""
    index = torch.randint(self.size, (count,), device=self.root_pos.device)
    pos, quat = self.root_pos[index], self.root_quat[index]
    lin_vel, ang_vel = window_velocities(pos, quat, self._prior.spec.fps)
    return MotionState(
      root_pos_w=pos,
      root_quat_w=quat,
      root_lin_vel_w=lin_vel,
      root_ang_vel_w=ang_vel,
      joint_pos=self.joint_pos[index],
      ee_pos_w=self.ee_pos[index],
    )

  def state_dict(self) -> dict[str, Any]:
    """What a checkpoint keeps: poses and position. The rest is derived on loading."""
    return {
      "root_pos": self.root_pos,
      "root_quat": self.root_quat,
      "joint_pos": self.joint_pos,
      "next": self._next,
    }

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore a saved pool. A pool of another size is left as it is (False)."""
    if state["root_pos"].shape != self.root_pos.shape:
      return False
    self.root_pos.copy_(state["root_pos"])
    self.root_quat.copy_(state["root_quat"])
    self.joint_pos.copy_(state["joint_pos"])
    self._derive(torch.arange(self.size, device=self.root_pos.device))
    self._next = int(state["next"])
    return True

  def _derive(self, slots: torch.Tensor) -> None:
    self.ee_pos[slots] = self._kinematics.ee_positions(
      self.root_pos[slots], self.root_quat[slots], self.joint_pos[slots]
    )
