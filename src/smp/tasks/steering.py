"""Smp-Steering-G1: go in one direction while facing another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from torch import Tensor

from smp.episodes import episode_metrics
from smp.episodes.metric import FAILURES, TRACKING, Metric
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  Chance,
  EvalCondition,
  EvalProtocol,
  push_axis,
  pushed,
)
from smp.episodes.trajectory import Trajectory
from smp.mdp.commands import SteeringCommandCfg
from smp.mdp.metrics import facing_error, velocity_error
from smp.mdp.rewards import TaskReward, face_direction, track_velocity
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg
from smp.tasks.spec import TaskSpec


def steering_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """Return the environment of Smp-Steering-G1, for training or (``play``) viewing."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(prior="lafan_run"),
    command=SteeringCommandCfg(
      speed_range=(0.5, 2.0), resampling_time_range=(3.0, 8.0), debug_vis=True
    ),
  )
  cfg.rewards["track_velocity"] = RewardTermCfg(
    func=TaskReward,
    weight=0.5,
    params={
      "task": track_velocity,
      "command_name": "command",
      "scale": 1.0,
      "low_speed_scale": 1.0,
    },
  )
  cfg.rewards["face_direction"] = RewardTermCfg(
    func=TaskReward,
    weight=0.5,
    params={"task": face_direction, "command_name": "command", "power": 1.0},
  )
  for name, metric in (
    ("velocity_error", velocity_error),
    ("facing_error", facing_error),
  ):
    cfg.metrics[name] = MetricsTermCfg(func=metric, params={"command_name": "command"})
  return play_env_cfg(cfg) if play else cfg


SPEED = 1.25
"""Speed of the evaluation: the middle of the training range, m/s."""
ANGLES = (0.0, 45.0, 90.0, 135.0, 180.0)
"""Angles between direction of travel and facing, degrees, to either side."""


def ask(conditions: Sequence[EvalCondition], chance: Chance) -> dict[str, np.ndarray]:
  """Return a direction of any angle, and a facing at the condition's angle to it."""
  speed = np.array([c.asked["speed"] for c in conditions], float)
  apart = np.array([c.asked["angle"] for c in conditions], float) * chance.side
  direction = np.degrees(chance.direction)
  return {
    "speed": speed[:, None],
    "direction": direction[:, None],
    "facing": (direction + apart)[:, None],
  }


def values(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return the tracking errors of speed, direction and facing (N,)."""
  settled = episode_metrics.after(valid, settle, trajectory.fps)
  quat, facing = trajectory.qpos[..., 3:7], trajectory.command["facing"]
  error = episode_metrics.facing_error(quat, facing, settled)
  return episode_metrics.tracking(trajectory, valid, settle) | {"facing_error": error}


SPEC = TaskSpec(
  env_cfg=steering_env_cfg,
  policy="steering",
  protocol=EvalProtocol(
    "Smp-Steering-G1",
    (
      *(
        EvalCondition(COMMAND, f"{angle:g}°", angle, {"speed": SPEED, "angle": angle})
        for angle in ANGLES
      ),
      *pushed(speed=SPEED, angle=0.0),
    ),
    {
      COMMAND: "angle between direction and facing (°)",
      PUSH: push_axis(f"{SPEED:g} m/s"),
    },
    ask,
  ),
  metrics=(
    *TRACKING,
    Metric(
      "facing_error", "facing error", "°", "task", better="lower", short="facing (°)"
    ),
    *FAILURES,
  ),
  values=values,
  success="velocity_error",
)
