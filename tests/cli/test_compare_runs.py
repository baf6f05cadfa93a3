"""How fast trainings learned, from the curves that they logged."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from smp.cli import compare_runs
from smp.errors import UserError
from smp.evaluation.policy.curves import Curve, mean_sds_loss, read_curves


@pytest.fixture
def run(tmp_path):
  """10 iterations of 30 s, 3,000 steps each; episodes grow by 100 steps in each."""
  folder = tmp_path / "some_run"
  with SummaryWriter(str(folder)) as writer:
    for i in range(10):
      for name, value in (
        ("Train/mean_episode_length", 100.0 * (i + 1)),
        ("Smp/task_reward", 0.1 * i),
        ("Smp/sds_loss_t8", 0.3),
        ("Smp/sds_loss_t15", 0.1),
        ("Perf/total_fps", 100.0),
        ("Perf/collection_time", 10.0),
        ("Perf/learning_time", 20.0),
      ):
        writer.add_scalar(name, value, i, walltime=1000.0 + 30.0 * i)
  return folder


def test_passing_a_length_is_timed_in_minutes_and_steps(run):
  cfg = compare_runs.CompareRunsCfg(
    (run,), lengths=(500, 5000), minutes=(2.0, 60.0), million_steps=(0.014, 1.0)
  )
  cells = dict(zip(compare_runs.header(cfg), compare_runs.row(run, cfg), strict=True))
  # Above 500 for the first time in the sixth iteration, which ends at 150 s.
  assert cells["episode > 500: min (M steps)"] == "2.5 (0.02)"
  assert cells["episode > 5000: min (M steps)"] == "–"
  assert cells["task at 2 min"] == "0.35"  # Of iterations 3 and 4.
  assert cells["episode at 2 min"] == "450"
  assert cells["SDS loss at 2 min"] == "0.2"
  assert cells["M steps at 2 min"] == "0.01"  # 15,000, after iteration 4.
  assert cells["task at 60 min"] == cells["M steps at 60 min"] == "–"
  # More than 14,000 steps after iteration 4, at 120 s.
  assert cells["min at 0.014 M steps"] == "2.0"
  assert cells["task at 0.014 M steps"] == "0.35"
  assert cells["min at 1 M steps"] == cells["episode at 1 M steps"] == "–"


def test_steps_add_up(run):
  steps = compare_runs.steps_done(read_curves(run))
  np.testing.assert_allclose(steps.value, 3000.0 * np.arange(1, 11))


def test_errors_are_averaged_over_timesteps_or_absent(run):
  error = mean_sds_loss(read_curves(run))
  assert error is not None
  np.testing.assert_allclose(error.value, 0.2, rtol=1e-6)
  assert mean_sds_loss({}) is None


def test_curves_of_earlier_versions_are_read(tmp_path):
  with SummaryWriter(str(tmp_path)) as writer:
    writer.add_scalar("Smp/raw_error_t15", 0.25, 0)
  error = mean_sds_loss(read_curves(tmp_path, ["Smp/sds_loss_t"]))
  assert error is not None and error.value.tolist() == [0.25]


def test_a_curve_is_not_known_beyond_its_end():
  curve = Curve(np.arange(3), np.array([0.0, 30.0, 60.0]), np.ones(3))
  assert curve.at(100.0) == 1.0 and curve.at(500.0) is None
  assert curve.first_above(0.5) == 0 and curve.first_above(1.0) is None


def test_the_script_prints_a_row_for_each_run(run, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["compare_runs", str(run), str(run)])
  compare_runs.main()
  assert capsys.readouterr().out.count("some_run") == 2


def test_folders_without_a_curve_are_named(run, tmp_path, monkeypatch):
  (tmp_path / "empty").mkdir()
  for words, message in ((["empty"], "empty: no curve here"), ([], "no run named")):
    names = [str(tmp_path / word) for word in words]
    monkeypatch.setattr(sys, "argv", ["compare_runs", *names])
    with pytest.raises(UserError, match=message):
      compare_runs.main()
