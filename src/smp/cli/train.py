"""Train a policy: mjlab's training, with defaults that fit the machine."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from types import FrameType

import mjlab
import torch
import tyro
from mjlab.scripts.train import TrainConfig, launch_training

from smp.cli.tasks import task_from_argv
from smp.errors import UserError
from smp.mdp.guidance import GUIDANCE, GuidanceCfg

CPU_NUM_ENVS = 64
CPU_POOL_SIZE = 512
CPU_SAVE_INTERVAL = 50


def default_config(task: str, has_gpu: bool) -> TrainConfig:
  """mjlab's options for a task; on a machine without a GPU, ones it can bear.

  There, 64 environments give about 350 steps per second on two cores, so fewer start
  states are sampled up front and checkpoints come sooner.
  """
  config = TrainConfig.from_task(task)
  if has_gpu:
    return config
  config.env.scene.num_envs = CPU_NUM_ENVS
  guidance = config.env.commands.get(GUIDANCE)
  if isinstance(guidance, GuidanceCfg):
    guidance.refresh_size = guidance.refresh_size * CPU_POOL_SIZE // guidance.pool_size
    guidance.pool_size = CPU_POOL_SIZE
  config.agent.save_interval = CPU_SAVE_INTERVAL
  return replace(config, gpu_ids=None)


def main() -> None:
  """``train TASK [OPTIONS]``."""
  task, arguments = task_from_argv("train")
  has_gpu = torch.cuda.device_count() > 0
  default = default_config(task, has_gpu)
  config = tyro.cli(
    TrainConfig,
    args=arguments,
    default=default,
    prog=f"{sys.argv[0]} {task}",
    config=mjlab.TYRO_FLAGS,
  )
  if config.gpu_ids is not None and not has_gpu:
    raise UserError(
      f"--gpu-ids {config.gpu_ids}: this machine has no CUDA GPU; leave the option out"
    )
  if not has_gpu:
    print(
      f"[INFO] No CUDA GPU found: training on the CPU with "
      f"{config.env.scene.num_envs} environments."
    )
  os.environ.setdefault("MJLAB_WARP_QUIET", "1")
  # A polite kill saves as Ctrl-C does (see SmpRunner.learn).
  signal.signal(signal.SIGTERM, _interrupt)
  launch_training(task, config)


def _interrupt(signum: int, frame: FrameType | None) -> None:
  del signum, frame
  raise KeyboardInterrupt
