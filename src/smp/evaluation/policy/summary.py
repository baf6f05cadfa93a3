"""Summary of recorded episodes: metrics by condition, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS
from smp.episodes import episode_metrics as fig
from smp.episodes.metric import Metric
from smp.episodes.protocol import COMMAND, EvalProtocol
from smp.episodes.trajectory import Trajectory
from smp.evaluation import intervals
from smp.evaluation.intervals import Interval
from smp.evaluation.policy import motion_similarity
from smp.evaluation.policy.motion_similarity import Data
from smp.evaluation.policy.style_accuracy import StyleJudge, style_metrics, style_values
from smp.robots import g1
from smp.tasks.registry import find_task

ALL = "all"
"""Label of the row for a whole sweep."""

RETURN = Metric(
  "return", "task return, of its maximum", "", "task", better="higher", short="return"
)
SDS_LOSSES: tuple[Metric, ...] = (
  *(
    Metric(
      f"sds_loss_t{t}", f"SDS loss at timestep {t}", "", "naturalness", better="lower"
    )
    for t in SCORED_TIMESTEPS
  ),
  Metric(
    "sds_loss",
    "SDS loss, mean",
    "",
    "naturalness",
    better="lower",
    short="SDS loss",
  ),
)
"""SDS losses of the standard timesteps; unknown without a prior."""
LIMB_AMPLITUDES: tuple[Metric, ...] = tuple(
  Metric(
    f"amplitude_{limb}",
    f"joint amplitude, policy to data: {limb.replace('_', ' ')}",
    "",
    "naturalness",
    better="one",
  )
  for limb in g1.LIMBS
)
"""Joint amplitude of each of `g1.LIMBS`, in order."""
ALWAYS: tuple[Metric, ...] = (
  Metric("diverged", "physics diverged (not a number)", "%", "task", "rate", "lower"),
  Metric("r_smp", "r_smp", "", "naturalness", better="higher", short="r_smp"),
  *SDS_LOSSES,
  Metric(
    "frechet",
    "Fréchet distance to the data, per feature",
    "",
    "naturalness",
    "other",
    "lower",
    short="Fréchet",
  ),
  Metric(
    "nearest",
    "distance to the nearest window of the data",
    "",
    "naturalness",
    better="lower",
    short="nearest",
  ),
  Metric(
    "diversity",
    "diversity: distance of two windows, policy to data",
    "",
    "naturalness",
    "other",
    "one",
    short="diversity",
  ),
  Metric(
    "amplitude",
    "joint amplitude, policy to data",
    "",
    "naturalness",
    better="one",
    short="amplitude",
  ),
  *LIMB_AMPLITUDES,
  Metric(
    "asymmetry_posture",
    "left and right differ: mean angles",
    "°",
    "naturalness",
    better="lower",
    short="asymmetry (°)",
  ),
  Metric(
    "asymmetry_amplitude",
    "left and right differ: amplitudes",
    "°",
    "naturalness",
    better="lower",
  ),
  Metric(
    "foot_skate",
    "foot skate while in contact",
    "mm/s",
    "naturalness",
    better="lower",
    short="skate (mm/s)",
  ),
  Metric("jerk", "joint jerk, mean", "rad/s³", "effort", better="lower", short="jerk"),
  Metric("jerk_peak", "joint jerk, peak", "rad/s³", "effort", better="lower"),
  Metric("torque", "torque, mean of joints", "Nm", "effort", better="lower"),
  Metric("torque_peak", "torque, peak", "Nm", "effort", better="lower"),
  Metric(
    "power",
    "mechanical power, mean",
    "W",
    "effort",
    better="lower",
    short="power (W)",
  ),
  Metric("power_peak", "mechanical power, peak", "W", "effort", better="lower"),
  Metric("joint_speed_peak", "joint speed, peak", "rad/s", "effort", better="lower"),
  Metric(
    "action_rate",
    "action, first difference",
    "",
    "effort",
    better="lower",
    short="action rate",
  ),
  Metric("action_rate2", "action, second difference", "", "effort", better="lower"),
)
"""Metrics of every task, in addition to `RETURN` and its own."""


def metrics_of(task: str, style_parts: Sequence[str] = ()) -> list[Metric]:
  """Return the metrics of a task, in order.

  Args:
    task: Its id.
    style_parts: Parts of the body whose style was judged, if any.

  Raises:
    UserError: The task has no protocol.
  """
  return [RETURN, *find_task(task).metrics, *style_metrics(style_parts), *ALWAYS]


def metrics_in(result: dict[str, Any]) -> list[Metric]:
  """Return the metrics in the contents of an evaluation.json, in order."""
  style = result.get("style_judge")
  parts = () if style is None else tuple(style["asked"])
  return metrics_of(result["protocol"]["task"], parts)


# One value per episode.


def episode_values(trajectory: Trajectory, protocol: EvalProtocol) -> dict[str, Tensor]:
  """Return the value of every mean or rate in each episode (N,), by metric.

  Metrics that the task does not have are left out; those of windows come from
  `window_values`.
  """
  valid = trajectory.valid()
  values = _common(trajectory, valid)
  values |= _ends(trajectory, valid)
  values |= _effort(trajectory, valid)
  values |= find_task(protocol.task).values(trajectory, valid, protocol.settle)
  known = {figure.key for figure in metrics_of(protocol.task)}
  return {name: value for name, value in values.items() if name in known}


def _common(trajectory: Trajectory, valid: Tensor) -> dict[str, Tensor]:
  error = trajectory.sds_loss
  values = {
    "return": fig.normalised_return(
      trajectory.task_reward, valid, trajectory.max_reward
    ),
    "r_smp": fig.masked_mean(trajectory.r_smp, valid & trajectory.r_smp.isfinite()),
  }
  # Unknown without a prior, and at timesteps other than the standard ones.
  unknown = torch.full((trajectory.num_envs,), torch.nan)
  values |= dict.fromkeys((each.key for each in SDS_LOSSES), unknown)
  if len(trajectory.timesteps):
    values["sds_loss"] = fig.masked_mean(error.mean(dim=-1), valid)
  for k, timestep in enumerate(trajectory.timesteps):
    values[f"sds_loss_t{timestep}"] = fig.masked_mean(error[..., k], valid)
  soles = fig.sole_positions(trajectory.qpos)
  contact = trajectory.foot_force > fig.CONTACT_FORCE
  values["foot_skate"] = fig.foot_skate(soles, contact, valid, trajectory.fps)
  posture, amplitude = fig.asymmetry(trajectory.joint_pos(), valid)
  return values | {"asymmetry_posture": posture, "asymmetry_amplitude": amplitude}


def _ends(trajectory: Trajectory, valid: Tensor) -> dict[str, Tensor]:
  """Return the rate of each failure (also where failures do not end an episode)."""
  counted = trajectory.ended & valid.unsqueeze(-1)
  by = counted.any(dim=0).float()
  values = {name: by[:, i] for i, name in enumerate(trajectory.end_names)}
  # The step in which a state becomes no number is no valid one.
  broken = trajectory.broken().any(dim=0).float()
  values["diverged"] = torch.maximum(values.get("diverged", broken), broken)
  return values | {"fall_rate": trajectory.failed().any(dim=0).float()}


def _effort(trajectory: Trajectory, valid: Tensor) -> dict[str, Tensor]:
  speed = trajectory.qvel[..., 6:]
  mean, peak = fig.joint_jerk(trajectory.joint_pos(), valid, trajectory.fps)
  first, second = fig.action_rate(trajectory.action, valid)
  return fig.effort(trajectory.torque, speed, valid) | {
    "jerk": mean,
    "jerk_peak": peak,
    "joint_speed_peak": fig.masked_max(speed.abs().amax(dim=-1), valid),
    "action_rate": first,
    "action_rate2": second,
  }


# Windows.


def window_values(
  trajectory: Trajectory, data: Data | None, condition: np.ndarray
) -> tuple[dict[str, Tensor], dict[str, Interval]]:
  """Return metrics of windows: those in each episode (N,), and those of all together.

  Args:
    trajectory: N episodes.
    data: Windows to compare theirs with.
    condition: (N,) condition of each. All are in each group that an interval leaves out:
      groups of other conditions would differ by these.
  """
  step, env = motion_similarity.window_rows(
    trajectory.valid(), motion_similarity.WINDOWS
  )
  count = trajectory.num_envs
  if data is None or not len(step):
    nothing = torch.full((count,), torch.nan)
    names = ("nearest", "amplitude", *(metric.key for metric in LIMB_AMPLITUDES))
    unknown = Interval(None, None, None, 0, "jackknife")
    return dict.fromkeys(names, nothing), {"frechet": unknown, "diversity": unknown}
  windows = motion_similarity.windows_of(trajectory, step, env)
  amplitude = motion_similarity.joint_amplitude(windows)
  ratios = motion_similarity.amplitude_ratios(amplitude, data.amplitude)
  per_window = {
    "nearest": motion_similarity.nearest(windows, data),
    "amplitude": amplitude.sum(dim=1) / data.amplitude.sum().clamp(min=1e-9),
  }
  per_window |= {f"amplitude_{limb}": ratio for limb, ratio in ratios.items()}
  values = {
    name: motion_similarity.per_env_mean(value, env, count)
    for name, value in per_window.items()
  }
  points = motion_similarity.points_of(windows, data.stats)
  groups = rank_within(condition)[env.numpy()] % motion_similarity.GROUPS
  distance = intervals.jackknife(
    lambda rows: motion_similarity.frechet_per_feature(points[rows], data.points),
    groups,
  )
  diversity = motion_similarity.diversity(windows, data, groups)
  return values, {"frechet": distance, "diversity": diversity}


def rank_within(condition: np.ndarray) -> np.ndarray:
  """Return the place (N,) of each episode among those of its condition (N,)."""
  rank = np.zeros(len(condition), dtype=int)
  for each in np.unique(condition):
    same = condition == each
    rank[same] = np.arange(same.sum())
  return rank


# Conditions.


def summarise(
  trajectory: Trajectory,
  condition: np.ndarray,
  seed: np.ndarray,
  protocol: EvalProtocol,
  data: Data | None,
  judge: StyleJudge | None = None,
) -> list[dict[str, Any]]:
  """Compute the metrics of every condition, and of all commands, in plain types.

  Args:
    trajectory: N episodes, of all seeds side by side.
    condition: (N,) index into the protocol's conditions.
    seed: (N,) seed that each was run with.
    protocol: The task and its conditions.
    data: Windows to compare those of the episodes with; None: there are none.
    judge: What judges the style of the motion; None: it is not judged.

  Returns:
    One row per condition, and one for the whole sweep over commands.
  """
  values = episode_values(trajectory, protocol)
  metrics = metrics_of(protocol.task, () if judge is None else tuple(judge.asked))
  if judge is not None:
    values |= style_values(trajectory, judge, protocol.settle)
  rows: list[dict[str, Any]] = []
  sweeps = np.array([c.sweep for c in protocol.conditions])
  chosen = [(c.sweep, c.label, c.value) for c in protocol.conditions]
  masks = [condition == i for i in range(len(protocol.conditions))]
  chosen.append((COMMAND, ALL, float("nan")))
  masks.append(sweeps[condition] == COMMAND)
  for (sweep, label, value), mask in zip(chosen, masks, strict=True):
    figures = _condition(trajectory, values, mask, condition, seed, metrics, data)
    rows.append(
      {
        "sweep": sweep,
        "label": label,
        "value": None if label == ALL else value,
        "episodes": int(mask.sum()),
        "figures": figures,
      }
    )
  return rows


def _condition(
  trajectory: Trajectory,
  values: dict[str, Tensor],
  mask: np.ndarray,
  condition: np.ndarray,
  seed: np.ndarray,
  metrics: Sequence[Metric],
  data: Data | None,
) -> dict[str, Any]:
  choice = torch.from_numpy(mask)
  part = trajectory.select(choice)
  of_windows, together = window_values(part, data, condition[mask])
  ours = {name: value[choice] for name, value in values.items()} | of_windows
  others = together | {"falls_per_minute": _falls_per_minute(part)}
  result: dict[str, Any] = {}
  for figure in metrics:
    if figure.kind == "other":
      result[figure.key] = asdict(others[figure.key])
      continue
    one = ours[figure.key].double().numpy()
    result[figure.key] = asdict(interval_of(figure, one))
    result[figure.key]["seeds"] = {
      str(s): interval_of(figure, one[seed[mask] == s]).value for s in np.unique(seed)
    }
  return result


def interval_of(figure: Metric, values: np.ndarray) -> Interval:
  """Return a metric with its interval from its values in episodes (n,)."""
  if figure.kind == "rate":
    known = values[np.isfinite(values)]
    return intervals.wilson(int(known.sum()), len(known))
  return intervals.mean(values, signed=figure.signed)


def _falls_per_minute(part: Trajectory) -> Interval:
  failures = int(part.failed().any(dim=0).sum())
  return intervals.per_minute(failures, float(part.valid().sum()) / part.fps)
