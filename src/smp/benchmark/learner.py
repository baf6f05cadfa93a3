"""Times of the off-policy learner: its steps, its replay, its updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mjlab.rl import RslRlVecEnvWrapper
from torch import Tensor

from smp.benchmark.timing import Spread, ratio, spread, time_call, time_calls
from smp.rl.off_policy import OffPolicyRunner, OffPolicyRunnerCfg
from smp.rl.replay import Step
from smp.rl.td3 import has_bfloat16

REPLAY_STEPS = 1000
"""Maximum number of steps of each environment in the replay: far more than a cache
holds."""
EARLY_STEPS = 30
"""Steps before any is timed, so that robots fall and are reset, as in training."""


@dataclass(frozen=True)
class LearnerTimes:
  """Times in milliseconds, and the sizes that they are for."""

  envs: int
  batch: int
  updates_per_step: int
  step: Spread
  """A step of all environments: action, physics, storing, explicit resets."""
  sample: Spread
  """Sampling of a batch from the replay, with its rewards composed."""
  update: Spread
  """Update of the critics, and of the actor as often as configured."""
  float32: Spread | None
  """Update without bfloat16 products; None where the processor has none."""
  gain: Spread | None
  """``float32`` divided by ``update``."""
  loop: Spread
  """A step with its samples and updates."""

  @property
  def steps_per_second(self) -> float:
    """Return the steps per second, counted over all environments."""
    return 1e3 * self.envs / self.loop.median


def measure_learner(
  env: RslRlVecEnvWrapper, agent: OffPolicyRunnerCfg, seconds: float
) -> LearnerTimes:
  """Time the off-policy learner as at the beginning of training.

  Args:
    env: An environment configured with `smp.rl.off_policy.prepare_env_cfg`.
    agent: Settings; a larger replay is limited to `REPLAY_STEPS`.
    seconds: Approximate duration of each measurement, s.
  """
  device = str(env.device)
  algorithm = replace(agent.algorithm, actor_delay=0)
  agent = replace(
    agent, algorithm=algorithm, replay_steps=min(agent.replay_steps, REPLAY_STEPS)
  )
  runner = OffPolicyRunner(env, asdict(agent), None, device)
  obs: Mapping[str, Tensor] = env.unwrapped.observation_manager.compute()  # pyright: ignore[reportAssignmentType]

  def step() -> None:
    nonlocal obs
    obs = runner._step(obs)

  def loop() -> None:
    step()
    runner._learn(runner._draw())

  for _ in range(EARLY_STEPS):
    step()
  _fill(runner)
  taken = time_call(step, seconds, device)
  sample = time_call(lambda: _sample(runner), seconds, device)
  update, float32, gain = _updates(runner, seconds, device)
  return LearnerTimes(
    envs=env.num_envs,
    batch=algorithm.batch_size,
    updates_per_step=algorithm.updates_per_step,
    step=taken,
    sample=sample,
    update=update,
    float32=float32,
    gain=gain,
    loop=time_call(loop, seconds, device),
  )


def _fill(runner: OffPolicyRunner) -> None:
  """Fill the replay with copies of the last step."""
  replay = runner.replay
  last = (replay._next - 1) % replay.capacity
  kept = {f.name: getattr(replay._kept, f.name)[last].clone() for f in fields(Step)}
  while replay.size < replay.capacity:
    replay.push(Step(**kept))


def _sample(runner: OffPolicyRunner) -> Any:
  cfg, smp_term = runner.alg_cfg, runner._smp_term()
  scale, form = smp_term.style.scale(), smp_term.cfg.form()
  return runner.replay.sample(cfg.batch_size, cfg.n_step, cfg.gamma, scale, form)


def _updates(
  runner: OffPolicyRunner, seconds: float, device: str
) -> tuple[Spread, Spread | None, Spread | None]:
  """Return the time of one update as configured, in float32, and their ratio."""
  alg, batch = runner.alg, _sample(runner)
  # One of this many updates is of the actor too, so a call makes this many.
  several = alg.cfg.actor_interval

  def updates(bfloat16: bool) -> Callable[[], None]:
    def call() -> None:
      alg.cfg.bfloat16 = bfloat16
      for _ in range(several):
        alg.update(batch)

    return call

  configured = alg.cfg.bfloat16
  both = configured and alg.device.type == "cpu" and has_bfloat16()
  calls = [updates(configured), *([updates(False)] if both else [])]
  found = [
    [ms / several for ms in times] for times in time_calls(calls, seconds, device)
  ]
  alg.cfg.bfloat16 = configured
  if not both:
    return spread(found[0]), None, None
  ours, float32 = found
  return spread(ours), spread(float32), ratio(float32, ours)
