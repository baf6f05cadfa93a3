"""The benchmark: its plain side is right, its bounds are those of the formulas."""

import json

import pytest
import torch

from smp.benchmark import learner
from smp.benchmark.gpu import score_flops
from smp.benchmark.plain import PlainSmpReward, PlainTraining, plain_sample
from smp.benchmark.plot import plot_benchmark
from smp.benchmark.rounding import measure_rounding
from smp.benchmark.shares import Shares, contact_fill, parts, timed_parts
from smp.benchmark.timing import Spread, ratio, spread, time_calls
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.paths import resolve_prior
from smp.rl.td3 import Td3Cfg
from tests.mdp.test_smp_reward import make, poses


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
  return MotionPrior.load(resolve_prior("loco"))


def test_the_plain_reward_gives_the_reward_that_ours_gives(prior, monkeypatch):
  """Up to the velocities, which it takes as it is given them."""
  robots = 40
  ours, plain = (
    make(robots=robots),
    PlainSmpReward(prior, SCORED_TIMESTEPS, robots, "cpu"),
  )
  zero = torch.zeros(robots, 3)
  for pos, quat, joints in poses(12, robots):
    ours.run(pos, quat, joints)
    plain.push(pos, quat, zero, zero, joints)
  features, want = plain.encode(), ours.window.buffer.window()
  torch.testing.assert_close(plain.buffers[4], want.joint_pos)
  noise = iter(torch.cat((ours.style.noise, ours.style.noise)))
  monkeypatch.setattr(torch, "randn_like", lambda _: next(noise))
  r_smp = plain.score(features)
  error = ours.style.sds_loss_fn(features, ours.style.noise)
  relative = (error / error.mean(dim=0)).mean(dim=1)
  torch.testing.assert_close(r_smp, torch.exp(-6.0 * relative), rtol=1e-3, atol=1e-5)
  # The mean over all it has seen: twice the same batch leaves it where it was.
  torch.testing.assert_close(plain.score(features), r_smp)
  assert plain.count == 2 * robots


def test_plain_sampling_draws_what_ours_draws(prior):
  torch.manual_seed(0)
  ours = prior.sample(3)
  torch.manual_seed(0)
  torch.testing.assert_close(plain_sample(prior, 3), ours, rtol=1e-3, atol=1e-3)


def test_plain_training_learns(prior):
  torch.manual_seed(0)
  training = PlainTraining(prior, batch=8, draws=2, device="cpu")
  losses = [training.step() for _ in range(30)]
  assert sum(losses[-5:]) < sum(losses[:5])


def test_operations_are_those_of_the_parameters(prior):
  """Nearly all weights are used once a frame; the time embedding is not used at all."""
  denoiser = prior.denoiser
  weights = sum(p.numel() for n, p in denoiser.named_parameters() if "adaln" not in n)
  per_frame = score_flops(denoiser, 1) / (2 * denoiser.window)
  assert 0.98 < per_frame / weights < 1.02
  assert score_flops(denoiser, 12) == 12 * score_flops(denoiser, 1)


def test_ratios_are_of_pairs():
  """A machine that slows down half way slows both: the ratio stays."""
  fast = [1.0, 1.0, 1.0, 5.0, 5.0, 5.0]
  assert ratio([3 * f for f in fast], fast) == Spread(3.0, 3.0, 3.0, 6)
  assert spread([1.0, 2.0, 3.0]).median == 2.0


def test_calls_are_timed_in_turn():
  order = []
  numbers = time_calls(
    [lambda: order.append("a"), lambda: order.append("b")], 0.0, "cpu"
  )
  assert order[-4:] == ["a", "b", "a", "b"]
  assert len(numbers[0]) == len(numbers[1]) >= 5


def test_what_a_part_calls_is_not_counted_twice(monkeypatch):
  clock = iter(range(100))
  monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
  shares = Shares("cpu")
  inner = shares.wrap("inner", lambda: None)

  def body():
    inner()
    inner()

  shares.wrap("outer", body)()
  # Ticks: outer 0, inner 1 to 2, inner 3 to 4, outer ends at 5.
  assert shares.seconds == {"outer": 3.0, "inner": 2.0}


@pytest.mark.slow
def test_timing_the_parts_leaves_the_environment_as_it_was(forward_env):
  smp_term = forward_env.command_manager.get_term("smp")
  with timed_parts(forward_env, smp_term) as shares:
    forward_env.step(torch.zeros(8, 29))
  assert shares.seconds["physics"] > 0.0
  for _, owner, method in parts(forward_env, smp_term):
    assert method not in vars(owner)
  fill = contact_fill(forward_env, steps=1)
  assert 0.0 < fill["contacts"] < fill["nconmax"]
  assert 0.0 < fill["constraints"] < fill["njmax"]


def test_the_plot_is_a_picture(tmp_path):
  times = Spread(2.0, 1.0, 3.0, 9)
  rows = [("push", n, times, times) for n in (8, 64)] + [("sample", 9, times, None)]
  plot_benchmark(rows, "CPU", tmp_path / "b.png")
  assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_script_writes_numbers(tmp_path, monkeypatch, capsys):
  from smp.cli.benchmark import main

  output, plot = tmp_path / "b.json", tmp_path / "b.png"
  arguments = f"benchmark --envs 4 --seconds 0.01 --json {output} --plot {plot}"
  monkeypatch.setattr("sys.argv", [*arguments.split(), "--learner-envs", "4"])
  monkeypatch.setattr(learner, "REPLAY_STEPS", 300)
  monkeypatch.setattr(learner, "EARLY_STEPS", 3)
  monkeypatch.setattr("smp.cli.benchmark.SAMPLES", {"cpu": 2})
  monkeypatch.setattr("smp.cli.benchmark.TRAIN_BATCH", {"cpu": 2})
  main()
  results = json.loads(output.read_text())["results"]
  timed = {r["what"] for r in results}
  assert {"push", "encode", "score", "SMP reward step", "env.step", "sample"} <= timed
  assert all(r["ours"]["median"] > 0.0 for r in results)
  assert {"td3 step", "td3 update", "td3 replay sample"} <= timed
  found = json.loads(output.read_text())["learner"]
  assert found["envs"] == 4 and found["batch"] == Td3Cfg.batch_size
  assert found["steps_per_second"] == pytest.approx(4e3 / found["loop"]["median"])
  step = json.loads(output.read_text())["more"]["4"]["step_ms"]
  assert {"physics", "SMP reward", "observations", "resets"} <= set(step)
  assert plot.exists() and "plain/ours" in capsys.readouterr().out


def test_rounding_is_largest_where_digits_are_fewest(prior):
  found = {r.precision: r for r in measure_rounding(prior, SCORED_TIMESTEPS, 6.0, 32)}
  assert list(found) == ["float32", "bfloat16", "float16"]  # TF32 is for GPUs.
  single, brain, half = found.values()
  assert 0.0 < single.median <= single.most < 1e-4
  assert 100 * single.most < half.most < 1e-2
  assert 3 * half.median < brain.median < 40 * half.median
