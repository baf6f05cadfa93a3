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
        ("Perf/updates", 75.0 * (i + 1)),
      ):
        writer.add_scalar(name, value, i, walltime=1000.0 + 30.0 * i)
  return folder


def test_passing_a_length_is_timed_in_minutes_and_steps(run):
  curves = compare_runs.read_run(run)
  # Above 500 for the first time in the sixth iteration, which ends at 150 s.
  cells = compare_runs.speed_cells(curves, (500, 5000))
  assert cells == ["111", "2.5 (0.02)", "–"]


def test_runs_are_compared_at_times_and_at_steps(run):
  curves = compare_runs.read_run(run)
  # Of iterations 4 and 5, of which the latter ends at 120 s, after 15,000 steps; of
  # 75 updates each. Updates and level, episode, task, r_smp, SDS loss.
  expected = ["2.0", "0.01", "338", "–", "450", "0.35", "–", "0.2"]
  assert compare_runs.moment_cells(curves, 120.0) == expected
  seconds = compare_runs.seconds_until(curves, 14_000.0)
  assert compare_runs.moment_cells(curves, seconds) == expected
  never = compare_runs.seconds_until(curves, 1e6)
  for late in (3600.0, never):
    assert compare_runs.moment_cells(curves, late) == ["–"] * len(expected)


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


def test_the_script_prints_rows_for_each_run(run, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["compare_runs", str(run), str(run)])
  compare_runs.main()
  # In a table of lengths, and after 20 and 60 minutes.
  assert capsys.readouterr().out.count("some_run") == 2 * 3


def test_folders_without_a_curve_are_named(run, tmp_path, monkeypatch):
  (tmp_path / "empty").mkdir()
  for words, message in ((["empty"], "empty: no curve here"), ([], "no run named")):
    names = [str(tmp_path / word) for word in words]
    monkeypatch.setattr(sys, "argv", ["compare_runs", *names])
    with pytest.raises(UserError, match=message):
      compare_runs.main()


def log(folder, scalars, iterations=5, missing=(), first=0):
  """Log scalars that all count up; those in ``missing`` lack the last iteration."""
  with SummaryWriter(str(folder)) as writer:
    for i in range(first, first + iterations):
      for name in scalars:
        if name not in missing or i < first + iterations - 1:
          writer.add_scalar(name, 600.0 + i, i, walltime=1000.0 + 30.0 * i)
  return folder


SCALARS = (
  "Smp/task_reward",
  "Train/mean_episode_length",
  "Smp/sds_loss_t8",
  "Smp/sds_loss_t15",
  *compare_runs.PERFORMANCE,
)


@pytest.mark.parametrize("missing", [*SCALARS[2:], "Train/mean_episode_length"])
def test_a_run_that_is_read_in_the_middle_of_an_iteration(
  tmp_path, missing, monkeypatch, capsys
):
  folder = log(tmp_path / "running", SCALARS, missing=(missing,))
  curves = compare_runs.read_run(folder)
  count = 4 if missing in compare_runs.PERFORMANCE else 5
  assert len(compare_runs.steps_done(curves).value) == count
  errors = mean_sds_loss(curves)
  assert errors is not None and len(errors.value) == (4 if "sds" in missing else 5)
  monkeypatch.setattr(sys, "argv", ["compare_runs", str(folder), "--minutes", "1"])
  compare_runs.main()
  assert "running" in capsys.readouterr().out


def test_runs_that_say_too_little_are_named(tmp_path):
  folder = log(tmp_path / "no_speed", SCALARS[:4])
  with pytest.raises(UserError, match="no_speed: a run without Perf/total_fps"):
    compare_runs.read_run(folder)
  log(tmp_path / "apart", SCALARS[:5])
  folder = log(tmp_path / "apart", SCALARS[5:], first=5)
  with pytest.raises(UserError, match="apart: no iteration is complete"):
    compare_runs.read_run(folder)
  (tmp_path / "folder" / "events.out.tfevents.1").mkdir(parents=True)
  with pytest.raises(UserError, match="folder: no curve here"):
    compare_runs.read_run(tmp_path / "folder")


def test_episodes_that_are_logged_before_the_speed_have_no_steps(tmp_path):
  log(tmp_path / "late", SCALARS[:4])
  curves = compare_runs.read_run(log(tmp_path / "late", SCALARS[4:], first=5))
  assert compare_runs.speed_cells(curves, (500,))[1] == "0.0"
