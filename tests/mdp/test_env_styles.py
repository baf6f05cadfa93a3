"""A style per environment: drawn at resets, in reward, initial state and observation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv
from torch import Tensor

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.labelled import (
  LabelledOnCpu,
  group_by_label,
  window_labels,
)
from smp.diffusion.native_denoiser import FusedDenoiser, usable
from smp.diffusion.prior import MotionPrior
from smp.diffusion.reference import Reference
from smp.diffusion.sds import on_cpu
from smp.diffusion.styles import StyleCfg, parse_style, split_names
from smp.errors import UserError
from smp.mdp.composition import RewardForm, compose, smp_reward_of
from smp.mdp.env_styles import EnvStyles
from smp.mdp.init_state_buffers import GsiBuffer, StyledGsiBuffer
from smp.mdp.motion_window import MotionWindow
from smp.mdp.observations import STYLE, observe_styles, style_one_hot
from smp.mdp.sds_normalizer import (
  ReferenceSdsNormalizer,
  SdsNormalizer,
  StyleNormalizers,
)
from smp.mdp.smp_reward import SmpReward
from smp.mdp.smp_term import SmpTerm, SmpTermCfg, _choose_style, _each_style
from smp.mdp.style_step import StyleStep
from smp.mdp.symmetry import observation_mirror
from smp.rl.actor_layout import ActorLayout
from tests.conftest import small_env_cfg, style_of
from tests.diffusion.test_styles import FEATURES, STEPS, STYLES, make_prior, windows
from tests.mdp.test_style_choice import make_walking_prior

NAMES = ("walk", "crouch")
"""Two of the three styles, in another order than the prior's labels."""
CHOICES = tuple(STYLES.index(name) for name in NAMES)
MIXED = ("walk", "crouch/run", "run", "run/walk")
"""Whole styles, and compositions by body part."""
CHOICE_OF = {
  "walk": StyleCfg("walk"),
  "crouch": StyleCfg("crouch"),
  "run": StyleCfg("run"),
  "crouch/run": StyleCfg(upper="crouch", lower="run"),
  "run/walk": StyleCfg(upper="run", lower="walk"),
}
"""What the names mean."""
STARTS = ("walk", "crouch/run")
LABELS = torch.tensor([0, 1, 1, 0, 1, 1, 1, 0, 1])


def wide_prior(d_model: int, nhead: int) -> MotionPrior:
  """Return a prior whose labels matter, for compiled C if its sizes fit."""
  prior = make_prior()
  torch.manual_seed(1)
  denoiser = Denoiser(FEATURES, 10, d_model, nhead, num_styles=len(STYLES))
  with torch.no_grad():
    denoiser.label_embedding.weight.normal_()
  prior.denoiser = denoiser.requires_grad_(False)
  return prior


# Labels of windows.


@pytest.mark.parametrize("each", [1, 2, 4])
@pytest.mark.parametrize("labels", [LABELS, LABELS * 0 + 2, torch.arange(3)])
def test_groups_hold_one_label_each(labels: Tensor, each: int):
  place, owner = group_by_label(labels, 3, each)
  assert len(set(place.tolist())) == len(labels)
  assert torch.equal(owner[place // each], labels)
  assert len(owner) == (len(labels) + 3 * (each - 1)) // each


@pytest.mark.parametrize("d_model, nhead", [(32, 4), (64, 2)])
@pytest.mark.parametrize("options", [{}, {"score_steps": 3}, {"weight": 2.0}])
@pytest.mark.parametrize("names", [NAMES, MIXED])
def test_each_window_is_judged_as_if_all_were_of_its_style(
  names: tuple[str, ...], d_model: int, nhead: int, options: dict[str, Any]
):
  """By the plain denoiser and by compiled C, whatever the choices become."""
  prior, x = wide_prior(d_model, nhead), windows(len(LABELS))
  noise = torch.randn(3, *x.shape)
  steps, weight = options.get("score_steps", 1), options.get("weight", 1.0)
  index, last = torch.arange(len(LABELS)) % len(names), len(names) - 1
  labels = window_labels(index, names, prior.styles, weight)
  score = prior.sds_loss_at(STEPS, "auto", steps, labels)
  assert not all(map(on_cpu, score._predictors)) or d_model == 64
  alone = []
  for name in names:
    choice = replace(CHOICE_OF[name], weight=weight)
    loss = prior.with_style(choice).sds_loss_at(STEPS, score_steps=steps)
    alone.append(loss(x, noise))
  for i, each in enumerate(alone):
    assert not any(torch.allclose(each, other, rtol=1e-2) for other in alone[:i])
  for now in (index.clone(), last - index, index * 0, index * 0 + 1):
    index.copy_(now)
    expected = torch.stack(alone)[now, torch.arange(len(now))]
    torch.testing.assert_close(score(x, noise), expected, rtol=1e-4, atol=1e-5)


def windows_evaluated(monkeypatch, names: tuple[str, ...], d_model: int) -> int:
  """Return how many windows the network sees of 12, a third of each of three names."""
  seen = []

  def counted(cls: type, method: str) -> None:
    plain = getattr(cls, method)

    def call(self: Any, x: Tensor, *rest: Any, **options: Any) -> Tensor:
      seen.append(x.shape[0] * x.shape[1])
      return plain(self, x, *rest, **options)

    monkeypatch.setattr(cls, method, call)

  counted(FusedDenoiser, "__call__")
  counted(Denoiser, "forward_modulated")
  prior, x = wide_prior(d_model, 4 if d_model == 32 else 2), windows(12)
  labels = window_labels(torch.arange(12) % 3, names, prior.styles)
  prior.sds_loss_at((8,), labels=labels)(x, torch.randn(1, *x.shape))
  monkeypatch.undo()
  return sum(seen)


def test_a_list_without_compositions_is_evaluated_once(monkeypatch):
  plain, mixed = ("walk", "run", "crouch"), ("walk", "run", "crouch/run")
  assert windows_evaluated(monkeypatch, plain, 32) == 12
  assert windows_evaluated(monkeypatch, mixed, 32) == 24
  if usable(wide_prior(64, 2).network()):
    # Groups of 4, up to 3 idle places for each label; a third has another label below.
    assert windows_evaluated(monkeypatch, plain, 64) == (12 + 9) // 4 * 4
    assert windows_evaluated(monkeypatch, mixed, 64) == (12 + 4 + 9) // 4 * 4


@pytest.mark.parametrize("names", [NAMES, ("walk", "crouch/run")])
@pytest.mark.parametrize("d_model, nhead", [(32, 4), (64, 2)])
def test_scores_of_labels_leave_their_inputs(
  names: tuple[str, ...], d_model: int, nhead: int
):
  prior, x = wide_prior(d_model, nhead), windows(len(LABELS))
  noise = torch.randn(3, *x.shape)
  kept = x.clone(), noise.clone()
  labels = window_labels(LABELS, names, prior.styles)
  score = prior.sds_loss_at(STEPS, score_steps=3, labels=labels)
  first = score(x, noise).clone()
  assert torch.equal(score(x, noise), first)
  assert torch.equal(x, kept[0]) and torch.equal(noise, kept[1])


@pytest.mark.parametrize("names", [NAMES, STARTS])
def test_memory_is_that_of_the_first_call(names: tuple[str, ...]):
  """However many windows are evaluated twice later."""
  prior, x = wide_prior(64, 2), windows(len(LABELS))
  if not usable(prior.network()):
    pytest.skip("compiled C cannot run here")
  index, noise = LABELS * 0, torch.randn(3, *x.shape)
  score = prior.sds_loss_at(STEPS, labels=window_labels(index, names, prior.styles))
  kept = []
  for place in (0, 1):
    index.fill_(place)
    score(x, noise)
    parts = cast(list[LabelledOnCpu], score._predictors)
    memory = [m for p in parts for m in (*p._grouped, *p._spare, p._out)]
    kept.append([(m.data_ptr(), m.numel()) for m in memory])
  assert kept[0] == kept[1]


# The scale of each style.


def test_rewards_of_blocks_are_those_of_each_style_alone():
  error = torch.rand(len(LABELS), 3) + 0.1
  error[2] = torch.nan
  scales = [ReferenceSdsNormalizer((0.1, 0.2, 0.3)), ReferenceSdsNormalizer((1, 2, 3))]
  both = StyleNormalizers(dict(zip(NAMES, scales, strict=True)), LABELS)
  losses = both.spread(error)
  torch.testing.assert_close(both.gather(losses), error, equal_nan=True)
  found = smp_reward_of(losses, both.scale(), 6.0)
  expected = torch.where(
    LABELS == 0,
    smp_reward_of(error, scales[0].scale(), 6.0),
    smp_reward_of(error, scales[1].scale(), 6.0),
  )
  torch.testing.assert_close(found, expected)
  assert found[2] == 0.0 and both.fixed
  torch.testing.assert_close(
    both.mu(), torch.stack([each.scale() for each in scales])[LABELS]
  )
  # As a replay buffer does it.
  form = RewardForm("product", 6.0, 0.5, 0.5)
  one = torch.ones(len(LABELS))
  composed = compose(one, losses, 0.0 * one, both.scale(), form)
  torch.testing.assert_close(composed, expected)


def test_running_means_are_those_of_each_style_alone():
  index = LABELS.clone()
  both = StyleNormalizers({name: SdsNormalizer(3, 1e9) for name in NAMES}, index)
  alone = [SdsNormalizer(3, 1e9) for _ in NAMES]
  for _ in range(3):
    error = torch.rand(len(LABELS), 3)
    both.update(error)
    for style, each in enumerate(alone):
      each.update(error[index == style])
    index.copy_(torch.randint(2, (len(LABELS),)))
  assert not both.fixed
  torch.testing.assert_close(both.mean, torch.cat([each.mean for each in alone]))
  torch.testing.assert_close(both.count, torch.cat([each.count for each in alone]))
  again = StyleNormalizers({name: SdsNormalizer(3, 1e9) for name in NAMES}, index)
  again.load(both.mean, both.count)
  torch.testing.assert_close(again.scale(), both.scale())


def step_under(
  index: Tensor, device: str = "cpu", names: tuple[str, ...] = NAMES
) -> StyleStep:
  prior, index = make_prior().to(device), index.to(device)
  normalizers = StyleNormalizers(
    {name: SdsNormalizer(3, 1e9).to(device) for name in names}, index
  )
  labels = window_labels(index, names, STYLES)
  style = SmpReward(
    prior.sds_loss_at(STEPS, "auto", 1, labels), normalizers, STEPS, 6.0, True, 9, 10
  )
  return StyleStep(MotionWindow(prior.spec, 9, device), style)


@pytest.mark.parametrize("names", [NAMES, STARTS])
def test_a_graph_reads_labels_as_they_are_now(gpu, names: tuple[str, ...]):
  eager, captured = (step_under(LABELS, "cuda", names) for _ in range(2))
  captured.prepare()
  assert captured._graph is not None
  pos, joints = torch.rand(9, 3).cuda(), torch.rand(9, 29).cuda()
  quat = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(9, 1).cuda()
  before = None
  for change in (False, True):
    for each in (eager, captured):
      style = cast(SmpReward, each.style)
      index = cast(StyleNormalizers, style.normalizer).index
      if change:
        index.copy_(1 - index)
      torch.manual_seed(3)
      each.run(pos, quat, joints)
    torch.testing.assert_close(eager.style.losses, captured.style.losses)
    torch.testing.assert_close(eager.style.reward, captured.style.reward)
    assert before is None or not torch.allclose(before, captured.style.losses)
    before = captured.style.losses.clone()


# Draws.


def test_styles_are_drawn_evenly_for_those_that_start():
  styles = EnvStyles(NAMES, 400, "cpu")
  styles.draw(torch.arange(400))
  assert 120 < int(styles.index.sum()) < 280
  kept = styles.index.clone()
  styles.draw(torch.arange(200))
  assert torch.equal(styles.index[200:], kept[200:])
  assert not torch.equal(styles.index[:200], kept[:200])
  assert torch.equal(styles.one_hot().argmax(dim=1), styles.index)
  assert torch.equal(styles.one_hot().sum(dim=1), torch.ones(400))


def test_one_style_for_all_is_never_drawn():
  styles = EnvStyles(NAMES, 50, "cpu", only="crouch")
  styles.draw(torch.arange(50))
  assert styles.index.eq(1).all()
  means = styles.means(torch.full((50,), 0.5))
  assert list(means) == list(NAMES) and float(means["walk"]) == 0.5


def test_means_are_by_style():
  styles = EnvStyles(NAMES, len(LABELS), "cpu")
  styles.index.copy_(LABELS)
  value = torch.rand(len(LABELS))
  means = styles.means(value)
  torch.testing.assert_close(means["crouch"], value[LABELS == 1].mean())


class MarkedBuffer(GsiBuffer):
  """Windows whose height says under which style they were made."""

  def __init__(self, prior: MotionPrior, *options: Any) -> None:
    super().__init__(prior, *options)
    self.style = prior.style.entry()

  def refresh(self, count: int) -> None:
    self.root_pos[self._take_slots(count), :, 2] = float(STARTS.index(self.style))


def marked(monkeypatch, size: int = 21) -> StyledGsiBuffer:
  monkeypatch.setattr("smp.mdp.init_state_buffers.GsiBuffer", MarkedBuffer)
  prior = make_prior()
  styled = _each_style(SmpTermCfg(prior="p", styles=",".join(STARTS)), prior)
  kinematics = MotionWindow(prior.spec, 1, "cpu").kinematics
  buffer = StyledGsiBuffer(styled, kinematics, size, "cpu")
  buffer.refresh(size)
  return buffer


@pytest.mark.parametrize("weighted", [False, True])
def test_starts_come_from_the_buffer_of_their_style(monkeypatch, weighted: bool):
  buffer = marked(monkeypatch)
  assert buffer.size == 22
  weights = torch.rand(len(LABELS), buffer.size) if weighted else None
  for _ in range(5):
    index = buffer.draw(len(LABELS), weights, LABELS)
    assert torch.equal(buffer.root_pos[index, -1, 2].long(), LABELS)
  if weighted:
    only = torch.zeros(len(LABELS), buffer.size)
    only[:, 4] = only[:, 11 + 7] = 1.0
    chosen = buffer.draw(len(LABELS), only, LABELS)
    assert torch.equal(chosen, 4 + 14 * LABELS)
    # A style without a window that is wanted draws any of its own, not always the last.
    only[:, 11:] = 0.0
    chosen = torch.stack([buffer.draw(len(LABELS), only, LABELS) for _ in range(40)])
    assert torch.equal(chosen[0] // 11, LABELS) and (chosen[:, LABELS == 0] == 4).all()
    assert len(chosen[:, LABELS == 1].unique()) > 5


def test_buffers_of_styles_go_into_checkpoints(monkeypatch):
  buffer, other = marked(monkeypatch), marked(monkeypatch)
  buffer.root_pos.add_(1.0)
  assert other.load_state_dict(buffer.state_dict())
  assert torch.equal(other.root_pos, buffer.root_pos)
  assert not marked(monkeypatch, 40).load_state_dict(buffer.state_dict())
  plain = next(iter(other.parts.values()))
  assert not plain.load_state_dict(buffer.state_dict())
  assert not buffer.load_state_dict(plain.state_dict())


# Options.


@pytest.mark.parametrize(
  "options, message",
  [
    ({"styles": "walk,rum"}, "styles 'rum': .*did you mean 'run'"),
    ({"styles": "walk,run", "style": "run"}, "styles 'walk,run' and style 'run': give"),
    ({"styles": "walk", "style_upper": "run"}, "give one of them"),
    ({"styles": "walk,,run"}, "a name is missing"),
    ({"styles": "walk,run,walk"}, "'walk' is given twice"),
    ({"styles": "walk,run/walk,run / walk"}, "'run/walk' is given twice"),
    ({"styles": "walk,crouch/rum"}, "styles 'crouch/rum': lower style 'rum': .*'run'"),
    ({"styles": "walk,wlk/run"}, "styles 'wlk/run': upper style 'wlk': .*'walk'"),
    ({"styles": "walk,run/"}, "styles 'run/': the lower style is missing"),
    ({"styles": "walk,/run"}, "styles '/run': the upper style is missing"),
    ({"styles": "walk,/"}, "styles '/': the lower style is missing"),
    ({"styles": "walk,run/run"}, "styles 'run/run': one style .*; write run$"),
    (
      {"styles": "a/b/c,run"},
      "styles 'a/b/c': 3 parts of the body; give one style, or",
    ),
    ({"styles": "walk/run", "style": "run"}, "give one of them"),
    (
      {"styles": "walk,run/walk", "only_style": "run/wlk"},
      "--style run/wlk: .*did you mean run/walk",
    ),
    ({"styles": "walk,run", "only_style": "wlk"}, "--style wlk.*did you mean walk"),
    ({"only_style": "walk"}, "--style walk: .* observes no style"),
  ],
)
def test_bad_lists_are_one_line(options: dict[str, Any], message: str):
  cfg = SmpTermCfg(prior="loco", **options)
  with pytest.raises(UserError, match=message) as caught:
    _choose_style(cfg, make_prior())
    _each_style(cfg, make_prior())
  assert "\n" not in str(caught.value)


def test_a_list_needs_a_prior():
  with pytest.raises(UserError, match="style 'each of walk, run': there is no prior"):
    _choose_style(SmpTermCfg(prior=None, styles="walk,run"), None)


def test_a_list_of_one_is_that_style():
  cfg = SmpTermCfg(prior="loco", styles=" walk", style_weight=2.0)
  assert cfg.choice() == StyleCfg("walk", weight=2.0) and not cfg.names()
  assert cfg.style_title() == "walk x 2" and not _each_style(cfg, make_prior())
  env_cfg = small_env_cfg("Smp-Forward-G1", 1)
  cast(SmpTermCfg, env_cfg.commands["smp"]).styles = "walk"
  observe_styles(env_cfg)
  assert STYLE not in env_cfg.observations["actor"].terms


def test_a_list_of_one_composition_is_that_for_all():
  cfg = SmpTermCfg(prior="loco", styles="crouch / run", style_weight=2.0)
  assert cfg.choice() == StyleCfg(upper="crouch", lower="run", weight=2.0)
  assert cfg.style_title() == "crouch over run x 2" and not cfg.names()


def test_a_list_gives_each_entry_its_prior():
  cfg = SmpTermCfg(prior="loco", styles="walk, crouch /run", style_weight=2.0)
  assert cfg.names() == ("walk", "crouch/run")
  assert cfg.style_title() == "each of walk, crouch/run x 2"
  styled = _each_style(cfg, make_prior())
  assert {name: prior.style for name, prior in styled.items()} == {
    "walk": StyleCfg("walk", weight=2.0),
    "crouch/run": StyleCfg(upper="crouch", lower="run", weight=2.0),
  }


@pytest.mark.parametrize("entry", ["run", "crouch/run"])
def test_an_entry_goes_there_and_back(entry: str):
  assert parse_style(entry).entry() == entry and split_names(entry) == (entry,)


def test_a_composition_is_no_group_of_the_log():
  both = StyleNormalizers({name: SdsNormalizer(3, 1e9) for name in MIXED}, LABELS)
  names = [end for end, _ in both.log()]
  assert names[1] == "_crouch_over_run" and not [name for name in names if "/" in name]


def test_a_layout_with_styles_goes_there_and_back():
  cfg, other = (small_env_cfg("Smp-Forward-G1", 1) for _ in range(2))
  plain = ActorLayout.of(cfg)
  assert "styles" not in plain.to_dict()
  cast(SmpTermCfg, cfg.commands["smp"]).styles = "walk,run,crouch/run"
  observe_styles(cfg)
  layout = ActorLayout.of(cfg)
  assert layout.styles == ("walk", "run", "crouch/run") and layout.terms == (
    *plain.terms,
    STYLE,
  )
  layout.apply(other)
  assert ActorLayout.of(other) == layout
  assert STYLE in other.observations["critic"].terms


def test_an_observation_without_styles_is_refused(monkeypatch):
  monkeypatch.setattr(SmpTerm, "of", lambda env: SimpleNamespace(env_styles=None))
  with pytest.raises(UserError, match="observation 'style': give --env.commands.smp"):
    style_one_hot(cast(ManagerBasedRlEnv, None))


# All of it.


@pytest.mark.slow
def test_environments_have_the_reward_and_the_observation_of_their_style(tmp_path):
  path: Path = tmp_path / "p.safetensors"
  prior = make_walking_prior()
  for scale, style in enumerate(STYLES, 1):
    median = (0.01 * scale,) * 50
    prior.style_references[style] = Reference(median, "training", (), 8, 8, 4, 0)
  prior.save(path)
  cfg = small_env_cfg("Smp-Forward-G1", num_envs=6)
  options = cast(SmpTermCfg, cfg.commands["smp"])
  options.prior, options.styles = str(path), "walk,crouch/run"
  options.filter_init_states, options.sds_normalizer = False, "reference"
  observe_styles(cfg)
  env = ManagerBasedRlEnv(cfg, "cpu")
  try:
    env.reset()
    term = SmpTerm.of(env)
    styles = term.env_styles
    assert styles is not None and len(set(styles.index.tolist())) == 2
    obs, *_ = env.step(torch.zeros(6, 29))
    seen = cast(Tensor, obs["actor"])[:, -2:]
    assert torch.equal(seen.argmax(dim=1), styles.index)
    reward, features = style_of(term), term.window.features()
    mirror = observation_mirror(env, "actor")
    assert torch.equal(mirror(cast(Tensor, obs["actor"]))[:, -2:], seen)
    made = cast(StyledGsiBuffer, term.init_states.generated)
    for place, (name, choice) in enumerate(
      {"walk": StyleCfg("walk"), "crouch_over_run": StyleCfg("run", "crouch")}.items()
    ):
      own = styles.index == place
      alone = prior.with_style(choice)
      part = list(made.parts.values())[place]
      assert part._prior.style.parts() == choice.parts()
      assert alone.reference is not None
      error = alone.sds_loss_at(options.timesteps)(features, reward.noise)
      scale = ReferenceSdsNormalizer(alone.reference.at(options.timesteps)).scale()
      expected = smp_reward_of(error, scale, options.sds_scale)
      torch.testing.assert_close(term.sds_loss()[own], error[own], rtol=1e-3, atol=1e-5)
      torch.testing.assert_close(
        reward.reward[own], expected[own], rtol=1e-3, atol=1e-5
      )
      assert f"Smp/r_smp_{name}" in env.extras["log"]
  finally:
    env.close()
