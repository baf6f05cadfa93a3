"""The last frames of every environment, encoded as a window for the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from smp.motion.buffer import MotionBuffer
from smp.motion.features import FeatureSpec, MotionState, encode
from smp.motion.kinematics import Kinematics
from smp.robots import g1


class MotionWindow:
  """Recorder of poses and encoder of the last W frames of every environment.

  `set_pose` copies the poses of a step into tensors of fixed address; `push` and
  `features` are arithmetic with static shapes, so that they can be captured in a CUDA
  graph.

  Args:
    spec: Layout of the features, and how headings are found.
    num_envs: N.
    device: Where to compute.

  Attributes:
    amplitude: (L,) standard deviation of the joints of each of `g1.LIMBS` over a window,
      mean over environments, rad.
  """

  def __init__(
    self, spec: FeatureSpec, num_envs: int, device: str | torch.device
  ) -> None:
    joints, ee = len(spec.joint_names), len(spec.ee_body_names)
    self.spec = spec
    self.kinematics = Kinematics(g1.load_model()).to(device)
    self.buffer = MotionBuffer(num_envs, joints, ee, device, spec.window, spec.fps)
    self.limbs = limb_means(spec.joint_names).to(device)
    self.amplitude = torch.zeros(len(g1.LIMBS), device=device)
    self._pos = torch.zeros(num_envs, 3, device=device)
    self._quat = torch.zeros(num_envs, 4, device=device)
    self._quat[:, 0] = 1.0
    self._joints = torch.zeros(num_envs, joints, device=device)

  def set_pose(self, pos: Tensor, quat: Tensor, joints: Tensor) -> None:
    """Store the poses that the next `push` records.

    Args:
      pos: (N, 3), m, pelvis relative to the environment's own origin.
      quat: (N, 4), wxyz.
      joints: (N, J), rad.
    """
    self._pos.copy_(pos)
    self._quat.copy_(quat)
    self._joints.copy_(joints)

  def push(self) -> None:
    """Record the poses that `set_pose` stored, with their end effectors."""
    ee = self.kinematics.ee_positions(self._pos, self._quat, self._joints)
    self.buffer.push(self._pos, self._quat, self._joints, ee)

  def features(self) -> Tensor:
    """Return the encoded windows (N, W, F), and update ``amplitude``."""
    window = self.buffer.window()
    # Leave diverged environments out of the mean in the log.
    amplitude = window.joint_pos.std(dim=1).nanmean(dim=0)
    torch.mv(self.limbs, amplitude, out=self.amplitude)
    return encode(window, heading=self.spec.heading)

  def fill(self, env_ids: Tensor, windows: MotionState) -> None:
    """Replace the windows of ``env_ids`` (n,) by ``windows`` (n, W, ...)."""
    self.buffer.fill(env_ids, windows)

  def state(self) -> list[Tensor]:
    """Return the tensors that a step changes."""
    return [*self.buffer.state(), self.amplitude]


def limb_means(joint_names: tuple[str, ...]) -> Tensor:
  """Return the matrix (L, J) that averages joints over each of `g1.LIMBS`."""
  rows = torch.zeros(len(g1.LIMBS), len(joint_names))
  for j, name in enumerate(joint_names):
    rows[g1.LIMBS.index(g1.limb_of(name)), j] = 1.0
  return rows / rows.sum(dim=1, keepdim=True)
