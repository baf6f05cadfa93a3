"""The data scripts as a person runs them: exit codes, one-line errors, what is written."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from smp.data.convert import ConvertCfg, convert
from smp.data.stats import doubt_stats
from smp.motion import dataset
from smp.motion.clips import clip_windows, resample
from smp.motion.dataset import load_stats
from smp.motion.features import SLICES
from smp.paths import MOTIONS, NORM_STATS, ROOT
from tests.data.test_select_locomotion import gait
from tests.motion.test_clips import corrupt, synthetic_clip, write_csv
from tests.standing import standing_clip


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
  words = ("compute_norm_stats", "--inputs", npz, "--output", stats)
  # Statistics that are not there yet cannot be compared with.
  assert "stats.npz" in refused(script(*words, "--compare", stats))
  assert not stats.exists()
  code, out, _ = script(*words)
  assert code == 0 and "left_knee" not in out
  code, out, _ = script(*words, "--compare", stats, "--overwrite")
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
  out = tmp_path / "gone.yaml"
  line = refused(
    script("select_clips", "--input-dir", folder, "--output", out, "--clips", "walk*")
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
    ("--input-fps", "1e-300"),
    ("--input-fps", "0.0333"),
    ("--output-fps", "1e6"),
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


def test_statistics_are_written_over_nothing_unasked(script, folder, tmp_path):
  npz, stats = tmp_path / "npz", tmp_path / "stats.npz"
  script("csv_to_npz", "--input-dir", folder, "--output-dir", npz)
  window = npz / "clip0.npz"
  before = window.read_bytes()

  def line(inputs: Path, output: Path, *more: object) -> str:
    words = ("--inputs", inputs, "--output", output, *more)
    return refused(script("compute_norm_stats", *words))

  for inputs, output in ((window, window), (npz, window), (npz, npz / "stats.npz")):
    for more in ((), ("--overwrite",)):
      assert f"--output {output}: " in line(inputs, output, *more)
  assert window.read_bytes() == before and not (npz / "stats.npz").exists()
  stats.write_text("precious")
  assert "replace it with --overwrite" in line(npz, stats)
  assert "exists; replace it" in refused(script("compute_norm_stats", "--inputs", npz))
  assert "ends in .npz" in line(npz, tmp_path / "stats.txt")
  # Statistics of another layout are told before anything is written.
  other = tmp_path / "other.npz"
  np.savez(other, q_low=np.zeros(3), q_high=np.ones(3))
  found = line(npz, stats, "--overwrite", "--compare", other)
  assert "other.npz: has 3 features, the windows 59" in found
  assert stats.read_text() == "precious"


def walks(folder: Path, *names: str) -> Path:
  """Write a walk under each name."""
  for name in names:
    path = folder / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, gait(4, 1.5))
  return folder


WALK = ("--skip-s", "0", "--min-s", "0.3")


def test_patterns_that_match_nothing_are_refused(script, tmp_path):
  clips, out = walks(tmp_path / "csv", "walk1", "walk2"), tmp_path / "m.yaml"
  words = ("select_clips", "--input-dir", clips, "--output", out, *WALK)
  line = refused(script(*words, "--clips", "walk1", "wlak2"))
  assert "--clips wlak2: no clip matches" in line and "'walk2'" in line
  line = refused(script(*words, "--clips", "walk1", "--standing-clips", "zzz"))
  assert "--standing-clips zzz: no clip matches" in line
  assert not out.exists()
  line = refused(script("inspect_clips", clips, "--clips", "walk1", "zzz"))
  assert "--clips zzz: no clip matches" in line
  # The usual patterns name clips of several kinds, of which a folder may have one.
  assert script(*words)[0] == 0 and out.exists()


def test_clips_in_sub_folders_are_chosen_for_all_of_their_motion(script, tmp_path):
  clips, out = walks(tmp_path / "csv", "sub/walk1"), tmp_path / "m.yaml"
  words = ("--input-dir", clips, "--output", out, *WALK)
  assert script("select_clips", *words)[0] == 0
  assert yaml.safe_load(out.read_text())["clips"][0]["clip"] == "sub__walk1"


@pytest.mark.parametrize("name", ["select_clips", "select_getups"])
def test_a_single_row_is_skipped(script, tmp_path, name):
  clips, out = tmp_path / "csv", tmp_path / "m.yaml"
  clips.mkdir()
  write_csv(clips / "one.csv", standing_clip(1))
  words = (name, "--input-dir", clips, "--output", out, "--clips", "*")
  code, _, err = script(*words)
  assert code == 2 and "error: " in err and "no clip has 2 rows" in err
  assert "one.csv: skipped, a single row has no velocity" in err
  walks(clips, "walk1")
  code, _, err = script(*words, *(WALK if name == "select_clips" else ()))
  assert "one.csv: skipped" in err and "Traceback" not in err
  assert code == (0 if name == "select_clips" else 2), "a walk has no get-up"


def test_motion_sets_are_written_over_nothing_unasked(script, tmp_path):
  clips, out = walks(tmp_path / "csv", "walk1"), tmp_path / "m.yaml"
  words = ("select_clips", "--input-dir", clips, *WALK, "--output")
  line = refused(script(*words, clips / "walk1.csv"))
  assert "give a name that ends in .yaml or .yml" in line
  assert script(*words, out)[0] == 0
  out.write_text("precious")
  assert "m.yaml: exists; replace it with --overwrite" in refused(script(*words, out))
  assert out.read_text() == "precious"
  assert script(*words, out, "--overwrite")[0] == 0


def test_all_outputs_are_checked_before_one_is_written(script, tmp_path):
  clips, out = walks(tmp_path / "csv", "walk1"), tmp_path / "m.yaml"
  words = ("select_clips", "--input-dir", clips, *WALK, "--output", out, "--plot")
  (tmp_path / "file").touch()
  assert "cannot write here" in refused(script(*words, tmp_path / "file" / "a.png"))
  (tmp_path / "folder.png").mkdir()
  assert "is a folder" in refused(script(*words, tmp_path / "folder.png"))
  assert not out.exists()


def test_names_that_cannot_be_shown_are_refused_before_work(script, tmp_path):
  clips = walks(tmp_path / "csv", "walk1", "w\u3000\u00e4 \u8d70")
  npz, out = tmp_path / "npz", tmp_path / "m.yaml"
  convert = ("csv_to_npz", "--input-dir", clips, "--output-dir", npz, "--workers", 1)
  assert script(*convert)[0] == 0
  for name in ("w\udcff", "w\nx", "w\x1b[2J"):
    bad = clips / f"{name}.csv"
    try:
      write_csv(bad, gait(4, 1.5))
    except (OSError, UnicodeError):
      pytest.skip("the file system has no such names")
    stay = len(list(npz.iterdir()))
    assert "rename it" in refused(script(*convert))
    assert len(list(npz.iterdir())) == stay
    select = (
      "select_clips",
      "--input-dir",
      clips,
      "--output",
      out,
      "--overwrite",
      *WALK,
    )
    assert "rename it" in refused(script(*select, "--clips", "w*"))
    # What is not chosen does no harm.
    assert script(*select, "--clips", "walk1")[0] == 0
    code, _, err = script("inspect_clips", clips)
    assert code == 2 and "rename it" in err and "Traceback" not in err
    bad.unlink()


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
  short = "a_name_of_a_clip_that_is_longer_than_its_column"
  write_csv(folder / f"{short}.csv", synthetic_clip(5))
  code, out, _ = script("inspect_clips", folder, "--clips", "a_*")
  assert code == 0 and "too short" in out
  firsts = [line.split("│")[1].strip() for line in out.splitlines() if "│" in line]
  assert "".join(firsts) == short, "the whole name, in however many lines"


@pytest.fixture
def windows() -> np.ndarray:
  """(N, 10, 59) of a robot that sways about on the spot."""
  clip = resample(standing_clip(300))
  t = np.arange(len(clip))[:, None]
  pos = clip.root_pos + 0.2 * np.sin(t / (5, 7, 1e9))
  turns = Rotation.from_euler("xyz", 0.2 * np.sin(t / (6, 8, 11)))
  quat = turns.as_quat()[:, [3, 0, 1, 2]]
  return clip_windows(replace(clip, root_pos=pos, root_quat=quat)).numpy()


def test_a_robot_that_stands_still_fits_its_statistics():
  clip = standing_clip(300)
  still = replace(clip, joint_pos=0 * clip.joint_pos, root_pos=0 * clip.root_pos + 0.78)
  assert doubts_of(clip_windows(still).numpy(), clip_windows(still).numpy()) == ""


def doubts_of(windows: np.ndarray, foreign: np.ndarray) -> str:
  return doubt_stats(windows, dataset.compute_norm_stats(foreign))


def test_statistics_of_the_same_clips_fit(windows):
  assert doubts_of(windows, windows) == ""
  assert doubts_of(windows[20:80], windows) == ""
  # The ends of a range are not those of half of the clips.
  assert doubts_of(windows, windows[: len(windows) // 2]) == ""


@pytest.mark.parametrize(
  "what, change, expected",
  [
    ("root_pos", lambda v: 100 * v, "z = "),
    ("root_pos", lambda v: v - (0, 0, 0.6), "root_pos z: 100 %"),
    ("joint_pos", np.degrees, "its limits are"),
    ("joint_pos", lambda v: v - np.resize((-0.4, 0, 0, 0.9, -0.5, 0), 29), "_joint"),
    ("joint_pos", lambda v: v[..., ::-1], "lie outside"),
    ("root_lin_vel", lambda v: 100 * v, "root_lin_vel fills 1.0 %"),
    ("root_ang_vel", lambda v: v / 50, "root_ang_vel: "),
  ],
)
def test_statistics_of_other_units_or_clips_do_not_fit(windows, what, change, expected):
  foreign = windows.copy()
  foreign[..., SLICES[what]] = change(foreign[..., SLICES[what]])
  assert expected in doubts_of(windows, foreign)


def test_shipped_statistics_fit_the_shipped_motion_sets(lafan_dir, tmp_path):
  """Each clip by itself; and those of who lies do not fit who walks."""
  stats, sets = load_stats(NORM_STATS), {}
  for name in ("loco", "getup"):
    cfg = ConvertCfg(
      tmp_path / name, lafan_dir, MOTIONS / f"{name}.yaml", stride=5, workers=1
    )
    convert(cfg)
    sets[name] = dataset.load_windows([tmp_path / name])
    own = dataset.compute_norm_stats(sets[name].windows)
    for clip in range(len(sets[name].clips)):
      part = sets[name].windows[sets[name].clip_index == clip]
      assert doubt_stats(part, stats) == "" and doubt_stats(part, own) == ""
  getup, loco = sets["getup"].windows, sets["loco"].windows
  lying = getup[(getup[..., SLICES["root_pos"]][..., 2] < 0.3).all(axis=1)]
  assert "root_pos z: 100 %" in doubts_of(loco, lying)
  assert doubts_of(getup, loco)
