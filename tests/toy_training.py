"""Training with real checkpoints and no robot, and with robots, in processes to kill."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from mjlab.rl import RslRlVecEnvWrapper
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from smp.cli.train import main as train_main
from smp.errors import run
from smp.mdp.normalizer import ErrorNormalizer
from smp.rl.checkpoint import newest_checkpoint
from smp.rl.ppo import ppo_cfg
from smp.rl.runner import SmpRunner

ENVS, STEPS, POOL = 2, 2, 4096
SIZES = {"actor": 97, "critic": 990}


class ToyGuidance:
  """The reward's memory, at its real size."""

  def __init__(self) -> None:
    self.cfg = SimpleNamespace(prior="loco")
    self.normalizer = ErrorNormalizer(3, 5e7)
    shapes = {"root_pos": 3, "root_quat": 4, "joint_pos": 29}
    self.pool = {name: torch.randn(POOL, 10, size) for name, size in shapes.items()}

  def state_dict(self) -> dict[str, Any]:
    memory = self.normalizer
    return {
      "mean": memory.mean,
      "count": memory.count,
      "pool": {**self.pool, "next": 0},
    }

  def load_state_dict(self, saved: dict[str, Any]) -> None:
    self.load_means(saved)
    self.pool = {name: saved["pool"][name] for name in self.pool}

  def load_means(self, saved: dict[str, Any]) -> None:
    self.normalizer.mean.copy_(saved["mean"])
    self.normalizer.count.copy_(saved["count"])


class ToyEnv(VecEnv):
  """Random observations and rewards, of the sizes of Smp-Forward-G1."""

  num_envs, num_actions, max_episode_length = ENVS, 29, 1000

  def __init__(self) -> None:
    self.device, self.cfg = torch.device("cpu"), {}
    self.episode_length_buf = torch.zeros(ENVS, dtype=torch.long)
    self.guidance = ToyGuidance()
    self.common_step_counter = 0
    self.curriculum_manager = None
    self.command_manager = SimpleNamespace(get_term=lambda _: self.guidance)

  @property
  def unwrapped(self) -> Any:
    return self

  def get_observations(self) -> TensorDict:
    data = {name: torch.randn(ENVS, size) for name, size in SIZES.items()}
    return TensorDict(cast(Any, data), batch_size=[ENVS])

  def step(self, actions: torch.Tensor) -> tuple:
    self.common_step_counter += 1
    self.guidance.normalizer.update(torch.rand(ENVS, 3))
    dones = torch.zeros(ENVS, dtype=torch.long)
    return self.get_observations(), torch.rand(ENVS), dones, {}


def make_runner(log_dir: Path | None) -> SmpRunner:
  agent = asdict(ppo_cfg("toy"))
  agent.update(logger="tensorboard", num_steps_per_env=STEPS, save_interval=1)
  agent["algorithm"].update(num_learning_epochs=1, num_mini_batches=1)
  folder = None if log_dir is None else str(log_dir)
  env = cast(RslRlVecEnvWrapper, ToyEnv())
  return SmpRunner(env, copy.deepcopy(agent), folder, "cpu")


def write_output_to(path: Path) -> None:
  """Send what this process says to a file."""
  torch.set_num_threads(1)
  output = os.open(path, os.O_WRONLY | os.O_CREAT)
  for stream in (1, 2):
    os.dup2(output, stream)
  sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)


def train_robots(words: list[str], output: Path) -> None:
  """What scripts/train.py does with ``words``."""
  write_output_to(output)
  sys.argv = ["train.py", *words]
  run(train_main)


def train(root: Path, run_name: str, largest_file: int = 0) -> None:
  """Resume from the newest checkpoint under ``root`` if there is one, until killed.

  Args:
    largest_file: Bytes beyond which the system refuses to write; 0: no limit.
  """
  log_dir = root / run_name
  log_dir.mkdir(parents=True)
  write_output_to(root / f"{run_name}.txt")

  def main() -> None:
    runner = make_runner(log_dir)
    if list(root.glob("*/model_*.pt")):
      runner.load(str(newest_checkpoint(root)))
    if largest_file:
      import resource

      resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    runner.learn(1_000_000)

  run(main)
