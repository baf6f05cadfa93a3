"""The card of a shipped policy."""

from __future__ import annotations

import json

import pytest

from smp.errors import UserError
from smp.evaluation.policy import summary
from smp.evaluation.policy.card import card_text, draw_curve
from smp.robots import g1

TASK = "Smp-Forward-G1"
ACTOR = {"terms": ["joint_pos", "command"], "history": 5}
CARD = {"task": TASK, "steps": 1200, "command": "train.py X --a 1", "actor": ACTOR}


def evaluation(task: str = TASK) -> dict:
  metrics = {
    figure.key: {"value": 0.25, "low": 0.125, "high": 0.5}
    for figure in summary.metrics_of(TASK)
  }
  row = {"label": "1 m/s", "episodes": 40, "figures": metrics}
  return {
    "command": "evaluate.py X",
    "protocol": {"task": task, "notes": ["episodes of 10 s"]},
    "policies": [{"conditions": [row]}],
  }


def test_a_card_says_origin_licence_and_figures_with_intervals(tmp_path):
  file = tmp_path / "evaluation.json"
  file.write_text(json.dumps(evaluation()))
  text = card_text(CARD, file, tmp_path / "forward.png", "It walks.")
  for part in (
    "# Smp-Forward-G1",
    "It walks.",
    "| steps | 1200 |",
    "| actor | joint_pos, command; 5 frames |",
    "`train.py X --a 1`",
    "CC BY-NC-ND",
    "](forward.png)",
    "| 1 m/s | 40 |",
    "Episodes of 10 s.",
  ):
    assert part in text
  assert text.count("0.25 [0.12, 0.50]") + text.count("25.0 [12.5, 50.0]") > 3
  tables = [line for line in text.splitlines() if line.startswith("| 1 m/s")]
  heads = [line for line in text.splitlines() if line.startswith("| condition")]
  assert [t.count("|") for t in tables] == [h.count("|") for h in heads]


def column(text: str, title: str) -> str:
  """The cell of the only condition in the column of this title."""
  lines = text.splitlines()
  (head,) = (i for i, line in enumerate(lines) if f"| {title} |" in line)
  titles, cells = ([c.strip() for c in lines[i].split("|")] for i in (head, head + 2))
  return cells[titles.index(title)]


def test_a_card_says_how_natural_and_how_smooth_the_motion_is(tmp_path):
  limbs = dict(zip(g1.LIMBS, (0.9, 1.1, 0.5, 0.75, None), strict=True))
  result = evaluation()
  found = result["policies"][0]["conditions"][0]["figures"]
  for limb, value in limbs.items():
    found[f"amplitude_{limb}"] = {"value": value, "low": 0.1, "high": 2.0}
  found["action_rate"]["value"], found["foot_skate"]["value"] = 0.35, 45.0
  file = tmp_path / "evaluation.json"
  file.write_text(json.dumps(result))
  text = card_text(CARD, file, None)
  title = "amplitude of left leg / right leg / waist / left arm / right arm"
  assert column(text, title) == "0.90 / 1.10 / 0.50 / 0.75 / –"
  assert column(text, "action rate").startswith("0.35 [")
  assert column(text, "skate (mm/s)").startswith("45.0 [")


def test_an_evaluation_of_an_earlier_version_makes_a_card_of_what_it_has(tmp_path):
  result = evaluation()
  del result["policies"][0]["conditions"][0]["figures"]["diversity"]
  file = tmp_path / "evaluation.json"
  file.write_text(json.dumps(result))
  text = card_text(CARD, file, None)
  assert "diversity" not in text and column(text, "return")


def test_an_evaluation_of_another_task_and_a_file_that_is_none_are_refused(tmp_path):
  file = tmp_path / "evaluation.json"
  file.write_text(json.dumps(evaluation("Smp-Getup-G1")))
  with pytest.raises(UserError, match="an evaluation of Smp-Getup-G1, not of Smp-Forw"):
    card_text(CARD, file, None)
  strange = json.dumps(evaluation() | {"policies": ["x"]})
  for content in ("no json", "{}", "[]", strange):
    file.write_text(content)
    with pytest.raises(UserError, match="evaluation.json: not an evaluation.json"):
      card_text(CARD, file, None)


def test_a_curve_goes_over_several_runs(tmp_path):
  from torch.utils.tensorboard import SummaryWriter

  runs = (tmp_path / "first", tmp_path / "second")
  for run in runs:
    with SummaryWriter(str(run)) as writer:
      for step in range(3):
        writer.add_scalar("Smp/r_smp", 0.1 * step, step)
  draw_curve(tmp_path / "curve.png", runs)
  assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="empty: no curve here"):
    draw_curve(tmp_path / "other.png", (tmp_path / "empty",))
  assert not (tmp_path / "other.png").exists()
