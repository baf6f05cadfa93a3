"""Evaluation by style: the confusion matrix of a prior's labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from smp.errors import UserError
from smp.evaluation.prior import by_style
from smp.evaluation.prior.by_style import evaluate_styles, sample_accuracy
from smp.evaluation.style_classifier import StyleClassifier
from smp.motion.dataset import WindowSet
from smp.motion.features import g1_spec
from tests.diffusion.test_styles import STYLES, make_prior, windows

COUNT, DRAWS, SEED = 20, 2, 0


def make_windows(styles: tuple[str, ...] = STYLES) -> WindowSet:
  index = np.arange(60) % max(len(styles), 1)
  return WindowSet(
    windows=windows(60).numpy(),
    spec=g1_spec(),
    stride=1,
    clips=("a", "b"),
    clip_index=np.arange(60) // 30,
    mirrored=np.zeros(60, bool),
    splits=("train", "val"),
    styles=styles,
    style_index=index if styles else np.zeros(0, np.int64),
  )


def test_held_out_windows_are_counted_under_every_label():
  report = evaluate_styles("p", make_prior(), make_windows(), COUNT, DRAWS, SEED)
  assert report.split == "val"
  assert [error.style for error in report.styles] == list(STYLES)
  for error in report.styles:
    assert error.windows == 10 and list(error.lowest) == list(STYLES)
    assert sum(error.lowest.values()) == pytest.approx(1.0)
  assert 0.0 <= report.accuracy() <= 1.0


def test_exchanged_labels_exchange_the_columns():
  prior = make_prior()
  other = make_prior()
  with torch.no_grad():
    table = other.state_dict()["denoiser.label_embedding.weight"]
    table[[0, 2]] = table[[2, 0]].clone()
  one, two = (
    evaluate_styles("p", each, make_windows(), COUNT, DRAWS, SEED)
    for each in (prior, other)
  )
  for a, b in zip(one.styles, two.styles, strict=True):
    assert a.lowest["crouch"] == b.lowest["walk"]
    assert a.lowest["run"] == b.lowest["run"]
    assert a.unlabelled == b.unlabelled
  assert one.styles[0].labelled != two.styles[0].labelled


def test_without_guidance_all_labels_know_as_much_and_with_more_they_differ_more():
  """w = 0 ignores the label; w = 1 is the label itself."""
  none, one, two = (
    evaluate_styles("p", make_prior(), make_windows(), COUNT, DRAWS, SEED, w).styles[0]
    for w in (0.0, 1.0, 2.0)
  )
  assert set(none.medians.values()) == {none.unlabelled}
  assert none.unlabelled == one.unlabelled == two.unlabelled
  spread = [max(e.medians.values()) - min(e.medians.values()) for e in (one, two)]
  assert 0.0 < spread[0] < spread[1]


def test_without_held_out_clips_the_training_clips_count():
  data = replace(make_windows(), splits=("train", "train"))
  report = evaluate_styles("p", make_prior(), data, COUNT, DRAWS, SEED)
  assert report.split == "train" and report.styles[0].windows == 20


def test_the_label_of_the_lowest_error_counts(monkeypatch):
  """Of three windows, the first two are best known under their own label."""
  errors = {
    **{"crouch": (1.0, 2.0, 9.0), "run": (3.0, 4.0, 5.0)},
    **{"walk": (7.0, 8.0, 6.0), None: (0.5, 0.7, 0.9)},
  }

  def known(prior, features, draws, seed):
    rows = torch.arange(len(features)) % 3
    return torch.tensor(errors[prior.style.style])[rows]

  monkeypatch.setattr(by_style, "window_errors", known)
  report = evaluate_styles("p", make_prior(), make_windows(), 9, DRAWS, SEED)
  crouch, run, walk = report.styles
  assert crouch.lowest == pytest.approx({"crouch": 2 / 3, "run": 1 / 3, "walk": 0.0})
  assert (crouch.labelled, run.labelled, walk.labelled) == (2.0, 4.0, 7.0)
  assert crouch.unlabelled == pytest.approx(0.7)
  assert crouch.medians == {"crouch": 2.0, "run": 4.0, "walk": 7.0}
  assert report.accuracy() == pytest.approx(1 / 3)


@pytest.mark.parametrize(
  "styles, labels, message",
  [
    ((), STYLES, "p has no styles"),
    (STYLES, (), "these windows have no labels"),
    (STYLES, ("swim",), "p has the styles crouch, run, walk, the windows swim"),
  ],
)
def test_bad_input_is_one_line(styles, labels, message):
  with pytest.raises(UserError, match=message):
    evaluate_styles("p", make_prior(styles), make_windows(labels), COUNT, DRAWS, SEED)


def test_samples_are_judged_under_their_label(monkeypatch):
  classifier = StyleClassifier(("run", "swim", "walk"), g1_spec(), hidden=4)
  prior = make_prior()
  # The labels that the judge gives: of three parts under "run", then under "walk".
  given = iter(torch.tensor([[0, 0, 0, 2]] * 3 + [[2, 2, 1, 1]] * 3))
  monkeypatch.setattr(classifier, "label", lambda features, part: next(given))
  found = sample_accuracy("p", prior, classifier, 4, SEED)
  assert [each.style for each in found] == ["run"] * 3 + ["walk"] * 3
  assert [each.accuracy for each in found] == [0.75] * 3 + [0.5] * 3
  assert found[3].given == {"run": 0.0, "swim": 0.5, "walk": 0.5}
  other = StyleClassifier(("swim", "fly"), g1_spec(), hidden=4)
  with pytest.raises(UserError, match="it has the styles swim, fly, p crouch"):
    sample_accuracy("p", prior, other, 4, SEED)
