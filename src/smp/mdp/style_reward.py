"""What a style reward is: how natural the motion in a window is."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class StyleReward(Protocol):
  """Judge windows of motion.

  `SmpReward` does so by the score of a frozen diffusion model. An adversarial prior would
  do so by a discriminator that is trained beside the policy.

  `score` is arithmetic with static shapes and no host synchronisation, so that it can be
  captured in a CUDA graph. Random numbers are drawn before, by `draw`.

  Attributes:
    reward: (N,) in [0, 1], of the last step.
    losses: (N, K) what the reward is computed from. A replay buffer keeps these, and
      computes the reward anew with today's `scale`.
  """

  reward: Tensor
  losses: Tensor

  def draw(self) -> None:
    """Draw what `score` needs of chance."""
    ...

  def score(self, features: Tensor) -> None:
    """Set ``reward`` and ``losses`` for encoded windows (N, W, F)."""
    ...

  def scale(self) -> Tensor:
    """Return what the losses are divided by (K,)."""
    ...

  def state(self) -> list[Tensor]:
    """Return the tensors that `score` changes."""
    ...

  def synchronize(self) -> None:
    """Share what moves with the other processes of a training."""
    ...

  def compile(self) -> None:
    """Hand the model to ``torch.compile``, if it gains by that."""
    ...

  def state_dict(self) -> dict[str, Any]:
    """Return what a checkpoint keeps."""
    ...

  def load_state_dict(self, saved: dict[str, Any]) -> None:
    """Take what `state_dict` returned."""
    ...

  def log(self) -> dict[str, Tensor]:
    """Return means over environments for the log, without robots that diverged."""
    ...


class NoStyle:
  """The style reward of an environment without a prior: nothing is judged.

  Args:
    num_envs: N.
    device: Where to compute.
  """

  def __init__(self, num_envs: int, device: str | torch.device) -> None:
    self.reward = torch.ones(num_envs, device=device)
    self.losses = torch.zeros(num_envs, 0, device=device)

  def draw(self) -> None: ...

  def score(self, features: Tensor) -> None: ...

  def scale(self) -> Tensor:
    return torch.ones(0, device=self.reward.device)

  def state(self) -> list[Tensor]:
    return []

  def synchronize(self) -> None: ...

  def compile(self) -> None: ...

  def state_dict(self) -> dict[str, Any]:
    return {}

  def load_state_dict(self, saved: dict[str, Any]) -> None: ...

  def log(self) -> dict[str, Tensor]:
    return {}
