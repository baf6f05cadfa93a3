"""Stand-ins for an environment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


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
    num_envs=num_envs, device="cpu", scene=Scene(robot=robot), sim_data=data
  )
