"""Comparison of a policy in mjlab's environment and in plain MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from smp.cli.command_options import given_values, parse_options
from smp.cli.task_argument import check_task
from smp.deploy.agreement import Agreement, compare, undisturbed
from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import PolicySpec
from smp.deploy.rollout import read_start
from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
from smp.rl.actor_layout import ActorLayout, leave_out_prior
from smp.rl.loading import CPU_GSI_BUFFER_SIZE
from smp.sim.engine import make_env
from smp.utils.limits import Count, Positive, Seed, check_limits
from smp.utils.quiet import quiet

AT_FIRST = 0.5
"""Seconds over which joint angles are compared; see `smp.deploy.agreement` for how the
simulators differ at first and later."""


@dataclass(frozen=True)
class CompareSimulatorsCfg:
  """Compare a policy in mjlab's environment with the same policy in plain MuJoCo.

  Example: uv run scripts/compare_simulators.py policy.onnx --speed 1.5

  Both begin in the same states and are undisturbed; the differences are printed.
  """

  policy: Annotated[Path, tyro.conf.Positional]
  """The ONNX file."""

  command: tuple[str, ...] = ()
  """Command, such as speed=1.5 or goal=2,3. Each component of the policy's command is
  an option of its own too: name the policy before --help to see them."""

  seconds: Positive = 20.0
  """Duration of each run, s."""

  starts: Count = 5
  """Number of initial states drawn from the environment, each 1 mm above the floor."""

  start: Path | None = None
  """Initial state to use instead: a .npz file as for sim2sim."""

  engine: str = "native"
  """Engine of the environment: `native` or `warp`, both on the CPU."""

  seed: Seed = 0


def main() -> None:
  """Run ``compare_simulators POLICY.onnx [OPTIONS]``."""
  cfg = parse_options(CompareSimulatorsCfg)
  Console().print(_table(compare_simulators(cfg)))


def compare_simulators(cfg: CompareSimulatorsCfg) -> list[Agreement]:
  """Run one comparison per initial state.

  Raises:
    UserError: The policy's task is unknown, or an option does not fit.
  """
  check_limits(cfg)
  spec = OnnxPolicy(cfg.policy).spec
  check_task(spec.task)
  command = given_values(cfg.command)
  # Check the command before building the environment, which takes longer.
  robot = Robot(spec, Command(spec, command))
  start = cfg.start and read_start(cfg.start, robot.default_state())
  env = _environment(cfg, spec)
  try:
    return [
      compare(env, cfg.policy, command, cfg.seconds, start)
      for _ in track(range(1 if start else cfg.starts), "comparing", transient=True)
    ]
  finally:
    env.close()


def _environment(cfg: CompareSimulatorsCfg, spec: PolicySpec) -> RslRlVecEnvWrapper:
  env_cfg = undisturbed(load_env_cfg(spec.task, play=True))
  _observed_by(spec).apply(env_cfg)
  leave_out_prior(env_cfg)
  env_cfg.seed = cfg.seed
  smp_term = env_cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.gsi_buffer_size = min(smp_term.gsi_buffer_size, CPU_GSI_BUFFER_SIZE)
  with quiet():
    env = make_env(env_cfg, cfg.engine, "cpu", threads=1)
  return RslRlVecEnvWrapper(env, clip_actions=load_rl_cfg(spec.task).clip_actions)


def _observed_by(spec: PolicySpec) -> ActorLayout:
  """Return what a policy observes, which may differ from what its task defines."""
  names = tuple(part.name for part in spec.observations)
  frames = max(part.history_length for part in spec.observations)
  return ActorLayout(names, frames, spec.styles)


def _table(found: list[Agreement]) -> Table:
  names = list(found[0].theirs)
  table = Table(box=box.SIMPLE_HEAD, title="environment / plain MuJoCo")
  table.add_column("initial state", justify="right")
  table.add_column(f"joints, {AT_FIRST} s (rad)", justify="right")
  for name in names:
    table.add_column(name.replace("_", " "), justify="right")
  for i, each in enumerate(found):
    pairs = [f"{each.theirs[name]:.4g} / {each.ours[name]:.4g}" for name in names]
    table.add_row(str(i + 1), f"{each.joints_until(AT_FIRST):.2g}", *pairs)
  return table
