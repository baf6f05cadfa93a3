"""Observations of the critic alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from smp.mdp.penalties import on_floor
from smp.mdp.smp_term import SmpTerm
from smp.mdp.symmetry import Mirror, register_invariant, register_mirror

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

MIN_ERROR, MAX_ERROR = 1e-4, 10.0
"""Range to which SDS losses are clamped before the logarithm."""


@register_invariant
def log_denoising_error(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Return the logarithm of the SDS losses (N, K) of the last step.

  A single frame does not determine them, because the reward depends on a window of
  frames. In the first observation of an episode there is no loss yet, and mu is used
  instead.
  """
  smp_term = SmpTerm.of(env)
  error = smp_term.style.losses.nan_to_num(nan=MAX_ERROR, posinf=MAX_ERROR)
  first = (env.episode_length_buf == 0).unsqueeze(-1)
  error = torch.where(first, smp_term.style.scale(), error)
  return error.clamp(MIN_ERROR, MAX_ERROR).log()


def foot_contact(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
  """Return 1 for each foot that touches the floor, else 0 (N, 2); left first."""
  return on_floor(env, sensor_name).float()


register_mirror(foot_contact, lambda *_, **__: Mirror((1, 0), (1.0, 1.0)))
