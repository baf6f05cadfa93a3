"""What was recorded of an evaluation, step by step."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS


@dataclass
class Trajectory:
  """T steps of N environments, on the CPU, after each step. World axes, m, rad, s, N.

  Positions count from each environment's own origin.
  """

  fps: float
  qpos: Tensor
  """(T, N, 36): root xyz, root wxyz, joint angles."""
  qvel: Tensor
  """(T, N, 35): root velocity (world), root spin (body axes), joint speeds."""
  action: Tensor
  """(T, N, 29), as the policy gave them."""
  torque: Tensor
  """(T, N, 29), Nm, of the actuators on the joints."""
  foot_force: Tensor
  """(T, N, 2), N, of the floor on the left and the right foot."""
  task_reward: Tensor
  """(T, N): sum of the weighted task rewards of a step, without the prior."""
  sds_loss: Tensor
  """(T, N, K)."""
  r_smp: Tensor
  """(T, N); not a number where no checkpoint gave the means it is measured by."""
  ended: Tensor
  """(T, N, E) bool: whether each failure of the task held at that step."""
  end_names: tuple[str, ...]
  velocity_command: Tensor
  """(N, 2), m/s."""
  facing_command: Tensor
  """(N, 2), unit vectors."""
  goal: Tensor
  """(N, 2), m."""
  max_reward: float
  """Largest task reward that a step can have."""
  timesteps: tuple[int, ...] = SCORED_TIMESTEPS
  """The K diffusion timesteps of ``sds_loss``."""
  stops: bool = True
  """Whether a failure ends what counts."""

  @property
  def steps(self) -> int:
    return self.qpos.shape[0]

  @property
  def num_envs(self) -> int:
    return self.qpos.shape[1]

  def failed(self) -> Tensor:
    """(T, N) bool: a failure that ends what counts, or a state that is not finite."""
    failed = self.broken()
    return failed | self.ended.any(dim=-1) if self.stops else failed

  def broken(self) -> Tensor:
    """(T, N) bool: the state is not finite."""
    finite = self.qpos.isfinite().all(dim=-1) & self.qvel.isfinite().all(dim=-1)
    return ~finite

  def valid(self) -> Tensor:
    """(T, N) bool: steps that count, up to a failure and including it."""
    before = self.failed().cumsum(dim=0) - self.failed().long()
    return (before == 0) & ~self.broken()

  def joint_pos(self) -> Tensor:
    return self.qpos[..., 7:]

  def select(self, envs: Tensor) -> Trajectory:
    """The same of some environments, by index or as a choice (N,)."""
    values = {f.name: getattr(self, f.name) for f in fields(Trajectory)}
    for name, value in values.items():
      if isinstance(value, Tensor):
        values[name] = value[envs] if name in _PER_ENV else value[:, envs]
    return Trajectory(**values)


_PER_ENV = ("velocity_command", "facing_command", "goal")


def join(trajectories: list[Trajectory]) -> Trajectory:
  """The environments of several runs side by side."""
  first = trajectories[0]
  values = {}
  for f in fields(Trajectory):
    value = getattr(first, f.name)
    if isinstance(value, Tensor):
      parts = [getattr(trajectory, f.name) for trajectory in trajectories]
      value = torch.cat(parts, dim=0 if f.name in _PER_ENV else 1)
    values[f.name] = value
  return Trajectory(**values)
