"""Smp-Velocity-G1: stand, walk, turn and run as commanded, observed as on a robot."""

from __future__ import annotations

import torch
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.envs import mdp as envs_mdp
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.managers.scene_entity_config import SceneEntityCfg
from mjlab.tasks.velocity.mdp import self_collision_cost
from torch import Tensor

from smp.episodes import episode_metrics
from smp.episodes.metric import FAILURES, VELOCITY_ERROR, Metric
from smp.episodes.protocol import (
  COMMAND,
  PUSH,
  EvalCondition,
  EvalProtocol,
  push_axis,
  pushed,
)
from smp.episodes.running_mean import STRIDE_S, running_mean
from smp.episodes.stopping import stop_time
from smp.episodes.trajectory import Trajectory
from smp.mdp import penalties
from smp.mdp.commands import VelocityCommandCfg
from smp.mdp.commands.common import in_heading_frame
from smp.mdp.metrics import velocity_error, yaw_rate_error
from smp.mdp.observations import foot_contact
from smp.mdp.rewards import TaskReward, track_velocity_and_yaw_rate
from smp.mdp.smp_term import SmpTermCfg
from smp.motion.rotations import quat_rotate
from smp.tasks.base import (
  FOOT_CONTACT,
  SELF_COLLISION,
  base_env_cfg,
  foot_contact_sensor,
  observe_without_velocity,
  play_env_cfg,
  vary_robots,
)
from smp.tasks.spec import TaskSpec

COMMAND_NAME = {"command_name": "command"}
CONTACTS = {"sensor_name": FOOT_CONTACT}
SOLES = SceneEntityCfg("robot", site_names=("left_foot", "right_foot"))


def velocity_env_cfg(play: bool = False) -> ManagerBasedRlEnvCfg:
  """Return the environment of Smp-Velocity-G1, for training or (``play``) viewing."""
  cfg = base_env_cfg(
    smp_term=SmpTermCfg(
      prior="walk_run",
      init_speed_bandwidth=0.2,
      # Milder than 6.0: see `_task_rewards`.
      sds_scale=3.0,
    ),
    command=VelocityCommandCfg(resampling_time_range=(3.0, 8.0), debug_vis=True),
  )
  observe_without_velocity(cfg)
  vary_robots(cfg)
  cfg.scene.sensors = (*cfg.scene.sensors, foot_contact_sensor())
  cfg.observations["critic"].terms["foot_contact"] = ObservationTermCfg(
    func=foot_contact, params=dict(CONTACTS)
  )
  # Hands that hang beside the hips touch them; here that costs, and ends no episode.
  del cfg.terminations[SELF_COLLISION]
  cfg.rewards |= _task_rewards() | _penalties()
  for name, metric in (
    ("velocity_error", velocity_error),
    ("yaw_rate_error", yaw_rate_error),
  ):
    cfg.metrics[name] = MetricsTermCfg(func=metric, params=dict(COMMAND_NAME))
  return play_env_cfg(cfg) if play else cfg


def _task_rewards() -> dict[str, RewardTermCfg]:
  """Return the reward that the prior multiplies.

  It tells slow commands apart more strictly than fast ones: see `track_velocity`. The
  prior knows standing better than any step, so where a command of 0.3 m/s earns nearly
  as much by standing, a robot stands. The pelvis of a runner turns to and fro by
  1 rad/s with each stride, which must not cost much; what is left of that in the mean
  over a stride is a turn that nobody asked for.
  """
  return {
    "track_command": RewardTermCfg(
      func=TaskReward,
      weight=1.0,
      params={
        "task": track_velocity_and_yaw_rate,
        **COMMAND_NAME,
        "scale": 1.0,
        "low_speed_scale": 6.0,
        "yaw_scale": 0.3,
        "low_speed_yaw_scale": 1.0,
        "mean_yaw_scale": 4.0,
      },
    ),
  }


def _penalties() -> dict[str, RewardTermCfg]:
  """Return the costs beside the composition; a weight of 0 switches one off."""
  return {
    "action_rate": RewardTermCfg(func=envs_mdp.action_rate_l2, weight=-0.005),
    "joint_limits": RewardTermCfg(func=envs_mdp.joint_pos_limits, weight=-0.2),
    "torque": RewardTermCfg(func=envs_mdp.joint_torques_l2, weight=-2e-6),
    "self_collision": RewardTermCfg(
      func=self_collision_cost,
      weight=-0.05,
      params={"sensor_name": SELF_COLLISION, "force_threshold": 10.0},
    ),
    "foot_slip": RewardTermCfg(
      func=penalties.foot_slip, weight=-0.1, params={**CONTACTS, "asset_cfg": SOLES}
    ),
    "joint_speed_at_rest": RewardTermCfg(
      func=penalties.joint_speed_at_rest,
      weight=-0.05,
      params={**COMMAND_NAME, "scale": 0.5},
    ),
    "feet_up_at_rest": RewardTermCfg(
      func=penalties.feet_up_at_rest, weight=-0.02, params={**COMMAND_NAME, **CONTACTS}
    ),
  }


COMMANDS: dict[str, tuple[float, float, float]] = {
  "stand": (0.0, 0.0, 0.0),
  **{f"{v:g} m/s": (v, 0.0, 0.0) for v in (0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)},
  "back 0.5 m/s": (-0.5, 0.0, 0.0),
  "left 0.5 m/s": (0.0, 0.5, 0.0),
  "right 0.5 m/s": (0.0, -0.5, 0.0),
  "turn 0.5 rad/s": (0.0, 0.0, 0.5),
  "turn 1.5 rad/s": (0.0, 0.0, 1.5),
  "1 m/s, turn 1 rad/s": (1.0, 0.0, 1.0),
  "2 m/s, turn 0.5 rad/s": (2.0, 0.0, -0.5),
  "0.8 m/s, left 0.4 m/s": (0.8, 0.4, 0.0),
  "0.3 m/s, right 0.3 m/s, turn 0.5 rad/s": (0.3, -0.3, 0.5),
}
"""Commands of the evaluation: vx, vy, m/s, and yaw rate, rad/s."""
STOPS = (1.0, 2.0)
"""Speeds from which robots are told to stand still, m/s."""
PUSH_SPEED = 1.0
"""Speed during the sweep over pushes, m/s."""
DRIFT_S = 10.0
"""Time over which a standing robot may drift, s."""


def asked(vx: float, vy: float, yaw_rate: float) -> dict[str, float | tuple]:
  """Return a command by component, in m/s and rad/s."""
  return {"vx": vx, "vy": vy, "yaw_rate": yaw_rate}


def values(trajectory: Trajectory, valid: Tensor, settle: float) -> dict[str, Tensor]:
  """Return the errors of velocity and yaw rate, and how still a robot stands (N,).

  How still is nan where the command is not zero. Where it becomes zero, all counts
  before that, and the time to stop after it.
  """
  settled = episode_metrics.after(valid, settle, trajectory.fps)
  stops = _stops(trajectory)
  settled[trajectory.change_step :, stops] = False
  command = {name: value[:, 0] for name, value in trajectory.command.items()}
  wanted = torch.stack((command["vx"], command["vy"]), dim=-1)
  quat = trajectory.qpos[..., 3:7]
  velocity = in_heading_frame(trajectory.qvel[..., :2], quat)
  spin = quat_rotate(quat, trajectory.qvel[..., 3:6])[..., 2]
  speed = wanted.norm(dim=-1)
  along = episode_metrics.speed_along(velocity, wanted)
  ratio = episode_metrics.masked_mean(along, settled) / speed
  spin_error = spin - command["yaw_rate"]
  mean_error = running_mean(
    spin_error.cpu().numpy(), settled.cpu().numpy(), STRIDE_S, trajectory.fps
  )
  standing = (speed == 0.0) & (command["yaw_rate"] == 0.0)
  still = _stillness(trajectory, settled)
  return {
    "velocity_error": episode_metrics.velocity_error(velocity, wanted, settled),
    "yaw_rate_error": episode_metrics.masked_mean(spin_error.abs(), settled),
    "mean_yaw_rate_error": episode_metrics.masked_mean(
      torch.from_numpy(mean_error).to(spin_error).abs(), settled
    ),
    "stop_time": torch.where(stops, _stop_time(trajectory, valid), torch.nan),
    "speed_ratio": torch.where(speed > 0.0, ratio, torch.nan),
    **{name: torch.where(standing, value, torch.nan) for name, value in still.items()},
  }


def _stops(trajectory: Trajectory) -> Tensor:
  """Return which episodes are to stop on the way (N,), bool."""
  stops = torch.zeros(trajectory.num_envs, dtype=torch.bool)
  for name, value in trajectory.later.items():
    stops |= (value != trajectory.command[name]).any(dim=-1)
  return stops


def _stop_time(trajectory: Trajectory, valid: Tensor) -> Tensor:
  """Return the time from the change of command until the robot stopped (N,), s.

  It is the time that was left to a robot that fell or never stopped.
  """
  start, fps = trajectory.change_step, trajectory.fps
  speed = trajectory.qvel[start:, :, :2].norm(dim=-1)
  found = stop_time(speed.cpu().numpy(), valid[start:].cpu().numpy(), fps)
  return torch.from_numpy(found).to(speed).nan_to_num(nan=len(speed) / fps)


def _stillness(trajectory: Trajectory, settled: Tensor) -> dict[str, Tensor]:
  """Return drift (m), rms joint speed (rad/s) and lifted feet (count), each (N,)."""
  fps, position = trajectory.fps, trajectory.qpos[..., :2]
  # The first step that counts; where none does, everything below is nan or 0.
  first = settled.long().argmax(dim=0)
  start = position[first, torch.arange(position.shape[1])]
  early = torch.arange(len(settled)).unsqueeze(-1) <= first + round(DRIFT_S * fps)
  away = (position - start).norm(dim=-1)
  joint_speed = trajectory.qvel[..., 6:].square().mean(dim=-1)
  down = trajectory.foot_force > episode_metrics.CONTACT_FORCE
  lifted = (down[:-1] & ~down[1:]).any(dim=-1) & settled[1:] & settled[:-1]
  return {
    "drift": episode_metrics.masked_max(away, settled & early),
    "joint_speed": episode_metrics.masked_mean(joint_speed, settled).sqrt(),
    "feet_lifted": lifted.sum(dim=0).float(),
  }


SPEC = TaskSpec(
  env_cfg=velocity_env_cfg,
  policy="velocity",
  protocol=EvalProtocol(
    "Smp-Velocity-G1",
    (
      *(
        EvalCondition(COMMAND, label, place, asked(*command))
        for place, (label, command) in enumerate(COMMANDS.items())
      ),
      *(
        EvalCondition(
          COMMAND,
          f"stop from {v:g} m/s",
          len(COMMANDS) + place,
          asked(v, 0.0, 0.0),
          then=asked(0.0, 0.0, 0.0),
        )
        for place, v in enumerate(STOPS)
      ),
      *pushed(**asked(PUSH_SPEED, 0.0, 0.0)),
    ),
    {COMMAND: "command", PUSH: push_axis(f"{PUSH_SPEED:g} m/s")},
  ),
  metrics=(
    VELOCITY_ERROR,
    Metric(
      "yaw_rate_error",
      "yaw rate error",
      "rad/s",
      "task",
      better="lower",
      short="yaw error (rad/s)",
    ),
    Metric(
      "mean_yaw_rate_error",
      f"yaw rate error of the mean over {STRIDE_S:g} s",
      "rad/s",
      "task",
      better="lower",
      short="mean yaw error (rad/s)",
    ),
    Metric(
      "speed_ratio",
      "achieved by commanded speed",
      "1",
      "task",
      better="one",
      short="speed ratio",
      signed=True,
    ),
    Metric(
      "drift",
      "drift in 10 s at a command of zero",
      "m",
      "task",
      better="lower",
      short="drift (m)",
    ),
    Metric(
      "joint_speed",
      "rms joint speed at a command of zero",
      "rad/s",
      "task",
      better="lower",
      short="at rest (rad/s)",
    ),
    Metric(
      "feet_lifted",
      "lifted feet per episode at a command of zero",
      "1",
      "task",
      better="lower",
    ),
    Metric(
      "stop_time",
      "time to stop after a command of zero",
      "s",
      "task",
      better="lower",
      short="stop (s)",
    ),
    *(metric for metric in FAILURES if metric.key != SELF_COLLISION),
  ),
  values=values,
  success="velocity_error",
  # A horizon of a second: falling forward earns velocity for half of one, as much as
  # standing does.
  discount=0.98,
  learned_after=0.5e6,
)
