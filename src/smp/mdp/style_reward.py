"""Interface of style rewards, which judge how natural a window of motion is."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class StyleReward(Protocol):
  """Interface of a reward for windows of motion.

  `SmpReward` implements it by the SDS losses of a frozen diffusion model. An
  adversarial prior would use a discriminator that is trained beside the policy.

  `score` is arithmetic with static shapes and no host synchronisation, so that it can
  be captured in a CUDA graph. Random numbers are drawn before, by `draw`.

  Attributes:
    reward: (N,) in [0, 1], of the last step.
    losses: (N, K) values that the reward is computed from. A replay buffer keeps these,
      and recomputes the reward with the current `scale`.
  """

  reward: Tensor
  losses: Tensor

  @property
  def errors(self) -> Tensor:
    """Return what ``losses`` say of each environment."""
    ...

  def draw(self) -> None:
    """Draw the random numbers that `score` needs."""
    ...

  def score(self, features: Tensor) -> None:
    """Set ``reward`` and ``losses`` for encoded windows (N, W, F)."""
    ...

  def scale(self) -> Tensor:
    """Return the values (K,) that the losses are divided by."""
    ...

  def mu(self) -> Tensor:
    """Return the values, (K') or (N, K'), that ``errors`` are divided by."""
    ...

  def state(self) -> list[Tensor]:
    """Return the tensors that `score` changes."""
    ...

  def synchronize(self) -> None:
    """Exchange changing statistics with the other processes of a training."""
    ...

  def compile(self) -> None:
    """Apply ``torch.compile`` to the model, if that makes it faster."""
    ...

  def state_dict(self) -> dict[str, Any]:
    """Return the state for a checkpoint."""
    ...

  def load_state_dict(self, saved: dict[str, Any]) -> bool:
    """Load the result of `state_dict`; return whether the reward has a scale now."""
    ...

  def log(self) -> dict[str, Tensor]:
    """Return means over environments for the log, diverged ones left out."""
    ...


class NoStyle:
  """The style reward of an environment without a prior: always 1.

  Args:
    num_envs: N.
    device: Where to compute.
  """

  def __init__(self, num_envs: int, device: str | torch.device) -> None:
    self.reward = torch.ones(num_envs, device=device)
    self.losses = torch.zeros(num_envs, 0, device=device)

  @property
  def errors(self) -> Tensor:
    """Return ``losses``: there are none."""
    return self.losses

  def draw(self) -> None:
    """Do nothing: there is no randomness."""

  def score(self, features: Tensor) -> None:
    """Do nothing: the reward is constant."""

  def scale(self) -> Tensor:
    """Return an empty tensor: there are no losses."""
    return torch.ones(0, device=self.reward.device)

  def mu(self) -> Tensor:
    """Return an empty tensor: there are no losses."""
    return self.scale()

  def state(self) -> list[Tensor]:
    """Return an empty list: `score` changes nothing."""
    return []

  def synchronize(self) -> None:
    """Do nothing: there are no statistics."""

  def compile(self) -> None:
    """Do nothing: there is no model."""

  def state_dict(self) -> dict[str, Any]:
    """Return an empty state."""
    return {}

  def load_state_dict(self, saved: dict[str, Any]) -> bool:
    """Do nothing, as there is no state, and return True."""
    del saved
    return True

  def log(self) -> dict[str, Tensor]:
    """Return an empty log."""
    return {}
