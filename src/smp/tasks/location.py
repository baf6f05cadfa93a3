"""Smp-Location-G1: go to a place."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg

from smp.mdp.commands import LocationCommandCfg
from smp.mdp.metrics import goal_distance
from smp.mdp.rewards import TaskReward, reach_goal
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg


def location_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of Smp-Location-G1, for training or to look at."""
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
