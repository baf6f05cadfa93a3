"""Smp-Location-G1: go to a place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from torch import Tensor

from smp.episodes import episode_metrics
from smp.episodes.metric import FAILURES, Metric
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  Chance,
  EvalCondition,
  EvalProtocol,
  push_axis,
  pushed,
  unit,
)
from smp.episodes.trajectory import Trajectory
from smp.mdp.commands import LocationCommandCfg
from smp.mdp.metrics import goal_distance
from smp.mdp.rewards import TaskReward, reach_goal
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg
from smp.tasks.spec import TaskSpec


def location_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """Return the environment of Smp-Location-G1, for training or (``play``) viewing."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(prior="lafan_run", sds_scale=4.0),
    command=LocationCommandCfg(
      distance_range=(1.0, 10.0), resampling_time_range=(5.0, 10.0), debug_vis=True
    ),
  )
  cfg.rewards["reach_goal"] = RewardTermCfg(
    func=TaskReward,
    weight=1.0,
    params={"task": reach_goal, "command_name": "command", "scale": 0.25},
  )
  cfg.metrics["goal_distance"] = MetricsTermCfg(
    func=goal_distance, params={"command_name": "command"}
  )
  return play_env_cfg(cfg) if play else cfg


RINGS = ((1.0, 2.5), (2.5, 5.0), (5.0, 7.5), (7.5, 10.0))
"""Ranges of the goal's distance from the initial position, m."""
PUSH_RING = (5.0, 5.0)
REACHED = 0.5
"""Distance within which the goal is reached, m."""


def ask(conditions: Sequence[EvalCondition], chance: Chance) -> dict[str, np.ndarray]:
  """Return a goal in the condition's ring, in any direction from the robot."""
  low, high = np.array([c.asked["ring"] for c in conditions]).T
  distance = low + (high - low) * chance.part
  return {"goal": distance[:, None] * unit(chance.bearing)}


def values(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return the distance to the goal, and whether and when it is reached (N,)."""
  del settle
  where, goal = trajectory.qpos[..., :2], trajectory.command["goal"]
  time = episode_metrics.time_to_goal(where, goal, valid, trajectory.fps, REACHED)
  return {
    "goal_distance": episode_metrics.goal_distance(where, goal, valid),
    "goal_time": time,
    "goal_reached": time.isfinite().float(),
  }


SPEC = TaskSpec(
  env_cfg=location_env_cfg,
  policy="location",
  protocol=EvalProtocol(
    "Smp-Location-G1",
    (
      *(
        EvalCondition(
          COMMAND, f"{low:g} to {high:g} m", 0.5 * (low + high), {"ring": (low, high)}
        )
        for low, high in RINGS
      ),
      *pushed(ring=PUSH_RING),
    ),
    {
      COMMAND: "initial distance of the goal (m)",
      PUSH: push_axis(f"a goal {PUSH_RING[0]:g} m away"),
    },
    ask,
  ),
  metrics=(
    Metric(
      "goal_reached",
      f"came within {REACHED:g} m of the goal",
      "%",
      "task",
      "rate",
      "higher",
      "reached (%)",
    ),
    Metric(
      "goal_time",
      f"time to {REACHED:g} m, of robots that came there",
      "s",
      "task",
      better="lower",
      short="time (s)",
    ),
    Metric(
      "goal_distance",
      "distance to the goal at the end",
      "m",
      "task",
      better="lower",
      short="distance (m)",
    ),
    *FAILURES,
  ),
  values=values,
  success="goal_reached",
  # A goal is seconds away.
  discount=0.99,
)
