"""Buffers of initial states: windows sampled from the prior, or fallen robots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.motion.contact import outside_limits, penetration
from smp.motion.fallen_states import FALLEN_POSES, sample_fallen_states
from smp.motion.features import (
  FeatureSpec,
  MotionState,
  decode,
  encode,
  qpos_of,
  window_velocities,
)
from smp.motion.head import Head
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import heading
from smp.robots import g1

SAMPLE_CHUNK = 1024
"""Windows sampled in one batch: bounds memory, yet keeps a GPU busy."""

STYLES = "styles"
"""Entry of a saved buffer that has a part for each style."""

MAX_DRAWS = 30
"""Maximum windows sampled per window wanted; then the buffer is filled with copies."""


_OF_WINDOWS = (
  "root_pos",
  "root_quat",
  "joint_pos",
  "ee_pos",
  "velocity",
  "yaw_rate",
  "head_height",
)
"""Tensors of a buffer with a row for each window."""


class InitStateBuffer:
  """Windows of poses (size, W, ...) that serve as initial states.

  Each window has its last frame at the origin, facing along x; heights are above the
  floor. End effectors follow from the joints by kinematics, velocities from finite
  differences of the poses, as for every other window of this project. Drawing is an
  index operation without host synchronisation.
  """

  def __init__(
    self,
    size: int,
    spec: FeatureSpec,
    kinematics: Kinematics,
    device: str | torch.device,
  ) -> None:
    window, joints, ee = spec.window, len(spec.joint_names), len(spec.ee_body_names)
    self._spec, self._kinematics = spec, kinematics
    self.root_pos = torch.zeros(size, window, 3, device=device)
    self.root_quat = torch.zeros(size, window, 4, device=device)
    self.joint_pos = torch.zeros(size, window, joints, device=device)
    self.ee_pos = torch.zeros(size, window, ee, 3, device=device)
    self.velocity = torch.zeros(size, 2, device=device)
    """(size, 2) mean velocity of the root over each window, m/s, xy; the last frame
    faces along x."""
    self.yaw_rate = torch.zeros(size, device=device)
    """(size,) mean rate of the root's heading over each window, rad/s."""
    self.head_height = torch.zeros(size, device=device)
    """(size,) height of the head at the end of each window, m."""
    self._head = Head(g1.load_model()).to(device)

  @property
  def size(self) -> int:
    """Return the number of windows."""
    return self.root_pos.shape[0]

  def draw(
    self,
    count: int,
    weights: torch.Tensor | None = None,
    styles: torch.Tensor | None = None,
  ) -> torch.Tensor:
    """Return indices (count,) of windows drawn with replacement.

    Args:
      count: Number of draws.
      weights: (count, size) unnormalised probability of each window in each draw; None:
        uniform.
      styles: (count,) style that each window is to have; ignored in this class.
    """
    del styles
    device = self.root_pos.device
    if weights is None:
      return torch.randint(self.size, (count,), device=device)
    return _draw_weighted(weights)

  def windows(self, index: torch.Tensor) -> MotionState:
    """Return the windows (n, W, ...) of the indices ``index`` (n,)."""
    pos, quat = self.root_pos[index], self.root_quat[index]
    lin_vel, ang_vel = window_velocities(pos, quat, self._spec.fps)
    return MotionState(
      root_pos_w=pos,
      root_quat_w=quat,
      root_lin_vel_w=lin_vel,
      root_ang_vel_w=ang_vel,
      joint_pos=self.joint_pos[index],
      ee_pos_w=self.ee_pos[index],
    )

  def refresh(self, count: int) -> None:
    """Do nothing: the windows of this class are fixed."""

  def state_dict(self) -> dict[str, Any]:
    """Return the state for a checkpoint: empty in this class."""
    return {}

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Load the result of `state_dict`; return False if it does not fit."""
    return not state

  def _derive(self, slots: torch.Tensor) -> None:
    self.ee_pos[slots] = self._kinematics.ee_positions(
      self.root_pos[slots], self.root_quat[slots], self.joint_pos[slots]
    )
    way = self.root_pos[slots, -1, :2] - self.root_pos[slots, 0, :2]
    rate = self._spec.fps / (self._spec.window - 1)
    self.velocity[slots] = way * rate
    cos, sin = heading(self.root_quat[slots, 0])  # The last frame faces along x.
    self.yaw_rate[slots] = -torch.atan2(sin, cos) * rate
    self.head_height[slots] = self._heights(
      self.root_pos[slots], self.root_quat[slots], self.joint_pos[slots]
    )

  def _heights(self, *poses: torch.Tensor) -> torch.Tensor:
    """Return the height of the head (n,), m, at the end of windows of poses."""
    return self._head(*(pose[:, -1] for pose in poses))[0][:, 2]


def _draw_weighted(weights: torch.Tensor) -> torch.Tensor:
  """Return a column (n,) of each row of ``weights`` (n, P), drawn by them."""
  # Inverse transform sampling: one random number per row, looked up in the cumulative
  # weights. torch.multinomial draws a number for each weight and is 20 times slower.
  bounds = weights.cumsum(dim=-1)
  at = torch.rand(len(weights), 1, device=weights.device) * bounds[:, -1:]
  index = torch.searchsorted(bounds, at, right=True).squeeze(-1)
  return index.clamp(max=weights.shape[1] - 1)


class FallenStateBuffer(InitStateBuffer):
  """Robots that were dropped and lie at rest (`smp.motion.fallen_states`)."""

  def __init__(
    self,
    size: int,
    spec: FeatureSpec,
    kinematics: Kinematics,
    device: str | torch.device,
    seed: int = 0,
  ) -> None:
    super().__init__(size, spec, kinematics, device)
    per_pose = math.ceil(size / len(FALLEN_POSES))
    falls = sample_fallen_states(per_pose, spec.window, spec.fps, seed)
    # Take one of each pose in turn, so that any size is shared evenly among the poses.
    order = np.argsort(np.tile(np.arange(per_pose), len(FALLEN_POSES)), kind="stable")
    chosen = order[:size]
    qpos = torch.from_numpy(falls.qpos[chosen]).float()
    self.pose = torch.from_numpy(falls.pose[chosen]).to(device)
    """(size,) index into ``FALLEN_POSES``."""
    state = decode(encode(_poses(qpos)))
    self.root_pos.copy_(state.root_pos_w)
    self.root_quat.copy_(state.root_quat_w)
    self.joint_pos.copy_(state.joint_pos)
    self._derive(torch.arange(size, device=device))


class DefaultPose(InitStateBuffer):
  """One window at rest in a given pose: the initial state without a prior.

  Args:
    qpos: (36,) root xyz (m, above the floor), root wxyz, joint angles (rad).
  """

  def __init__(
    self,
    qpos: torch.Tensor,
    spec: FeatureSpec,
    kinematics: Kinematics,
    device: str | torch.device,
  ) -> None:
    super().__init__(1, spec, kinematics, device)
    self.root_pos[..., 2] = qpos[2]
    self.root_quat.copy_(qpos[3:7])
    self.joint_pos.copy_(qpos[7:])
    self._derive(torch.zeros(1, dtype=torch.long, device=device))


def _poses(qpos: torch.Tensor) -> MotionState:
  """Return windows (N, W, 36) of poses as motion; other fields are zero."""
  zero = torch.zeros_like(qpos[..., :3])
  ee = zero.unsqueeze(-2).expand(*zero.shape[:-1], len(g1.EE_BODY_NAMES), 3)
  return MotionState(qpos[..., :3], qpos[..., 3:7], zero, zero, qpos[..., 7:], ee)


@dataclass
class GsiStats:
  """Counts of sampled, rejected and repaired windows of a GSI buffer."""

  sampled: int = 0
  in_itself: int = 0
  """Rejected: in the last frame a part of the robot penetrates another."""
  outside_limits: int = 0
  """Rejected: the last frame has a joint outside its limits."""
  lifted: int = 0
  """Kept, after lifting the whole window so that its last frame is above the floor."""
  lift_sum: float = 0.0
  """Sum over all lifted windows, m."""
  lift_max: float = 0.0
  """Maximum over all lifted windows, m."""
  standing: int = 0
  """Rejected: in the last frame the head is too high for a fallen initial state."""
  kept: int = 0
  copied: int = 0
  """Copies of kept windows that filled the buffer, after ``MAX_DRAWS`` per window."""

  def __str__(self) -> str:
    mean = self.lift_sum / max(1, self.lifted)
    rejected = f"{self.in_itself} in self-collision, {self.outside_limits} outside "
    rejected += "joint limits"
    if self.standing:
      rejected += f", {self.standing} not on the ground"
    text = (
      f"{self.sampled} windows sampled; rejected {rejected}; lifted {self.lifted} by "
      f"{1000 * mean:.0f} mm on average, {1000 * self.lift_max:.0f} mm at most"
    )
    return text + (f"; filled up with {self.copied} copies" if self.copied else "")


class GsiBuffer(InitStateBuffer):
  """The GSI buffer: windows that the frozen prior generated.

  The prior generates positions, joint angles, end effectors and velocities as
  independent numbers. Only the root pose and the joint angles are taken from it; the
  rest is derived. With ``repair``, a window whose last frame penetrates the floor is
  lifted out of it, and one whose last frame is in self-collision or outside the joint
  limits is drawn again. With ``max_head_height``, a window whose head ends higher is
  drawn again too.

  Windows are replaced in order, oldest first. All of this happens when the buffer is
  filled, never when it is drawn from.
  """

  def __init__(
    self,
    prior: MotionPrior,
    kinematics: Kinematics,
    size: int,
    device: str | torch.device,
    repair: bool = True,
    max_head_height: float | None = None,
  ) -> None:
    super().__init__(size, prior.spec, kinematics, device)
    self._prior = prior
    self._repair = repair
    self._max_head_height = max_head_height
    self.report = GsiStats()
    self._next = 0

  @torch.no_grad()
  def refresh(self, count: int) -> None:
    """Replace the ``count`` oldest windows, or all if there are fewer, by new samples.

    Raises:
      UserError: no sampled window can serve as an initial state.
    """
    count = min(count, self.size)
    missing, budget = count, MAX_DRAWS * count
    while missing > 0 and budget > 0:
      rate = max(self.report.kept, 1) / max(self.report.sampled, 1)
      n = min(math.ceil(missing / rate), SAMPLE_CHUNK, budget)
      budget -= n
      missing -= self._store(self._sample(n), missing)
    if missing > 0:
      self._copy(missing)

  def _sample(self, n: int) -> MotionState:
    """Return ``n`` new windows (n, W, ...), placed at their anchor."""
    # The last frame of a generated window is off its anchor by millimetres: encoding
    # the decoded window again corrects that.
    return decode(encode(decode(self._prior.sample(n))))

  def _store(self, state: MotionState, most: int) -> int:
    """Store up to ``most`` usable windows over the oldest; return their number."""
    keep, lift = self._judge(state)
    rows = keep.nonzero().squeeze(1)[:most].to(self.root_pos.device)
    lifts = lift[rows][lift[rows] > 0.0]
    self.report.kept += len(rows)
    self.report.lifted += len(lifts)
    self.report.lift_sum += float(lifts.sum())
    self.report.lift_max = max([self.report.lift_max, *lifts.tolist()])
    root_pos = state.root_pos_w[rows].clone()
    root_pos[..., 2] += lift[rows].unsqueeze(-1)
    slots = self._take_slots(len(rows))
    self.root_pos[slots] = root_pos
    self.root_quat[slots] = state.root_quat_w[rows]
    self.joint_pos[slots] = state.joint_pos[rows]
    self._derive(slots)
    return len(rows)

  def _take_slots(self, count: int) -> torch.Tensor:
    """Return the slots (count,) of the oldest windows, and mark them as newest."""
    slots = self._next + torch.arange(count, device=self.root_pos.device)
    self._next = (self._next + count) % self.size
    return slots % self.size

  def _copy(self, count: int) -> None:
    """Replace the ``count`` oldest windows by copies of the newest ones."""
    report = self.report
    if report.kept == 0:
      raise UserError(
        f"the prior cannot start episodes: of {report.sampled} windows sampled "
        f"{report.in_itself} are in self-collision, {report.outside_limits} outside "
        f"joint limits, {report.standing} not on the ground; train it longer, or start "
        "from windows as they come (--env.commands.smp.filter-init-states False)"
      )
    report.copied += count
    # The newest window lies right before the oldest. Until the buffer has been filled
    # once, all slots further back are empty.
    fresh = min(report.kept, self.size - count)
    device = self.root_pos.device
    back = torch.arange(count, device=device) % fresh
    sources = (self._next - 1 - back) % self.size
    slots = self._take_slots(count)
    for tensor in (self.root_pos, self.root_quat, self.joint_pos):
      tensor[slots] = tensor[sources]
    self._derive(slots)

  def _judge(self, state: MotionState) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which windows (n,) to keep, and the height (n,) to lift them by, m."""
    n, device = len(state.root_pos_w), self.root_pos.device
    self.report.sampled += n
    keep = torch.ones(n, dtype=torch.bool, device=device)
    lift = torch.zeros(n, device=device)
    if self._repair:
      sound, depth = self._usable(qpos_of(state)[:, -1])
      keep &= torch.from_numpy(sound).to(device)
      lift = torch.from_numpy(depth).float().to(device)
    if self._max_head_height is not None:
      poses = state.root_pos_w, state.root_quat_w, state.joint_pos
      heights = self._heights(*(pose.to(device) for pose in poses))
      standing = heights + lift > self._max_head_height
      self.report.standing += int((standing & keep).sum())
      keep &= ~standing
    return keep, lift

  def _usable(self, qpos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which poses (n,) are valid, and their depth in the floor (n,), m."""
    overlap = penetration(qpos)
    limits = outside_limits(qpos[:, 7:]) > 0.0
    inside = overlap.of_itself > 0.0
    self.report.in_itself += int(inside.sum())
    self.report.outside_limits += int((limits & ~inside).sum())
    return ~(limits | inside), overlap.of_floor

  def state_dict(self) -> dict[str, Any]:
    """Return the state for a checkpoint: poses and position of the oldest window.

    The rest is derived on loading.
    """
    return {
      "root_pos": self.root_pos,
      "root_quat": self.root_quat,
      "joint_pos": self.joint_pos,
      "next": self._next,
    }

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore a saved buffer; return False, changing nothing, if the size differs."""
    if STYLES in state or state["root_pos"].shape != self.root_pos.shape:
      return False
    self.root_pos.copy_(state["root_pos"])
    self.root_quat.copy_(state["root_quat"])
    self.joint_pos.copy_(state["joint_pos"])
    self._derive(torch.arange(self.size, device=self.root_pos.device))
    self._next = int(state["next"])
    return True


class StyledGsiBuffer(InitStateBuffer):
  """The GSI buffer of environments with styles of their own: a part for each style.

  Args:
    priors: The prior under each style, by the name of the style.
    kinematics: Of the robot.
    size: Windows of all parts together; rounded up to a multiple of their number.
    device: Device of the windows.
    repair: See `GsiBuffer`.
    max_head_height: See `GsiBuffer`.
  """

  def __init__(
    self,
    priors: Mapping[str, MotionPrior],
    kinematics: Kinematics,
    size: int,
    device: str | torch.device,
    repair: bool = True,
    max_head_height: float | None = None,
  ) -> None:
    self._each = math.ceil(size / len(priors))
    spec = next(iter(priors.values())).spec
    super().__init__(self._each * len(priors), spec, kinematics, device)
    self.parts: dict[str, GsiBuffer] = {}
    for style, prior in priors.items():
      part = GsiBuffer(prior, kinematics, self._each, device, repair, max_head_height)
      first = len(self.parts) * self._each
      # The windows of a part are rows of the whole.
      for name in _OF_WINDOWS:
        setattr(part, name, getattr(self, name)[first : first + self._each])
      self.parts[style] = part

  @property
  def report(self) -> str:
    """Return what happened to the sampled windows of each style."""
    return "; ".join(f"{name}: {part.report}" for name, part in self.parts.items())

  def draw(
    self,
    count: int,
    weights: torch.Tensor | None = None,
    styles: torch.Tensor | None = None,
  ) -> torch.Tensor:
    """Return indices (count,) of windows, each of the style in ``styles`` (count,).

    Styles are places in the order of the priors; None: all windows of all styles.
    """
    if styles is None:
      return super().draw(count, weights)
    if weights is None:
      place = torch.randint(self._each, (count,), device=self.root_pos.device)
    else:
      rows = torch.arange(count, device=styles.device)
      own = weights.unflatten(1, (-1, self._each))[rows, styles]
      # A style may have no window that is wanted: then any of its own will do.
      own = torch.where(own.sum(dim=1, keepdim=True) > 0.0, own, torch.ones_like(own))
      place = _draw_weighted(own)
    return styles * self._each + place

  def refresh(self, count: int) -> None:
    """Replace the oldest windows of each style, ``count`` of them together."""
    for part in self.parts.values():
      part.refresh(min(math.ceil(count / len(self.parts)), self._each))

  def state_dict(self) -> dict[str, Any]:
    """Return the state for a checkpoint: poses of all parts, one after the other.

    ``styles`` is the position of the oldest window in the part of each style.
    """
    return {
      "root_pos": self.root_pos,
      "root_quat": self.root_quat,
      "joint_pos": self.joint_pos,
      "next": 0,
      STYLES: {name: part.state_dict()["next"] for name, part in self.parts.items()},
    }

  def load_state_dict(self, state: dict[str, Any]) -> bool:
    """Restore a saved buffer; return False, changing nothing, if it does not fit."""
    saved = state.get(STYLES)
    if not isinstance(saved, dict) or list(saved) != list(self.parts):
      return False
    if state["root_pos"].shape != self.root_pos.shape:
      return False
    poses = ("root_pos", "root_quat", "joint_pos")
    chunks = zip(*(state[pose].split(self._each) for pose in poses), strict=True)
    for (name, part), own in zip(self.parts.items(), chunks, strict=True):
      part.load_state_dict({**dict(zip(poses, own, strict=True)), "next": saved[name]})
    return True
