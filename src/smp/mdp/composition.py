"""Composition of task reward and r_smp: pure functions for all learners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

RewardMode = Literal["product", "weighted_sum", "task_only", "prior_only"]


@dataclass(frozen=True)
class RewardForm:
  """The settings that the composition of a reward depends on."""

  mode: RewardMode
  sds_scale: float
  """w_s in r_smp = exp(-w_s * mean over K of error / mu)."""

  task_reward_weight: float
  """Weight of the task reward in ``weighted_sum``."""

  smp_reward_weight: float
  """Weight of r_smp in ``weighted_sum``."""

  def max_reward(self, max_task: float) -> float:
    """Return the largest reward that a task reward of at most ``max_task`` can give."""
    return {
      "product": max_task,
      "task_only": max_task,
      "prior_only": 1.0,
      "weighted_sum": self.task_reward_weight * max_task + self.smp_reward_weight,
    }[self.mode]


def smp_reward_of(error: Tensor, scale: Tensor, sds_scale: float) -> Tensor:
  """Return r_smp = exp(-w_s * mean over K of error / mu) (...), in [0, 1].

  Losses of a diverged simulation, which are not finite, give 0. Source: the SMP paper
  (Mu et al., arXiv 2512.03028).

  Args:
    error: (..., K) SDS losses.
    scale: (K,) mu of each timestep.
    sds_scale: w_s.
  """
  relative = (error / scale).mean(dim=-1)
  return torch.exp(-sds_scale * relative).nan_to_num(nan=0.0)


def task_share(r_smp: Tensor, floor: Tensor, form: RewardForm) -> Tensor:
  """Return the factor (...) by which a task reward enters the reward.

  Args:
    r_smp: (...).
    floor: (...) lower bound of r_smp in ``product``: task * (floor + (1 - floor) *
      r_smp).
    form: The composition.
  """
  if form.mode == "product":
    return torch.lerp(r_smp, torch.ones_like(r_smp), floor)
  factor = {
    "weighted_sum": form.task_reward_weight,
    "task_only": 1.0,
    "prior_only": 0.0,
  }
  return torch.full_like(r_smp, factor[form.mode])


def smp_share(r_smp: Tensor, form: RewardForm) -> Tensor:
  """Return what r_smp (...) adds to the reward beside the task terms (...)."""
  factor = {"weighted_sum": form.smp_reward_weight, "prior_only": 1.0}
  return r_smp * factor.get(form.mode, 0.0)


def compose(
  task: Tensor, error: Tensor, floor: Tensor, scale: Tensor, form: RewardForm
) -> Tensor:
  """Return the reward (...), not multiplied by the length of a step.

  Everything that may change after a step was taken (mu, w_s, the composition) is an
  argument, so that a replay buffer of task rewards and SDS losses never holds a stale
  reward.

  Args:
    task: (...) weighted sum of the task terms.
    error: (..., K) SDS losses.
    floor: (...) see `task_share`.
    scale: (K,) mu.
    form: The composition.
  """
  r_smp = smp_reward_of(error, scale, form.sds_scale)
  return task * task_share(r_smp, floor, form) + smp_share(r_smp, form)
