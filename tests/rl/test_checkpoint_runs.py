"""Which run `--agent.load-run` means, and what is in a checkpoint."""

from __future__ import annotations

import pytest
import torch

from smp.errors import UserError
from smp.rl.checkpoint import matching_runs, newest_checkpoint, read_checkpoint
from tests.fakes import checkpoint_content

NAMES = ("2026-11-25_23-00-00", "2026-11-26_08-10-00", "2026-11-26_08-55-00_fast")


@pytest.fixture
def experiment(tmp_path):
  for name in NAMES:
    (tmp_path / "task" / name).mkdir(parents=True)
  (tmp_path / "task" / "wandb_checkpoints").mkdir()
  return tmp_path / "task"


def names(experiment, run: str) -> list[str]:
  return [folder.name for folder in matching_runs(experiment, run)]


def test_a_name_a_glob_or_an_expression_of_whole_names(experiment):
  assert names(experiment, ".*") == sorted(NAMES, reverse=True)
  assert names(experiment, NAMES[0]) == [NAMES[0]]
  assert names(experiment, "2026-11-26*") == [NAMES[2], NAMES[1]]
  assert names(experiment, r".*_fast") == [NAMES[2]]
  # A glob, not "08-5" and any number of fives.
  assert names(experiment, "2026-11-26_08-55*") == [NAMES[2]]
  # No part of a name by accident.
  assert names(experiment, "2026-11-26_08-10") == []


def test_the_path_of_a_run_or_of_a_checkpoint_in_it(experiment, monkeypatch):
  run = experiment / NAMES[1]
  (run / "model_3.pt").touch()
  assert names(experiment, str(run)) == [NAMES[1]]
  assert names(experiment, str(run / "model_3.pt")) == [NAMES[1]]
  monkeypatch.chdir(experiment.parent)
  assert names(experiment, f"task/{NAMES[1]}") == [NAMES[1]]


def test_the_path_of_something_else_is_refused(experiment, tmp_path):
  other = tmp_path / "other" / NAMES[0]
  other.mkdir(parents=True)
  with pytest.raises(UserError, match="not a run of .*task"):
    matching_runs(experiment, str(other))


def test_nothing_that_matches_is_said_with_what_there_is(experiment):
  with pytest.raises(UserError, match=f"load-run 2025.*newest runs are {NAMES[2]}"):
    newest_checkpoint(experiment, "2025*")


def test_a_checkpoint_of_an_earlier_version_is_read_in_todays_words(tmp_path):
  """It called the SMP term ``guidance``, its initial states ``pool``, mu's kind ``scale``."""
  content = checkpoint_content()
  today = content["infos"]["smp"]
  content["infos"]["guidance"] = {
    "mean": today["mean"],
    "count": today["count"],
    "scale": "reference",
    "pool": today["init_states"],
  }
  del content["infos"]["smp"]
  torch.save(content, tmp_path / "model_3.pt")
  found = read_checkpoint(tmp_path / "model_3.pt", "cpu")["infos"]
  assert "guidance" not in found
  assert found["smp"].keys() == {"mean", "count", "sds_normalizer", "init_states"}
  assert found["smp"]["sds_normalizer"] == "reference"
  assert found["smp"]["init_states"].keys() == today["init_states"].keys()
