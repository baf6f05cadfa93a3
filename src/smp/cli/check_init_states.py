"""Simulation of initial states as generated and as repaired."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import torch
import tyro

from smp.cli.options import parse
from smp.cli.task_argument import check_task
from smp.errors import UserError
from smp.utils.limits import Count, Positive, Seed
from smp.utils.quiet import quiet
from smp.utils.tables import table_console

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg

  from smp.mdp.smp_term import SmpTerm

FORCE = "start_force"
"""Name of the contact sensor that is added to the task."""


@dataclass(frozen=True)
class CheckInitStatesCfg:
  """Report what physics makes of the initial states of a task.

  Example: uv run scripts/check_init_states.py Smp-Getup-G1

  Episodes begin from generated windows, with and without their repair. The robots are
  released with zero action; contact forces and early terminations are reported.
  """

  tasks: Annotated[tuple[str, ...], tyro.conf.Positional]
  """Tasks, such as Smp-Forward-G1."""

  prior: str | None = None
  """Another prior than the task's: a shipped one by name, or a file."""

  num_envs: Count = 100
  """Number of episodes, each from a window of its own."""

  seconds: Positive = 0.2
  """Simulated time of each episode, s."""

  seed: Seed = 0
  device: str | None = None
  """Default: a CUDA GPU if there is one, else the CPU."""

  engine: str = "auto"
  """MuJoCo Warp, MuJoCo's own engine in C, or what suits the device."""


@dataclass(frozen=True)
class InitStatesReport:
  """Results of one task, with or without repair."""

  task: str
  repaired: bool
  generated: str
  """Summary of the windows sampled for the GSI buffer."""
  median_force: float
  """Median over episodes of the largest contact force, N; the next two are of the same.
  """
  p95_force: float
  max_force: float
  ends: dict[str, int]
  """Number of episodes that each termination ended within the time."""
  ended: float
  """Share of episodes that ended."""


def check_init_states(
  cfg: CheckInitStatesCfg, task: str, repair: bool
) -> InitStatesReport:
  """Simulate ``num_envs`` initial states of a task."""
  from smp.sim import make_env

  with quiet():
    env = make_env(_env_cfg(cfg, task, repair), cfg.engine, cfg.device)
    try:
      return _simulate(env, cfg, task, repair)
    finally:
      env.close()


def _env_cfg(cfg: CheckInitStatesCfg, task: str, repair: bool) -> ManagerBasedRlEnvCfg:
  from mjlab.sensor import ContactMatch, ContactSensorCfg
  from mjlab.tasks.registry import load_env_cfg

  from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
  from smp.robots import g1

  env_cfg = load_env_cfg(task)
  env_cfg.seed = cfg.seed
  env_cfg.scene.num_envs = cfg.num_envs
  env_cfg.events = {}
  env_cfg.auto_reset = False
  smp_term = cast(SmpTermCfg, env_cfg.commands[SMP_TERM])
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = cfg.num_envs, 0
  smp_term.filter_init_states = repair
  smp_term.fallen_init_prob = 0.0
  if cfg.prior is not None:
    smp_term.prior = cfg.prior
  robot = ContactMatch(mode="subtree", pattern=g1.ROOT_BODY, entity="robot")
  force = ContactSensorCfg(
    name=FORCE,
    primary=robot,
    fields=("found", "force"),
    reduce="maxforce",
    history_length=env_cfg.decimation,  # One entry per physics step.
  )
  env_cfg.scene.sensors = (*env_cfg.scene.sensors, force)
  return env_cfg


def _simulate(
  env: ManagerBasedRlEnv, cfg: CheckInitStatesCfg, task: str, repair: bool
) -> InitStatesReport:
  from mjlab.sensor import ContactSensor

  from smp.mdp.smp_term import SmpTerm

  smp_term = SmpTerm.of(env)
  env.reset()
  largest = torch.zeros(cfg.num_envs, device=env.device)
  alive = torch.ones(cfg.num_envs, dtype=torch.bool, device=env.device)
  ends = dict.fromkeys(env.termination_manager.active_terms, 0)
  action = torch.zeros(cfg.num_envs, env.action_manager.total_action_dim)
  for _ in range(round(cfg.seconds / env.step_dt)):
    env.step(action)
    forces = cast(ContactSensor, env.scene[FORCE]).data.force_history
    assert forces is not None
    strongest = forces.norm(dim=-1).flatten(1).amax(dim=1)
    largest = torch.maximum(largest, strongest * alive)
    for name in ends:
      ends[name] += int((env.termination_manager.get_term(name) & alive).sum())
    alive &= ~env.reset_buf
    env._manual_reset_pending[:] = False  # Ended robots stay as they are.
  quantiles = torch.tensor([0.5, 0.95, 1.0], device=env.device)
  median, p95, most = largest.quantile(quantiles).tolist()
  ended = 1.0 - float(alive.float().mean())
  generated = _report(smp_term)
  return InitStatesReport(task, repair, generated, median, p95, most, ends, ended)


def _report(smp_term: SmpTerm) -> str:
  from smp.mdp.init_state_buffers import GsiBuffer

  generated = smp_term.init_states.generated
  return str(generated.report) if isinstance(generated, GsiBuffer) else "no prior"


def print_report(reports: list[InitStatesReport]) -> None:
  """Print a table, and the summary of each GSI buffer below it."""
  from rich.table import Table

  table = Table(title="Initial states, released with zero action")
  for column in (
    "task",
    "initial states",
    "largest force: median (N)",
    "95 %",
    "max",
    "ended early",
    "by",
  ):
    table.add_column(column)
  for report in reports:
    by = ", ".join(f"{name} {count}" for name, count in report.ends.items() if count)
    forces = (report.median_force, report.p95_force, report.max_force)
    table.add_row(
      report.task,
      "repaired" if report.repaired else "as generated",
      *(f"{force:.0f}" for force in forces),
      f"{100 * report.ended:.0f} %",
      by or "-",
    )
  console = table_console(160)
  console.print(table)
  for report in reports:
    if report.repaired:
      console.print(f"{report.task}: {report.generated}")


def main() -> None:
  """Run ``check_init_states TASK... [OPTIONS]``."""
  cfg = parse(CheckInitStatesCfg)
  if not cfg.tasks:
    raise UserError("no task: name at least one; --help shows an example")
  os.environ.setdefault("MJLAB_WARP_QUIET", "1")
  for task in cfg.tasks:
    check_task(task)
  print_report(
    [
      check_init_states(cfg, task, repair)
      for task in cfg.tasks
      for repair in (False, True)
    ]
  )
