"""Export of a policy to an ONNX file that contains all that is needed to run it."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mujoco
import numpy as np
import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnv, mdp
from mjlab.envs.mdp.actions import JointPositionAction
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.rl.exporter_utils import attach_metadata_to_onnx, get_base_metadata
from mjlab.utils.noise import UniformNoiseCfg
from torch import Tensor, nn

from smp.deploy.deploy_file import write_deploy
from smp.deploy.policy_spec import (
  FORMAT,
  KEY,
  STYLE,
  Joints,
  Observation,
  Physics,
  PolicySpec,
)
from smp.errors import UserError
from smp.mdp.commands import ComponentCommand
from smp.mdp.observations import style_one_hot
from smp.mdp.smp_term import SmpTerm
from smp.mdp.terminations import root_too_low
from smp.utils.components import Component
from smp.utils.files import atomic_path

FILE_NAME = "policy.onnx"
"""Name of the file, which lies beside the checkpoints."""

_OPTIONS = (
  "integrator",
  "solver",
  "cone",
  "jacobian",
  "iterations",
  "ls_iterations",
  "ccd_iterations",
  "noslip_iterations",
  "tolerance",
  "ls_tolerance",
  "ccd_tolerance",
  "noslip_tolerance",
  "impratio",
  "gravity",
  "wind",
  "density",
  "viscosity",
  "disableflags",
  "enableflags",
)
_CONTACT = (
  "contype",
  "conaffinity",
  "condim",
  "priority",
  "friction",
  "solmix",
  "solref",
  "solimp",
  "margin",
  "gap",
)
# Source, unit and frame by the function of the environment.
_SOURCES = {
  mdp.projected_gravity: ("projected_gravity", "1", "pelvis"),
  mdp.joint_pos_rel: ("joint_pos", "rad", "relative to the default position"),
  mdp.joint_vel_rel: ("joint_vel", "rad/s", ""),
  mdp.last_action: ("last_action", "1", ""),
  mdp.generated_commands: ("command", "", "see command"),
  style_one_hot: (STYLE, "1", ""),
}
_SENSOR_UNITS = {
  mujoco.mjtSensor.mjSENS_GYRO: "rad/s",
  mujoco.mjtSensor.mjSENS_VELOCIMETER: "m/s",
}


OPSET = 18
"""ONNX opset: the first with LayerNormalization as one node; mjlab's exporter uses it.
"""


def export_policy(
  env: RslRlVecEnvWrapper,
  actor: nn.Module,
  path: str | os.PathLike[str],
  task: str,
  iteration: int,
  run_name: str = "local",
  prior: str | None = None,
) -> PolicySpec:
  """Write an actor as ONNX, with its observation normaliser folded in.

  Beside it the deploy file is written (`smp.deploy.deploy_file`).

  Args:
    env: The environment that the policy is for.
    actor: The policy.
    path: The file to write.
    task: The task's id.
    iteration: Iteration of training that the policy is from.
    run_name: Value of mjlab's entry "run_path".
    prior: Prior that the policy was trained with; None: the environment's.

  Raises:
    UserError: The file cannot be written, or the environment has something that this
      format cannot express.
  """
  spec = describe(env.unwrapped, task, env.clip_actions, iteration)
  if prior is not None:
    spec = replace(spec, prior=Path(prior).name)
  metadata = get_base_metadata(env.unwrapped, run_name)
  # mjlab lists every command term; the prior's is not observed.
  seen = any(part.source == "command" for part in spec.observations)
  metadata["command_names"] = ["command"] if seen else []
  metadata[KEY] = spec.dumps()
  with atomic_path(path) as temporary:
    write_onnx(actor, spec.observation_size, temporary)
    attach_metadata_to_onnx(str(temporary), metadata)
  write_deploy(spec, Path(path))
  return spec


class OnnxActor(nn.Module):
  """An actor for export, with the names of mjlab's exporter."""

  input_names, output_names = ("obs",), ("actions",)

  def __init__(self, actor: nn.Module) -> None:
    super().__init__()
    self.actor = actor

  def forward(self, obs: Tensor) -> Tensor:
    """Return the actions (1, A) for observations (1, O)."""
    return self.actor(obs)


def write_onnx(actor: nn.Module, observations: int, path: Path) -> None:
  """Write the network of ``actor`` for one observation at a time, without metadata."""
  module = OnnxActor(copy.deepcopy(actor).cpu()).eval()
  torch.onnx.export(
    module,
    (torch.zeros(1, observations),),
    str(path),
    export_params=True,
    opset_version=OPSET,
    input_names=list(module.input_names),
    output_names=list(module.output_names),
    dynamic_axes={},
    dynamo=False,
  )


def describe(
  env: ManagerBasedRlEnv, task: str, clip_actions: float | None, iteration: int
) -> PolicySpec:
  """Describe all that is needed to run a policy of this environment.

  Raises:
    UserError: The environment has something that this format cannot express.
  """
  robot = cast(Entity, env.scene["robot"])
  root = robot.data.default_root_state[0, :7].tolist()
  default = robot.data.default_joint_pos[0].tolist()
  smp_term = SmpTerm.of(env)
  return PolicySpec(
    format=FORMAT,
    task=task,
    prior=Path(smp_term.cfg.prior or "none").name,
    iteration=iteration,
    control_hz=1.0 / env.step_dt,
    joints=_joints(env, robot),
    observations=_observations(env),
    command=_command(env),
    physics=_physics(env),
    start_qpos=(*root, *default),
    fallen_below=_fallen_below(env),
    clip_actions=clip_actions,
  )


def _fallen_below(env: ManagerBasedRlEnv) -> float | None:
  manager = env.termination_manager
  for name in manager.active_terms:
    cfg = manager.get_term_cfg(name)
    if cfg.func is root_too_low:
      height = float(cfg.params["minimum_height"])
      return height if height > 0.0 else None  # Off.
  return None


def _joints(env: ManagerBasedRlEnv, robot: Entity) -> Joints:
  """Return the parameters by joint, in the order of actions and observations.

  Raises:
    UserError: The joints are not all moved by one position action, in their order.
  """
  action = env.action_manager.get_term("joint_pos")
  names = tuple(robot.joint_names)
  if (
    not isinstance(action, JointPositionAction)
    or tuple(action.target_names) != names
    or env.action_manager.total_action_dim != len(names)
    or action.cfg.clip is not None
  ):
    raise _unsupported("actions other than one position target per joint, unclipped")
  model = env.sim.mj_model
  dof = [int(model.joint(f"robot/{name}").dofadr[0]) for name in names]
  actuators = _actuators(model)
  ids = [actuators[f"robot/{name}"] for name in names]
  return Joints(
    names=names,
    default_pos=_floats(robot.data.default_joint_pos[0]),
    action_scale=_broadcast(action.scale, len(names)),
    action_offset=_broadcast(action.offset, len(names)),
    stiffness=_floats(model.actuator_gainprm[ids, 0]),
    damping=_floats(-model.actuator_biasprm[ids, 2]),
    effort_limit=_floats(model.actuator_forcerange[ids, 1]),
    armature=_floats(model.dof_armature[dof]),
    frictionloss=_floats(model.dof_frictionloss[dof]),
    passive_damping=_floats(model.dof_damping[dof].reshape(len(dof), -1)[:, 0]),
  )


def _actuators(model: mujoco.MjModel) -> dict[str, int]:
  """Return the index of each joint's actuator.

  Raises:
    UserError: An actuator is not a joint's position servo with a limited force.
  """
  found = {}
  for i in range(model.nu):
    gain = model.actuator_gainprm[i, 0]
    servo = (
      model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
      and model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_AFFINE
      and model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_NONE
      and model.actuator_biasprm[i, 1] == -gain
      and model.actuator_forcelimited[i]
      and not model.actuator_ctrllimited[i]
    )
    if not servo:
      raise _unsupported(
        f"actuator '{model.actuator(i).name}', which is no position servo"
      )
    found[model.joint(int(model.actuator_trnid[i, 0])).name] = i
  return found


def _observations(env: ManagerBasedRlEnv) -> tuple[Observation, ...]:
  """Return the parts of the actor's observation.

  Raises:
    UserError: A part has a clip, a delay even at best, or an unknown function.
  """
  manager = env.observation_manager
  names, dims = manager.active_terms["actor"], manager.group_obs_term_dim["actor"]
  return tuple(
    _observation(env, name, manager.get_term_cfg("actor", name), int(np.prod(dim)))
    for name, dim in zip(names, dims, strict=True)
  )


def _observation(
  env: ManagerBasedRlEnv, name: str, cfg: ObservationTermCfg, size: int
) -> Observation:
  # A delay that is drawn is a disturbance of training, as noise is.
  if cfg.delay_min_lag or cfg.clip is not None:
    raise _unsupported(f"observation '{name}' with a clip or a constant delay")
  frames = max(1, cfg.history_length)
  if frames > 1 and not cfg.flatten_history_dim:
    raise _unsupported(f"observation '{name}' with a history that is not flattened")
  sensor = ""
  if cfg.func is mdp.builtin_sensor:
    sensor = cfg.params["sensor_name"].removeprefix("robot/")
    kind = env.sim.mj_model.sensor(cfg.params["sensor_name"]).type[0]
    unit = _SENSOR_UNITS.get(mujoco.mjtSensor(kind))
    if unit is None:
      raise _unsupported(f"observation '{name}' of a sensor that is not of velocity")
    source, frame = "sensor", "of the sensor"
  elif cfg.func in _SOURCES:
    source, unit, frame = _SOURCES[cfg.func]
  else:
    raise _unsupported(
      f"observation '{name}', a function that plain MuJoCo does not have"
    )
  # Read the noise from the configuration: the manager drops it where observations are
  # exact, as in the play environment.
  trained, noise = env.cfg.observations["actor"].terms[name].noise, (0.0, 0.0)
  if isinstance(trained, UniformNoiseCfg):
    noise = (float(cast(Any, trained.n_min)), float(cast(Any, trained.n_max)))
  scale = _broadcast(1.0 if cfg.scale is None else cfg.scale, 1)
  choices = ()
  if source == STYLE:
    choices = SmpTerm.of(env).cfg.names()
    frame = f"which of {', '.join(choices)}"
  return Observation(
    name, source, size // frames, unit, frame, scale, noise, sensor, frames, choices
  )


def _command(env: ManagerBasedRlEnv) -> tuple[Component, ...]:
  """Return the components of the task's command; empty if it has none.

  Raises:
    UserError: The command does not describe its components.
  """
  if "command" not in env.command_manager.active_terms:
    return ()
  term = env.command_manager.get_term("command")
  if not isinstance(term, ComponentCommand):
    raise _unsupported(
      f"command {type(term).__name__}, which is not a ComponentCommand and does not "
      "describe its components"
    )
  return term.components()


def _physics(env: ManagerBasedRlEnv) -> Physics:
  model = env.sim.mj_model
  geoms, floor = {}, None
  for i in range(model.ngeom):
    if not (model.geom_contype[i] or model.geom_conaffinity[i]):
      continue
    contact = {name: _value(getattr(model, f"geom_{name}")[i]) for name in _CONTACT}
    name = model.geom(i).name
    if name.startswith("robot/"):
      geoms[name.removeprefix("robot/")] = contact
    elif model.geom_type[i] == mujoco.mjtGeom.mjGEOM_PLANE and floor is None:
      floor = contact
    else:
      raise _unsupported(
        f"geom '{name}', which is neither the robot's nor the only plane"
      )
  if floor is None:
    raise _unsupported("a scene without a plane")
  return Physics(
    timestep=env.physics_dt,
    decimation=env.cfg.decimation,
    options={name: _value(getattr(model.opt, name)) for name in _OPTIONS},
    geoms=geoms,
    floor=floor,
  )


def _unsupported(what: str) -> UserError:
  return UserError(f"cannot export a policy with {what}")


def _value(value: Any) -> float | tuple[float, ...]:
  return _floats(value) if np.ndim(value) else float(value)


def _floats(values: Any) -> tuple[float, ...]:
  return tuple(float(value) for value in values)


def _broadcast(value: Any, count: int) -> tuple[float, ...]:
  """Return a number as ``count`` equal values, and the first row of a tensor."""
  if isinstance(value, int | float):
    return (float(value),) * count
  rows = np.atleast_1d(np.asarray(value.cpu() if hasattr(value, "cpu") else value))
  return _floats(rows[0] if rows.ndim > 1 else rows)
