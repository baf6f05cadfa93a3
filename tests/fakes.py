"""Stand-ins for an environment, and for what training leaves behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from smp.rl.actor import Actor, ActorSpec


def fake_env(num_envs: int) -> Any:
  """As much of an environment as commands and rewards read: the robot's own state."""
  qpos = torch.zeros(num_envs, 36)
  qpos[:, 2], qpos[:, 3] = 0.8, 1.0
  data = SimpleNamespace(qpos=qpos, qvel=torch.zeros(num_envs, 35))
  indexing = SimpleNamespace(
    free_joint_q_adr=torch.arange(7), free_joint_v_adr=torch.arange(6)
  )
  robot = SimpleNamespace(
    indexing=indexing,
    data=SimpleNamespace(data=data, joint_pos=qpos[:, 7:], joint_vel=data.qvel[:, 6:]),
  )

  class Scene(dict):
    env_origins = torch.zeros(num_envs, 3)

  return SimpleNamespace(
    num_envs=num_envs,
    device="cpu",
    step_dt=0.02,
    scene=Scene(robot=robot),
    sim_data=data,
  )


def checkpoint_content() -> dict[str, Any]:
  """As much of a checkpoint as its reader asks for."""
  pool = {
    name: torch.zeros(2, 10, n) for name, n in (("root_pos", 3), ("root_quat", 4))
  }
  return {
    "actor_state_dict": {"mlp.0.weight": torch.zeros(4, 3)},
    "critic_state_dict": {},
    "optimizer_state_dict": {},
    "iter": 3,
    "infos": {
      "env_state": {"common_step_counter": 12},
      "progress": {"total_steps": 48, "total_time": 1.0},
      "smp": {
        "mean": torch.ones(3, dtype=torch.float64),
        "count": torch.ones(1, dtype=torch.float64),
        "init_states": {**pool, "joint_pos": torch.zeros(2, 10, 29), "next": 0},
      },
    },
  }


def td3_checkpoint_content() -> dict[str, Any]:
  """The same of the off-policy learner, with the weights of an actor."""
  spec = ActorSpec("silu", layer_norm=True, squash=True, obs_clip=10.0)
  tables = ("critic_normalizer", "target_actor", "target_critic")
  optimizers = ("actor_optimizer", "critic_optimizer")
  content = checkpoint_content()
  del content["optimizer_state_dict"]
  content["infos"]["origin"] = {"prior": "loco"}
  return {
    **content,
    **{name: {} for name in (*tables, *optimizers)},
    "learner": "td3",
    "actor_state_dict": Actor((3, 4, 2), spec).state_dict(),
    "actor_spec": spec.to_dict(),
    "updates": 7,
  }
