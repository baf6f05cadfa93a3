"""The card of a shipped policy."""

from __future__ import annotations

import json

import pytest

from smp.errors import UserError
from smp.evaluation.policy import summary
from smp.evaluation.policy.card import draw_curve, write_card

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
  write_card(tmp_path / "card.md", CARD, file, tmp_path / "forward.png", "It walks.")
  text = (tmp_path / "card.md").read_text()
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


def test_an_evaluation_of_another_task_and_a_file_that_is_none_are_refused(tmp_path):
  file = tmp_path / "evaluation.json"
  file.write_text(json.dumps(evaluation("Smp-Getup-G1")))
  with pytest.raises(UserError, match="an evaluation of Smp-Getup-G1, not of Smp-Forw"):
    write_card(tmp_path / "card.md", CARD, file, None)
  for content in ("no json", "{}", "[]"):
    file.write_text(content)
    with pytest.raises(UserError, match="evaluation.json: not an evaluation.json"):
      write_card(tmp_path / "card.md", CARD, file, None)
  assert not (tmp_path / "card.md").exists()


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
