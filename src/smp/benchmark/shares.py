"""Shares of a step's parts in its time, and use of the memory for contacts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mjlab.envs import ManagerBasedRlEnv

from smp.benchmark.timing import synchronize
from smp.mdp.smp_term import SmpTerm

OTHER = "other"
"""Name of the time outside of all parts: mjlab's own loop, counters, logs."""


class Shares:
  """Exclusive times of the parts of a step: nested parts are not counted twice."""

  def __init__(self, device: str) -> None:
    self._device = device
    self._stack: list[tuple[str, float]] = []
    self.seconds: dict[str, float] = defaultdict(float)

  def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``call`` with its time counted under ``name``."""

    def timed(*args: Any, **kwargs: Any) -> Any:
      self._switch(name)
      try:
        return call(*args, **kwargs)
      finally:
        self._back()

    return timed

  def _now(self) -> float:
    synchronize(self._device)
    return time.perf_counter()

  def _switch(self, name: str) -> None:
    now = self._now()
    if self._stack:
      outer, since = self._stack[-1]
      self.seconds[outer] += now - since
    self._stack.append((name, now))

  def _back(self) -> None:
    now = self._now()
    name, since = self._stack.pop()
    self.seconds[name] += now - since
    if self._stack:
      self._stack[-1] = (self._stack[-1][0], now)


def parts(env: ManagerBasedRlEnv, smp_term: SmpTerm) -> list[tuple[str, Any, str]]:
  """Return the parts to time: name, object and method."""
  return [
    (OTHER, env, "step"),
    ("physics", env.sim, "step"),
    ("forward", env.sim, "forward"),
    ("rays and cameras", env.sim, "sense"),
    ("sensors", env.scene, "update"),
    ("controls", env.scene, "write_data_to_sim"),
    ("actions", env.action_manager, "apply_action"),
    ("SMP reward", smp_term.style_step, "run"),
    ("rewards", env.reward_manager, "compute"),
    ("terminations", env.termination_manager, "compute"),
    ("metrics", env.metrics_manager, "compute"),
    ("commands", env.command_manager, "compute"),
    ("events", env.event_manager, "apply"),
    ("resets", env, "_reset_idx"),
    ("observations", env.observation_manager, "compute"),
  ]


@contextmanager
def timed_parts(env: ManagerBasedRlEnv, smp_term: SmpTerm) -> Iterator[Shares]:
  """Time the parts of ``env.step`` within the context, which slows it down on a GPU."""
  shares = Shares(str(env.device))
  wrapped = parts(env, smp_term)
  for name, owner, method in wrapped:
    setattr(owner, method, shares.wrap(name, getattr(owner, method)))
  try:
    yield shares
  finally:
    for _, owner, method in wrapped:
      delattr(owner, method)  # Uncover the method of the class again.


def profile_step(
  env: ManagerBasedRlEnv, smp_term: SmpTerm, seconds: float
) -> dict[str, float]:
  """Return the milliseconds of each part in a mean step, in descending order.

  Actions are random.
  """
  shape = (env.num_envs, env.action_manager.total_action_dim)
  steps, end = 0, time.perf_counter() + seconds
  with timed_parts(env, smp_term) as shares:
    while steps < 5 or time.perf_counter() < end:
      env.step(0.3 * torch.randn(shape, device=env.device))
      steps += 1
  found = {name: 1e3 * s / steps for name, s in shares.seconds.items()}
  return dict(sorted(found.items(), key=lambda item: -item[1]))


def contact_fill(env: ManagerBasedRlEnv, steps: int) -> dict[str, float]:
  """Measure the use of memory for contacts and constraints (MuJoCo Warp only).

  Returns:
    ``contacts``: maximum over steps of the mean per environment, next to ``nconmax``.
    ``constraints``: maximum of any environment, next to ``njmax``.
  """
  shape = (env.num_envs, env.action_manager.total_action_dim)
  contacts = constraints = 0.0
  for _ in range(steps):
    env.step(0.3 * torch.randn(shape, device=env.device))
    data = env.sim.data
    contacts = max(contacts, float(data.nacon[0]) / env.num_envs)
    constraints = max(constraints, float(data.nefc[:].max()))
  return {
    "contacts": contacts,
    "nconmax": float(env.cfg.sim.nconmax or 0),
    "constraints": constraints,
    "njmax": float(env.cfg.sim.njmax or 0),
  }
