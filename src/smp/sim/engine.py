"""Choice of the physics engine: MuJoCo Warp, or MuJoCo's own in C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from mjlab.envs import ManagerBasedRlEnv, ManagerBasedRlEnvCfg, manager_based_rl_env
from mjlab.sim.sim import Simulation

from smp.errors import UserError
from smp.sim.native import NativeSimulation
from smp.utils.cpu import thread_count
from smp.utils.device import choose_device

Engine = Literal["auto", "native", "warp"]

_NAME = "Simulation"
"""Name under which mjlab's environment module looks up the class that it builds."""


def make_env(
  cfg: ManagerBasedRlEnvCfg,
  engine: str = "auto",
  device: str | None = None,
  threads: int | None = None,
  render_mode: str | None = None,
) -> ManagerBasedRlEnv:
  """Build mjlab's environment on an engine.

  Args:
    cfg: mjlab's configuration.
    engine: "warp", "native", or "auto": warp on a GPU and native on a CPU.
    device: Default, and "auto": the GPU where there is one, unless the engine is
      "native".
    threads: Threads of the native engine. Default: one per core.
    render_mode: As for mjlab.

  Raises:
    UserError: no such engine or device, too many threads, or a feature that the engine
      lacks.
  """
  device = find_device(device, engine)
  with use_engine(engine, threads):
    return ManagerBasedRlEnv(cfg, device, render_mode=render_mode)


@contextmanager
def use_engine(engine: str = "auto", threads: int | None = None) -> Iterator[None]:
  """Let environments that are built in this context compute on ``engine``.

  This serves code that builds the environment itself, such as mjlab's
  ``launch_training``.

  Raises:
    UserError: no such engine, or too many threads.
  """
  check_engine(engine)
  threads = thread_count(threads)

  def build(*args: Any, device: str, **kwargs: Any) -> Simulation:
    """Return a simulation on the chosen engine."""
    if resolve_engine(engine, device) == "warp":
      return Simulation(*args, device=device, **kwargs)
    return NativeSimulation(*args, device=device, threads=threads, **kwargs)

  original = getattr(manager_based_rl_env, _NAME)
  setattr(manager_based_rl_env, _NAME, build)
  try:
    yield
  finally:
    setattr(manager_based_rl_env, _NAME, original)


def default_device(engine: str) -> str:
  """Return the device of an engine if none is given."""
  return "cuda:0" if engine != "native" and torch.cuda.is_available() else "cpu"


def find_device(name: str | None, engine: str) -> str:
  """Return the device of a name; of None and of "auto", the default of the engine.

  Raises:
    UserError: The device is unknown or not available.
  """
  return str(
    choose_device(default_device(engine) if name is None or name == "auto" else name)
  )


def check_engine(engine: str) -> None:
  """Raise ``UserError`` unless there is an engine of this name."""
  if engine not in get_args(Engine):
    raise UserError(
      f"--engine {engine}: no such engine; choose one of {', '.join(get_args(Engine))}"
    )


def resolve_engine(engine: str, device: str) -> Literal["native", "warp"]:
  """Return the engine that computes on ``device``."""
  check_engine(engine)
  if engine == "auto":
    return "native" if torch.device(device).type == "cpu" else "warp"
  return "native" if engine == "native" else "warp"
