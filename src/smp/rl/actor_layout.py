"""What an actor observes, remembered with its policy.

A training may take observations from the actor or give it a history. Its checkpoints
say so, and whatever runs the policy builds the environment alike without being told.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from mjlab.envs import ManagerBasedRlEnvCfg

from smp.errors import UserError
from smp.rl.policy_file import read_origin
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

  @staticmethod
  def of(cfg: ManagerBasedRlEnvCfg) -> ActorLayout:
    """Return the layout of an environment's actor."""
    group = cfg.observations[GROUP]
    return ActorLayout(tuple(group.terms), group.history_length or 1)

  def to_dict(self) -> dict[str, Any]:
    """Return plain values for a checkpoint."""
    return {**asdict(self), "terms": list(self.terms)}

  @staticmethod
  def read(path: str | os.PathLike[str]) -> ActorLayout | None:
    """Return the layout of a policy in a checkpoint or policy file.

    None: the file says nothing, so the policy observes what its task defines.

    Raises:
      UserError: The file cannot be read, or its layout is malformed.
    """
    saved = read_origin(path).get(KEY)
    if saved is None:
      return None
    return read_as(ActorLayout, saved, f"{path}: '{KEY}'", "use another checkpoint")

  def apply(self, cfg: ManagerBasedRlEnvCfg) -> None:
    """Let an environment's actor observe this, in place.

    Raises:
      UserError: The environment has no such observation.
    """
    group = cfg.observations[GROUP]
    missing = [name for name in self.terms if name not in group.terms]
    if missing:
      raise UserError(
        f"the policy observes '{missing[0]}', which this task does not have (it has "
        f"{', '.join(group.terms)}); use the version that trained it"
      )
    group.terms = {name: group.terms[name] for name in self.terms}
    group.history_length = self.history if self.history > 1 else None
