"""Ends of episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from mjlab.entity import Entity

from smp.mdp import state

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv


def root_too_low(
  env: ManagerBasedRlEnv, minimum_height: float, entity_name: str = "robot"
) -> torch.Tensor:
  """Whether the pelvis is below ``minimum_height`` m above its origin's floor (N,)."""
  robot = cast(Entity, env.scene[entity_name])
  height = state.root_pos_w(robot)[:, 2] - env.scene.env_origins[:, 2]
  return height < minimum_height
