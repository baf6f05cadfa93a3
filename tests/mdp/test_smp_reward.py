"""What happens once in every step, against a plain implementation of the same."""

import copy
import gc
import math
import warnings
from typing import get_args

import pytest
import torch
from torch import Tensor

from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.sds import Precision
from smp.mdp.motion_window import MotionWindow
from smp.mdp.sds_normalizer import SdsNormalizer
from smp.mdp.smp_reward import SmpReward
from smp.mdp.style_step import StyleStep
from smp.motion.features import WINDOW, MotionState, encode, window_velocities
from smp.motion.kinematics import mj_ee_positions
from smp.motion.rotations import quat_normalize
from smp.paths import resolve_prior
from smp.robots import g1

ROBOTS = 5
SDS_SCALE = 6.0


class Step(StyleStep):
  """A step whose style reward is SMP's."""

  style: SmpReward


def make(device: str = "cpu", robots: int = ROBOTS, **options) -> Step:
  prior = MotionPrior.load(resolve_prior("loco")).to(device)
  precision = options.pop("precision", "float32")
  score_steps = options.pop("score_steps", 1)
  style = SmpReward(
    sds_loss_fn=prior.sds_loss_at(SCORED_TIMESTEPS, precision, score_steps),
    normalizer=SdsNormalizer(len(SCORED_TIMESTEPS), 1e9).to(device),
    timesteps=SCORED_TIMESTEPS,
    sds_scale=SDS_SCALE,
    update=True,
    num_envs=robots,
    window=WINDOW,
  )
  return Step(MotionWindow(prior.spec, robots, device), style)


def poses(steps: int, robots: int = ROBOTS) -> list[tuple[Tensor, Tensor, Tensor]]:
  """Robots that drift, turn and wave their limbs."""
  generator = torch.Generator().manual_seed(0)

  def walk(*shape: int) -> Tensor:
    return 0.05 * torch.randn(steps, robots, *shape, generator=generator).cumsum(dim=0)

  pos = walk(3) + torch.tensor([0.0, 0.0, 0.78])
  quat = quat_normalize(walk(4) + torch.tensor([1.0, 0.0, 0.0, 0.0]))
  return list(zip(pos, quat, walk(g1.NUM_JOINTS), strict=True))


class Plain:
  """The same, one robot and one timestep at a time, in lists and plain numbers."""

  def __init__(self) -> None:
    self.prior = MotionPrior.load(resolve_prior("loco"))
    self.model = g1.load_model()
    self.frames: list[list[Tensor]] = [[] for _ in range(ROBOTS)]
    self.totals, self.count = [0.0] * len(SCORED_TIMESTEPS), 0

  def step(self, pos: Tensor, quat: Tensor, joints: Tensor, noise: Tensor):
    for robot, frames in enumerate(self.frames):
      frames.append(torch.cat((pos[robot], quat[robot], joints[robot])))
      del frames[:-WINDOW]
    if len(self.frames[0]) < WINDOW:
      return None
    errors = torch.stack(
      [self.errors(torch.stack(f), noise[:, i]) for i, f in enumerate(self.frames)]
    )
    self.count += ROBOTS
    r_smp = torch.zeros(ROBOTS)
    for k in range(len(SCORED_TIMESTEPS)):
      self.totals[k] += float(errors[:, k].sum())
    for robot in range(ROBOTS):
      relative = [
        float(errors[robot, k]) / (self.totals[k] / self.count)
        for k in range(len(SCORED_TIMESTEPS))
      ]
      r_smp[robot] = math.exp(-SDS_SCALE * sum(relative) / len(relative))
    return errors, r_smp

  def errors(self, qpos: Tensor, noise: Tensor) -> Tensor:
    """Of one window (W, 36) at every timestep (K,)."""
    ee = torch.from_numpy(mj_ee_positions(self.model, qpos.double().numpy())).float()
    pos, quat = qpos[:, :3], qpos[:, 3:7]
    lin, ang = window_velocities(pos, quat, 50)
    features = encode(MotionState(pos, quat, lin, ang, qpos[:, 7:], ee))
    clean = self.prior.normalize(features)
    found = []
    for k, timestep in enumerate(SCORED_TIMESTEPS):
      bar = self.prior.schedule.alphas_bar[timestep]
      noised = bar.sqrt() * clean + (1.0 - bar).sqrt() * noise[k]
      predicted = self.prior.denoiser(noised[None], torch.tensor([timestep]))[0]
      found.append((predicted - noise[k]).square().mean())
    return torch.stack(found)


def test_a_step_is_what_a_plain_implementation_does():
  fast, plain, compared = make(), Plain(), 0
  fast.prepare()
  for i, (pos, quat, joints) in enumerate(poses(16)):
    if i == WINDOW - 1:
      # Windows with frames from before the first step are nobody's business here.
      fast.style.normalizer.mean.zero_()
      fast.style.normalizer.count.zero_()
    fast.run(pos, quat, joints)
    expected = plain.step(pos, quat, joints, fast.style.noise)
    if expected is not None:
      torch.testing.assert_close(fast.style.losses, expected[0], rtol=1e-3, atol=1e-4)
      torch.testing.assert_close(fast.style.reward, expected[1], rtol=5e-3, atol=1e-6)
      compared += 1
  assert compared == 7


def test_preparing_leaves_no_trace(monkeypatch):
  monkeypatch.setattr(torch, "compile", lambda score: score)  # Runs a step to warm up.
  one, other = make(), make()
  other.prepare(compiled=True)
  for tensor, same in zip(one.state(), other.state(), strict=True):
    assert torch.equal(tensor, same)
  for step in poses(3):
    for each in (one, other):
      torch.manual_seed(7)
      each.run(*step)
    assert torch.equal(one.style.reward, other.style.reward)
    assert torch.equal(one.style.losses, other.style.losses)


def test_memory_does_not_grow():
  """Over 1,000 steps, after the first few have allocated what is needed."""
  resource = pytest.importorskip("resource")
  term = make(robots=2)
  step = poses(1, robots=2)[0]
  for _ in range(50):
    term.run(*step)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for _ in range(1000):
    term.run(*step)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  # In KB on Linux: one set of windows kept in every step would be 14 MB.
  assert grown < 7_000


def test_a_compiler_that_fails_is_a_warning(monkeypatch):
  def broken(score):
    raise RuntimeError("no compiler\non this machine")

  monkeypatch.setattr(torch, "compile", broken)
  term, plain = make(), make()
  with pytest.warns(UserWarning, match="going on without: no compiler on this") as seen:
    term.prepare(compiled=True)
  assert len(seen) == 1
  for each in (term, plain):
    torch.manual_seed(0)
    each.run(*poses(1)[0])
  assert torch.equal(term.style.reward, plain.style.reward)


def test_a_compiler_that_works_is_used_and_timed(monkeypatch, capsys):
  calls = []

  def compiler(score):
    return lambda *inputs: (calls.append(1), score(*inputs))[1]

  monkeypatch.setattr(torch, "compile", compiler)
  term = make()
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    term.prepare(compiled=True)
  used = len(calls)
  term.run(*poses(1)[0])
  assert len(calls) == used + 1
  assert "took" in capsys.readouterr().out


def test_a_compiler_may_ask_how_exact_products_are(monkeypatch):
  """In either of torch's ways, after mjlab's training has allowed TF32 in the new one."""
  matmul, asked = torch.backends.cuda.matmul, []
  before = matmul.fp32_precision
  monkeypatch.setattr(
    torch,
    "compile",
    lambda score: (asked.append(torch.get_float32_matmul_precision()), score)[1],
  )
  torch.set_float32_matmul_precision("highest")
  matmul.fp32_precision = "tf32"
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      make().prepare(compiled=True)
    assert asked == ["high"]
  finally:
    torch.set_float32_matmul_precision("highest")
    matmul.fp32_precision = before


# On a GPU, a simulated one where there is none (see tests/simulated_gpu.py).


@pytest.mark.parametrize(
  "precision, score_steps",
  [*((each, 1) for each in get_args(Precision)[1:]), ("tf32", 3)],
)
def test_the_captured_graph_computes_what_the_eager_path_does(
  gpu, precision, score_steps
):
  eager, captured = (
    make("cuda", precision=precision, score_steps=score_steps) for _ in range(2)
  )
  captured.prepare()
  assert captured._graph is not None
  for step in poses(15):
    on_gpu = [part.cuda() for part in step]
    for each in (eager, captured):
      torch.manual_seed(3)
      each.run(*on_gpu)
    assert torch.equal(eager.style.noise, captured.style.noise)
    torch.testing.assert_close(eager.style.losses, captured.style.losses)
    torch.testing.assert_close(eager.style.reward, captured.style.reward)
  torch.testing.assert_close(
    eager.style.normalizer.mean, captured.style.normalizer.mean
  )


@pytest.mark.parametrize("score_steps", [1, 3])
def test_a_step_never_waits_for_the_device(gpu, score_steps):
  term = make("cuda", robots=64, score_steps=score_steps)
  term.prepare()
  steps = [[part.cuda() for part in step] for step in poses(3, robots=64)]
  eager = copy.copy(term)
  eager._graph = None
  torch.cuda.synchronize()
  torch.cuda.set_sync_debug_mode("error")
  try:
    for step in steps:
      term.run(*step)
      eager.run(*step)
      term.style.normalizer.average_over_ranks()
  finally:
    torch.cuda.set_sync_debug_mode("default")
  assert term.style.reward.isfinite().all()
  if gpu is not None:
    asked = gpu.launches
    term.run(*steps[0])
    # Three poses to copy, noise to draw, one graph to replay.
    assert gpu.launches == asked + 5


def test_nothing_is_collected_while_a_graph_is_captured(gpu, monkeypatch):
  term, collecting = make("cuda"), []
  compute = term._compute
  monkeypatch.setattr(
    term, "_compute", lambda: (collecting.append(gc.isenabled()), compute())
  )
  term.prepare()
  assert collecting == [True, True, True, False]
  assert gc.isenabled()


@pytest.mark.parametrize("robots", [1, 3])
def test_capturing_leaves_no_trace(gpu, robots):
  term, other = make("cuda", robots=robots), make("cuda", robots=robots)
  term.prepare()
  for tensor, same in zip(term.state(), other.state(), strict=True):
    assert torch.equal(tensor, same)


@pytest.mark.gpu
def test_device_memory_does_not_grow():
  term = make("cuda", robots=256)
  term.prepare()
  step = [part.cuda() for part in poses(1, robots=256)[0]]
  for _ in range(10):
    term.run(*step)
  torch.cuda.synchronize()
  before = torch.cuda.memory_allocated()
  for _ in range(1000):
    term.run(*step)
  torch.cuda.synchronize()
  assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize(
  "precision, bound", [("tf32", 1e-2), ("float16", 1e-2), ("bfloat16", 1e-1)]
)
def test_r_smp_on_a_gpu_stays_within_a_percent_of_float64(gpu, precision, bound):
  """But for bfloat16, which is why it is not the default."""
  torch.manual_seed(0)
  prior = MotionPrior.load(resolve_prior("loco"))
  windows, noise = prior.sample(256), torch.randn(3, 256, WINDOW, 59)
  double = copy.deepcopy(prior).double()
  steps = torch.tensor(SCORED_TIMESTEPS)
  exact = double.denoising_error(windows.double(), steps, noise.double())
  scale = exact.mean(dim=0)
  score = prior.cuda().sds_loss_at(SCORED_TIMESTEPS, precision)
  found = score(windows.cuda(), noise.cuda()).cpu().double()
  off = torch.exp(-SDS_SCALE * ((found - exact) / scale).mean(dim=1)) - 1.0
  assert off.abs().max() < bound
