"""Train a policy: mjlab's training, with defaults that fit the machine."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from types import FrameType

import mjlab
import torch
import tyro
from mjlab.scripts.train import TrainConfig, launch_training

from smp.cli.tasks import task_from_argv
from smp.cpu import core_count, thread_count
from smp.errors import UserError
from smp.mdp.guidance import GUIDANCE, GuidanceCfg
from smp.sim.engine import check_engine, use_engine

CPU_ENVS_PER_CORE = 32
CPU_ENVS = (64, 4096)
"""At least and at most, whatever the cores: fewer waste the cost of a step that does not
depend on them, and more is what a GPU takes."""
CPU_POOL_SIZE = 512
CPU_SAVE_INTERVAL = 50
CPU_STEPS_PER_CORE = 400.0
"""Environment steps per second and core, updates of the policy included: see the
benchmarks in README. An estimate, to say what to expect before it is measured."""
USEFUL_STEPS = 6e8
"""Environment steps that the SMP paper trains a task for (arXiv 2512.03028)."""


@dataclass(frozen=True)
class TrainArgs(TrainConfig):
  """mjlab's options, and which engine computes the physics."""

  engine: str = "auto"
  """``native`` (MuJoCo's own, on all cores of the CPU), ``warp`` (MuJoCo Warp), or
  ``auto``: warp on a GPU and native on a CPU."""

  threads: int | None = None
  """Threads of the native engine. Default: one per core."""


def default_config(task: str, has_gpu: bool) -> TrainArgs:
  """mjlab's options for a task; on a machine without a GPU, ones it can bear.

  There, a core gives some hundred steps per second, so environments go by the cores,
  fewer start states are sampled up front, and checkpoints come sooner.
  """
  config = TrainArgs(**vars(TrainConfig.from_task(task)))
  if has_gpu:
    return config
  config.env.scene.num_envs = cpu_envs(core_count())
  guidance = config.env.commands.get(GUIDANCE)
  if isinstance(guidance, GuidanceCfg):
    guidance.refresh_size = guidance.refresh_size * CPU_POOL_SIZE // guidance.pool_size
    guidance.pool_size = CPU_POOL_SIZE
  config.agent.save_interval = CPU_SAVE_INTERVAL
  return replace(config, gpu_ids=None)


def cpu_envs(cores: int) -> int:
  """Environments that keep so many cores busy."""
  least, most = CPU_ENVS
  return min(max(CPU_ENVS_PER_CORE * cores, least), most)


def cpu_outlook(threads: int) -> str:
  """One line on how long a useful run takes without a GPU."""
  steps_per_second = CPU_STEPS_PER_CORE * threads
  days = USEFUL_STEPS / steps_per_second / 86_400
  return (
    f"[INFO] Expect about {steps_per_second:,.0f} steps per second here. The paper "
    f"trains a task for {USEFUL_STEPS / 1e6:.0f} million: {days:,.0f} days here, hours on "
    "a GPU. Ctrl-C saves at any time, --agent.resume True goes on."
  )


def main() -> None:
  """``train TASK [OPTIONS]``."""
  task, arguments = task_from_argv("train")
  has_gpu = torch.cuda.device_count() > 0
  config = _parse(task, arguments, has_gpu)
  check_engine(config.engine)
  threads = thread_count(config.threads)
  if config.engine == "native" and has_gpu:
    # As on a machine without a GPU, in the number of environments too.
    config = replace(_parse(task, arguments, has_gpu=False), gpu_ids=None)
  if config.gpu_ids is not None and not has_gpu:
    raise UserError(
      f"--gpu-ids {config.gpu_ids}: this machine has no CUDA GPU; leave the option out"
    )
  if config.gpu_ids is None:
    reason = "No GPU asked for" if has_gpu else "No CUDA GPU found"
    engine = (
      "MuJoCo Warp"
      if config.engine == "warp"
      else f"MuJoCo's own engine, {threads} threads"
    )
    print(
      f"[INFO] {reason}: training on the CPU with {config.env.scene.num_envs} "
      f"environments ({engine})."
    )
    if config.engine != "warp":
      print(cpu_outlook(threads))
  os.environ.setdefault("MJLAB_WARP_QUIET", "1")
  # A polite kill saves as Ctrl-C does (see SmpRunner.learn).
  signal.signal(signal.SIGTERM, _interrupt)
  with use_engine(config.engine, threads):
    launch_training(task, config)


def _parse(task: str, arguments: list[str], has_gpu: bool) -> TrainArgs:
  return tyro.cli(
    TrainArgs,
    args=arguments,
    default=default_config(task, has_gpu),
    prog=f"{sys.argv[0]} {task}",
    config=mjlab.TYRO_FLAGS,
  )


def _interrupt(signum: int, frame: FrameType | None) -> None:
  del signum, frame
  raise KeyboardInterrupt
