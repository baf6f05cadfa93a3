"""Step-by-step recording of evaluation episodes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS


@dataclass
class Trajectory:
  """T steps of N environments, on the CPU, after each step; world axes, m, rad, s, N.

  Positions are relative to each environment's origin.
  """

  fps: float
  qpos: Tensor
  """(T, N, 36): root xyz, root wxyz, joint angles."""
  qvel: Tensor
  """(T, N, 35): root velocity (world), root angular velocity (body axes), joint
  velocities."""
  action: Tensor
  """(T, N, 29), as returned by the policy."""
  torque: Tensor
  """(T, N, 29), Nm, of the actuators at the joints."""
  foot_force: Tensor
  """(T, N, 2), N, of the floor on the left and the right foot."""
  task_reward: Tensor
  """(T, N): sum of the weighted task rewards of a step, without the prior."""
  sds_loss: Tensor
  """(T, N, K)."""
  r_smp: Tensor
  """(T, N); nan where no checkpoint gave the means that normalise it."""
  ended: Tensor
  """(T, N, E) bool: whether each failure of the task held at that step."""
  end_names: tuple[str, ...]
  command: dict[str, Tensor]
  """Command by component (N, G), world axes: scalars, unit vectors, points in m."""
  max_reward: float
  """Maximum task reward of a step."""
  timesteps: tuple[int, ...] = SCORED_TIMESTEPS
  """The K diffusion timesteps of ``sds_loss``."""
  stops: bool = True
  """Whether nothing counts after a failure."""
  later: dict[str, Tensor] = field(default_factory=dict)
  """Command from ``change_step`` on, as ``command``; empty if none changes."""
  change_step: int = 0
  """First step under the commands in ``later``."""

  @property
  def steps(self) -> int:
    """Return the number of steps T."""
    return self.qpos.shape[0]

  @property
  def num_envs(self) -> int:
    """Return the number of environments N."""
    return self.qpos.shape[1]

  def failed(self) -> Tensor:
    """Return whether a failure ended the episode, or the state is not finite: (T, N)."""
    failed = self.broken()
    return failed | self.ended.any(dim=-1) if self.stops else failed

  def broken(self) -> Tensor:
    """Return whether the state is not finite: (T, N) bool."""
    finite = self.qpos.isfinite().all(dim=-1) & self.qvel.isfinite().all(dim=-1)
    return ~finite

  def valid(self) -> Tensor:
    """Return the steps that count, up to and including a failure: (T, N) bool."""
    before = self.failed().cumsum(dim=0) - self.failed().long()
    return (before == 0) & ~self.broken()

  def joint_pos(self) -> Tensor:
    """Return the joint angles (T, N, 29), rad."""
    return self.qpos[..., 7:]

  def select(self, envs: Tensor) -> Trajectory:
    """Return the recording of some environments, by index or as a choice (N,)."""
    values = {f.name: getattr(self, f.name) for f in fields(Trajectory)}
    for name, value in values.items():
      if isinstance(value, Tensor):
        values[name] = value[:, envs]
    for given in ("command", "later"):
      values[given] = {name: value[envs] for name, value in values[given].items()}
    return Trajectory(**values)


def join(trajectories: list[Trajectory]) -> Trajectory:
  """Join the environments of several runs side by side."""
  first = trajectories[0]
  values = {f.name: getattr(first, f.name) for f in fields(Trajectory)}
  for name, value in values.items():
    if isinstance(value, Tensor):
      values[name] = torch.cat([getattr(one, name) for one in trajectories], dim=1)
  for given in ("command", "later"):
    values[given] = {
      name: torch.cat([getattr(one, given)[name] for one in trajectories])
      for name in values[given]
    }
  return Trajectory(**values)
