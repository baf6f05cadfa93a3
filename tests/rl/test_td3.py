"""TD3: the distribution it predicts, what an update changes, and that it learns."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest
import torch

from smp.mdp.symmetry import Mirror
from smp.rl import td3
from smp.rl.actor import Actor, ActorSpec, actor_from
from smp.rl.replay import Batch
from smp.rl.td3 import Td3, Td3Cfg, bfloat16_products, has_bfloat16, project

OBS, CRITIC, ACTIONS = 3, 4, 2
SMALL = Td3Cfg(hidden_dims=(32, 32), batch_size=64, actor_delay=0, mirror=False)


def make(cfg: Td3Cfg = SMALL, mirrors=None, device: str = "cpu", teacher=None) -> Td3:
  torch.manual_seed(0)
  bound = torch.tensor([1.0, 2.0])
  return Td3(OBS, CRITIC, bound, 16, (0.0, 1.0), cfg, device, mirrors, teacher)


def some_batch(count: int = 64, **changes) -> Batch:
  generator = torch.Generator().manual_seed(1)

  def draw(*size):
    return torch.randn(*size, generator=generator)

  values = {
    "obs": draw(count, OBS),
    "critic_obs": draw(count, CRITIC),
    "action": draw(count, ACTIONS).clamp(-1, 1),
    "next_obs": draw(count, OBS),
    "next_critic_obs": draw(count, CRITIC),
    "reward": torch.rand(count, generator=generator),
    "discount": torch.full((count,), 0.9),
  }
  return Batch(**{**values, **changes})


# The projection.


def test_a_projection_is_a_distribution_with_the_right_mean():
  torch.manual_seed(0)
  probability = torch.randn(50, 21).softmax(-1)
  reward, discount = 0.3 * torch.rand(50), 0.6 * torch.rand(50)
  found = project(probability, reward, discount, 0.0, 1.0)
  atoms = torch.linspace(0, 1, 21)
  torch.testing.assert_close(found.sum(-1), torch.ones(50))
  assert found.min() >= 0.0
  mean = reward + discount * (probability * atoms).sum(-1)  # None lands outside.
  torch.testing.assert_close((found * atoms).sum(-1), mean)


def test_a_return_on_an_atom_stays_there_and_one_outside_goes_to_the_end():
  uniform = torch.full((3, 11), 1 / 11)
  reward = torch.tensor([0.3, 5.0, -5.0])
  found = project(uniform, reward, torch.zeros(3), 0.0, 1.0)
  expected = torch.zeros(3, 11)
  expected[0, 3] = expected[1, 10] = expected[2, 0] = 1.0
  torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_no_change_is_no_change():
  probability = torch.randn(8, 11).softmax(-1)
  same = project(probability, torch.zeros(8), torch.ones(8), -1.0, 2.0)
  torch.testing.assert_close(same, probability, atol=1e-5, rtol=1e-4)


# Acting.


def test_actions_stay_within_their_bounds_and_start_small():
  alg = make()
  obs = 100 * torch.randn(1000, OBS)
  assert alg.actor(obs).abs().max() < 0.2
  alg.actor.mlp[-1].weight.data.mul_(1e4)  # pyright: ignore[reportCallIssue]
  action = alg.actor(obs)
  assert (action.abs() <= alg.actor.action_bound).all()
  assert action.abs().amax(0)[1] > 1.9


def test_each_environment_keeps_its_own_noise_and_some_have_none():
  cfg = Td3Cfg(hidden_dims=(8,), exploration_noise=(0.1, 0.4), noise_free_envs=3)
  alg = make(cfg)
  obs = torch.zeros(16, OBS)
  actions = torch.stack(
    [alg.explore(obs, torch.zeros(16, CRITIC)) for _ in range(2000)]
  )
  spread = actions.std(0)
  assert (spread[:3] == 0).all()
  torch.testing.assert_close(spread[3:, 1:], alg.noise[3:], rtol=0.1, atol=0.0)
  assert spread[15, 1] > 2 * spread[3, 1]


def test_a_quarter_of_the_environments_at_most_is_without_noise():
  cfg = replace(SMALL, noise_free_envs=8, exploration_noise=(0.1, 0.3))
  for count, quiet in ((1, 0), (3, 0), (4, 1), (8, 2), (64, 8)):
    alg = Td3(6, 5, torch.ones(2), count, (0.0, 1.0), cfg, "cpu")
    assert int((alg.noise == 0.0).sum()) == quiet == alg.num_quiet


def test_half_of_the_environments_are_never_quiet():
  cfg = Td3Cfg(hidden_dims=(8,), noise_free_envs=8)
  bound = torch.ones(1)
  assert Td3(1, 1, bound, 4, (0, 1), cfg, "cpu").num_quiet == 1


# A teacher.


class Taught:
  """A teacher whose actions are known: 0.4 and the critic's first observation."""

  def __call__(self, obs: torch.Tensor, critic_obs: torch.Tensor) -> torch.Tensor:
    del obs
    first = critic_obs[:, :1].clamp(-1, 1)
    return torch.cat((torch.full_like(first, 0.4), first), dim=-1)


def taught(updates: int, mirrors=None) -> Td3:
  cfg = replace(SMALL, teacher_updates=updates, mirror=mirrors is not None)
  return make(replace(cfg, learning_rate=1e-3), mirrors, teacher=Taught())


def test_an_actor_learns_what_its_teacher_does():
  """The pupil sees the teacher's observation under another name."""
  alg = taught(600)
  for _ in range(600):
    critic_obs = torch.randn(64, CRITIC)
    obs = torch.randn(64, OBS)
    obs[:, 2] = critic_obs[:, 0]
    losses = alg.update(some_batch(obs=obs, critic_obs=critic_obs))
    assert set(losses) == {"critic", "target", "imitation"}
  obs = torch.randn(500, OBS)
  expected = Taught()(obs, obs[:, 2:])
  assert (alg.actor(obs) - expected).abs().mean() < 0.1
  # From then on the critics teach.
  assert "value" in alg.update(some_batch()) | alg.update(some_batch())


def test_the_pull_towards_the_teacher_halves_with_each_half_life():
  alg = taught(10)
  alg.updates = 7
  assert alg.pull() == alg.cfg.teacher_weight
  half = alg.cfg.teacher_half_life
  for updates, share in ((10, 1.0), (10 + half, 0.5), (10 + 3 * half, 0.125)):
    alg.updates = updates
    assert alg.pull() == pytest.approx(share * alg.cfg.teacher_weight)
  floor = alg.cfg.teacher_weight / 3
  alg.cfg = replace(alg.cfg, teacher_floor=floor)
  for updates, expected in ((10, 3.0), (10 + half, 1.5), (10 + 9 * half, 1.0)):
    alg.updates = updates
    assert alg.pull() == pytest.approx(expected * floor)
  assert make().pull() == 0.0


def test_a_pull_keeps_the_actor_at_its_teacher_and_none_lets_it_go():
  """The critics, which know nothing, draw the actor away."""
  distance = {}
  for weight in (0.0, 100.0):
    alg = taught(0)
    alg.cfg = replace(alg.cfg, teacher_weight=weight)
    for _ in range(600):
      critic_obs = torch.randn(64, CRITIC)
      obs = torch.randn(64, OBS)
      obs[:, 2] = critic_obs[:, 0]
      alg.update(some_batch(obs=obs, critic_obs=critic_obs))
    obs = torch.randn(500, OBS)
    off = alg.actor(obs).detach() - Taught()(obs, obs[:, 2:])
    distance[weight] = float(off.abs().mean())
  assert distance[100.0] < 0.15 < distance[0.0]


def test_half_of_the_environments_follow_the_teacher_while_it_teaches():
  alg = taught(1)
  obs, critic_obs = torch.zeros(16, OBS), torch.randn(16, CRITIC).clamp(-0.5, 0.5)
  before = torch.stack([alg.explore(obs, critic_obs) for _ in range(500)]).mean(0)
  follows = alg.follows_teacher.squeeze(1)
  assert int(follows.sum()) == 6 and not follows[: alg.num_quiet].any()
  wanted = torch.where(alg.follows_teacher, Taught()(obs, critic_obs), alg.actor(obs))
  torch.testing.assert_close(before, wanted, atol=0.06, rtol=0)
  alg.update(some_batch())
  after = torch.stack([alg.explore(obs, critic_obs) for _ in range(500)]).mean(0)
  torch.testing.assert_close(after, alg.actor(obs), atol=0.06, rtol=0)


def test_an_actor_begins_as_another_and_stays_so_under_itself_as_teacher():
  other = make(replace(SMALL, learning_rate=1e-3))
  other.observe(3.0 + torch.randn(64, OBS), torch.randn(64, CRITIC))
  for _ in range(30):
    other.update(some_batch())
  former = copy.deepcopy(other.actor).eval().requires_grad_(False)
  torch.manual_seed(1)
  alg = taught(20)
  obs = torch.randn(50, OBS)
  assert not torch.allclose(alg.actor(obs), former(obs))
  alg.begin_with(former)
  alg.teacher = lambda obs, critic_obs: former(obs)
  losses = [alg.update(some_batch())["imitation"] for _ in range(20)]
  assert float(losses[-1]) < 1e-4
  torch.testing.assert_close(alg.actor(obs), former(obs), atol=0.05, rtol=0)
  target = former.squash(alg.target_mlp(former.normalize(obs)))
  torch.testing.assert_close(target, former(obs), atol=0.05, rtol=0)
  with pytest.raises(ValueError, match="layers of .* expected"):
    make(replace(SMALL, hidden_dims=(9,))).begin_with(former)


def test_an_actor_that_begins_as_one_of_other_bounds_keeps_its_small_actions():
  former = copy.deepcopy(make().actor).eval().requires_grad_(False)
  alg, obs = make(), torch.randn(50, OBS)
  wider = torch.tensor([4.0, 3.0])
  alg.actor.action_bound.copy_(wider)
  alg.begin_with(former)
  assert torch.equal(alg.actor.action_bound, wider)
  assert float(former.action_unit) == 1.0 and float(alg.actor.action_unit) == 3.0
  assert former(obs).abs().max() < 0.1
  torch.testing.assert_close(alg.actor(obs), former(obs), atol=1e-3, rtol=0)
  last = former.mlp[-1]
  assert isinstance(last, torch.nn.Linear)
  last.bias.add_(9.0)
  alg.begin_with(former)
  torch.testing.assert_close(alg.actor(obs).mean(0), wider, atol=0.2, rtol=0)


def test_a_small_output_moves_all_actions_alike_and_a_large_one_to_their_bounds():
  actor = make().actor
  bound = torch.tensor([1.0, 2.0])
  assert torch.equal(actor.action_bound, bound)
  small = torch.tensor([[0.01, 0.01], [-0.01, -0.01]])
  torch.testing.assert_close(actor.squash(small), small, atol=1e-6, rtol=0)
  for sign in (-1.0, 1.0):
    torch.testing.assert_close(
      actor.squash(sign * torch.full((2,), 99.0)), sign * bound
    )
  # Where all bounds are alike, it is the bound times the hyperbolic tangent.
  actor.action_bound.fill_(3.0)
  output = torch.randn(50, 2)
  torch.testing.assert_close(actor.squash(output), 3.0 * torch.tanh(output))


# Learning.


def test_the_critic_learns_what_rewards_are_worth():
  """Of a reward that depends on the action and never goes on, the mean is known."""
  alg = make(
    Td3Cfg(
      hidden_dims=(64, 64),
      gamma=0.0,
      actor_delay=10**9,
      mirror=False,
      learning_rate=1e-3,
    )
  )
  for _ in range(900):
    action = torch.rand(256, ACTIONS) * 2 - 1
    reward = 0.5 + 0.4 * action[:, 0]
    alg.update(some_batch(256, action=action, reward=reward, discount=torch.zeros(256)))
  seen = some_batch(256).critic_obs
  for x in (-1.0, 0.0, 1.0):
    action = torch.tensor([x, 0.0]) / alg.actor.action_unit
    logits = alg.critic(seen, action.expand(256, 2))
    mean = (logits.softmax(-1) * alg.atoms).sum(-1).mean(-1)
    expected = torch.full((2,), 0.5 + 0.4 * x)
    torch.testing.assert_close(mean, expected, atol=0.06, rtol=0)


def test_all_critics_see_actions_in_one_unit():
  alg, seen = make(replace(SMALL, target_noise=0.0)), {}
  alg.actor.action_bound.copy_(torch.tensor([2.0, 6.0]))
  batch = some_batch()
  for name in ("critic", "target_critic"):
    critic = getattr(alg, name)

    def noting(self, args, name=name):
      seen[name] = args[1]

    critic.register_forward_pre_hook(noting)
  alg._update_critic(batch, batch.critic_obs, torch.zeros_like(batch.action))
  torch.testing.assert_close(seen["critic"], batch.action / 2.0)
  following = alg.actor.squash(alg.target_mlp(alg.actor.normalize(batch.next_obs)))
  torch.testing.assert_close(seen["target_critic"], following / 2.0)


def test_the_actor_goes_where_the_value_is():
  alg = make(
    Td3Cfg(
      hidden_dims=(64, 64),
      gamma=0.0,
      actor_delay=50,
      mirror=False,
      learning_rate=1e-3,
    )
  )
  for _ in range(600):
    action = (torch.rand(256, ACTIONS) * 2 - 1) * alg.actor.action_bound
    reward = torch.exp(-4 * (action - torch.tensor([0.5, -1.0])).square().sum(-1))
    alg.update(some_batch(256, action=action, reward=reward, discount=torch.zeros(256)))
  found = alg.actor(some_batch().obs).mean(0)
  torch.testing.assert_close(found, torch.tensor([0.5, -1.0]), atol=0.2, rtol=0)


def test_targets_follow_and_the_actor_waits():
  cfg = Td3Cfg(hidden_dims=(16,), actor_delay=3, actor_interval=2, mirror=False)
  alg = make(cfg)
  before = copy.deepcopy(alg.actor.state_dict())
  target = copy.deepcopy(alg.target_critic.state_dict())
  for _ in range(3):
    assert "value" not in alg.update(some_batch())
  for name, value in alg.actor.state_dict().items():
    assert torch.equal(value, before[name])
  assert "value" in alg.update(some_batch())
  after = alg.actor.state_dict()
  assert not torch.equal(after["mlp.3.weight"], before["mlp.3.weight"])
  name = "nets.0.3.weight"
  moved = (alg.target_critic.state_dict()[name] - target[name]).norm()
  whole = (alg.critic.state_dict()[name] - target[name]).norm()
  assert 0 < moved < 0.1 * whole


def test_the_actors_update_leaves_the_critic_alone():
  alg = make()
  batch = some_batch()
  critic = copy.deepcopy(alg.critic.state_dict())
  alg._update_actor(alg.actor.normalize(batch.obs), batch.critic_obs, batch)
  for name, value in alg.critic.state_dict().items():
    assert torch.equal(value, critic[name])
  assert all(p.requires_grad and p.grad is None for p in alg.critic.parameters())


def test_mirroring_turns_half_of_a_batch_around():
  mirrors = (
    Mirror([1, 0, 2], [1.0, 1.0, -1.0]),
    Mirror([0, 1, 3, 2], [1.0, 1.0, -1.0, -1.0]),
    Mirror([1, 0], [1.0, 1.0]),
  )
  alg = make(Td3Cfg(hidden_dims=(8,), mirror=True), mirrors)
  given, batch = some_batch(), alg._mirror_half(some_batch())
  assert torch.equal(batch.obs[:32], mirrors[0](given.obs[:32]))
  assert torch.equal(batch.next_critic_obs[:32], mirrors[1](given.next_critic_obs[:32]))
  assert torch.equal(batch.action[:32], mirrors[2](given.action[:32]))
  for name in ("obs", "critic_obs", "action", "next_obs", "next_critic_obs"):
    assert torch.equal(getattr(batch, name)[32:], getattr(given, name)[32:])


def test_learning_goes_on_as_if_never_interrupted():
  a, b = make(), make()
  for _ in range(5):
    a.observe(torch.randn(16, OBS), torch.randn(16, CRITIC))
    a.update(some_batch())
  b.load_state_dict(copy.deepcopy(a.state_dict()))
  for alg in (a, b):
    torch.manual_seed(7)
    for _ in range(3):
      alg.update(some_batch())
  assert a.updates == b.updates == 8
  for left, right in zip(a.actor.parameters(), b.actor.parameters(), strict=True):
    assert torch.equal(left, right)
  for left, right in zip(
    a.target_critic.parameters(), b.target_critic.parameters(), strict=True
  ):
    assert torch.equal(left, right)


def test_learning_goes_on_at_the_rate_that_is_asked_for():
  before, still = make(), make(replace(SMALL, learning_rate=0.0))
  before.update(some_batch())
  still.load_state_dict(copy.deepcopy(before.state_dict()))
  still.update(some_batch())
  for mine, theirs in ((still.actor, before.actor), (still.critic, before.critic)):
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
      torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("teacher", [None, Taught()])
def test_updates_on_a_gpu_are_graphs_that_learn_as_a_processor_does(gpu, teacher):
  flips = tuple(Mirror(torch.arange(n), -torch.ones(n)) for n in (OBS, CRITIC, ACTIONS))
  # A real GPU draws the noise on target actions otherwise.
  noise = 0.0 if gpu is None else 0.1
  cfg = replace(SMALL, mirror=True, bfloat16=False, target_noise=noise)
  # The pull towards a teacher fades between two replays.
  cfg = replace(cfg, teacher_updates=4, teacher_half_life=2)
  plain = make(cfg, flips, teacher=teacher)
  initial = copy.deepcopy(plain.state_dict())
  flips = tuple(Mirror(f.index.cuda(), f.sign.cuda()) for f in flips)
  there = make(cfg, flips, "cuda", teacher)
  there.load_state_dict(plain.state_dict())
  before, losses = 0, {}
  for step in range(30):
    if step == 15:  # All graphs exist, and keep to the optimizers' former state.
      for each in (plain, there):
        each.load_state_dict(copy.deepcopy(initial))
    for each in (plain, there):
      batch = some_batch(reward=torch.full((64,), 0.1 * step))
      batch = Batch(**{k: v.to(each.device) for k, v in vars(batch).items()})
      torch.manual_seed(step)
      # Between two replays the normalisers move.
      each.observe(batch.obs + step, batch.critic_obs - step)
      before = gpu.launches if gpu is not None else 0
      losses = each.update(batch)
  if gpu is not None:  # A few copies, noise, one graph; hundreds of operations else.
    assert gpu.launches - before < 30
  assert losses["critic"].is_cuda
  # Rounding turns around the first steps of Adam where gradients are about zero.
  share = 0.1 if gpu is None else 1e-4
  for part in ("critic_state_dict", "actor_state_dict"):
    for name, value in plain.state_dict()[part].items():
      away = (there.state_dict()[part][name].cpu() - value).float().norm()
      assert away <= share * (value - initial[part][name]).float().norm() + 1e-6, name


def test_the_actor_in_a_checkpoint_is_the_actor():
  alg = make()
  alg.observe(3 + 2 * torch.randn(500, OBS), torch.randn(500, CRITIC))
  alg.update(some_batch())
  alg.update(some_batch())
  actor = actor_from(alg.state_dict(), "x.pt")
  obs = torch.randn(20, OBS)
  torch.testing.assert_close(actor(obs), alg.actor(obs))
  assert torch.equal(actor.action_bound, torch.tensor([1.0, 2.0]))


def test_the_description_of_an_actor_is_checked():
  spec = ActorSpec("silu", True, True, 10.0)
  assert ActorSpec.from_dict(spec.to_dict()) == spec
  for spoiled in (
    {**spec.to_dict(), "activation": "magic"},
    {**spec.to_dict(), "squash": 1},
    {"activation": "elu"},
    None,
  ):
    with pytest.raises(ValueError):
      ActorSpec.from_dict(spoiled)
  assert Actor((3, 4, 2), ActorSpec()).spec.obs_clip == float("inf")


# Precision.


@pytest.mark.parametrize("gain, pays", [(3.0, True), (1.0, False)])
def test_bfloat16_is_taken_where_it_is_faster_not_where_it_is_claimed(
  monkeypatch, gain, pays
):
  clock = [0.0]

  def mm(left, right):
    matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    clock[0] += 1.0 / gain if matmul.fp32_precision == "bf16" else 1.0

  monkeypatch.setattr(torch, "mm", mm)
  monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
  monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
  has_bfloat16.cache_clear()
  assert has_bfloat16() == pays
  monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
  monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
  has_bfloat16.cache_clear()
  assert not has_bfloat16()
  has_bfloat16.cache_clear()


@pytest.mark.parametrize("pays", [True, False])
def test_the_precision_of_products_is_left_as_it_was(monkeypatch, pays):
  monkeypatch.setattr(td3, "has_bfloat16", lambda: pays)
  matmul = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
  monkeypatch.setattr(matmul, "fp32_precision", "ieee")
  before = matmul.fp32_precision
  with bfloat16_products(True):
    assert matmul.fp32_precision == ("bf16" if pays else before)
  assert matmul.fp32_precision == before
  with pytest.raises(RuntimeError), bfloat16_products(True):
    raise RuntimeError
  assert matmul.fp32_precision == before
