"""The styles of environments, where each has one of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smp.diffusion.styles import OVER


class EnvStyles:
  """The style of each environment, drawn when its episode starts.

  Args:
    names: S styles, or compositions of two as in guarded/run.
    num_envs: N.
    device: Device of the labels.
    only: The one style that all environments have; None: each draws its own.

  Attributes:
    names: The styles.
    index: (N,) int64, place of each environment's style in ``names``. It is changed in
      place.
  """

  def __init__(
    self,
    names: Sequence[str],
    num_envs: int,
    device: str | torch.device,
    only: str | None = None,
  ) -> None:
    self.names, self._draws = tuple(names), only is None
    place = 0 if only is None else self.names.index(only)
    self.index = torch.full((num_envs,), place, device=device)
    self._rows = torch.eye(len(names), device=device)

  def draw(self, env_ids: Tensor) -> None:
    """Draw a style for each of some environments (n,), all equally likely."""
    if self._draws:
      count, device = len(self.names), self.index.device
      self.index[env_ids] = torch.randint(count, (len(env_ids),), device=device)

  def one_hot(self) -> Tensor:
    """Return 1 at the place of each environment's style, else 0 (N, S)."""
    return self._rows.index_select(0, self.index)

  def means(self, value: Tensor) -> dict[str, Tensor]:
    """Return the mean of ``value`` (N,) over the environments of each style.

    Of a style that none has, it is the mean over all.
    """
    member = self.one_hot()
    count = member.sum(dim=0)
    mean = (value @ member) / count.clamp(min=1.0)
    mean = torch.where(count > 0.0, mean, value.mean())
    return dict(zip(self.names, mean.unbind(), strict=True))


def log_name(style: str) -> str:
  """Return a style as part of a name in the log, where / would begin a group."""
  return style.replace(OVER, "_over_")
