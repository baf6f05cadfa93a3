"""Smp-Forward-G1: go along +x at a commanded speed."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg

from smp.mdp.commands import SpeedCommandCfg
from smp.mdp.metrics import velocity_error
from smp.mdp.rewards import TaskReward, track_velocity
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg


def forward_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of Smp-Forward-G1, for training or to look at."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(prior="loco"),
    command=SpeedCommandCfg(
      speed_range=(0.5, 5.0), resampling_time_range=(3.0, 8.0), debug_vis=True
    ),
  )
  cfg.rewards["track_velocity"] = RewardTermCfg(
    func=TaskReward,
    weight=1.0,
    # The same scale at low speeds, as published; 4.0 tells slow from slower.
    params={
      "task": track_velocity,
      "command_name": "command",
      "scale": 0.5,
      "low_speed_scale": 0.5,
    },
  )
  cfg.metrics["velocity_error"] = MetricsTermCfg(
    func=velocity_error, params={"command_name": "command"}
  )
  return play_env_cfg(cfg) if play else cfg
