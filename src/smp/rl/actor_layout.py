"""What an actor observes, remembered with its policy.

A training may take observations from the actor or give it a history. Its checkpoints
say so, and whatever runs the policy builds the environment alike without being told.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from mjlab.envs import ManagerBasedRlEnvCfg

from smp import paths
from smp.errors import UserError
from smp.mdp.metrics import sds_loss
from smp.mdp.observations import STYLE, observe_styles
from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
from smp.rl.policy_file import read_origin
from smp.utils.names import check_style
from smp.utils.schema import Size, read_as

KEY = "actor"
"""Entry of a checkpoint's origin and of a policy's card."""
GROUP = "actor"


@dataclass(frozen=True)
class ActorLayout:
  """The observations of an actor."""

  terms: tuple[str, ...]
  """Names of the terms, in order."""
  history: Size
  """Frames of each term; 1: the present one alone."""
  styles: tuple[str, ...] = ()
  """Styles that the actor tells apart, in the order in which it observes them."""
  only: str | None = None
  """The one of them that all environments are to have; never that of a file."""

  @staticmethod
  def of(cfg: ManagerBasedRlEnvCfg) -> ActorLayout:
    """Return the layout of an environment's actor."""
    group = cfg.observations[GROUP]
    styles = ()
    if STYLE in group.terms:
      smp_term = cfg.commands.get(SMP_TERM)
      styles = smp_term.names() if isinstance(smp_term, SmpTermCfg) else ()
    return ActorLayout(tuple(group.terms), group.history_length or 1, styles)

  def to_dict(self) -> dict[str, Any]:
    """Return plain values for a checkpoint."""
    values = {**asdict(self), "terms": list(self.terms), "styles": list(self.styles)}
    return {name: value for name, value in values.items() if value}

  @staticmethod
  def read(
    path: str | os.PathLike[str], style: str | None = None
  ) -> ActorLayout | None:
    """Return the layout of a policy in a checkpoint or policy file.

    None: the file says nothing, so the policy observes what its task defines.

    Args:
      path: The file.
      style: The one of the policy's styles that all environments are to have.

    Raises:
      UserError: The file cannot be read, its layout is malformed, or the policy knows
        no such style.
    """
    saved = read_origin(path).get(KEY)
    where = f"{path}: '{KEY}'"
    layout = None
    if saved is not None:
      layout = read_as(ActorLayout, saved, where, "use another checkpoint")
    if style is not None:
      check_style(style, () if layout is None else layout.styles, str(path))
    return layout if layout is None else replace(layout, only=style)

  def apply(self, cfg: ManagerBasedRlEnvCfg) -> None:
    """Let an environment's actor observe this, in place.

    Raises:
      UserError: The environment has no such observation.
    """
    group, smp_term = cfg.observations[GROUP], cfg.commands.get(SMP_TERM)
    if self.styles and isinstance(smp_term, SmpTermCfg):
      smp_term.styles, smp_term.only_style = ",".join(self.styles), self.only
      observe_styles(cfg)
    missing = [name for name in self.terms if name not in group.terms]
    if missing:
      raise UserError(
        f"the policy observes '{missing[0]}', which this task does not have (it has "
        f"{', '.join(group.terms)}); use the version that trained it"
      )
    group.terms = {name: group.terms[name] for name in self.terms}
    group.history_length = self.history if self.history > 1 else None


def prior_of_styles(path: str | os.PathLike[str]) -> str | None:
  """Return the shipped prior under which a policy of several styles was trained.

  None: the policy observes no style, so the prior of its task judges it; or its prior
  is not shipped and must be named.

  Args:
    path: A checkpoint or policy file.

  Raises:
    UserError: As `ActorLayout.read`.
  """
  layout, name = ActorLayout.read(path), read_origin(path).get("prior")
  if layout is None or not layout.styles or not isinstance(name, str):
    return None
  return name if (paths.PRIORS / f"{name}.safetensors").is_file() else None


def leave_out_prior(cfg: ManagerBasedRlEnvCfg) -> None:
  """Let an environment whose policy observes styles do without their prior, in place.

  Its reward is the task's, episodes start in the default pose, and where no style is
  chosen all have the first. It is for what needs the observations alone: the prior of a
  task may have no styles, and that of the training may not be at hand.
  """
  smp_term = cfg.commands.get(SMP_TERM)
  if not isinstance(smp_term, SmpTermCfg) or not smp_term.names():
    return
  smp_term.prior, smp_term.reward_mode = None, "task_only"
  smp_term.only_style = smp_term.only_style or smp_term.names()[0]
  cfg.metrics = {
    name: term for name, term in cfg.metrics.items() if term.func is not sds_loss
  }
