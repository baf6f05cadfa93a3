"""Style accuracy of recorded episodes: windows, majorities, parts of the body, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smp.cli.evaluate import EvaluateArgs, Policy, actor_layout
from smp.diffusion.styles import StyleCfg
from smp.episodes.protocol import assign
from smp.episodes.trajectory import Trajectory
from smp.errors import UserError
from smp.evaluation.policy.html_report import render_report
from smp.evaluation.policy.style_accuracy import (
  STRIDE,
  StyleJudge,
  style_judge,
  style_metrics,
  style_values,
)
from smp.evaluation.policy.summary import metrics_in, summarise
from smp.evaluation.style_classifier import (
  LOWER,
  UPPER,
  WHOLE,
  StyleAccuracy,
  StyleClassifier,
)
from smp.motion.features import SLICES, g1_spec
from smp.rl.actor_layout import ActorLayout
from smp.robots import g1
from smp.tasks.registry import protocol_of
from smp.utils.names import check_style
from tests.evaluation.test_episode_metrics import standing
from tests.evaluation.test_html_report import evaluated, in_the_world

STYLES = ("crouch", "walk")
LOW, RAISED = 0.5, 1.0
ARM = g1.JOINT_NAMES.index("left_shoulder_pitch_joint")


class KnownClassifier(StyleClassifier):
  """Says crouch of a low pelvis, and, where it sees the arms alone, of a raised arm."""

  def label(self, features: Tensor, part: str = WHOLE) -> Tensor:
    arm = features[:, -1, SLICES["joint_pos"].start + ARM] > 0.5 * RAISED
    low = features[:, -1, 2] < 0.6
    return torch.where(arm if part == UPPER else low, 0, 1)


def judge(**asked: str) -> StyleJudge:
  classifier = KnownClassifier(STYLES, g1_spec(), hidden=4)
  classifier.held_out = [
    StyleAccuracy("crouch", WHOLE, 9, {"crouch": 0.75, "walk": 0.25}, 0.5, 0.9)
  ]
  return StyleJudge(Path("<c>.safetensors"), classifier, asked)


def motion(envs: int = 3, windows: int = 6) -> Trajectory:
  return standing(windows * STRIDE, envs)


def test_the_share_of_windows_and_the_majority():
  seen = motion()
  seen.qpos[:, 0, 2] = LOW
  seen.qpos[: 2 * STRIDE, 2, 2] = LOW  # Two of six windows.
  values = style_values(seen, judge(whole="crouch"), 0.0)
  assert values["style_whole"].tolist() == pytest.approx([1.0, 0.0, 1 / 3])
  assert values["style_whole_episodes"].tolist() == [1.0, 0.0, 0.0]
  other = style_values(seen, judge(whole="walk"), 0.0)
  assert other["style_whole"].tolist() == pytest.approx([0.0, 1.0, 2 / 3])
  assert other["style_whole_episodes"].tolist() == [0.0, 1.0, 1.0]


def test_the_first_seconds_and_what_follows_a_failure_do_not_count():
  seen = motion()
  seen.qpos[:STRIDE, 0, 2] = LOW
  seen.qpos[STRIDE:, 1, 2] = LOW
  seen.ended[STRIDE - 1, 1, 0] = True
  seen.ended[0, 2, 0] = True  # It leaves no window.
  every = style_values(seen, judge(whole="walk"), 0.0)["style_whole"]
  assert every[:2].tolist() == pytest.approx([5 / 6, 1.0]) and every[2].isnan()
  late = style_values(seen, judge(whole="walk"), STRIDE / seen.fps)["style_whole"]
  assert late[0] == 1.0 and late[1:].isnan().all()
  none = style_values(seen, judge(whole="walk"), 100.0)
  assert all(value.isnan().all() for value in none.values())


def test_the_parts_of_a_composition_are_judged_apart():
  seen = motion(2)
  seen.qpos[:, 0, 2] = LOW
  seen.qpos[:, 1, 7 + ARM] = RAISED
  values = style_values(seen, judge(upper="crouch", lower="walk"), 0.0)
  assert values["style_upper"].tolist() == [0.0, 1.0]
  assert values["style_lower"].tolist() == [0.0, 1.0]
  assert set(values) == {each.key for each in style_metrics((UPPER, LOWER))}


def test_many_episodes_are_judged_as_one():
  seen = motion(150, windows=1)
  seen.qpos[:, ::3, 2] = LOW
  share = style_values(seen, judge(whole="crouch"), 0.0)["style_whole"]
  assert torch.equal(share, (torch.arange(150) % 3 == 0).float())


def test_conditions_have_it_with_intervals_and_the_page_shows_it():
  task = "Smp-Forward-G1"
  protocol = protocol_of(task, 2.0)
  given = assign(protocol, 2 * len(protocol.conditions), seed=0)
  seen = standing(100, len(given.condition), command=in_the_world(given))
  seen.qpos[:, 0, 2] = LOW  # One of the two episodes of the first condition.
  known = judge(whole="crouch")
  rows = summarise(
    seen, given.condition, np.zeros(len(given.condition)), protocol, None, known
  )
  figures = rows[0]["figures"]
  assert figures["style_whole"]["value"] == 0.5
  assert figures["style_whole_episodes"]["value"] == 0.5
  assert figures["style_whole_episodes"]["method"] == "wilson"
  assert rows[1]["figures"]["style_whole"]["value"] == 0.0
  result, _ = evaluated(task)
  assert "style asked for" not in render_report(result, {})
  result["policies"][0]["conditions"] = rows
  result["style_judge"] = known.about()
  assert {each.key for each in metrics_in(result)} == set(figures)
  page = render_report(json.loads(json.dumps(result)), {})
  assert "share of windows in the style asked for" in page
  assert "crouch, from the whole body; right on 75 % of held-out clips" in page
  assert "&lt;c&gt;.safetensors" in page


# Bad input.


@pytest.fixture
def file(tmp_path: Path) -> Path:
  path = tmp_path / "c.safetensors"
  StyleClassifier(STYLES, g1_spec(), hidden=4).save(path)
  return path


def test_a_choice_names_the_parts_to_judge(file: Path):
  for asked, parts in (
    (StyleCfg("walk"), {WHOLE: "walk"}),
    (StyleCfg("walk", upper="walk"), {WHOLE: "walk"}),
    (StyleCfg("walk", upper="crouch"), {UPPER: "crouch", LOWER: "walk"}),
    (StyleCfg(None, "walk", "crouch"), {UPPER: "walk", LOWER: "crouch"}),
  ):
    found = style_judge(file, asked)
    assert found is not None and found.asked == parts
  assert style_judge(None, StyleCfg()) is None


@pytest.mark.parametrize(
  "asked, message",
  [
    (StyleCfg(), "name the style that the policy should show with --style"),
    (StyleCfg(upper="walk"), "--style-lower or --style: give the style of the rest"),
    (StyleCfg(lower="walk"), "--style-upper or --style: give the style of the rest"),
    (StyleCfg("wolk"), "--style 'wolk': no style of this classifier; did you mean"),
    (StyleCfg("walk", upper="crooch"), "upper style 'crooch': .* 'crouch'"),
  ],
)
def test_bad_choices_are_one_line(file: Path, asked: StyleCfg, message: str):
  with pytest.raises(UserError, match=message) as error:
    style_judge(file, asked)
  assert "\n" not in str(error.value)


def test_parts_of_a_body_need_a_judge():
  for args in (
    EvaluateArgs(style="walk", style_upper="run"),
    EvaluateArgs(style_lower="run"),
  ):
    with pytest.raises(
      UserError, match="--style-.*: needs a judge, --style-classifier"
    ):
      args.asked_style()
  # A policy that observes its style is told one without a judge.
  for style in ("walk", "crouch/walk"):
    assert style_judge(None, EvaluateArgs(style=style).asked_style()) is None


def test_a_composition_in_one_word_is_judged_by_its_parts(file: Path):
  args = EvaluateArgs(style="crouch/walk", style_classifier=file)
  found = style_judge(file, args.asked_style())
  assert found is not None and found.asked == {UPPER: "crouch", LOWER: "walk"}
  both = replace(args, style_upper="walk")
  with pytest.raises(UserError, match="--style crouch/walk and --style-upper: give"):
    both.asked_style()
  with pytest.raises(UserError, match="--style 'crouch/': the lower style is missing"):
    EvaluateArgs(style="crouch/").asked_style()
  with pytest.raises(UserError, match="upper style 'crooch': .* 'crouch'"):
    style_judge(file, EvaluateArgs(style="crooch/walk").asked_style())


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("styles", [(), (*STYLES, "crouch/walk")])
@pytest.mark.parametrize("style", ["walk", "crouch/walk"])
def test_the_style_is_told_to_policies_that_observe_one(
  monkeypatch, file: Path, judged: bool, styles: tuple[str, ...], style: str
):
  layout = ActorLayout(("joint_pos",), 1, styles)

  def read(path: Path, style: str | None = None) -> ActorLayout:
    if style is not None:
      check_style(style, styles, str(path))
    return replace(layout, only=style)

  monkeypatch.setattr(ActorLayout, "read", staticmethod(read))
  args = EvaluateArgs(style=style, style_classifier=file if judged else None)
  policy = Policy("a", "trained", Path("a.pt"))
  if not styles and not judged:
    with pytest.raises(UserError, match="observes no style"):
      actor_layout(policy, args)
    return
  found = actor_layout(policy, args)
  assert found is not None and found.only == (style if styles else None)
