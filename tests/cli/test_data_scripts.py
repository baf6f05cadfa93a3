"""The data scripts as a person runs them: exit codes, one-line errors, what is written."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from smp.motion import dataset
from smp.paths import ROOT
from tests.motion.test_clips import corrupt, synthetic_clip, write_csv


@pytest.fixture
def folder(tmp_path) -> Path:
  clips = tmp_path / "csv"
  clips.mkdir()
  for i in range(2):
    write_csv(clips / f"clip{i}.csv", synthetic_clip(60, seed=i))
  return clips


@pytest.fixture
def script(monkeypatch, capsys):
  """Run a script in this process: (name, *words) -> (exit code, stdout, stderr)."""

  def call(name: str, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as end:
      runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    output = capsys.readouterr()
    return int(end.value.code or 0), output.out, output.err

  return call


def refused(result: tuple[int, str, str]) -> str:
  code, _, err = result
  lines = [line for line in err.splitlines() if line.startswith("error: ")]
  assert code == 2 and len(lines) == 1 and "Traceback" not in err
  return lines[0]


def test_clips_to_windows_to_statistics(script, folder, tmp_path):
  npz, stats = tmp_path / "npz", tmp_path / "stats.npz"
  code, out, _ = script("csv_to_npz", "--input-dir", folder, "--output-dir", npz)
  assert code == 0 and "2 of 2 clips" in out
  code, out, _ = script(
    "compute_norm_stats", "--inputs", npz, "--output", stats, "--compare", stats
  )
  # Statistics that are not there yet cannot be compared with: they are written first.
  assert code == 0 and "left_knee" in out
  assert dataset.load_stats(stats).q_low.shape == (59,)


def test_npz_names_its_heading_and_velocity(script, folder, tmp_path):
  npz = tmp_path / "npz"
  words = ("--heading", "yaw", "--velocity", "clip", "--method", "linear")
  script("csv_to_npz", "--input-dir", folder, "--output-dir", npz, *words)
  with np.load(npz / "clip0.npz", allow_pickle=False) as data:
    assert (str(data["heading"]), str(data["velocity"])) == ("yaw", "clip")
    assert str(data["clip"]) == "clip0" and len(data["joint_names"]) == 29
  spec = dataset.load_windows([npz]).spec
  assert (spec.heading, spec.velocity) == ("yaw", "clip")


@pytest.mark.parametrize(
  "column, value, message",
  [
    (3, "x", "row 5, column 4: 'x' is not a number"),
    (3, "1_0", "row 5, column 4: '1_0' is not a number"),
    (20, "nan", "row 5, column 21: not a finite number"),
    (10, "7.0", "row 5: left_knee_joint is 7.000 rad"),
    (35, "0,0", "row 5 has 37 columns, expected 36"),
  ],
)
def test_bad_rows(script, folder, tmp_path, column, value, message):
  npz = tmp_path / "npz"
  corrupt(folder / "clip1.csv", 4, column, value)
  result = script(
    "csv_to_npz", "--input-dir", folder, "--output-dir", npz, "--workers", 1
  )
  line = refused(result)
  assert "clip1.csv" in line and message in line
  assert [p.name for p in npz.iterdir()] == ["clip0.npz"]


def test_an_empty_line_inside_a_clip_is_a_gap(script, folder, tmp_path):
  path = folder / "clip0.csv"
  lines = path.read_text().splitlines()
  words = ("--input-dir", folder, "--output-dir", tmp_path / "npz")
  path.write_text("\n".join([*lines[:5], "", *lines[5:]]))
  assert "clip0.csv: row 6 is empty" in refused(script("csv_to_npz", *words))
  path.write_text("\n".join(lines) + "\n\n\n")
  assert script("csv_to_npz", *words)[0] == 0


def test_windows_too_short_for_a_velocity(script, folder, tmp_path):
  words = ("--input-dir", folder, "--output-dir", tmp_path / "npz")
  line = refused(script("csv_to_npz", *words, "--window-size", 2))
  assert "--window-size 2" in line
  assert script("csv_to_npz", *words, "--window-size", 3)[0] == 0


def test_files_of_an_earlier_run_are_pointed_out(script, folder, tmp_path):
  words = ("--input-dir", folder, "--output-dir", tmp_path / "npz")
  script("csv_to_npz", *words)
  assert "not of this set" not in script("csv_to_npz", *words)[2]
  motions = tmp_path / "m.yaml"
  motions.write_text(yaml.dump({"clips": ["clip0"]}))
  assert (
    "1 NPZ not of this set (clip1)"
    in script("csv_to_npz", *words, "--motions", motions)[2]
  )


def test_missing_things_are_named(script, folder, tmp_path, monkeypatch):
  monkeypatch.delenv("SMP_LAFAN_DIR", raising=False)
  gone = tmp_path / "gone"
  assert "SMP_LAFAN_DIR" in refused(script("csv_to_npz", "--output-dir", gone))
  assert "no such file" in refused(
    script("compute_norm_stats", "--inputs", gone, "--output", tmp_path / "s.npz")
  )
  line = refused(
    script("select_clips", "--input-dir", folder, "--output", gone, "--clips", "walk*")
  )
  assert "no clip matches walk*" in line


def test_lengths_are_told_and_nothing_written_is_an_error(script, folder, tmp_path):
  words = ("--output-dir", tmp_path / "npz", "--workers", 1)
  _, out, _ = script("csv_to_npz", "--input-dir", folder, *words)
  assert "clip0: 2.0 s at 30 fps" in out
  short = tmp_path / "short"
  short.mkdir()
  write_csv(short / "a.csv", synthetic_clip(5))
  line = refused(script("csv_to_npz", "--input-dir", short, *words))
  assert "nothing written" in line


@pytest.mark.parametrize(
  "words",
  [
    ("--velocity", "windows"),
    ("--input-fps", "nan"),
    ("--input-fps", "inf"),
    ("--output-fps", "nan"),
    ("--output-fps", "-5"),
    ("--joint-order", "left_toe"),
  ],
)
def test_options_that_make_no_sense(script, folder, tmp_path, words):
  npz = tmp_path / "npz"
  code, _, err = script(
    "csv_to_npz", "--input-dir", folder, "--output-dir", npz, *words
  )
  assert code == 2 and words[0].removeprefix("--") in err and "Traceback" not in err
  assert not list(npz.glob("*.npz"))


def test_a_file_that_is_wrong_is_refused_unless_accepted(script, folder, tmp_path):
  path, npz = folder / "clip0.csv", tmp_path / "npz"
  words = ("--input-dir", folder, "--output-dir", npz, "--workers", 1)
  corrupt(path, 20, 0, "30.0")
  line = refused(script("csv_to_npz", *words))
  assert "clip0.csv: row 21: the root moves" in line and "--accept-doubtful" in line
  code, _, err = script("csv_to_npz", *words, "--accept-doubtful")
  assert code == 0 and "warning: " in err and "row 21" in err


def test_a_table_of_clips(script, folder, tmp_path):
  corrupt(folder / "clip0.csv", 20, 0, "30.0")
  code, out, err = script("inspect_clips", folder)
  assert code == 2 and "refused" in out and "row 21" in err
  code, out, _ = script("inspect_clips", folder, "--clips", "clip1")
  assert code == 0 and "clip1" in out and "2.0" in out
  assert "--view x" in refused(script("inspect_clips", folder, "--view", "x"))


def test_statistics_that_do_not_fit():
  rng = np.random.default_rng(0)
  windows = rng.normal(size=(200, 10, 59)).astype(np.float32)
  stats = dataset.compute_norm_stats(windows)
  assert dataset.doubt_stats(windows, stats) == ""
  assert dataset.doubt_stats(windows[:20] * 0.5, stats) == ""
  for other in (100 * windows, windows + 5, windows / 1000):
    assert dataset.doubt_stats(other.astype(np.float32), stats)
