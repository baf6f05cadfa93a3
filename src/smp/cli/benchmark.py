"""Benchmark of the SMP reward, sampling, pretraining and the off-policy learner.

The first three are compared with plain implementations in one process.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg
from rich.console import Console
from rich.table import Table

from smp.benchmark.gpu import count_launches, measure_rates, score_bytes, score_flops
from smp.benchmark.learner import LearnerTimes, measure_learner
from smp.benchmark.plain import PlainSmpReward, PlainTraining, plain_sample
from smp.benchmark.plot import plot_benchmark
from smp.benchmark.rounding import Rounding, measure_rounding
from smp.benchmark.shares import contact_fill, profile_step
from smp.benchmark.timing import Spread, ratio, spread, time_calls
from smp.cli.options import parse
from smp.cli.train import default_config
from smp.diffusion.prior import MotionPrior
from smp.diffusion.sds import float32_products, products_in
from smp.diffusion.trainer import PretrainCfg, TrainData, Trainer
from smp.errors import UserError
from smp.mdp import robot_state
from smp.mdp.smp_reward import SmpReward
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.paths import resolve_prior
from smp.rl.off_policy import OffPolicyRunner, OffPolicyRunnerCfg
from smp.sim import NativeSimulation
from smp.sim.engine import find_device, make_env
from smp.tasks.registry import all_tasks
from smp.utils.cpu import core_count
from smp.utils.files import atomic_path
from smp.utils.limits import Count, PictureFile, Positive, WholeNumber

GSI_BUFFER_SIZE = 64
FILL_STEPS = 20
SAMPLES = {"cpu": 64, "cuda": 1024}
"""Windows per call of sampling, by device."""
TRAIN_BATCH = {"cpu": 32, "cuda": 1024}


@dataclass(frozen=True)
class Options:
  """Time the prior's part of a step, sampling and pretraining, beside plain code.

  Example: uv run scripts/benchmark.py --envs 64 1024 --seconds 2

  Both are called in turn, so they meet the same machine; ratios are medians over pairs,
  with the quartiles in brackets.
  """

  task: str = all_tasks()[0].id

  envs: tuple[Count, ...] = (64, 1024, 4096, 16384)
  """Numbers of environments."""

  step_envs: Count | None = None
  """Time whole steps of the environment up to this many environments. Default: all on a
  GPU, 1024 on a CPU."""

  learner_envs: WholeNumber | None = None
  """Environments of the off-policy learner; 0: leave it out. Default: as many as
  train.py takes."""

  seconds: Positive = 3.0
  """Approximate duration of each measurement, s."""

  precision: str = "auto"
  """Precision of the SDS loss: auto, float32, tf32, bfloat16 or float16."""

  device: str | None = None
  """Default: the GPU where there is one."""

  engine: str = "auto"
  """Physics engine: native, warp, or auto."""

  json: Path | None = None
  """Numbers to write (JSON)."""

  plot: PictureFile | None = None
  """Picture to write (.png, .pdf, .svg)."""


@dataclass(frozen=True)
class Result:
  """Times of one operation, ours and plain, for a number of environments or windows."""

  what: str
  size: int
  ours: Spread
  """ms per call."""
  plain: Spread | None = None
  ratio: Spread | None = None
  """Plain time divided by ours."""


def main() -> None:
  """Run ``benchmark [OPTIONS]``."""
  options = parse(Options)
  device = find_device(options.device, "auto")
  results: list[Result] = []
  notes: dict[str, Any] = {}
  for robots in options.envs:
    found, more = measure(replace(options, device=device), robots)
    results += found
    notes[str(robots)] = more
    show(found, f"{robots} environments on {device}")
  prior_results = measure_prior(options.task, device, options.seconds)
  show(prior_results, f"The prior on {device}")
  results += prior_results
  learner = None
  if options.learner_envs != 0:
    learner = measure_learning(replace(options, device=device))
    results += show_learning(learner, device)
  show_notes(notes)
  rounding = _rounding(options.task, device)
  for each in rounding:
    print(
      f"[INFO] r_smp in {each.precision} against float64: relative error "
      f"{100 * each.most:.2g} % at most, {100 * each.median:.2g} % median"
    )
  if options.json is not None:
    machine = {"device": _name(device), "cores": core_count()}
    machine["torch_threads"] = torch.get_num_threads()
    content = {
      "machine": machine,
      "results": [asdict(r) for r in results],
      "rounding": [asdict(r) for r in rounding],
    }
    if learner is not None:
      speed = {"steps_per_second": learner.steps_per_second}
      content["learner"] = asdict(learner) | speed
    with atomic_path(options.json) as temporary:
      temporary.write_text(json.dumps(content | {"more": notes}, indent=2))
    print(f"[INFO] Wrote {options.json}")
  if options.plot is not None:
    rows = [(r.what, r.size, r.ours, r.plain) for r in results]
    plot_benchmark(rows, _name(device), options.plot)
    print(f"[INFO] Wrote {options.plot}")


def measure(options: Options, robots: int) -> tuple[list[Result], dict[str, Any]]:
  """Time all parts of a step with one number of environments.

  Args:
    options: The options; ``device`` is set.
    robots: Number of environments.

  Returns:
    Times of both implementations, and further measurements by name.
  """
  device = str(options.device)
  env = _build(options, robots, device)
  smp_term = SmpTerm.of(env)
  cfg, robot = smp_term.cfg, smp_term.robot
  prior, style = smp_term.prior, smp_term.style
  assert prior is not None and isinstance(style, SmpReward)
  plain = PlainSmpReward(prior, cfg.timesteps, robots, device, cfg.sds_scale)
  pos = robot_state.root_pos_w(robot) - env.scene.env_origins
  quat, lin = robot_state.root_quat_w(robot), robot_state.root_lin_vel_w(robot)
  joints, ang = robot.data.joint_pos, robot.data.root_link_ang_vel_w
  window = smp_term.window
  features = plain.encode()

  def push() -> None:
    window.set_pose(pos, quat, joints)
    window.push()

  def plain_push() -> None:
    plain.push(pos, quat, lin, ang, joints)

  def plain_step() -> None:
    plain_push()
    plain.score(plain.encode())

  def compare(what: str, ours: Any, other: Any) -> Result:
    slow, fast = time_calls([other, ours], options.seconds, device)
    return Result(what, robots, spread(fast), spread(slow), ratio(slow, fast))

  def fast_step() -> None:
    smp_term.style_step.run(pos, quat, joints)

  for _ in range(plain.prior.spec.window):
    plain_push()
    push()
  results = [
    compare("push", push, plain_push),
    compare("encode", window.features, plain.encode),
    compare(
      "score",
      lambda: style.sds_loss_fn(features, style.noise.normal_()),
      lambda: plain.score(features),
    ),
    compare("SMP reward step", fast_step, plain_step),
  ]
  more = _bounds(options, prior, style, robots, results[-1].ours, fast_step, plain_step)
  most = options.step_envs or (16384 if device.startswith("cuda") else 1024)
  if robots <= most:
    results += _whole_steps(env, smp_term, plain_step, options.seconds, device)
    more["step_ms"] = profile_step(env, smp_term, options.seconds)
    if not isinstance(env.sim, NativeSimulation):
      more["fill"] = contact_fill(env, FILL_STEPS)
  more["peak_memory_gib"] = _peak_memory(device)
  env.close()
  return results, more


def _whole_steps(
  env: ManagerBasedRlEnv,
  smp_term: SmpTerm,
  plain_step: Any,
  seconds: float,
  device: str,
) -> list[Result]:
  """Time steps of the environment with our SMP reward, with the plain one, and without."""
  shape = (env.num_envs, env.action_manager.total_action_dim)
  style_step, step = smp_term.style_step, smp_term.style_step.run

  def run(score: Any) -> Any:
    def call() -> None:
      style_step.run = score
      env.step(0.3 * torch.randn(shape, device=device))

    return call

  calls = [run(step), run(lambda *_: plain_step()), run(lambda *_: None)]
  ours, slow, without = time_calls(calls, seconds, device)
  style_step.run = step
  n = env.num_envs
  return [
    Result("env.step", n, spread(ours), spread(slow), ratio(slow, ours)),
    Result("env.step without SMP", n, spread(without)),
  ]


def _bounds(
  options: Options,
  prior: MotionPrior,
  style: SmpReward,
  robots: int,
  ours: Spread,
  fast_step: Any,
  plain_step: Any,
) -> dict[str, Any]:
  """Compute the minimum time of the SDS loss on this device, and the share reached."""
  device = str(options.device)
  on_gpu = device.startswith("cuda")
  precision = style.sds_loss_fn.precision
  dtype, kind = products_in(precision)
  with float32_products(kind):
    rates = measure_rates(device, dtype, min(options.seconds, 1.0))
  steps, denoiser = style.losses.shape[1], prior.network()
  compute = 1e3 * score_flops(denoiser, robots * steps) / rates.flops
  memory = 1e3 * score_bytes(denoiser, robots, steps) / rates.bytes
  roofline = max(compute, memory)
  more: dict[str, Any] = {
    "precision": precision,
    "matrix_tflops": rates.flops / 1e12,
    "copy_gb_per_s": rates.bytes / 1e9,
    "roofline_ms": roofline,
    "share_reached": roofline / ours.median,
  }
  if on_gpu:
    more["launches"] = count_launches(fast_step)
    more["launches_plain"] = count_launches(plain_step)
  return more


def measure_prior(task: str, device: str, seconds: float) -> list[Result]:
  """Time the sampling of initial states, and a step of pretraining."""
  prior = _prior(_smp_term_cfg(task), device)
  kind = torch.device(device).type
  n, batch = SAMPLES[kind], TRAIN_BATCH[kind]
  cfg = PretrainCfg(batch_size=batch, device=device)
  windows = torch.randn(20_000, prior.denoiser.window, prior.denoiser.feature_dim)
  data = TrainData(
    train=windows,
    val=windows[:0],
    spec=prior.spec,
    q_low=prior.q_low.cpu(),
    q_high=prior.q_high.cpu(),
  )
  ours = Trainer(data, cfg)
  plain = PlainTraining(prior, batch, cfg.draws, device)
  results = []
  for what, size, fast_call, slow_call in (
    ("sample", n, lambda: prior.sample(n), lambda: plain_sample(prior, n)),
    ("pretraining step", batch, ours.train_step, plain.step),
  ):
    slow, fast = time_calls([slow_call, fast_call], seconds, device)
    results.append(Result(what, size, spread(fast), spread(slow), ratio(slow, fast)))
  return results


def measure_learning(options: Options) -> LearnerTimes:
  """Time the off-policy learner with the settings of train.py and a small GSI buffer."""
  device = str(options.device)
  on_gpu = torch.device(device).type == "cuda"
  config = default_config(options.task, on_gpu, OffPolicyRunner.learner)
  cfg, agent = config.env, config.agent
  assert isinstance(agent, OffPolicyRunnerCfg)
  cfg.scene.num_envs = options.learner_envs or cfg.scene.num_envs
  cfg.seed = 0
  smp_term = cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = GSI_BUFFER_SIZE, 0
  env = RslRlVecEnvWrapper(make_env(cfg, options.engine, device))
  times = measure_learner(env, agent, options.seconds)
  env.close()
  return times


def show_learning(times: LearnerTimes, device: str) -> list[Result]:
  """Print the learner's table and its speed; return the rows."""
  rows = [
    Result("td3 step", times.envs, times.step),
    Result("td3 replay sample", times.batch, times.sample),
    Result("td3 update", times.batch, times.update, times.float32, times.gain),
    Result("td3 step and updates", times.envs, times.loop),
  ]
  show(rows, f"The off-policy learner on {device} (plain: float32 products)")
  print(
    f"[INFO] td3: {times.steps_per_second:,.0f} steps per second with "
    f"{times.updates_per_step} updates of {times.batch} after each of {times.envs}"
  )
  return rows


def _rounding(task: str, device: str) -> list[Rounding]:
  cfg = _smp_term_cfg(task)
  return measure_rounding(_prior(cfg, device), cfg.timesteps, cfg.sds_scale)


def _smp_term_cfg(task: str) -> SmpTermCfg:
  smp_term = load_env_cfg(task).commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  if smp_term.prior is None:
    raise UserError(f"{task}: has no motion prior to measure")
  return smp_term


def _prior(smp_term: SmpTermCfg, device: str) -> MotionPrior:
  assert smp_term.prior is not None
  return MotionPrior.load(resolve_prior(smp_term.prior)).to(device)


def _build(options: Options, robots: int, device: str) -> ManagerBasedRlEnv:
  """Build the training environment of the task with a small GSI buffer."""
  cfg = load_env_cfg(options.task)
  cfg.scene.num_envs, cfg.seed = robots, 0
  smp_term = cfg.commands[SMP_TERM]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = GSI_BUFFER_SIZE, 0
  smp_term.precision = options.precision  # pyright: ignore[reportAttributeAccessIssue]
  if torch.device(device).type == "cuda":
    torch.cuda.reset_peak_memory_stats(device)
  env = make_env(cfg, options.engine, device)
  env.reset()
  for _ in range(10):
    env.step(torch.zeros(robots, env.action_manager.total_action_dim, device=device))
  return env


def _peak_memory(device: str) -> float:
  """Return the peak memory, GiB: torch's on a GPU, the whole process's on a CPU."""
  if torch.device(device).type == "cuda":
    return torch.cuda.max_memory_reserved(device) / 2**30
  scale = 1.0 if sys.platform == "darwin" else 1024.0  # Bytes there, KB elsewhere.
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def _name(device: str) -> str:
  if torch.device(device).type == "cuda":
    return torch.cuda.get_device_name(device)
  return f"CPU, {torch.get_num_threads()} threads"


def show(results: list[Result], title: str) -> None:
  """Print a table of results."""
  table = Table(title=f"{title}: milliseconds")
  for column in ("", "number", "ours", "quartiles", "plain", "plain/ours", "quartiles"):
    table.add_column(column, justify="left" if not column else "right")
  for r in results:
    row = [r.what, str(r.size), f"{r.ours.median:.2f}"]
    row.append(f"{r.ours.lower:.2f} .. {r.ours.upper:.2f}")
    if r.plain is not None and r.ratio is not None:
      row += [f"{r.plain.median:.2f}", f"{r.ratio.median:.1f}"]
      row.append(f"{r.ratio.lower:.1f} .. {r.ratio.upper:.1f}")
    table.add_row(*row)
  Console(width=100).print(table)


def show_notes(notes: dict[str, Any]) -> None:
  """Print the limits of the hardware, and the parts of a step."""

  def words(values: dict[str, Any]) -> str:
    shown = [
      f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()
    ]
    return ", ".join(shown)

  for robots, more in notes.items():
    plain = {k: v for k, v in more.items() if not isinstance(v, dict)}
    print(f"[INFO] {robots} environments: {words(plain)}")
    step = more.get("step_ms")
    if step:
      total = sum(step.values())
      shares = {f"{name}": f"{100 * ms / total:.0f} %" for name, ms in step.items()}
      print(f"[INFO]   env.step, timed part by part, {total:.1f} ms: {words(shares)}")
    if "fill" in more:
      print(f"[INFO]   memory for contacts: {words(more['fill'])}")
