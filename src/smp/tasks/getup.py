"""Smp-Getup-G1: get up from the ground, and stay up."""

from __future__ import annotations

from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.managers.termination_manager import TerminationTermCfg
from torch import Tensor

from smp.episodes import episode_metrics as fig
from smp.episodes.metric import Metric
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  EvalCondition,
  EvalProtocol,
  pushed,
)
from smp.episodes.trajectory import Trajectory
from smp.mdp.init_states import INIT_MODES
from smp.mdp.metrics import head_height
from smp.mdp.rewards import TaskReward, hold_head_high, raise_head
from smp.mdp.smp_term import SmpTermCfg
from smp.mdp.terminations import StandUpSuccess, out_of_distribution
from smp.motion.features import FPS
from smp.motion.head import STAND_UP
from smp.tasks.base import base_env_cfg, play_env_cfg
from smp.tasks.spec import TaskSpec

EPISODE_S = 5.0
LYING_HEAD_HEIGHT = 0.6
"""Maximum height of the head in initial states from the prior, m."""
FALLEN_SHARE = 0.5
CONTACTS_LYING = 60
"""Contacts per environment to reserve memory for: a lying robot has more than a walking
one."""


def getup_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """Return the environment of Smp-Getup-G1, for training or (``play``) viewing."""
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
  # Ground and self-contact are expected here, so drop both terminations.
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


PUSH_TIME = 12.0
"""Time of the push, s, by which a robot that gets up at all stands."""
UPRIGHT_AT_END = 1.10
"""Height of the head, m, that counts as standing in the last half second."""


def values(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return whether and when robots stood up (N,), by three criteria."""
  del settle
  fps = trajectory.fps
  head = fig.head_height(trajectory.qpos)
  upright = fig.uprightness(trajectory.qpos[..., 3:7])
  speed = trajectory.qvel[..., :3].norm(dim=-1)
  spin = trajectory.qvel[..., 3:6].norm(dim=-1)
  stood, time = fig.stood_up(head, speed, fps, valid)
  force = trajectory.foot_force
  strict = fig.stood_strictly(head, upright, speed, spin, fps, valid)
  last = round(0.5 * fps)
  at_end = ((head >= UPRIGHT_AT_END) & valid)[-last:].all(dim=0)
  return {
    "stood_up": stood.float(),
    "stand_time": time,
    "stood_strictly": strict.float(),
    "stood_sr3": fig.stood_sr3(head, upright, force, fps, valid).float(),
    "standing_at_end": at_end.float(),
  }


def _share(key: str, label: str, short: str) -> Metric:
  return Metric(key, label, "%", "task", "rate", "higher", short)


SPEC = TaskSpec(
  env_cfg=getup_env_cfg,
  policy="getup",
  protocol=EvalProtocol(
    "Smp-Getup-G1",
    (
      *(
        EvalCondition(COMMAND, kind, float(i), start=kind)
        for i, kind in enumerate(INIT_MODES)
      ),
      *pushed(),
    ),
    {
      COMMAND: "initial pose",
      PUSH: f"push {PUSH_TIME:g} s after an initial state of the prior (m/s)",
    },
    push_times=(PUSH_TIME,),
    stops=False,
  ),
  metrics=(
    _share("stood_up", "stood up, the task's own criterion", "stood up (%)"),
    _share("stood_strictly", "stood up, protocol strict", "strict (%)"),
    _share("stood_sr3", "stood up, protocol SR3", "SR3 (%)"),
    Metric(
      "stand_time",
      "time to stand, of robots that stood up",
      "s",
      "task",
      better="lower",
      short="time (s)",
    ),
    _share("standing_at_end", "standing in the last half second", "at the end (%)"),
    Metric(
      "out_of_distribution",
      "moved so that training would have ended the episode",
      "%",
      "task",
      "rate",
      "lower",
    ),
  ),
  values=values,
  success="stood_up",
)
