"""Observations of the critic alone, and the style of environments that have their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from mjlab.managers.observation_manager import ObservationTermCfg

from smp.errors import UserError
from smp.mdp.penalties import on_floor
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.mdp.symmetry import Mirror, register_invariant, register_mirror

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg

STYLE = "style"
"""Name of the observation of an environment's style."""
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
  error = smp_term.style.errors.nan_to_num(nan=MAX_ERROR, posinf=MAX_ERROR)
  first = (env.episode_length_buf == 0).unsqueeze(-1)
  error = torch.where(first, smp_term.style.mu(), error)
  return error.clamp(MIN_ERROR, MAX_ERROR).log()


@register_invariant
def style_one_hot(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Return 1 at the place of each environment's style, else 0 (N, S).

  Raises:
    UserError: The environments have no styles of their own.
  """
  styles = SmpTerm.of(env).env_styles
  if styles is None:
    raise UserError(
      f"observation '{STYLE}': give --env.commands.smp.styles two names or more"
    )
  return styles.one_hot()


def observe_styles(cfg: ManagerBasedRlEnvCfg) -> None:
  """Let actor and critic observe the style of their environment, in place.

  Where all environments have one style, there is nothing to observe.
  """
  smp_term = cfg.commands.get(SMP_TERM)
  if isinstance(smp_term, SmpTermCfg) and smp_term.names():
    for group in ("actor", "critic"):
      cfg.observations[group].terms[STYLE] = ObservationTermCfg(func=style_one_hot)


def foot_contact(env: ManagerBasedRlEnv, sensor_name: str) -> torch.Tensor:
  """Return 1 for each foot that touches the floor, else 0 (N, 2); left first."""
  return on_floor(env, sensor_name).float()


register_mirror(foot_contact, lambda *_, **__: Mirror((1, 0), (1.0, 1.0)))
