"""Benchmark of MuJoCo's C engine against MuJoCo Warp on this machine's CPU."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg
from rich.console import Console
from rich.table import Table

from smp.benchmark.timing import time_call
from smp.cli.options import parse
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.sim.engine import make_env
from smp.tasks.registry import all_tasks
from smp.utils.cpu import core_count, thread_count
from smp.utils.files import atomic_path
from smp.utils.limits import Count, Positive, WholeNumber

GSI_BUFFER_SIZE = 64


@dataclass(frozen=True)
class Options:
  """Time the engines: physics alone and whole steps, with and without the prior.

  Example: uv run scripts/benchmark_engine.py --robots 1 64 --seconds 2

  Every repetition times a few calls; tables show the median, and in brackets the
  quartiles. Compare the two engines, not runs: the machine may be busy with other work.
  """

  task: str = all_tasks()[0].id

  robots: tuple[Count, ...] = (1, 16, 64, 256, 1024)

  threads: tuple[Count, ...] = (1, 2)
  """Threads of the native engine; numbers above the cores of this machine are left out.
  """

  seconds: Positive = 3.0
  """Approximate duration of each measurement, s."""

  warp_robots: WholeNumber = 256
  """Maximum number of environments for Warp; beyond it the time is proportional."""

  json: Path | None = None
  """Numbers to write (JSON)."""


@dataclass(frozen=True)
class Timing:
  """One measurement, in milliseconds per call."""

  what: str
  engine: str
  threads: int
  robots: int
  median: float
  lower: float
  upper: float
  repetitions: int


def main() -> None:
  """Run ``benchmark_engine [OPTIONS]``."""
  options = parse(Options)
  threads = [count for count in options.threads if count <= core_count()]
  timings: list[Timing] = []
  for robots in options.robots:
    for count in threads:
      timings += measure(options, "native", count, robots)
    if robots <= options.warp_robots:
      timings += measure(options, "warp", 1, robots)
    gc.collect()
    show(timings, robots)
  print(f"[INFO] {core_count()} cores; torch computes on {torch.get_num_threads()}.")
  if options.json is not None:
    with atomic_path(options.json) as temporary:
      content = {"cores": core_count(), "timings": [asdict(t) for t in timings]}
      temporary.write_text(json.dumps(content, indent=2))
    print(f"[INFO] Wrote {options.json}")


def measure(options: Options, engine: str, threads: int, robots: int) -> list[Timing]:
  """Time one engine with one number of environments."""
  env = build(options.task, engine, thread_count(threads), robots)
  action = torch.zeros(robots, env.action_manager.total_action_dim)
  generator = torch.Generator().manual_seed(0)
  smp_term = SmpTerm.of(env)
  score = smp_term.style_step.run

  def step() -> None:
    action.copy_(0.3 * torch.randn(action.shape, generator=generator))
    env.step(action)

  def timed(what: str, call: Callable[[], None]) -> Timing:
    found = time_call(call, options.seconds, "cpu")
    return Timing(what, engine, threads, robots, **asdict(found))

  timings = [timed("env.step", step)]
  # Leave out the SDS loss, which is the same network on both engines.
  setattr(smp_term.style_step, "run", lambda *_: None)  # noqa: B010
  timings.append(timed("env.step, no prior", step))
  setattr(smp_term.style_step, "run", score)  # noqa: B010
  # The state is that of the last step, in the middle of the episodes.
  state = [array[:].clone() for array in (env.sim.data.qpos, env.sim.data.qvel)]

  def substeps() -> None:
    env.sim.data.qpos[:], env.sim.data.qvel[:] = state
    for _ in range(env.cfg.decimation):
      env.sim.step()

  timings.append(timed("physics", substeps))
  env.close()
  return timings


def build(task: str, engine: str, threads: int, robots: int) -> ManagerBasedRlEnv:
  """Build the training environment of a task with a small GSI buffer."""
  cfg = load_env_cfg(task)
  cfg.scene.num_envs, cfg.seed = robots, 0
  smp_term = cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = GSI_BUFFER_SIZE, 0
  env = make_env(cfg, engine, "cpu", threads)
  env.reset()
  return env


def show(timings: list[Timing], robots: int) -> None:
  """Print the measurements for one number of environments."""
  chosen = [timing for timing in timings if timing.robots == robots]
  table = Table(title=f"{robots} environments: milliseconds per control step")
  for column in (
    "",
    "engine",
    "threads",
    "median",
    "quartiles",
    "steps/s",
    "warp/",
  ):
    table.add_column(column, justify="left" if column in ("", "engine") else "right")
  for timing in sorted(chosen, key=lambda t: t.what):
    warp = [t for t in chosen if t.engine == "warp" and t.what == timing.what]
    ratio = f"{warp[0].median / timing.median:.1f}" if warp else "-"
    table.add_row(
      timing.what,
      timing.engine,
      str(timing.threads),
      f"{timing.median:.2f}",
      f"{timing.lower:.2f} .. {timing.upper:.2f}",
      f"{1e3 * robots / timing.median:,.0f}",
      ratio,
    )
  Console(width=100).print(table)
