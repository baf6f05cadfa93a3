"""The replay buffer: it stores task rewards and SDS losses, not composed rewards."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from smp.errors import UserError
from smp.mdp.composition import RewardForm, compose


@dataclass
class Step:
  """One step of all environments, or several of them stacked in front.

  Shapes are those of one step of N environments.
  """

  obs: Tensor
  """(N, O), observations of the actor."""
  critic_obs: Tensor
  """(N, C)."""
  action: Tensor
  """(N, A)."""
  next_obs: Tensor
  """(N, O), after the step; where an episode ended, its true last observation."""
  next_critic_obs: Tensor
  """(N, C), as ``next_obs``."""
  task: Tensor
  """(N,), weighted task reward, without the prior."""
  error: Tensor
  """(N, K), SDS losses, not normalised."""
  floor: Tensor
  """(N,), lower bound of r_smp."""
  extra: Tensor
  """(N,), rewards outside of the composition."""
  terminated: Tensor
  """(N,) bool: the episode ended, and nothing more can be earned."""
  truncated: Tensor
  """(N,) bool: the episode was cut short; its value continues."""


@dataclass
class Batch:
  """Transitions over up to n steps, ready to learn from."""

  obs: Tensor
  critic_obs: Tensor
  action: Tensor
  next_obs: Tensor
  next_critic_obs: Tensor
  reward: Tensor
  """(B,), discounted sum over the steps."""
  discount: Tensor
  """(B,), factor on the value after them; 0 where the episode ended in failure."""

  def split(self, size: int) -> list[Batch]:
    """Return batches of ``size`` of these transitions, which share their memory."""
    parts = zip(*(value.split(size) for value in vars(self).values()), strict=True)
    return [Batch(**dict(zip(vars(self), part, strict=True))) for part in parts]


class ReplayBuffer:
  """A ring of the last steps of all environments.

  It holds task rewards and SDS losses; `sample` composes the reward from them. So a
  changing mu, another w_s or another composition applies to all stored steps.

  Args:
    capacity: Steps of each environment to keep.
    num_envs: N.
    obs_dim: O.
    critic_dim: C.
    action_dim: A.
    num_errors: K.
    device: Device of the storage.

  Raises:
    UserError: The device has too little memory.
  """

  def __init__(
    self,
    capacity: int,
    num_envs: int,
    obs_dim: int,
    critic_dim: int,
    action_dim: int,
    num_errors: int,
    device: str | torch.device,
  ) -> None:
    self.capacity, self.num_envs = capacity, num_envs
    sizes = {
      "obs": obs_dim,
      "critic_obs": critic_dim,
      "action": action_dim,
      "next_obs": obs_dim,
      "next_critic_obs": critic_dim,
      "error": num_errors,
    }
    check_memory(capacity * num_envs * _bytes_per_step(sizes), device, capacity)
    lead = (capacity, num_envs)
    self._kept = Step(
      **{
        field.name: torch.zeros(
          (*lead, sizes[field.name]) if field.name in sizes else lead,
          dtype=torch.bool if field.name in ("terminated", "truncated") else None,
          device=device,
        )
        for field in fields(Step)
      }
    )
    self._next, self.size = 0, 0

  def push(self, step: Step) -> None:
    """Store a step in the place of the oldest."""
    for field in fields(Step):
      getattr(self._kept, field.name)[self._next].copy_(getattr(step, field.name))
    self._next = (self._next + 1) % self.capacity
    self.size = min(self.size + 1, self.capacity)

  def sample(
    self, count: int, steps: int, gamma: float, scale: Tensor, form: RewardForm
  ) -> Batch:
    """Return ``count`` transitions over up to ``steps`` steps, uniformly drawn.

    A transition ends early where its episode does. After a failure nothing is earned; a
    time-out bootstraps from the true last observation.

    Args:
      count: B.
      steps: n.
      gamma: Discount of one step.
      scale: (K,) mu that normalises the SDS losses now.
      form: Present composition of task reward and prior reward.

    Raises:
      ValueError: Fewer than ``steps`` steps are stored.
    """
    if self.size < steps:
      raise ValueError(f"{self.size} steps stored, {steps} needed")
    kept, device = self._kept, self._kept.task.device
    # Begin far enough back for all steps of a transition to be stored.
    back = torch.randint(steps, self.size + 1, (count,), device=device)
    start = (self._next - back) % self.capacity
    env = torch.randint(self.num_envs, (count,), device=device)
    ahead = torch.arange(steps, device=device).unsqueeze(1)
    rows = (start + ahead) % self.capacity  # (n, B)
    reward = kept.extra[rows, env] + compose(
      kept.task[rows, env], kept.error[rows, env], kept.floor[rows, env], scale, form
    )
    ended = kept.terminated[rows, env] | kept.truncated[rows, env]
    # 1 for each step up to and including the first that ends an episode, else 0.
    alive = torch.ones_like(reward)
    alive[1:] = torch.cumprod((~ended[:-1]).to(reward.dtype), dim=0)
    taken = alive.sum(dim=0)
    total = (reward * alive * gamma**ahead).sum(dim=0)
    last = (start + taken.long() - 1) % self.capacity
    goes_on = (~kept.terminated[last, env]).to(reward.dtype)
    return Batch(
      obs=kept.obs[start, env],
      critic_obs=kept.critic_obs[start, env],
      action=kept.action[start, env],
      next_obs=kept.next_obs[last, env],
      next_critic_obs=kept.next_critic_obs[last, env],
      reward=total,
      discount=goes_on * gamma**taken,
    )

  def state_dict(self) -> dict[str, Any]:
    """Return the stored steps, oldest first."""
    order = (torch.arange(self.size) - self.size + self._next) % self.capacity
    order = order.to(self._kept.task.device)
    kept = {f.name: getattr(self._kept, f.name)[order] for f in fields(Step)}
    return {**kept, "capacity": self.capacity}

  def load_state_dict(self, state: dict[str, Any]) -> None:
    """Load the output of `state_dict`.

    Raises:
      ValueError: It is of another capacity, task or number of environments.
    """
    if state.get("capacity") != self.capacity:
      raise ValueError(
        f"it holds up to {state.get('capacity')} steps, this one {self.capacity}"
      )
    found = {f.name: state.get(f.name) for f in fields(Step)}
    size = len(found["task"]) if isinstance(found["task"], Tensor) else -1
    for name, value in found.items():
      mine = getattr(self._kept, name)
      wanted = (size, *mine.shape[1:])
      if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        raise ValueError(f"{name} has shape {shape}, expected {wanted}")
    for name, value in found.items():
      getattr(self._kept, name)[:size].copy_(value)
    if size:  # The next step stored is of another episode.
      self._kept.truncated[size - 1] |= ~self._kept.terminated[size - 1]
    self.size, self._next = size, size % self.capacity


def _bytes_per_step(sizes: dict[str, int]) -> int:
  """Return the bytes of one step of one environment."""
  scalars = len(fields(Step)) - len(sizes) - 2
  return 4 * (sum(sizes.values()) + scalars) + 2


def check_memory(needed: int, device: str | torch.device, capacity: int) -> None:
  """Raise an error for a buffer that the device cannot hold, before it is filled.

  Args:
    needed: Bytes of the buffer.
    device: Device of the buffer.
    capacity: Steps of each environment, for the error.

  Raises:
    UserError: The message says how much is needed and how much is free.
  """
  free = _free_memory(torch.device(device))
  if free is not None and needed > free:
    raise UserError(
      f"the replay buffer needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
      f"free on {device}; lower --agent.replay-steps (now {capacity}) or "
      "--env.scene.num-envs"
    )


def _free_memory(device: torch.device) -> int | None:
  """Return the free bytes on ``device``; None where they are unknown."""
  if device.type == "cuda":
    return torch.cuda.mem_get_info(device)[0]
  try:
    with open("/proc/meminfo") as file:
      lines = dict(line.split(":", 1) for line in file)
    return int(lines["MemAvailable"].split()[0]) * 1024
  except (OSError, KeyError, ValueError, IndexError):
    return None
