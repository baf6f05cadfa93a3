"""Smp-Steering-G1: go one way while facing another."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg

from smp.mdp.commands import SteeringCommandCfg
from smp.mdp.metrics import facing_error, velocity_error
from smp.mdp.rewards import TaskReward, face_direction, track_velocity
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg


def steering_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of Smp-Steering-G1, for training or to look at."""
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
    params={"task": face_direction, "command_name": "command"},
  )
  for name, metric in (
    ("velocity_error", velocity_error),
    ("facing_error", facing_error),
  ):
    cfg.metrics[name] = MetricsTermCfg(func=metric, params={"command_name": "command"})
  return play_env_cfg(cfg) if play else cfg
