"""Training with real checkpoints and no robot, and with robots, in processes to kill."""

from __future__ import annotations

import copy
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from mjlab.rl import RslRlVecEnvWrapper
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from smp.cli.train import interrupt
from smp.cli.train import main as train_main
from smp.errors import run
from smp.mdp.composition import RewardForm
from smp.mdp.sds_normalizer import SdsNormalizer
from smp.rl.checkpoint import newest_checkpoint
from smp.rl.off_policy import OffPolicyRunner, off_policy_cfg
from smp.rl.ppo import ppo_cfg
from smp.rl.runner import CheckpointedRunner, SmpRunner
from smp.rl.td3 import Td3Cfg

ENVS, STEPS, POOL = 2, 2, 4096
SIZES = {"actor": 97, "critic": 990}


class ToySmpTerm:
  """The reward's memory, at its real size."""

  def __init__(self) -> None:
    self.cfg = SimpleNamespace(prior="loco", style_title=lambda: None)
    self.prior = object()
    self.normalizer = SdsNormalizer(3, 5e7)
    shapes = {"root_pos": 3, "root_quat": 4, "joint_pos": 29}
    self.pool = {name: torch.randn(POOL, 10, size) for name, size in shapes.items()}

  def state_dict(self) -> dict[str, Any]:
    memory = self.normalizer
    return {
      "mean": memory.mean,
      "count": memory.count,
      "init_states": {**self.pool, "next": 0},
    }

  def load_state_dict(self, saved: dict[str, Any]) -> None:
    self.load_means(saved)
    self.pool = {name: saved["init_states"][name] for name in self.pool}

  def load_means(self, saved: dict[str, Any]) -> None:
    self.normalizer.mean.copy_(saved["mean"])
    self.normalizer.count.copy_(saved["count"])


class ToyCfg(dict):
  """As much of an environment's configuration as a runner reads."""

  terms = (
    "base_lin_vel base_ang_vel projected_gravity joint_pos joint_vel actions command"
  )
  observations = {"actor": SimpleNamespace(terms=terms.split(), history_length=None)}
  is_finite_horizon = False


class ToyEnv(VecEnv):
  """Random observations and rewards, of the sizes of Smp-Forward-G1."""

  num_envs, num_actions, max_episode_length = ENVS, 29, 1000
  clip_actions = None

  def __init__(self) -> None:
    self.device, self.cfg = torch.device("cpu"), ToyCfg()
    self.episode_length_buf = torch.zeros(ENVS, dtype=torch.long)
    self.smp_term = ToySmpTerm()
    self.common_step_counter = 0
    self.curriculum_manager = None
    self.command_manager = SimpleNamespace(get_term=lambda _: self.smp_term)

  @property
  def unwrapped(self) -> Any:
    return self

  def get_observations(self) -> TensorDict:
    data = {name: torch.randn(ENVS, size) for name, size in SIZES.items()}
    return TensorDict(cast(Any, data), batch_size=[ENVS])

  def step(self, actions: torch.Tensor) -> tuple:
    self.common_step_counter += 1
    self.smp_term.normalizer.update(torch.rand(ENVS, 3))
    dones = torch.zeros(ENVS, dtype=torch.long)
    return self.get_observations(), torch.rand(ENVS), dones, {}


class OffPolicyToyEnv(ToyEnv):
  """The same, with what the off-policy runner asks of mjlab's environment."""

  clip_actions = None

  @property
  def env(self) -> Any:
    return self

  def __init__(self) -> None:
    super().__init__()
    smp_term: Any = self.smp_term
    form = RewardForm("product", 6.0, 0.5, 0.5)
    smp_term.cfg = SimpleNamespace(
      prior="loco", timesteps=(1, 2, 3), form=lambda: form, style_title=lambda: None
    )
    smp_term.task_reward = smp_term.floor = torch.zeros(ENVS)
    smp_term.style = SimpleNamespace(
      losses=torch.rand(ENVS, 3), scale=smp_term.normalizer.scale
    )
    self.extras: dict[str, Any] = {"log": {}}
    self.observation_manager = SimpleNamespace(
      group_obs_dim={name: (size,) for name, size in SIZES.items()},
      compute=self.get_observations,
    )
    self.action_manager = SimpleNamespace(total_action_dim=self.num_actions)
    self.reward_manager = SimpleNamespace(active_terms=[])

  def step(self, actions: torch.Tensor) -> tuple:
    obs, reward, _, _ = super().step(actions)
    timed_out = torch.arange(ENVS) == self.common_step_counter % 5
    return obs, reward, torch.zeros_like(timed_out), timed_out, self.extras

  def reset(self, env_ids: torch.Tensor) -> tuple:
    del env_ids
    return self.get_observations(), self.extras


def make_off_policy_runner(
  log_dir: Path | None, hidden_dims: tuple[int, ...] = (256, 128)
) -> OffPolicyRunner:
  algorithm = Td3Cfg(
    hidden_dims,
    batch_size=4,
    updates_per_step=1,
    actor_delay=0,
    mirror=False,
    value_range=(0.0, 1.0),
  )
  cfg = replace(off_policy_cfg("toy"), algorithm=algorithm, num_steps_per_env=STEPS)
  cfg = replace(cfg, replay_steps=8, learning_starts=1, refill_steps=4)
  agent = asdict(replace(cfg, logger="tensorboard", save_interval=1))
  folder = None if log_dir is None else str(log_dir)
  env = cast(RslRlVecEnvWrapper, OffPolicyToyEnv())
  return OffPolicyRunner(env, agent, folder, "cpu")


def make_runner(log_dir: Path | None) -> SmpRunner:
  agent = asdict(ppo_cfg("toy"))
  agent.update(logger="tensorboard", num_steps_per_env=STEPS, save_interval=1)
  agent["algorithm"].update(num_learning_epochs=1, num_mini_batches=1)
  folder = None if log_dir is None else str(log_dir)
  env = cast(RslRlVecEnvWrapper, ToyEnv())
  return SmpRunner(env, copy.deepcopy(agent), folder, "cpu")


def runner_of(learner: str, log_dir: Path) -> CheckpointedRunner:
  return {"ppo": make_runner, "td3": make_off_policy_runner}[learner](log_dir)


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


def train(
  root: Path, run_name: str, learner: str = "ppo", largest_file: int = 0
) -> None:
  """Resume from the newest checkpoint under ``root`` if there is one, until killed.

  Args:
    root: Folder of runs.
    run_name: Of the new one.
    learner: Which trains.
    largest_file: Bytes beyond which the system refuses to write; 0: no limit.
  """
  log_dir = root / run_name
  log_dir.mkdir(parents=True)
  write_output_to(root / f"{run_name}.txt")

  def main() -> None:
    signal.signal(signal.SIGTERM, interrupt)  # As scripts/train.py does.
    runner = runner_of(learner, log_dir)
    if list(root.glob("*/model_*.pt")):
      cast(Any, runner).load(str(newest_checkpoint(root)))
    if largest_file:
      import resource

      resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    runner.learn(1_000_000)

  run(main)
