"""Observations that only a learner's critic has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from smp.mdp.smp_term import SmpTerm
from smp.mdp.symmetry import register_invariant

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

MIN_ERROR, MAX_ERROR = 1e-4, 10.0
"""Between which denoising errors are told apart."""


@register_invariant
def log_denoising_error(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Return the logarithm of the denoising errors (N, K) of the last step.

  They are state that a single frame does not hold: the reward depends on a window of
  frames. In the first observation of an episode there is no error yet, and mu stands
  in its place.
  """
  smp_term = SmpTerm.of(env)
  error = smp_term.style.losses.nan_to_num(nan=MAX_ERROR, posinf=MAX_ERROR)
  first = (env.episode_length_buf == 0).unsqueeze(-1)
  error = torch.where(first, smp_term.style.scale(), error)
  return error.clamp(MIN_ERROR, MAX_ERROR).log()
