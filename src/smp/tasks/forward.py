"""Smp-Forward-G1: go along +x at a commanded speed."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg

from smp.episodes.episode_metrics import tracking
from smp.episodes.metric import FAILURES, TRACKING
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  EvalCondition,
  EvalProtocol,
  push_axis,
  pushed,
)
from smp.mdp.commands import SpeedCommandCfg
from smp.mdp.metrics import velocity_error
from smp.mdp.rewards import TaskReward, track_velocity
from smp.mdp.smp_term import SmpTermCfg
from smp.tasks.base import base_env_cfg, play_env_cfg
from smp.tasks.spec import TaskSpec


def forward_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """Return the environment of Smp-Forward-G1, for training or (``play``) viewing."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(prior="loco"),
    command=SpeedCommandCfg(
      speed_range=(0.5, 5.0), resampling_time_range=(3.0, 8.0), debug_vis=True
    ),
  )
  cfg.rewards["track_velocity"] = RewardTermCfg(
    func=TaskReward,
    weight=1.0,
    # The same scale at low speeds, as published; 4.0 would distinguish slow speeds better.
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


SPEEDS = tuple(0.5 * i for i in range(1, 11))
PUSH_SPEED = 1.5
"""Speed during the sweep over pushes, m/s."""

SPEC = TaskSpec(
  env_cfg=forward_env_cfg,
  policy="forward",
  protocol=EvalProtocol(
    "Smp-Forward-G1",
    (
      *(
        EvalCondition(COMMAND, f"{speed:g} m/s", speed, {"speed": speed})
        for speed in SPEEDS
      ),
      *pushed(speed=PUSH_SPEED),
    ),
    {COMMAND: "commanded speed (m/s)", PUSH: push_axis(f"{PUSH_SPEED:g} m/s")},
  ),
  metrics=(*TRACKING, *FAILURES),
  values=tracking,
  success="velocity_error",
  learned_after=0.5e6,
)
