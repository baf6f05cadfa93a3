"""Common part of all tasks: the robot, observations, disturbances and terminations.

The numbers are those of the published G1 set-up of SMP on mjlab.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mjlab.asset_zoo.robots import G1_ACTION_SCALE, get_g1_robot_cfg
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.envs import mdp as envs_mdp
from mjlab.envs.mdp import dr
from mjlab.envs.mdp.actions import JointPositionActionCfg
from mjlab.managers.command_manager import CommandTermCfg
from mjlab.managers.event_manager import EventTermCfg
from mjlab.managers.metrics_manager import MetricsTermCfg
from mjlab.managers.observation_manager import ObservationGroupCfg, ObservationTermCfg
from mjlab.managers.reward_manager import RewardTermCfg
from mjlab.managers.scene_entity_config import SceneEntityCfg
from mjlab.managers.termination_manager import TerminationTermCfg
from mjlab.scene import SceneCfg
from mjlab.sensor import ContactMatch, ContactSensorCfg
from mjlab.sim import MujocoCfg, SimulationCfg
from mjlab.tasks.velocity.mdp import illegal_contact
from mjlab.terrains import TerrainEntityCfg
from mjlab.utils.noise import UniformNoiseCfg as Unoise
from mjlab.viewer import ViewerConfig

from smp.episodes.episode_metrics import FEET
from smp.mdp import metrics
from smp.mdp.events import actuator_delay, add_payload, delayable
from smp.mdp.rewards import smp_reward
from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
from smp.mdp.terminations import PhysicsDiverged, root_too_low
from smp.robots import g1
from smp.robots.variation import RobotVariation

SELF_COLLISION = "self_collision"
CRITIC_HISTORY = 10
ACTOR_HISTORY = 5
"""Frames of an actor that does not observe its velocity: 0.1 s."""
FOOT_CONTACT = "foot_contact"
"""Name of the contact sensor between the feet and the floor, of tasks that have it."""
MAX_DELAY = 0.02
"""Longest delay between a target and its motor, s."""
MAXIMUM_SPEED = 1000.0
"""Speed, rad/s and m/s, beyond which the physics has diverged. The robot's motors end
below 40 rad/s."""
PLAY_GSI_BUFFER_SIZE = 1024
FOOT_GEOMS = tuple(
  f"{side}_foot{i}_collision" for side in ("left", "right") for i in range(1, 8)
)


def base_env_cfg(
  smp_term: SmpTermCfg, command: CommandTermCfg | None
) -> ManagerBasedRlEnvCfg:
  """Return the environment of a task without the task's own rewards and metrics.

  Args:
    smp_term: The prior and its use. It comes first among the commands, since it writes
      the initial state of episodes.
    command: The command, observed under the name "command"; None for a task without
      one.
  """
  commands: dict[str, CommandTermCfg] = {SMP_TERM: smp_term}
  observations = _observations()
  if command is not None:
    commands["command"] = command
  else:
    for group in observations.values():
      del group.terms["command"]
  return ManagerBasedRlEnvCfg(
    scene=SceneCfg(
      terrain=TerrainEntityCfg(terrain_type="plane"),
      entities={"robot": get_g1_robot_cfg()},
      sensors=(_self_collision_sensor(),),
      num_envs=4096,
      extent=2.0,
    ),
    observations=observations,
    actions={
      "joint_pos": JointPositionActionCfg(
        entity_name="robot",
        actuator_names=(".*",),
        scale=G1_ACTION_SCALE,
        use_default_offset=True,
      )
    },
    commands=commands,
    events=_events(),
    rewards={"prior": RewardTermCfg(func=smp_reward, weight=1.0)},
    terminations={
      "time_out": TerminationTermCfg(func=envs_mdp.time_out, time_out=True),
      "diverged": TerminationTermCfg(
        func=PhysicsDiverged, params={"maximum_speed": MAXIMUM_SPEED}
      ),
      "self_collision": TerminationTermCfg(
        func=illegal_contact,
        params={"sensor_name": SELF_COLLISION, "force_threshold": 10.0},
      ),
      "root_too_low": TerminationTermCfg(
        func=root_too_low, params={"minimum_height": 0.3}
      ),
    },
    viewer=ViewerConfig(
      origin_type=ViewerConfig.OriginType.ASSET_BODY,
      entity_name="robot",
      body_name="torso_link",
      distance=3.5,
      elevation=-10.0,
      azimuth=90.0,
      height=480,
      width=640,
    ),
    sim=SimulationCfg(
      nconmax=35,
      njmax=1500,
      mujoco=MujocoCfg(timestep=0.005, iterations=10, ls_iterations=20),
    ),
    decimation=4,
    episode_length_s=20.0,
  )


def play_env_cfg(cfg: ManagerBasedRlEnvCfg) -> ManagerBasedRlEnvCfg:
  """Change a task's environment, in place, to one for viewing.

  It is endless, undisturbed and exact, with fixed running means and GSI buffer, and no
  curriculum.
  """
  cfg.episode_length_s = 1e9
  cfg.scene.num_envs = 1
  cfg.observations["actor"].enable_corruption = False
  cfg.events = {}
  cfg.curriculum = {}
  smp_term = cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  cfg.commands[SMP_TERM] = replace(
    smp_term,
    update_statistics=False,
    gsi_buffer_size=PLAY_GSI_BUFFER_SIZE,
    gsi_refresh_interval=0,
    init_speed_bandwidth=None,
    spread_init_heights=False,
  )
  # Metrics that the browser viewer can plot live.
  cfg.metrics = {"r_smp": MetricsTermCfg(func=metrics.r_smp)} | cfg.metrics
  timesteps = smp_term.timesteps if smp_term.prior is not None else ()
  for index, timestep in enumerate(timesteps):
    cfg.metrics[f"sds_loss_t{timestep}"] = MetricsTermCfg(
      func=metrics.sds_loss, params={"index": index}
    )
  return cfg


def observe_without_velocity(cfg: ManagerBasedRlEnvCfg) -> None:
  """Take the velocity of the pelvis from the actor, in place, and give it a history.

  No sensor of a G1 measures that velocity. The critic keeps it. A history that the
  actor has already stays.
  """
  actor = cfg.observations["actor"]
  actor.terms.pop("base_lin_vel", None)
  actor.history_length = actor.history_length or ACTOR_HISTORY


def vary_robots(cfg: ManagerBasedRlEnvCfg) -> None:
  """Let robots differ as built ones do, in place, by further events.

  Beside friction, centre of mass, encoders and pushes, which all tasks vary: what the
  torso carries, the gains of the motors, and the delay of their targets. An event is
  switched off by taking it out of ``cfg.events``.
  """
  _let_delay(cfg, MAX_DELAY)
  cfg.events |= {
    "payload": _payload((-1.0, 3.0)),
    "motor_gains": _motor_gains((0.8, 1.2)),
    "actuator_delay": _actuator_delay((0.0, MAX_DELAY)),
  }


def change_robots(cfg: ManagerBasedRlEnvCfg, robot: RobotVariation) -> None:
  """Let all robots differ from the nominal one alike, in place."""
  differences = robot.differences()
  if robot.friction is not None:
    cfg.events["foot_friction"] = _foot_friction((robot.friction, robot.friction))
  if "payload" in differences:
    cfg.events["payload"] = _payload((robot.payload, robot.payload))
  if "gain_scale" in differences:
    cfg.events["motor_gains"] = _motor_gains((robot.gain_scale, robot.gain_scale))
  if "delay" in differences:
    seconds = robot.delay / 1000.0
    _let_delay(cfg, seconds)
    cfg.events["actuator_delay"] = _actuator_delay((seconds, seconds))


def _let_delay(cfg: ManagerBasedRlEnvCfg, seconds: float) -> None:
  entities, timestep = cfg.scene.entities, cfg.sim.mujoco.timestep
  entities["robot"] = delayable(entities["robot"], seconds, timestep)


def _payload(mass_range: tuple[float, float]) -> EventTermCfg:
  torso = SceneEntityCfg("robot", body_names=("torso_link",))
  return EventTermCfg(
    func=add_payload,
    mode="startup",
    params={"asset_cfg": torso, "mass_range": mass_range},
  )


def _motor_gains(scale_range: tuple[float, float]) -> EventTermCfg:
  return EventTermCfg(
    func=dr.pd_gains,
    mode="startup",
    params={
      "asset_cfg": SceneEntityCfg("robot"),
      "kp_range": scale_range,
      "kd_range": scale_range,
    },
  )


def _actuator_delay(delay_range: tuple[float, float]) -> EventTermCfg:
  return EventTermCfg(
    func=actuator_delay,
    mode="reset",
    params={"asset_cfg": SceneEntityCfg("robot"), "delay_range": delay_range},
  )


def _foot_friction(friction_range: tuple[float, float]) -> EventTermCfg:
  return EventTermCfg(
    func=dr.geom_friction,
    mode="startup",
    params={
      "asset_cfg": SceneEntityCfg("robot", geom_names=FOOT_GEOMS),
      "operation": "abs",
      "ranges": friction_range,
      "shared_random": True,
    },
  )


def foot_contact_sensor() -> ContactSensorCfg:
  """Return the sensor of contacts between the feet, left first, and the floor."""
  return ContactSensorCfg(
    name=FOOT_CONTACT,
    primary=ContactMatch(
      mode="subtree", pattern=f"^({'|'.join(FEET)})$", entity="robot"
    ),
    secondary=ContactMatch(mode="body", pattern="terrain"),
    fields=("found",),
    reduce="netforce",
    num_slots=1,
  )


def _self_collision_sensor() -> ContactSensorCfg:
  robot = ContactMatch(mode="subtree", pattern=g1.ROOT_BODY, entity="robot")
  return ContactSensorCfg(
    name=SELF_COLLISION,
    primary=robot,
    secondary=robot,
    fields=("found", "force"),
    reduce="none",
    num_slots=1,
    history_length=4,  # One entry per physics step: brief touches count.
  )


def _observations() -> dict[str, ObservationGroupCfg]:
  actor = {
    "base_lin_vel": ObservationTermCfg(
      func=envs_mdp.builtin_sensor,
      params={"sensor_name": "robot/imu_lin_vel"},
      noise=Unoise(n_min=-0.5, n_max=0.5),
    ),
    "base_ang_vel": ObservationTermCfg(
      func=envs_mdp.builtin_sensor,
      params={"sensor_name": "robot/imu_ang_vel"},
      noise=Unoise(n_min=-0.2, n_max=0.2),
    ),
    "projected_gravity": ObservationTermCfg(
      func=envs_mdp.projected_gravity, noise=Unoise(n_min=-0.05, n_max=0.05)
    ),
    # The encoders' values, which contain the bias that the action target corrects for.
    "joint_pos": ObservationTermCfg(
      func=envs_mdp.joint_pos_rel,
      params={"biased": True},
      noise=Unoise(n_min=-0.01, n_max=0.01),
    ),
    "joint_vel": ObservationTermCfg(
      func=envs_mdp.joint_vel_rel, noise=Unoise(n_min=-1.5, n_max=1.5)
    ),
    "actions": ObservationTermCfg(func=envs_mdp.last_action),
    "command": ObservationTermCfg(
      func=envs_mdp.generated_commands, params={"command_name": "command"}
    ),
  }
  critic = {name: replace(term, noise=None) for name, term in actor.items()}
  critic["joint_pos"] = ObservationTermCfg(func=envs_mdp.joint_pos_rel)
  # A robot may diverge between the check of terminations and the observation. It is
  # reset one step later; until then no NaN reaches the policy or a running mean.
  sound: dict[str, Any] = {"nan_policy": "sanitize", "nan_check_per_term": False}
  return {
    "actor": ObservationGroupCfg(terms=actor, enable_corruption=True, **sound),
    "critic": ObservationGroupCfg(
      terms=critic, enable_corruption=False, history_length=CRITIC_HISTORY, **sound
    ),
  }


def _events() -> dict[str, EventTermCfg]:
  """Return the pushes, and the properties randomised per environment."""
  return {
    "push_robot": EventTermCfg(
      func=envs_mdp.push_by_setting_velocity,
      mode="interval",
      interval_range_s=(1.0, 3.0),
      params={
        "velocity_range": {
          "x": (-0.5, 0.5),
          "y": (-0.5, 0.5),
          "z": (-0.4, 0.4),
          "roll": (-0.52, 0.52),
          "pitch": (-0.52, 0.52),
          "yaw": (-0.78, 0.78),
        },
      },
    ),
    "foot_friction": _foot_friction((0.3, 1.2)),
    "encoder_bias": EventTermCfg(
      func=dr.encoder_bias,
      mode="startup",
      params={"asset_cfg": SceneEntityCfg("robot"), "bias_range": (-0.015, 0.015)},
    ),
    "base_com": EventTermCfg(
      func=dr.body_com_offset,
      mode="startup",
      params={
        "asset_cfg": SceneEntityCfg("robot", body_names=("torso_link",)),
        "operation": "add",
        "ranges": {0: (-0.025, 0.025), 1: (-0.025, 0.025), 2: (-0.03, 0.03)},
      },
    ),
  }
