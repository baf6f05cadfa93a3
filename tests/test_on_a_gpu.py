"""What runs on a GPU, from environments to training: on a simulated one without any.

See `tests.simulated_gpu` for what that finds and what not.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from typing import Any, cast

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import list_tasks

import smp.tasks  # noqa: F401
from smp.benchmark import gpu as rates
from smp.benchmark import learner, timing
from smp.cli import benchmark, train
from smp.diffusion.prior import MotionPrior
from smp.diffusion.trainer import PretrainCfg, TrainData, pretrain
from smp.mdp.curriculums import add_curriculum
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.paths import resolve_prior
from smp.rl.checkpoint import newest_checkpoint, read_checkpoint
from smp.rl.off_policy import OffPolicyRunner, off_policy_cfg, prepare_env_cfg
from smp.rl.td3 import Td3Cfg
from tests.conftest import small_env_cfg
from tests.simulated_gpu import SimulatedGpu

TASKS = [task for task in list_tasks() if task.startswith("Smp-")]

# The simulation itself.


@pytest.fixture
def simulated():
  if torch.cuda.is_available():
    pytest.skip("there is a GPU")
  with SimulatedGpu() as gpu:
    yield gpu


def test_devices_do_not_mix(simulated):
  a, b = torch.ones(3, device="cuda"), torch.ones(3)
  assert a.is_cuda and (a + 1.0).device.type == "cuda"
  for mixed in (lambda: a + b, lambda: torch.cat((a, b)), lambda: b[a.long()]):
    with pytest.raises(RuntimeError):
      mixed()
  with pytest.raises(RuntimeError, match="generator"):
    torch.randn(3, device="cuda", generator=torch.Generator())
  with pytest.raises(TypeError, match="numpy"):
    a.numpy()
  assert not simulated.waits
  assert torch.equal((a + b.cuda()).cpu(), b + b)


def test_waits_are_seen(simulated):
  a = torch.arange(4.0, device="cuda")
  waiting = [
    lambda: a.sum().item(),
    lambda: bool((a > 0).any()),
    lambda: a[a > 1.0],
    lambda: a.nonzero(),
    lambda: a.cpu(),
    lambda: torch.tensor([1.0], device="cuda"),
    lambda: torch.cuda.synchronize(),
  ]
  for each in waiting:
    simulated.waits.clear()
    each()
    assert len(simulated.waits) == 1
    assert "test_on_a_gpu.py" in simulated.waits[0].place
  torch.cuda.set_sync_debug_mode("error")
  for each in waiting[:-1]:
    with pytest.raises(RuntimeError, match="synchronizing"):
      each()
  a[a > 1.0] = 0.0  # A number under a mask goes without.
  assert a.mul(2.0).where(a > 0.0, 7.0).shape == (4,)


def test_graphs_repeat_operations_and_nothing_else(simulated):
  x, out, calls = torch.zeros(2, device="cuda"), torch.zeros(2, device="cuda"), 0
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    calls += 1
    out.copy_((x + calls).mul_(2.0))
    x.add_(1.0)
  assert x.tolist() == [0.0, 0.0] and out.tolist() == [0.0, 0.0]
  calls = 10
  for replays in (1, 2):
    graph.replay()
    assert x.tolist() == [replays, replays] and out.tolist() == 2 * [2.0 * replays]
  with pytest.raises(RuntimeError, match="while a graph is captured"):
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
      x.sum().item()


# The project.


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_steps_and_resets_of_a_task_wait_for_nothing_of_ours(gpu, task):
  """mjlab waits to see which environments are done, and where NaN are."""
  cfg = small_env_cfg(task, num_envs=6)
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = 8, 0
  cfg.episode_length_s = 0.1
  env = ManagerBasedRlEnv(cfg, "cuda:0")
  env.reset()
  actions = [torch.randn(6, 29, device="cuda:0") for _ in range(8)]
  ended = torch.zeros(6, dtype=torch.bool, device="cuda:0")
  for step, action in enumerate(actions):
    if gpu is not None and step == 2:
      gpu.waits.clear()
    _, reward, terminated, timed_out, _ = env.step(action)
    assert reward.is_cuda and reward.isfinite().all()
    ended |= terminated | timed_out
  assert ended.all()
  if gpu is not None:
    places = Counter(wait.place for wait in gpu.waits)
    ours = [place for place in places if "/smp/" in place]
    assert not ours
    assert any("termination_manager" in place for place in places)
  # Once in 2,400 steps, and may wait.
  SmpTerm.of(env).init_states.refresh(4)
  env.close()


@pytest.mark.slow
def test_off_policy_steps_wait_once_and_updates_for_nothing(gpu, tmp_path):
  """Of ours, for which environments are to begin anew; rsl_rl's logger waits, too."""
  cfg = small_env_cfg(TASKS[0], num_envs=6)
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_interval = 8, 0
  prepare_env_cfg(cfg)
  add_curriculum(cfg)
  cfg.episode_length_s = 0.1
  env = RslRlVecEnvWrapper(ManagerBasedRlEnv(cfg, "cuda:0"))
  small = Td3Cfg(hidden_dims=(16,), batch_size=8, updates_per_step=2, actor_delay=0)
  agent = replace(
    off_policy_cfg("test"), algorithm=small, logger="tensorboard", num_steps_per_env=8
  )
  agent = replace(agent, replay_steps=20, learning_starts=1)
  runner = OffPolicyRunner(env, asdict(agent), str(tmp_path), "cuda:0")
  runner.logger.init_logging_writer()
  obs = env.unwrapped.observation_manager.compute()
  assert isinstance(obs["actor"], torch.Tensor) and obs["actor"].is_cuda
  losses: list[tuple[str, torch.Tensor]] = []
  for step in range(9):
    if gpu is not None and step == 3:
      gpu.waits.clear()
    obs = runner._step(cast(Any, obs))
    losses, _ = runner._learn(runner._draw())
  assert len(losses) == 5 and all(loss.is_cuda for _, loss in losses)
  assert all(kept.is_cuda for kept in vars(runner.replay._kept).values())
  assert runner.alg.updates > 8 and not runner._judged
  if gpu is not None:
    ours = [wait for wait in gpu.waits if "/src/smp/" in wait.place]
    learner = [wait for wait in ours if "/src/smp/rl/" in wait.place]
    assert len(learner) == 6
    assert all("off_policy.py" in w.place and "nonzero" in w.what for w in learner)
    # The curriculum asks how episodes went, once in a step where some end.
    assert len(ours) - len(learner) <= 6
    assert all("curriculums.py" in w.place for w in ours if w not in learner)
  runner._read_episodes()
  assert set(runner._judged) <= {1.0, 2.0, 3.0, 4.0, 5.0} and 5.0 in runner._judged
  env.close()


SMALL = {
  "ppo": ["--agent.num-steps-per-env", "6"],
  "td3": [
    *("--agent.num-steps-per-env", "6", "--agent.replay-steps", "20"),
    *("--agent.algorithm.batch-size", "8", "--agent.algorithm.updates-per-step", "1"),
    *("--agent.learning-starts", "1", "--agent.refill-steps", "1"),
    *("--agent.algorithm.hidden-dims", "16,", "--agent.algorithm.actor-delay", "0"),
  ],
}


@pytest.mark.slow
@pytest.mark.parametrize("learner", sorted(SMALL))
def test_training_and_resuming(gpu, tmp_path, monkeypatch, learner):
  def run(*options: str) -> None:
    options = ("--learner", learner, *SMALL[learner], *options)
    sizes = ["--env.scene.num-envs", "6", "--env.commands.smp.gsi-buffer-size", "8"]
    sizes += ["--env.commands.smp.gsi-refresh-size", "4", "--agent.max-iterations", "1"]
    sizes += ["--agent.logger", "tensorboard", "--log-root", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train", TASKS[0], *sizes, *options])
    train.main()

  run()
  (experiment,) = tmp_path.iterdir()
  (folder,) = experiment.iterdir()
  assert (folder / "policy.onnx").exists()
  first = read_checkpoint(newest_checkpoint(experiment), "cpu")
  count = first["infos"]["smp"]["count"].item()
  assert first.get("learner") == learner
  # The off-policy learner's scale is the prior's own, and counts nothing.
  assert count == (36 if learner == "ppo" else 1)
  assert first["infos"]["smp"]["mean"].isfinite().all()
  run("--agent.resume", "True")
  second = read_checkpoint(newest_checkpoint(experiment), "cpu")
  assert second["infos"]["smp"]["count"].item() > count or learner == "td3"
  assert second["iter"] > first["iter"]


def test_pretraining_and_sampling(gpu, tmp_path):
  shipped = MotionPrior.load(resolve_prior("loco"))
  windows = torch.randn(64, 10, 59)
  data = TrainData(
    train=windows[:48],
    val=windows[48:],
    spec=shipped.spec,
    q_low=shipped.q_low,
    q_high=shipped.q_high,
  )
  output = tmp_path / "prior.safetensors"
  cfg = PretrainCfg(
    steps=2,
    batch_size=8,
    draws=2,
    eval_interval=2,
    ema_decay=0.9,
    device="cuda:0",
    output=output,
    run_dir=tmp_path / "run",
  )
  pretrain(data, cfg)
  trainer = pretrain(data, replace(cfg, steps=4, resume=True))
  assert trainer.step == 4 and trainer.windows.is_cuda
  prior = MotionPrior.load(output).to("cuda")
  generator = torch.Generator("cuda").manual_seed(0)
  sampled = prior.sample(2, generator)
  assert sampled.is_cuda and sampled.isfinite().all()


@pytest.mark.slow
def test_benchmark(gpu, tmp_path, monkeypatch):
  """An SMP reward step asks the device for five things, a plain one for hundreds."""
  path = tmp_path / "times.json"
  options = ["--device", "cuda:0", "--envs", "4", "--seconds", "0.05"]
  options += ["--learner-envs", "4"]
  monkeypatch.setattr(sys, "argv", ["benchmark", *options, "--json", str(path)])
  if gpu is not None:
    _small_benchmark(gpu, monkeypatch)
  benchmark.main()
  found = json.loads(path.read_text())
  more = found["more"]["4"]
  assert more["precision"] == "float16"
  assert more["roofline_ms"] > 0.0 and more["launches"] < 20 < more["launches_plain"]
  assert len(found["rounding"]) == 4
  assert {"SMP reward step", "sample", "pretraining step", "td3 update"} <= {
    result["what"] for result in found["results"]
  }


def _small_benchmark(gpu: SimulatedGpu, monkeypatch) -> None:
  """What would take a processor minutes made small, launches as the simulation counts."""

  def count(call):
    before = gpu.launches
    call()
    return gpu.launches - before

  monkeypatch.setattr(benchmark, "count_launches", count)
  monkeypatch.setattr(timing, "LEAST", 2)
  monkeypatch.setattr(timing, "_WARM_UP", 1)
  monkeypatch.setattr(rates, "_SIZE", 64)
  for name, value in (("SAMPLES", {"cuda": 1}), ("TRAIN_BATCH", {"cuda": 1})):
    monkeypatch.setattr(benchmark, name, value)
  monkeypatch.setattr(learner, "REPLAY_STEPS", 10)
  monkeypatch.setattr(learner, "EARLY_STEPS", 3)
  few = {"batch_size": 4, "updates_per_step": 1}
  monkeypatch.setattr(train, "GPU_OFF_POLICY", few)
  monkeypatch.setattr(benchmark, "GSI_BUFFER_SIZE", 2)
  monkeypatch.setattr(benchmark, "FILL_STEPS", 2)
