"""Styles of a prior: labels, guidance, and composition by body part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import METADATA_KEY, MotionPrior
from smp.diffusion.reference import Reference
from smp.diffusion.sds import FoldedDenoiser
from smp.diffusion.styles import (
  BlendedDenoiser,
  StyleCfg,
  body_masks,
  find_style,
  label_weights,
)
from smp.diffusion.trainer import PretrainCfg, TrainData, Trainer
from smp.errors import UserError
from smp.motion.features import SLICES, g1_spec
from smp.robots import g1

FEATURES, STEPS = 59, (8, 15, 22)
STYLES = ("crouch", "run", "walk")


def make_prior(styles: tuple[str, ...] = STYLES, seed: int = 0) -> MotionPrior:
  """Return a prior of random weights whose labels matter."""
  torch.manual_seed(seed)
  denoiser = Denoiser(FEATURES, 10, d_model=32, num_styles=len(styles))
  with torch.no_grad():
    for weight in denoiser.parameters():
      weight.mul_(1.5)
    if styles:
      denoiser.label_embedding.weight.normal_()
  ones = torch.ones(FEATURES)
  return MotionPrior(denoiser, -ones, ones, g1_spec(), 50, styles=styles)


def windows(n: int = 6, seed: int = 1) -> Tensor:
  generator = torch.Generator().manual_seed(seed)
  return torch.randn(n, 10, FEATURES, generator=generator)


def outputs(prior: MotionPrior) -> list[Tensor]:
  """Return what a prior says: noise, errors of both kinds, and samples."""
  x, t = windows(), torch.arange(6) * 7
  noise = torch.randn(3, 6, 10, FEATURES, generator=torch.Generator().manual_seed(2))
  return [
    prior.denoiser(x, t),
    prior.denoising_error(x, torch.tensor(STEPS), noise),
    prior.sds_loss_at(STEPS)(x, noise),
    prior.sample(3, torch.Generator().manual_seed(3)),
  ]


def same(a: MotionPrior, b: MotionPrior) -> bool:
  return all(map(torch.equal, outputs(a), outputs(b)))


def test_labels_matter():
  prior = make_prior()
  run, walk = (prior.with_style(StyleCfg(style)) for style in ("run", "walk"))
  for other in (prior, walk):
    pairs = zip(outputs(run), outputs(other), strict=True)
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in pairs)


# Guidance.


@pytest.mark.parametrize(
  "style",
  [
    StyleCfg("run", weight=0.0),
    StyleCfg(upper="run", lower="walk", weight=0.0),
    StyleCfg("run", upper="walk", weight=0.0),
  ],
)
def test_weight_zero_is_the_unconditional_prior_exactly(style: StyleCfg):
  prior = make_prior()
  assert same(prior.with_style(style), prior)


def test_weight_one_is_the_style_at_the_price_of_one_evaluation():
  prior = make_prior()
  run = prior.with_style(StyleCfg("run"))
  assert isinstance(run.denoiser, Denoiser)
  t = torch.arange(6) * 7
  labels = torch.full((6,), STYLES.index("run"))
  assert isinstance(prior.denoiser, Denoiser)
  expected = prior.denoiser(windows(), t, labels)
  assert torch.equal(run.denoiser(windows(), t), expected)


@pytest.mark.parametrize("weight", [0.5, 2.0, 3.0])
def test_guidance_is_its_formula(weight: float):
  prior = make_prior()
  x, t = windows(), torch.arange(6) * 7
  none = prior.denoiser(x, t)
  run = prior.with_style(StyleCfg("run")).denoiser(x, t)
  guided = prior.with_style(StyleCfg("run", weight=weight))
  torch.testing.assert_close(guided.denoiser(x, t), none + weight * (run - none))


# Composition.


def test_the_same_style_above_and_below_is_that_style_exactly():
  prior = make_prior()
  run = prior.with_style(StyleCfg("run"))
  assert same(prior.with_style(StyleCfg(upper="run", lower="run")), run)
  assert same(prior.with_style(StyleCfg("walk", upper="run", lower="run")), run)


def test_composition_takes_each_part_from_its_style():
  prior = make_prior()
  x, t = windows(), torch.arange(6) * 7
  run, walk = (prior.with_style(StyleCfg(s)).denoiser(x, t) for s in ("run", "walk"))
  mixed = prior.with_style(StyleCfg("run", upper="walk")).denoiser(x, t)
  legs = slice(SLICES["joint_pos"].start, SLICES["joint_pos"].start + 12)
  arms = slice(legs.stop, SLICES["joint_pos"].stop)
  torch.testing.assert_close(mixed[..., legs], run[..., legs])
  torch.testing.assert_close(mixed[..., arms], walk[..., arms])


def test_masks_partition_the_features():
  upper, lower = body_masks(g1_spec())
  assert torch.equal(upper + lower, torch.ones(FEATURES))
  assert set(upper.tolist()) == {0.0, 1.0}
  ee = dict(zip(g1.EE_BODY_NAMES, upper[SLICES["ee_pos"]].view(-1, 3), strict=True))
  assert {name for name, mask in ee.items() if mask.all()} == {
    *("torso_link", "left_wrist_yaw_link", "right_wrist_yaw_link")
  }
  for name in ("root_pos", "root_rot", "root_lin_vel", "root_ang_vel"):
    assert lower[SLICES[name]].all()
  joints = dict(zip(g1.JOINT_NAMES, upper[SLICES["joint_pos"]].tolist(), strict=True))
  assert joints["waist_yaw_joint"] and joints["left_elbow_joint"]
  assert not joints["left_knee_joint"] and not joints["right_ankle_roll_joint"]


def test_masks_that_leave_something_out_are_refused():
  spec = g1_spec()
  tail = replace(spec, joint_names=(*spec.joint_names[:-1], "tail_joint"))
  with pytest.raises(UserError, match="joint 'tail_joint' belongs to no part"):
    body_masks(tail)
  fewer = replace(spec, joint_names=spec.joint_names[:-1])
  with pytest.raises(UserError, match="name 58 features, the prior has 59"):
    body_masks(fewer)
  hand = replace(spec, ee_body_names=(*spec.ee_body_names[:-1], "hand"))
  with pytest.raises(UserError, match="end effector 'hand'"):
    body_masks(hand)


@pytest.mark.parametrize(
  "style",
  [
    StyleCfg("run"),
    StyleCfg("run", weight=2.0),
    StyleCfg("run", upper="walk"),
    StyleCfg("run", upper="crouch", weight=-0.5),
  ],
)
def test_weights_of_labels_sum_to_one(style: StyleCfg):
  weights = label_weights(style, STYLES, g1_spec())
  total = torch.stack(list(weights.values())).sum(dim=0)
  torch.testing.assert_close(total, torch.ones(FEATURES))
  assert all(bool(weight.any()) for weight in weights.values())


# The fast paths.


@pytest.mark.parametrize("style", [StyleCfg("run"), StyleCfg("run", upper="walk")])
def test_precomputed_score_equals_denoising_error(style: StyleCfg):
  prior = make_prior().with_style(style)
  noise = torch.randn(3, 6, 10, FEATURES)
  for _ in range(2):
    torch.testing.assert_close(
      prior.sds_loss_at(STEPS)(windows(), noise),
      prior.denoising_error(windows(), torch.tensor(STEPS), noise),
      rtol=1e-4,
      atol=1e-5,
    )


def test_folded_weights_take_the_label_in():
  denoiser = make_prior().with_style(StyleCfg("run")).denoiser
  assert isinstance(denoiser, Denoiser)
  t, x = torch.tensor(STEPS), torch.randn(3, 6, 10, FEATURES)
  modulation = denoiser.time_modulation(t).unsqueeze(2)
  folded = FoldedDenoiser(denoiser, t, "float32")
  torch.testing.assert_close(
    folded(x), denoiser.forward_modulated(x, modulation), rtol=1e-3, atol=1e-4
  )


def test_a_composition_in_half_precision_is_near_itself():
  prior = make_prior().with_style(StyleCfg("run", upper="walk"))
  assert isinstance(prior.denoiser, BlendedDenoiser)
  noise = torch.randn(3, 6, 10, FEATURES)
  torch.testing.assert_close(
    prior.sds_loss_at(STEPS, "bfloat16")(windows(), noise),
    prior.sds_loss_at(STEPS, "float32")(windows(), noise),
    rtol=0.05,
    atol=0.0,
  )


# Labels.


def test_a_permutation_of_the_labels_permutes_the_outputs():
  prior = make_prior()
  order = [2, 0, 1]
  renamed = make_prior(tuple(STYLES[i] for i in order))
  state = prior.state_dict()
  table = state["denoiser.label_embedding.weight"]
  state["denoiser.label_embedding.weight"] = table[[*order, 3]]
  renamed.load_state_dict(state)
  assert same(prior, renamed)
  for style in STYLES:
    assert same(prior.with_style(StyleCfg(style)), renamed.with_style(StyleCfg(style)))
  renamed.styles = STYLES
  assert same(
    renamed.with_style(StyleCfg(STYLES[0])), prior.with_style(StyleCfg(STYLES[2]))
  )


@pytest.mark.parametrize(
  "style, message",
  [
    (StyleCfg("wlak"), "^style 'wlak': no style of this prior; did you mean 'walk'"),
    (StyleCfg("run", upper="crawl"), "^upper style 'crawl': .*has crouch, run, walk"),
    (
      StyleCfg("run", lower="xyz"),
      "^lower style 'xyz': no style of this prior .it has",
    ),
    (StyleCfg("run", weight=float("nan")), "style weight is nan"),
  ],
)
def test_bad_choices_are_one_line(style: StyleCfg, message: str):
  with pytest.raises(UserError, match=message) as caught:
    make_prior().with_style(style)
  assert "\n" not in str(caught.value)


def test_an_unconditional_prior_has_no_styles():
  with pytest.raises(UserError, match="style 'run': this prior has no styles"):
    make_prior(()).with_style(StyleCfg("run"))
  with pytest.raises(UserError, match="no styles"):
    find_style("run", ())


def test_no_choice_is_the_prior_itself():
  prior = make_prior()
  assert prior.with_style(StyleCfg()) is prior
  assert prior.with_style(StyleCfg(weight=2.0)) is prior


def test_a_choice_leaves_the_prior_as_it_was():
  prior = make_prior()
  before = outputs(prior)
  once = prior.with_style(StyleCfg("run"))
  again = once.with_style(StyleCfg("walk"))
  assert same(again, prior.with_style(StyleCfg("walk")))
  assert all(map(torch.equal, outputs(prior), before))


# Files.


def test_files_keep_styles_and_their_references(tmp_path: Path):
  prior = make_prior()
  for scale, style in enumerate(STYLES, 1):
    median = (0.1 * scale,) * 50
    prior.style_references[style] = Reference(median, "training", (), 8, 8, 4, 0)
  prior.reference = replace(prior.style_references["run"], median=(0.9,) * 50)
  prior.save(tmp_path / "p.safetensors")
  loaded = MotionPrior.load(tmp_path / "p.safetensors")
  assert loaded.styles == STYLES
  for style in (StyleCfg(), StyleCfg("run"), StyleCfg("run", upper="walk")):
    assert same(loaded.with_style(style), prior.with_style(style))
  run = loaded.with_style(StyleCfg("run")).reference
  mixed = loaded.with_style(StyleCfg("run", upper="walk")).reference
  assert run == prior.style_references["run"] and mixed is not None
  # Between those of the two, by the share of the features.
  share = float(body_masks(g1_spec())[0].mean())
  assert mixed.median[0] == pytest.approx(0.2 + share * 0.1)


def test_a_prior_without_styles_keeps_the_former_format(tmp_path: Path):
  prior = make_prior(())
  path = tmp_path / "p.safetensors"
  prior.save(path)
  with safe_open(path, framework="pt") as file:
    description = json.loads(file.metadata()[METADATA_KEY])
    assert not [name for name in file.keys() if "label" in name]
  assert description["format_version"] == 1
  assert not [key for key in description if "style" in key]
  loaded = MotionPrior.load(path)
  assert loaded.styles == () and same(loaded, prior)


def test_the_other_weights_begin_as_without_styles():
  """And a label adds nothing but its embedding."""
  plain, conditional = make_prior(()), make_prior()
  assert isinstance(conditional.denoiser, Denoiser)
  with torch.no_grad():
    conditional.denoiser.label_embedding.weight.zero_()
  assert same(plain, conditional)


# Training.


def make_data(n: int = 120) -> TrainData:
  labels = torch.arange(3 * n) % 3
  labels[::10] = -1
  return TrainData(
    train=windows(3 * n),
    val=windows(30, seed=5),
    q_low=-torch.ones(FEATURES),
    q_high=torch.ones(FEATURES),
    spec=g1_spec(),
    styles=STYLES,
    train_labels=labels,
    val_labels=torch.arange(30) % 3,
  )


def make_cfg(tmp_path: Path, **options: float) -> PretrainCfg:
  cfg = PretrainCfg(output=tmp_path / "p.safetensors", run_dir=tmp_path, d_model=32)
  return replace(cfg, batch_size=64, draws=2, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_labels_are_withheld_with_their_probability(tmp_path: Path, dropout: float):
  trainer = Trainer(make_data(), make_cfg(tmp_path, label_dropout=dropout))
  drawn = [trainer._draw_batch()[3] for _ in range(40)]
  labels = torch.cat([each for each in drawn if each is not None])
  assert len(labels) == 40 * 128
  none = float((labels == len(STYLES)).float().mean())
  assert none == pytest.approx(0.1 + 0.9 * dropout, abs=0.04)
  if dropout == 0.0:
    assert set(labels.tolist()) == {0, 1, 2, 3}


def test_balanced_styles_are_drawn_equally_often(tmp_path: Path):
  data = make_data()
  labels = torch.full_like(data.train_labels, 2)
  labels[:12], labels[12:48], labels[48:60] = 0, 1, -1
  rare = replace(data, train_labels=labels)
  cfg = replace(make_cfg(tmp_path, label_dropout=0.0), batch_size=512)
  for balanced, expected in (
    (False, torch.tensor([12.0, 36.0, 300.0, 12.0]) / 360.0),
    (True, torch.full((4,), 0.25)),
  ):
    trainer = Trainer(rare, replace(cfg, balance_styles=balanced))
    drawn = [trainer._draw_batch()[3] for _ in range(20)]
    labels = torch.cat([each for each in drawn if each is not None])
    share = torch.bincount(labels, minlength=4) / len(labels)
    assert torch.allclose(share, expected, atol=0.03)


def test_styles_cannot_be_balanced_where_there_are_none(tmp_path: Path):
  data = replace(make_data(), styles=())
  with pytest.raises(UserError, match="no clip of the windows has a style"):
    Trainer(data, make_cfg(tmp_path, balance_styles=True))


def test_each_draw_of_a_window_has_its_label(tmp_path: Path):
  trainer = Trainer(make_data(), make_cfg(tmp_path, label_dropout=0.0))
  # Windows that are their own label, without noise at the first timestep.
  trainer.windows = trainer.labels.float().view(-1, 1, 1).expand(-1, 10, FEATURES)
  trainer.noise_schedule.signal.fill_(1.0)
  trainer.noise_schedule.noise.zero_()
  x, _, _, labels = trainer._draw_batch()
  assert labels is not None
  assert torch.equal(x[:, 0, 0].long() % 4, labels % 4)


def test_a_label_without_enough_data_is_refused():
  data = make_data()
  few = data.train_labels.clone()
  few[few == 1] = 0
  few[:7] = 1
  with pytest.raises(UserError, match="style 'run' has 7 training windows, expected"):
    replace(data, train_labels=few).check()


def test_labels_are_part_of_what_a_run_was_trained_on():
  data = make_data()
  other = replace(data, train_labels=data.train_labels.roll(1))
  plain = replace(data, styles=(), train_labels=data.train_labels[:0])
  assert len({each.digest() for each in (data, other, plain)}) == 3
