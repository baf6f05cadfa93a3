"""Policies made without training, mjlab and torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smp.deploy.policy_spec import (
  FORMAT,
  KEY,
  Joints,
  Observation,
  Physics,
  PolicySpec,
)
from smp.robots import g1
from smp.utils.components import Component, direction, point, scalar

DIRECTION = direction("direction", "where to go")
SPEED = scalar(
  "speed", "m/s", "how fast", 0.5, 2.0, default=1.0, least=0.0, along="direction"
)
FACING = direction("facing", "where to face")
GOAL = point("goal", "where to go", 1.0, 10.0)


def g1_policy(
  command: tuple[Component, ...] = (DIRECTION, SPEED, FACING),
) -> PolicySpec:
  """A policy of the G1 with a gain for all joints."""
  n = g1.NUM_JOINTS

  def part(
    name: str, source: str, size: int, noise: float = 0.0, **more: Any
  ) -> Observation:
    return Observation(
      name, source, size, "", "", more.get("scale", (1.0,)), (-noise, noise),
      more.get("sensor", ""),
    )  # fmt: skip

  parts = [
    part("base_lin_vel", "sensor", 3, 0.5, sensor="imu_lin_vel"),
    part("base_ang_vel", "sensor", 3, 0.2, sensor="imu_ang_vel", scale=(0.5,)),
    part("projected_gravity", "projected_gravity", 3),
    part("joint_pos", "joint_pos", n),
    part("joint_vel", "joint_vel", n),
    part("actions", "last_action", n),
  ]
  size = sum(each.size for each in command)
  parts += [part("command", "command", size)] if size else []
  default = tuple(0.01 * i for i in range(n))
  contact: dict[str, Any] = {"contype": 1.0, "conaffinity": 1.0, "condim": 3.0}
  model = g1.load_model()
  geoms = [model.geom(i).name for i in range(model.ngeom)]
  return PolicySpec(
    format=FORMAT,
    task="Smp-Test-G1",
    prior="loco",
    iteration=7,
    control_hz=50.0,
    joints=Joints(
      names=g1.JOINT_NAMES,
      default_pos=default,
      action_scale=(0.5,) * n,
      action_offset=default,
      stiffness=tuple(30.0 + i for i in range(n)),
      damping=(3.0,) * n,
      effort_limit=(80.0,) * n,
      armature=(0.01,) * n,
      frictionloss=(0.0,) * n,
      passive_damping=(0.0,) * n,
    ),
    observations=tuple(parts),
    command=command,
    physics=Physics(
      timestep=0.005,
      decimation=4,
      options={"iterations": 10.0, "gravity": (0.0, 0.0, -9.81), "integrator": 3.0},
      geoms={name: contact for name in geoms if "foot" in name},
      floor=contact,
    ),
    start_qpos=(0.0, 0.0, 0.8, 1.0, 0.0, 0.0, 0.0, *default),
    fallen_below=0.3,
  )


def robot_policy(command: tuple[Component, ...], frames: int = 3) -> PolicySpec:
  """A policy that observes what a robot measures: no base velocity, with a history."""
  spec = g1_policy(command)
  units = {"base_ang_vel": "rad/s", "joint_pos": "rad", "joint_vel": "rad/s"}
  parts = [
    replace(
      part,
      unit=units.get(part.name, ""),
      scale=(0.05,) if part.name == "joint_vel" else part.scale,
      history_length=1 if part.name == "command" else frames,
    )
    for part in spec.observations
    if part.name != "base_lin_vel"
  ]
  # As a G1 stands: within its limits, each joint with a scale of its own.
  low, high = np.array([g1.load_model().joint(name).range for name in g1.JOINT_NAMES]).T
  default = tuple(np.clip(spec.joints.default_pos, low, high).tolist())
  joints = replace(
    spec.joints,
    default_pos=default,
    action_offset=default,
    action_scale=tuple(0.3 + 0.01 * i for i in range(g1.NUM_JOINTS)),
  )
  return replace(
    spec,
    observations=tuple(parts),
    joints=joints,
    start_qpos=(*spec.start_qpos[:7], *default),
  )


def write_policy(
  path: Path, spec: PolicySpec, gain: float = 0.0, metadata: str | None = None
) -> Path:
  """A policy that answers with ``gain`` times a fixed mix of what it sees.

  Args:
    metadata: Instead of what ``spec`` says.
  """
  size = spec.observation_size, len(spec.joints.names)
  weight = gain * np.random.default_rng(0).normal(size=size)
  return write_linear(path, spec, weight, np.zeros(size[1]), metadata)


def write_linear(
  path: Path,
  spec: PolicySpec,
  weight: np.ndarray,
  bias: np.ndarray,
  metadata: str | None = None,
) -> Path:
  """A policy that answers with observation @ weight (O, A) + bias (A,).

  Args:
    metadata: Instead of what ``spec`` says.
  """
  inputs, outputs = weight.shape
  graph = helper.make_graph(
    [
      helper.make_node("MatMul", ["obs", "weight"], ["product"]),
      helper.make_node("Add", ["product", "bias"], ["actions"]),
    ],
    "policy",
    [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, inputs])],
    [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, outputs])],
    [
      numpy_helper.from_array(weight.astype(np.float32), "weight"),
      numpy_helper.from_array(bias.astype(np.float32), "bias"),
    ],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
  model.ir_version = 10
  helper.set_model_props(model, {KEY: spec.dumps() if metadata is None else metadata})
  onnx.save(model, str(path))
  return path


def can_render() -> bool:
  try:
    mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    return True
  except Exception:
    return False
