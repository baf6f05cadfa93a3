"""Training of a policy: mjlab's training, with defaults that fit the machine."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Literal, cast

import mjlab
import torch
import tyro
from mjlab.rl import RslRlBaseRunnerCfg
from mjlab.scripts.train import TrainConfig, launch_training

from smp.cli.task_argument import task_from_argv
from smp.errors import UserError
from smp.mdp.curriculums import NothingToGrow, add_curriculum
from smp.mdp.observations import observe_styles
from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
from smp.rl.actor_layout import ActorLayout
from smp.rl.checkpoint import newest_checkpoint
from smp.rl.learners import AUTO, LEARNERS, check_options, find_learner
from smp.rl.loading import is_smp_task
from smp.rl.off_policy import OffPolicyRunnerCfg
from smp.rl.policy_file import load_trained, save_policy
from smp.rl.runner import CheckpointedRunner
from smp.rl.td3 import has_bfloat16
from smp.sim.engine import check_engine, use_engine
from smp.tasks.base import observe_without_velocity
from smp.tasks.registry import discount_of, learned_after, policy_path
from smp.utils.cpu import core_count, thread_count
from smp.utils.files import check_folder
from smp.utils.limits import SEEDS, check_changes, check_limits
from smp.utils.wandb_files import check_names, fetch_checkpoint, fetch_prior, upload

CPU_ENVS_PER_CORE = 128
"""Environments per core with PPO. With fewer, the constant cost of a step weighs more:
on 2 cores 64 environments give 640 to 810 steps per second, 256 give 1,060."""
CPU_MAX_ENVS = 4096
"""Number of environments on a GPU."""
CPU_GSI_BUFFER_SIZE = 512
CPU_SAVE_INTERVAL = 50
CPU_STEPS_PER_CORE = 500.0
"""Environment steps per second and core with PPO, updates of the policy included: see
the benchmarks. An estimate, shown before the speed is measured."""
CPU_OFF_POLICY_ENVS = 128
"""Environments with the off-policy learner, however many cores: at a fixed number of
updates per step, more environments mean fewer updates for each transition, not a faster
start."""
CPU_OFF_POLICY_STEPS = (300.0, 450.0)
"""Environment steps per second with the off-policy learner on one thread, and on two. On
more it was not measured: learning gains little by them."""
GPU_OFF_POLICY = {
  "batch_size": 8192,
  "updates_per_step": 8,
  "hidden_dims": (512, 256, 128),
  "learning_rate": 3e-4,
}
"""Settings of td3 where a batch and a layer cost little."""
GPU_REPLAY_STEPS = 500
"""Steps stored of each of 4096 environments: 2 million transitions, 4 GiB (10 GiB with
a history of observations)."""
_RUN_NAME = "%Y-%m-%d_%H-%M-%S"
"""Format of mjlab's names of run folders."""
USEFUL_STEPS = 6e8
"""Environment steps that the SMP paper trains a task for (arXiv 2512.03028)."""


@dataclass(frozen=True)
class TrainArgs(TrainConfig):
  """Train a policy on a task, with defaults that fit this machine.

  Example: uv run scripts/train.py Smp-Forward-G1 --minutes 30

  Lists and tuples are one word: --gpu-ids "[0,1]". Every option of mjlab
  works.
  """

  learner: str = AUTO
  """``ppo`` (the published form), ``td3`` (off-policy: learns from few steps), or
  ``auto``: ppo on a GPU, td3 on a CPU. mjlab's own tasks take ppo."""

  actor: Literal["task", "proprioceptive"] = "task"
  """``proprioceptive``: the actor does not observe the velocity of the pelvis, which no
  sensor of a G1 measures, and observes five frames in place of one. ``task``: as the
  task defines it. Checkpoints remember it."""

  without_events: str = ""
  """Names of pushes and randomisations to leave out, as in payload,actuator_delay."""

  curriculum: bool | None = None
  """Begin without pushes and with low top speeds, which grow with success. Default:
  with td3, where the task has something that can grow; not with ppo, the published
  form."""

  curriculum_climb: float | None = None
  """Minimum number of episodes per environment in which the curriculum grows from none
  to all of the task. Default: 5; Smp-Velocity-G1 15."""

  curriculum_help: float = 0.0
  """Largest share of its weight by which a robot is pulled up at first; it vanishes with
  success. Each episode has its own, from none to the largest."""

  minutes: float | None = None
  """Save and end after so many minutes of training."""

  engine: str = "auto"
  """``native`` (MuJoCo's own, on all cores of the CPU), ``warp`` (MuJoCo Warp), or
  ``auto``: warp on a GPU and native on a CPU."""

  threads: int | None = None
  """Threads of the native engine. Default: one per core."""

  wandb_prior: str | None = None
  """Train under the prior in this artifact: ORG/PROJECT/ARTIFACT[:VERSION]. The newest
  version unless one is named. Default: the prior of the task."""

  upload_policy: bool = False
  """Upload the policy to W&B at the end, as an artifact with its card."""


def default_config(task: str, has_gpu: bool, learner: str = AUTO) -> TrainArgs:
  """Return the options of a task for a learner; without a GPU, CPU-sized ones.

  A CPU core gives some hundred steps per second, so there the number of environments
  depends on the cores, fewer initial states are sampled up front, and checkpoints come
  sooner.

  Raises:
    UserError: There is no such learner, or it does not fit the task.
  """
  config = TrainArgs(**vars(TrainConfig.from_task(task)), learner=learner)
  name = _learner_for(task, learner, has_gpu)
  if is_smp_task(task):
    config = replace(
      config, agent=LEARNERS[name].make_cfg(config.agent.experiment_name)
    )
    if isinstance(config.agent, OffPolicyRunnerCfg):
      config.agent.algorithm.gamma = discount_of(task)
  LEARNERS[name].prepare(config.env)
  if has_gpu:
    if isinstance(config.agent, OffPolicyRunnerCfg):
      config.agent.replay_steps = GPU_REPLAY_STEPS
      config.agent.algorithm = replace(config.agent.algorithm, **GPU_OFF_POLICY)
    return config
  off_policy = isinstance(config.agent, OffPolicyRunnerCfg)
  config.env.scene.num_envs = (
    CPU_OFF_POLICY_ENVS if off_policy else cpu_envs(core_count())
  )
  smp_term = config.env.commands.get(SMP_TERM)
  if isinstance(smp_term, SmpTermCfg):
    smp_term.gsi_refresh_size = (
      smp_term.gsi_refresh_size * CPU_GSI_BUFFER_SIZE // smp_term.gsi_buffer_size
    )
    smp_term.gsi_buffer_size = CPU_GSI_BUFFER_SIZE
  config.agent.save_interval = CPU_SAVE_INTERVAL
  return replace(config, gpu_ids=None)


def cpu_envs(cores: int) -> int:
  """Return the number of environments that keeps so many cores busy."""
  return min(CPU_ENVS_PER_CORE * cores, CPU_MAX_ENVS)


def cpu_outlook(task: str, threads: int, off_policy: bool = False) -> str:
  """Return one line on how long a useful run of a task takes without a GPU."""
  if off_policy:
    steps_per_second = CPU_OFF_POLICY_STEPS[threads > 1]
    steps = learned_after(task)
    hope = (
      "hours for this task (docs/results.md says how its policy was trained)"
      if steps is None
      else f"a robot that walks after {steps / steps_per_second / 60.0:.0f} minutes"
    )
    return (
      "[INFO] Learner: td3, off-policy, which learns from few steps (--learner ppo is "
      f"the published one). Expect about {steps_per_second:,.0f} steps per second and "
      f"{hope}. Ctrl-C saves at any time, --agent.resume True continues."
    )
  steps_per_second = CPU_STEPS_PER_CORE * threads
  days = USEFUL_STEPS / steps_per_second / 86_400
  return (
    f"[INFO] Expect about {steps_per_second:,.0f} steps per second here. The paper "
    f"trains a task for {USEFUL_STEPS / 1e6:.0f} million: {days:,.0f} days here, hours on "
    "a GPU. Ctrl-C saves at any time, --agent.resume True continues."
  )


def main() -> None:
  """Run ``train TASK [OPTIONS]``."""
  task, arguments = task_from_argv("train", TrainArgs.__doc__)
  has_gpu = torch.cuda.device_count() > 0
  find_learner(learner_in(arguments), has_gpu)
  config = _parse(task, arguments, has_gpu)
  check_engine(config.engine)
  threads = thread_count(config.threads)
  if config.engine == "native" and has_gpu:
    # Use the defaults of a machine without a GPU, in the number of environments too.
    config = replace(_parse(task, arguments, has_gpu=False), gpu_ids=None)
  if config.gpu_ids is not None and not has_gpu:
    raise UserError(
      f"--gpu-ids {config.gpu_ids}: this machine has no CUDA GPU; leave the option out"
    )
  off_policy = isinstance(config.agent, OffPolicyRunnerCfg)
  _check_gpus(config, off_policy)
  _check_minutes(task, config.minutes)
  if config.agent.save_interval < 1:
    raise UserError(
      f"--agent.save-interval {config.agent.save_interval}: give 1 or more"
    )
  check_limits(config.agent, "agent.")
  if not 0 <= config.agent.seed < SEEDS:
    raise UserError(f"--agent.seed {config.agent.seed}: give 0 to {SEEDS - 1}")
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
      print(cpu_outlook(task, threads, off_policy))
  if off_policy:
    _choose_overlap(config, threads)
  _choose_actor(task, config)
  observe_styles(config.env)
  _leave_out_events(config)
  # The checkpoint first: its styles come before the help in what the critic observes.
  config = choose_checkpoint(config)
  _begin_gently(config, off_policy)
  choose_prior(config)
  check_upload(task, config)
  os.environ.setdefault("MJLAB_WARP_QUIET", "1")
  # SIGTERM saves as Ctrl-C does (see SmpRunner.learn).
  signal.signal(signal.SIGTERM, interrupt)
  started = datetime.now()
  CheckpointedRunner.minutes = config.minutes
  with use_engine(config.engine, threads):
    launch_training(task, config)
  if config.upload_policy:
    upload_policy(task, config, own_run(config, started))


def _choose_overlap(config: TrainArgs, threads: int) -> None:
  """Learn beside the robots where that pays, unless the command line says: in place.

  It does with several threads. Not with products in bfloat16, which make learning the
  smaller part, and whose setting holds for all threads.
  """
  agent = cast(OffPolicyRunnerCfg, config.agent)
  if agent.overlap is None:
    exact = not (agent.algorithm.bfloat16 and has_bfloat16())
    agent.overlap = config.gpu_ids is None and threads > 1 and exact


def upload_policy(task: str, config: TrainArgs, run: Path) -> None:
  """Write the last policy of a run beside its checkpoints, and upload it to W&B."""
  path = run / f"{policy_path(task).stem}.pt"
  card = save_policy(newest_checkpoint(run.parent, run.name), path, task)
  upload(path, "policy", config.agent.wandb_project, card, run)


def own_run(config: TrainArgs, started: datetime) -> Path:
  """Return the folder of the run that this program started.

  mjlab names it by its time of beginning and --agent.run-name. Other trainings of the
  same task may have begun before and since.

  Raises:
    UserError: There is no such folder.
  """
  experiment = (Path(config.log_root) / config.agent.experiment_name).resolve()
  end = f"_{config.agent.run_name}" if config.agent.run_name else ""
  pattern = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)" + re.escape(end))
  since = [
    folder
    for folder in experiment.glob("*/")
    if (found := pattern.fullmatch(folder.name))
    and found.group(1) >= started.strftime(_RUN_NAME)
  ]
  if not since:
    raise UserError(f"{experiment}: no run since {started:%H:%M:%S} to upload")
  return min(since)


def check_upload(task: str, config: TrainArgs) -> None:
  """Raise an error for ``--upload-policy`` where it would fail after training.

  Raises:
    UserError: The task is another project's, or W&B does not take the name.
  """
  if not config.upload_policy:
    return
  if not isinstance(config.env.commands.get(SMP_TERM), SmpTermCfg):
    raise UserError(f"--upload-policy: {task} is no task of this project")
  check_names(policy_path(task), config.agent.wandb_project)


def choose_prior(config: TrainArgs) -> None:
  """Fetch the prior named by ``--wandb-prior`` and train under it.

  Raises:
    UserError: The task has no prior, or W&B has none of that name.
  """
  smp_term = config.env.commands.get(SMP_TERM)
  if config.wandb_prior is None:
    return
  if not isinstance(smp_term, SmpTermCfg):
    raise UserError(f"--wandb-prior {config.wandb_prior}: this task has no prior")
  smp_term.prior = str(fetch_prior(config.wandb_prior).resolve())


def choose_checkpoint(config: TrainArgs) -> TrainArgs:
  """Find the checkpoint to resume from before anything long begins.

  Raises:
    UserError: There is none, or the folder of logs cannot be written.
  """
  experiment = (Path(config.log_root) / config.agent.experiment_name).resolve()
  check_folder(experiment)
  if not config.agent.resume:
    usual = RslRlBaseRunnerCfg()
    for name in ("load_run", "load_checkpoint"):
      given = getattr(config.agent, name)
      if given != getattr(usual, name) and config.wandb_run_path is None:
        option = name.replace("_", "-")
        raise UserError(f"--agent.{option} {given}: add --agent.resume True")
    if isinstance(config.agent, OffPolicyRunnerCfg) and config.agent.init_policy:
      _take_layers(config.agent, Path(config.agent.init_policy))
    return config
  if config.wandb_run_path is not None:
    # Download it to where mjlab will look for it.
    name = config.wandb_checkpoint_name
    _fit(config, fetch_checkpoint(experiment, config.wandb_run_path, name)[0])
    return config
  pattern = config.agent.load_run, config.agent.load_checkpoint
  path = newest_checkpoint(experiment, *pattern)
  print(f"[INFO] Resuming from {path.parent.name}/{path.name}")
  _fit(config, path)
  # mjlab looks for it again by patterns, so these match exactly its names.
  run, name = (f"{re.escape(part)}$" for part in (path.parent.name, path.name))
  agent = replace(config.agent, load_run=run, load_checkpoint=name)
  return replace(config, agent=agent)


def _fit(config: TrainArgs, path: Path) -> None:
  """Let the actor observe what that of a checkpoint does, in layers as large.

  Raises:
    UserError: The file is damaged, or other styles are asked for than it knows.
  """
  layout = ActorLayout.read(path)
  if layout is not None and layout != ActorLayout.of(config.env):
    _check_styles(config, layout, path)
    layout.apply(config.env)
    print(f"[INFO] The actor observes what it did: {', '.join(layout.terms)}")
  if isinstance(config.agent, OffPolicyRunnerCfg):
    _take_layers(config.agent, path)


def _take_layers(agent: OffPolicyRunnerCfg, path: Path) -> None:
  """Let the networks be as large as the one that a training begins or goes on with.

  Raises:
    UserError: The file is missing or damaged.
  """
  layers = load_trained(path).actor.sizes[1:-1]
  if layers != tuple(agent.algorithm.hidden_dims):
    agent.algorithm = replace(agent.algorithm, hidden_dims=layers)
    print(f"[INFO] Layers of {path.name}: {', '.join(map(str, layers))}")


def _check_styles(config: TrainArgs, layout: ActorLayout, path: Path) -> None:
  """Raise an error for styles that are not those of the checkpoint to resume from.

  Raises:
    UserError: The message names both.
  """
  smp_term = config.env.commands.get(SMP_TERM)
  asked = smp_term.names() if isinstance(smp_term, SmpTermCfg) else ()
  if asked and asked != layout.styles:
    known = ",".join(layout.styles)
    raise UserError(
      f"--env.commands.smp.styles {','.join(asked)}: the policy of {path.name} knows "
      + (f"{known}; leave the option out or give these" if known else "no styles")
    )


def learner_in(arguments: list[str]) -> str:
  """Return the value of ``--learner``, on which the other options depend."""
  for index, word in enumerate(arguments):
    if word == "--learner" and index + 1 < len(arguments):
      return arguments[index + 1]
    if word.startswith("--learner="):
      return word.removeprefix("--learner=")
  return AUTO


def _check_gpus(config: TrainArgs, off_policy: bool) -> None:
  """Raise an error for several GPUs with a learner that takes one.

  Raises:
    UserError: The message says what to give.
  """
  several = config.gpu_ids == "all" and torch.cuda.device_count() > 1
  if isinstance(config.gpu_ids, list):
    several = len(config.gpu_ids) > 1
  if off_policy and several:
    raise UserError(
      f"--gpu-ids {config.gpu_ids}: the learner td3 trains on one GPU; give "
      "--gpu-ids [0] or --learner ppo"
    )
  if several and config.minutes is not None:
    raise UserError(
      f"--minutes {config.minutes}: with several GPUs give --agent.max-iterations"
    )


def _begin_gently(config: TrainArgs, off_policy: bool) -> None:
  """Add the curriculum that was asked for, or that the learner takes by default.

  Raises:
    UserError: It was asked for, and nothing in this task can grow; or an option of it is
      out of range, or given without it.
  """
  if config.curriculum is False or (config.curriculum is None and not off_policy):
    if config.curriculum_help:
      raise UserError(
        "--curriculum-help: help vanishes with a curriculum; add --curriculum True"
      )
    if config.curriculum_climb is not None:
      raise UserError("--curriculum-climb: add --curriculum True")
    return
  try:
    add_curriculum(
      config.env, climb=config.curriculum_climb, help_share=config.curriculum_help
    )
  except NothingToGrow as error:
    if config.curriculum:
      raise UserError(f"--curriculum True: {error}") from error


def _choose_actor(task: str, config: TrainArgs) -> None:
  """Change the actor's observations as ``--actor`` says.

  Raises:
    UserError: The task is another project's.
  """
  if config.actor == "task":
    return
  if not is_smp_task(task):
    raise UserError(f"--actor {config.actor}: {task} is no task of this project")
  observe_without_velocity(config.env)


def _leave_out_events(config: TrainArgs) -> None:
  """Take the events named by ``--without-events`` from the environment.

  Raises:
    UserError: The task has no such event.
  """
  for name in filter(None, config.without_events.split(",")):
    if config.env.events.pop(name, None) is None:
      known = ", ".join(config.env.events)
      raise UserError(
        f"--without-events {name}: this task has no such event; it has {known}"
      )


def _check_minutes(task: str, minutes: float | None) -> None:
  """Raise an error for an invalid time limit, or for a task that ignores it.

  Raises:
    UserError: The message says what to give.
  """
  if minutes is None:
    return
  if not 0.0 < minutes < 1e6:
    raise UserError(f"--minutes {minutes}: give a number of minutes above 0")
  if not is_smp_task(task):
    raise UserError(
      f"--minutes {minutes}: {task} is mjlab's; use --agent.max-iterations"
    )


def _learner_for(task: str, learner: str, has_gpu: bool) -> str:
  """Return the name of the learner; ``auto`` is PPO for mjlab's own tasks.

  Raises:
    UserError: There is none of that name.
  """
  return find_learner(learner, has_gpu or not is_smp_task(task))


def _parse(task: str, arguments: list[str], has_gpu: bool) -> TrainArgs:
  """Return the options that the arguments give, over the defaults of their learner.

  Raises:
    UserError: There is no such learner, an option is another learner's, or a number of
      the environment cannot be.
  """
  learner = learner_in(arguments)
  check_options(arguments, _learner_for(task, learner, has_gpu))
  usual = default_config(task, has_gpu, learner)
  config = tyro.cli(
    TrainArgs,
    args=arguments,
    default=usual,
    prog=f"{sys.argv[0]} {task}",
    config=mjlab.TYRO_FLAGS,
  )
  check_changes(config.env, usual.env, "env.")
  for option, number in (
    ("scene.num-envs", config.env.scene.num_envs),
    ("decimation", config.env.decimation),
    ("episode-length-s", config.env.episode_length_s),
    ("sim.mujoco.timestep", config.env.sim.mujoco.timestep),
  ):
    if not number > 0:
      raise UserError(f"--env.{option} {number}: must be above 0")
  return config


def interrupt(signum: int, frame: FrameType | None) -> None:
  """Raise ``KeyboardInterrupt``, so that a signal acts like Ctrl-C."""
  del signum, frame
  raise KeyboardInterrupt
