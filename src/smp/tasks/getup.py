"""Smp-Getup-G1: get up from the ground, and stay up."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.managers.termination_manager import TerminationTermCfg

from smp.mdp.metrics import head_height
from smp.mdp.rewards import TaskReward, hold_head_high, raise_head
from smp.mdp.smp_term import SmpTermCfg
from smp.mdp.terminations import StandUpSuccess, out_of_distribution
from smp.motion.features import FPS
from smp.motion.head import STAND_UP
from smp.tasks.base import base_env_cfg, play_env_cfg

EPISODE_S = 5.0
LYING_HEAD_HEIGHT = 0.6
"""Starts from the prior have the head below this, m."""
FALLEN_SHARE = 0.5
CONTACTS_LYING = 60
"""Contacts per robot to make room for: one that lies has more than one that walks."""


def getup_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of Smp-Getup-G1, for training or to look at."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(
      prior="getup",
      max_init_head_height=LYING_HEAD_HEIGHT,
      fallen_init_prob=FALLEN_SHARE,
    ),
    command=None,
  )
  cfg.episode_length_s = EPISODE_S
  cfg.sim.nconmax = CONTACTS_LYING
  cfg.rewards["raise_head"] = RewardTermCfg(
    func=TaskReward,
    weight=0.7,
    params={"task": raise_head, "height": 0.9, "speed": 0.25, "scale": 100.0},
  )
  cfg.rewards["hold_head_high"] = RewardTermCfg(
    func=TaskReward,
    weight=0.3,
    params={"task": hold_head_high, "height": 1.1, "scale": 1.0},
  )
  # Who gets up touches the ground, and itself, with everything.
  del cfg.terminations["self_collision"], cfg.terminations["root_too_low"]
  cfg.scene.sensors = ()
  cfg.terminations["out_of_distribution"] = TerminationTermCfg(
    func=out_of_distribution,
    params={"sds_scale": 6.0, "minimum": 0.02, "grace_steps": 5},
  )
  cfg.terminations["stood_up"] = TerminationTermCfg(
    func=StandUpSuccess,
    time_out=True,
    params={
      "height": STAND_UP.height,
      "speed": STAND_UP.speed,
      "stand_steps": round(STAND_UP.still_s * FPS),
      "hold_s": STAND_UP.hold_s,
    },
  )
  cfg.metrics["head_height"] = MetricsTermCfg(func=head_height)
  return play_env_cfg(cfg) if play else cfg
