"""Does a policy do the same in mjlab's environment and in plain MuJoCo?"""

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

from smp.cli.sim2sim import fixed_command
from smp.cli.task_argument import check_task
from smp.deploy.agreement import Agreement, compare, undisturbed
from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import PolicySpec
from smp.deploy.rollout import read_start
from smp.errors import UserError
from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
from smp.rl.loading import CPU_GSI_BUFFER_SIZE
from smp.sim.engine import make_env
from smp.utils.quiet import quiet

AT_FIRST = 0.5
"""Seconds over which joint angles are compared. What tells the simulators apart, at first
and later, see `smp.deploy.agreement`."""


@dataclass(frozen=True)
class CompareSimulatorsCfg:
  """Compare a policy in mjlab's environment with the same policy in plain MuJoCo.

  Example: uv run scripts/compare_simulators.py policy.onnx --speed 1.5

  From the same starts and undisturbed; prints how far the two are apart.
  """

  policy: Annotated[Path, tyro.conf.Positional]
  """The ONNX file."""

  speed: float | None = None
  """Commanded speed, m/s (Forward, Steering)."""

  direction: float | None = None
  """Commanded direction of travel, degrees from world x towards y (Steering)."""

  facing: float | None = None
  """Commanded direction to face, degrees from world x towards y (Steering)."""

  goal: tuple[float, float] | None = None
  """Where to go, m, world x and y (Location)."""

  seconds: float = 20.0
  """How long each start is run."""

  starts: int = 5
  """How many starts of the environment's, each 1 mm above the floor."""

  start: Path | None = None
  """A state to begin in instead: a .npz file as for sim2sim."""

  engine: str = "native"
  """The environment's: `native` or `warp`, both on the CPU."""

  seed: int = 0


def main() -> None:
  """``compare_simulators POLICY.onnx [OPTIONS]``."""
  cfg = tyro.cli(CompareSimulatorsCfg, description=CompareSimulatorsCfg.__doc__)
  Console().print(_table(compare_simulators(cfg)))


def compare_simulators(cfg: CompareSimulatorsCfg) -> list[Agreement]:
  """One comparison per start.

  Raises:
    UserError: not a policy of a task that is here, or an option that does not fit.
  """
  if cfg.starts < 1 or not cfg.seconds > 0.0:
    raise UserError("--starts and --seconds: give 1 or more, and a time above 0")
  spec = OnnxPolicy(cfg.policy).spec
  check_task(spec.task)
  command = fixed_command(cfg)
  # Before the environment is built, which takes longer.
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
  env_cfg.seed = cfg.seed
  smp_term = env_cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.gsi_buffer_size = min(smp_term.gsi_buffer_size, CPU_GSI_BUFFER_SIZE)
  with quiet():
    env = make_env(env_cfg, cfg.engine, "cpu", threads=1)
  return RslRlVecEnvWrapper(env, clip_actions=load_rl_cfg(spec.task).clip_actions)


def _table(found: list[Agreement]) -> Table:
  names = list(found[0].theirs)
  table = Table(box=box.SIMPLE_HEAD, title="environment / plain MuJoCo")
  table.add_column("start", justify="right")
  table.add_column(f"joints, {AT_FIRST} s (rad)", justify="right")
  for name in names:
    table.add_column(name.replace("_", " "), justify="right")
  for i, each in enumerate(found):
    pairs = [f"{each.theirs[name]:.4g} / {each.ours[name]:.4g}" for name in names]
    table.add_row(str(i + 1), f"{each.joints_until(AT_FIRST):.2g}", *pairs)
  return table
