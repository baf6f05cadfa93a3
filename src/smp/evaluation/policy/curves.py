"""Curves of training runs, read from their logs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smp.errors import UserError

EPISODE = "Train/mean_episode_length"
TASK_REWARD = "Smp/task_reward"
SDS_LOSS = "Smp/sds_loss_t"
"""Prefix of the names of the SDS losses, one for each timestep."""
_FORMER_SDS_LOSS = "Smp/raw_error_t"
"""The prefix in logs of earlier versions."""


@dataclass(frozen=True)
class Curve:
  """One scalar of a run."""

  iteration: np.ndarray
  """(n,)."""
  seconds: np.ndarray
  """(n,), since the first value of any scalar of the run."""
  value: np.ndarray
  """(n,)."""

  def first_above(self, bound: float) -> int | None:
    """Return the index of the first value above ``bound``; None if there is none."""
    above = np.flatnonzero(self.value > bound)
    return int(above[0]) if len(above) else None

  def at(self, seconds: float, window: float = 60.0) -> float | None:
    """Return the mean over the ``window`` seconds before a time.

    None if the curve ends before that window, or has no value in it.
    """
    if not len(self.seconds) or self.seconds[-1] < seconds - window:
      return None
    chosen = (self.seconds > seconds - window) & (self.seconds <= seconds)
    return float(self.value[chosen].mean()) if chosen.any() else None


def read_curves(run: Path, names: Iterable[str] = ()) -> dict[str, Curve]:
  """Return the curves of a run that was logged with ``--agent.logger tensorboard``.

  Args:
    run: Folder of the run.
    names: Only scalars whose names begin with one of these; none: all.

  Raises:
    UserError: the folder holds no such log.
  """
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  if not any(path.is_file() for path in run.glob("events.out.tfevents*")):
    raise UserError(f"{run}: no curve here; log with --agent.logger tensorboard")
  events = EventAccumulator(str(run), size_guidance={"scalars": 0})
  events.Reload()
  found = {
    name.replace(_FORMER_SDS_LOSS, SDS_LOSS): events.Scalars(name)
    for name in events.Tags()["scalars"]
  }
  begin = min((each[0].wall_time for each in found.values() if each), default=0.0)
  wanted = tuple(names) or ("",)
  return {
    name: Curve(
      np.array([each.step for each in values]),
      np.array([each.wall_time - begin for each in values]),
      np.array([each.value for each in values]),
    )
    for name, values in found.items()
    if name.startswith(wanted)
  }


def mean_sds_loss(curves: dict[str, Curve]) -> Curve | None:
  """Return the mean of the SDS losses over timesteps; None if they were not logged."""
  errors = [curve for name, curve in curves.items() if name.startswith(SDS_LOSS)]
  if not errors:
    return None
  errors = in_common(errors)
  value = np.mean([curve.value for curve in errors], axis=0)
  return Curve(errors[0].iteration, errors[0].seconds, value)


def in_common(curves: Sequence[Curve]) -> list[Curve]:
  """Return curves at the iterations that all have: a run may end, or be read, in one."""
  shared = curves[0].iteration
  for curve in curves[1:]:
    shared = np.intersect1d(shared, curve.iteration)
  found = []
  for curve in curves:
    # The last value of an iteration that was logged twice, as after resuming.
    at = (
      len(curve.iteration) - 1 - np.unique(curve.iteration[::-1], return_index=True)[1]
    )
    at = at[np.isin(curve.iteration[at], shared)]
    found.append(Curve(curve.iteration[at], curve.seconds[at], curve.value[at]))
  return found
