"""Motion sets, files of windows, statistics, and the scripts around them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml

from smp.data import convert
from smp.data.familiar import load_familiar
from smp.data.select_locomotion import (
  SelectCfg,
  is_locomotion,
  measure,
  pieces_of,
  select,
)
from smp.data.stats import StatsCfg, feature_labels, run_stats, span_difference
from smp.errors import UserError, run
from smp.motion import dataset
from smp.motion.features import FEATURE_DIM, WINDOW, g1_spec, mirror_features
from smp.paths import MOTIONS
from smp.utils.files import atomic_path
from tests.motion.test_clips import synthetic_clip, write_csv


@pytest.fixture
def folder(tmp_path) -> Path:
  clips = tmp_path / "csv"
  clips.mkdir()
  for i, frames in enumerate((60, 40, 90)):
    write_csv(clips / f"clip{i}.csv", synthetic_clip(frames, seed=i))
  return clips


def write_yaml(path: Path, data: object) -> Path:
  path.write_text(yaml.dump(data))
  return path


# Conversion.


def test_convert_writes_what_the_design_says(folder, tmp_path):
  cfg = convert.ConvertCfg(input_dir=folder, output_dir=tmp_path / "npz", workers=2)
  results = convert.convert(cfg)
  assert sorted(result.clip for result in results) == ["clip0", "clip1", "clip2"]
  with np.load(tmp_path / "npz" / "clip0.npz", allow_pickle=False) as npz:
    assert npz["windows"].shape == (99 - WINDOW + 1, WINDOW, FEATURE_DIM)
    assert npz["windows"].dtype == np.float32
    assert npz["fps"] == 50 and npz["window_size"] == 10 and npz["stride"] == 1
    assert list(npz["feature_dims"]) == [3, 6, 29, 15, 3, 3]
    assert list(npz["ee_body_names"])[2] == "torso_link"
  assert not [p for p in (tmp_path / "npz").iterdir() if p.name.startswith(".")]


def test_one_process_and_several_write_the_same(folder, tmp_path):
  for workers in (1, 3):
    out = tmp_path / f"npz{workers}"
    convert.convert(
      convert.ConvertCfg(input_dir=folder, output_dir=out, workers=workers)
    )
  for name in ("clip0", "clip1", "clip2"):
    a, b = (
      dataset.load_windows([tmp_path / f"npz{w}" / f"{name}.npz"]) for w in (1, 3)
    )
    np.testing.assert_array_equal(a.windows, b.windows)


def test_shards_share_the_clips_out(folder, tmp_path):
  jobs = []
  for index in range(2):
    cfg = convert.ConvertCfg(
      input_dir=folder, output_dir=tmp_path, shard_index=index, num_shards=2
    )
    jobs += [entry.clip for _, entry in convert.plan(cfg)]
  assert sorted(jobs) == ["clip0", "clip1", "clip2"]


def test_ranges_mirrors_and_splits(folder, tmp_path):
  motions = write_yaml(
    tmp_path / "m.yaml",
    {
      "name": "m",
      "mirror": True,
      "clips": [
        {"clip": "clip0", "ranges": [[0, 20], [30, 50]]},
        {"clip": "clip2", "mirror": False, "split": "val"},
      ],
    },
  )
  cfg = convert.ConvertCfg(
    input_dir=folder, output_dir=tmp_path / "npz", motions=motions
  )
  convert.convert(cfg)
  data = dataset.load_windows([tmp_path / "npz"])
  per_range = 32 - WINDOW + 1  # 20 rows at 30 fps are 32 frames at 50.
  first = data.clip_index == data.clips.index("clip0")
  assert first.sum() == 4 * per_range
  assert data.mirrored[first].sum() == 2 * per_range
  plain, mirrored = (data.windows[first & (data.mirrored == m)] for m in (False, True))
  # The two sides of the robot differ by fractions of a millimetre.
  want = mirror_features(torch.from_numpy(plain)).numpy()
  np.testing.assert_allclose(mirrored, want, atol=2e-3)
  assert np.abs(mirrored - plain).max() > 0.1
  assert not data.mirrored[~first].any()
  assert len(data.select("train")) == 4 * per_range
  assert len(data.select("val")) == (~first).sum()


@pytest.mark.parametrize("other", ["sub__walk", "link", "twin"])
def test_one_file_under_two_names_is_not_in_both_splits(tmp_path, other):
  walk = tmp_path / "csv" / "sub" / "walk.csv"
  walk.parent.mkdir(parents=True)
  write_csv(walk, synthetic_clip(60))
  (tmp_path / "csv" / "link.csv").symlink_to(walk)
  (tmp_path / "csv" / "twin.csv").hardlink_to(walk)
  write_csv(tmp_path / "csv" / "run.csv", synthetic_clip(60, seed=1))
  clips = [
    {"clip": "walk", "ranges": [[0, 40]]},
    {"clip": "run"},
    {"clip": other, "split": "val", "ranges": [[20, 60]]},
  ]
  motions = write_yaml(tmp_path / "m.yaml", {"clips": clips})
  out = tmp_path / "npz"
  cfg = convert.ConvertCfg(input_dir=tmp_path / "csv", output_dir=out, motions=motions)
  with pytest.raises(
    UserError, match=rf"m.yaml: clips 'walk' and '{other}' are one file .*list it once"
  ):
    convert.convert(cfg)
  assert not out.exists()
  write_yaml(motions, {"clips": clips[:2]})
  assert len(convert.plan(cfg)) == 2


def test_windows_never_span_two_ranges(folder, tmp_path):
  def windows(ranges):
    motions = write_yaml(
      tmp_path / "m.yaml", {"clips": [{"clip": "clip2", "ranges": ranges}]}
    )
    out = tmp_path / str(len(ranges))
    convert.convert(
      convert.ConvertCfg(input_dir=folder, output_dir=out, motions=motions)
    )
    return dataset.load_windows([out]).windows

  both = windows([[0, 30], [30, 60]])
  assert len(both) == 2 * len(windows([[0, 30]]))


def test_short_clips_are_skipped_with_a_warning(folder, tmp_path, capsys):
  write_csv(folder / "short.csv", synthetic_clip(5))
  write_csv(folder / "single.csv", synthetic_clip(1))
  cfg = convert.ConvertCfg(input_dir=folder, output_dir=tmp_path / "npz", workers=1)
  results = convert.convert(cfg)
  assert sum(result.skipped for result in results) == 2
  assert not (tmp_path / "npz" / "short.npz").exists()
  assert "short" in capsys.readouterr().err


# Styles.


def test_labels_of_clips_and_ranges_reach_the_windows(folder, tmp_path):
  clips = [
    {"clip": "clip0", "style": "walk"},
    {"clip": "clip1"},
    {
      **{"clip": "clip2", "ranges": [[0, 20]], "split": "val", "mirror": True},
      "styles": {"crouch": [[50, 70], [70, 90]], "run": [[20, 50]]},
    },
  ]
  motions = write_yaml(tmp_path / "m.yaml", {"clips": clips})
  cfg = convert.ConvertCfg(
    input_dir=folder, output_dir=tmp_path / "npz", motions=motions, workers=1
  )
  convert.convert(cfg)
  found = dataset.load_windows([tmp_path / "npz"])
  assert found.styles == ("crouch", "run", "walk")
  # Rows to frames to windows: 20 rows are 32 frames, which are 23 windows.
  ranges = [(99, 2)], [(65, -1)], [(32, -1), (32, 0), (32, 0), (49, 1)]
  expected = [
    np.repeat(label, (frames - WINDOW + 1) * times)
    for times, clip in zip((1, 1, 2), ranges, strict=True)
    for frames, label in clip
  ]
  np.testing.assert_array_equal(found.style_index, np.concatenate(expected))
  val = found.select_styles("val")
  assert len(val) == len(found.select("val"))
  assert set(val) == {-1, 0, 1} and set(found.select_styles("train")) == {-1, 2}
  with np.load(tmp_path / "npz" / "clip2.npz") as npz:
    assert npz["ranges"].tolist() == [[0, 20], [50, 70], [70, 90], [20, 50]]

  some = found.of_styles(("walk", "crouch"))
  assert some.styles == ("crouch", "walk") and some.clips == ("clip0", "clip2")
  for name in some.styles:
    before, after = (
      each.windows[each.style_index == each.styles.index(name)]
      for each in (found, some)
    )
    np.testing.assert_array_equal(after, before)
  assert (
    len(some.windows)
    == len(some.mirrored)
    == len(some.select("train")) + len(some.select("val"))
  )
  assert set(some.select_styles("val")) == {0} and set(some.select_styles("train")) == {
    1
  }
  with pytest.raises(UserError, match="style 'rum': .* did you mean 'run'"):
    found.of_styles(("rum",))


def labelled(styles: list[str], splits: list[str], mirror: bool = True):
  """Return windows of 12 in each clip and style, marked by their number."""
  count, times = 12, 2 if mirror else 1
  total = count * times * len(splits) * len(styles)
  per_clip = total // len(splits)
  order = np.arange(total)
  return dataset.WindowSet(
    windows=np.broadcast_to(order[:, None, None], (total, WINDOW, 59)).astype(
      np.float32
    ),
    spec=g1_spec(),
    stride=5,
    clips=tuple(f"clip{i}" for i in range(len(splits))),
    clip_index=order // per_clip,
    mirrored=(order % per_clip) >= count * len(styles),
    splits=cast(Any, tuple(splits)),
    styles=tuple(styles),
    style_index=(order // count) % len(styles),
  )


def test_the_first_seconds_of_each_style_are_taken_from_training_clips_alone():
  found = labelled(["run", "walk"], ["train", "val", "train"])
  some = found.first_seconds(
    1.5
  )  # 15 windows at 10 a second: 12 of one clip, 3 of another.
  for style in (0, 1):
    for mirrored in (False, True):
      taken = found.rows_of("train") & (found.style_index == style)
      taken &= found.mirrored == mirrored
      rows = some.rows_of("train") & (some.style_index == style)
      rows &= some.mirrored == mirrored
      np.testing.assert_array_equal(some.windows[rows], found.windows[taken][:15])
  np.testing.assert_array_equal(some.select("val"), found.select("val"))
  # More than there is changes nothing; a clip without windows goes.
  assert len(found.first_seconds(100.0).windows) == len(found.windows)
  assert found.first_seconds(1.0).clips == ("clip0", "clip1")
  with pytest.raises(
    UserError, match="0.05 s of a style are no window at a stride of 5"
  ):
    found.first_seconds(0.05)
  with pytest.raises(UserError, match="the windows have no styles"):
    replace(found, styles=(), style_index=np.zeros(0, np.int64)).first_seconds(1.0)


def test_without_labels_there_are_no_styles(folder, tmp_path):
  cfg = convert.ConvertCfg(input_dir=folder, output_dir=tmp_path, workers=1)
  convert.convert(cfg)
  found = dataset.load_windows([tmp_path])
  assert found.styles == () and not len(found.style_index)
  assert not len(found.select_styles("train"))
  with np.load(tmp_path / "clip0.npz") as npz:
    assert "styles" not in npz


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.array(["run"])])
def test_labels_of_another_kind_are_refused(folder, tmp_path, labels):
  cfg = convert.ConvertCfg(input_dir=folder, output_dir=tmp_path, workers=1)
  convert.convert(cfg)
  path = tmp_path / "clip0.npz"
  with np.load(path) as npz:
    arrays = dict(npz)
  np.savez(path, **arrays, styles=labels)
  with pytest.raises(UserError, match="'styles' does not have one name per window"):
    dataset.load_windows([path])


def test_the_shipped_styles_are_each_in_both_splits():
  motions = dataset.load_motions(MOTIONS / "styles.yaml")
  assert len(motions.styles) >= 6
  for split in ("train", "val"):
    found = {s for entry in motions.clips if entry.split == split for s in entry.styles}
    assert found == set(motions.styles)


def test_nobody_is_seen_in_a_shipped_style_in_both_splits():
  motions = dataset.load_motions(MOTIONS / "styles.yaml")
  for style in motions.styles:
    people = {
      split: {
        entry.clip.rpartition("_subject")[2]
        for entry in motions.clips
        if entry.split == split and style in entry.styles
      }
      for split in ("train", "val")
    }
    assert not people["train"] & people["val"]
    assert len(people["train"]) >= 2


# Bad input.


def error_line(capsys, action) -> str:
  with pytest.raises(SystemExit) as end:
    run(action)
  assert end.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  errors = [line for line in lines if line.startswith("error: ")]
  assert len(errors) == 1 and "Traceback" not in "".join(lines)
  return errors[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_row_ends_in_one_line_and_no_half_written_file(
  folder, tmp_path, capsys, workers
):
  path = folder / "clip1.csv"
  path.write_text(path.read_text().replace("\n", ",oops\n", 1))
  out = tmp_path / "npz"
  cfg = convert.ConvertCfg(input_dir=folder, output_dir=out, workers=workers)
  line = error_line(capsys, lambda: convert.convert(cfg))
  assert "clip1.csv" in line and "row 1" in line
  names = [p.name for p in out.glob("*")] if out.exists() else []
  assert "clip1.npz" not in names and not any(n.startswith(".") for n in names)


def test_folders_and_options_are_checked(folder, tmp_path, capsys, monkeypatch):
  monkeypatch.delenv("SMP_LAFAN_DIR", raising=False)
  out = tmp_path / "npz"

  def line(**options) -> str:
    cfg = convert.ConvertCfg(output_dir=out, **options)
    return error_line(capsys, lambda: convert.convert(cfg))

  assert "SMP_LAFAN_DIR" in line()
  assert "no such folder" in line(input_dir=tmp_path / "gone")
  (tmp_path / "empty").mkdir()
  assert "no CSV" in line(input_dir=tmp_path / "empty")
  assert "--stride 0" in line(input_dir=folder, stride=0)
  assert "--shard-index 3" in line(input_dir=folder, shard_index=3, num_shards=2)
  monkeypatch.setenv("SMP_LAFAN_DIR", str(folder))
  assert len(convert.plan(convert.ConvertCfg(output_dir=out))) == 3


@pytest.mark.parametrize(
  "data, message",
  [
    ({"clips": [{"clip": "clip9"}]}, "clip 'clip9' is not in"),
    ({"clips": [{"clip": "clip0", "range": [[0, 9]]}]}, "did you mean 'ranges'"),
    ({"clip": ["clip0"]}, "did you mean 'clips'"),
    ({"clips": []}, "at least one clip"),
    ({"clips": [{"clip": "clip0", "ranges": [[9, 3]]}]}, "stop > start"),
    ({"clips": [{"clip": "clip0", "ranges": [[0, 61]]}]}, "ends after its 60 rows"),
    ({"clips": [{"clip": "clip0", "split": "test"}]}, "expected 'train' or 'val'"),
    ({"clips": ["clip0", "clip0"]}, "listed twice"),
    (["clip0"], "'key: value' lines"),
    ({"clips": [{"clip": "clip0", "style": "Run fast"}]}, "'Run fast' is no name"),
    ({"clips": [{"clip": "clip0", "styles": {"run": []}}]}, "'run' has no ranges"),
    (
      {"clips": [{"clip": "clip0", "style": "walk", "styles": {"run": [[0, 30]]}}]},
      "style 'walk' has no 'ranges'; beside 'styles' it needs them",
    ),
    ({"clips": [{"clip": "clip0", "styles": {"run": [[9, 3]]}}]}, "stop > start"),
    ({"clips": [{"clip": "clip0", "styles": {"run": [[0, 61]]}}]}, "after its 60 rows"),
    (
      {"styles": {"walk": ""}, "clips": [{"clip": "clip0", "style": "wlak"}]},
      "style 'wlak' is not among 'styles'; did you mean 'walk'",
    ),
  ],
)
def test_motion_sets_are_checked(folder, tmp_path, capsys, data, message):
  motions = write_yaml(tmp_path / "m.yaml", data)
  cfg = convert.ConvertCfg(
    input_dir=folder, output_dir=tmp_path / "npz", motions=motions, workers=1
  )
  line = error_line(capsys, lambda: convert.convert(cfg))
  assert message in line and "m.yaml" in line or "clip0.csv" in line


def test_yaml_that_is_none(tmp_path):
  path = tmp_path / "m.yaml"
  path.write_text("clips: [")
  with pytest.raises(UserError, match="not valid YAML"):
    dataset.load_motions(path)
  path.write_text("name: x\nclips:\n- clip: a\n  split: val\n  split: train\n")
  with pytest.raises(UserError, match="m.yaml: not valid YAML .*'split' stands twice"):
    dataset.load_motions(path)
  with pytest.raises(UserError, match="gone.yaml"):
    dataset.load_motions(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("ranges: [[010, 0100]]", "'ranges[0][0]' is '010', expected .*, in plain digits"),
    ("ranges: [[0, 1:30]]", "'ranges[0][1]' is '1:30', expected .*, in plain digits"),
    ("mirror: yes", "'mirror' is 'yes', expected a valid boolean, true or false"),
    ("split:", "'split' has no value; give one, or leave the key out"),
    ("ranges:\n  # - [0, 30]", "'ranges' has no value"),
    ("ranges: []", "'ranges' has no value"),
    ("style:", "'style' has no value"),
    ("style: ''", "'style' has no value"),
    ("styles: {}", "'styles' has no value"),
    ("mirror:", "'mirror' has no value"),
  ],
)
def test_fields_that_say_something_else_are_refused(tmp_path, text, message):
  path = tmp_path / "m.yaml"
  path.write_text(f"clips:\n- clip: a\n  {text}\n")
  pattern = message.replace("[", r"\[").replace("]", r"\]")
  with pytest.raises(UserError, match=f"m.yaml: clip 'a': {pattern}"):
    dataset.load_motions(path)


def test_words_of_motion_sets_are_as_they_stand(tmp_path):
  path = tmp_path / "m.yaml"
  path.write_text("mirror:\nclips: [a]\n")
  with pytest.raises(UserError, match="m.yaml: 'mirror' has no value"):
    dataset.load_motions(path)
  path.write_text("clips:\n- 007\n- clip: no\n  styles: {yes: [[0, 9]]}\n")
  first, second = dataset.load_motions(path).clips
  assert (first.clip, second.clip, list(second.styles)) == ("007", "no", ["yes"])


def some_windows(path: Path, spec=None, n: int = 5) -> Path:
  windows = np.random.default_rng(0).normal(size=(n, WINDOW, FEATURE_DIM))
  mirrored = np.zeros(n)
  dataset.save_windows(
    path, windows, spec or g1_spec(), clip=path.stem, stride=1, mirrored=mirrored
  )
  return path


def test_damaged_and_foreign_npz(tmp_path):
  path = some_windows(tmp_path / "a.npz")
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError, match="not a readable NPZ"):
    dataset.load_windows([path])
  np.savez(path, other=np.zeros(3))
  with pytest.raises(UserError, match="no array 'windows'"):
    dataset.load_windows([path])
  with pytest.raises(UserError, match="a.npz: holds no windows"):
    dataset.load_windows([some_windows(path, n=0)])
  pickled = np.array([{}])
  np.savez(path, windows=pickled, spec=pickled, stride=pickled)
  with pytest.raises(UserError, match="a.npz"):
    dataset.load_windows([path])
  with pytest.raises(UserError, match="no such file"):
    dataset.load_windows([tmp_path / "gone.npz"])
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty" / "._walk.npz").write_bytes(b"\x00\x05\x16\x07")
  with pytest.raises(UserError, match="no NPZ"):
    dataset.load_windows([tmp_path / "empty"])


def test_motion_is_not_written_over_by_its_windows(tmp_path):
  clip = synthetic_clip(60, seed=0)
  motion = tmp_path / "gmr" / "walk.npz"
  motion.parent.mkdir()
  np.savez(
    motion,
    root_pos=clip.root_pos,
    root_rot=clip.root_quat[:, [1, 2, 3, 0]],
    dof_pos=clip.joint_pos,
    fps=np.array(30),
  )
  before = motion.read_bytes()
  cfg = convert.ConvertCfg(
    input_dir=motion.parent, output_dir=motion.parent, workers=1, accept_doubtful=True
  )
  with pytest.raises(UserError, match="walk.npz: is the clip itself; give another"):
    convert.convert(cfg)
  assert motion.read_bytes() == before


def test_windows_of_another_layout_are_not_mixed(tmp_path):
  a = some_windows(tmp_path / "a.npz")
  b = some_windows(tmp_path / "b.npz", g1_spec(heading="yaw"))
  with pytest.raises(UserError, match="b.npz does not go with .*a.npz: .*'heading'"):
    dataset.load_windows([a, b])


def test_a_motion_counts_once_under_whatever_names(tmp_path):
  a, b = some_windows(tmp_path / "a.npz"), some_windows(tmp_path / "b.npz", n=6)
  assert len(dataset.load_windows([a, b]).windows) == 11
  with pytest.raises(UserError, match="a.npz: given twice; name it once"):
    dataset.load_windows([a, b, a])
  again = some_windows(tmp_path / "c.npz")
  with pytest.raises(UserError, match="c.npz: the same windows as .*a.npz"):
    dataset.load_windows([a, again])
  # The same beginning and end are not the same motion, and two styles may share one.
  windows = dataset.load_windows([a]).windows.copy()
  whole = {"clip": "c", "stride": 1, "mirrored": np.zeros(len(windows))}
  dataset.save_windows(
    again, windows, g1_spec(), **whole, styles=["walk"] * len(windows)
  )
  assert len(dataset.load_windows([a, again]).windows) == 10
  windows[2] += 0.01
  dataset.save_windows(again, windows, g1_spec(), **whole)
  assert len(dataset.load_windows([a, again]).windows) == 10


def test_atomic_path_leaves_nothing_behind(tmp_path):
  target = tmp_path / "file.txt"
  target.write_text("old")
  with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
    temporary.write_text("half")
    raise KeyboardInterrupt
  assert target.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
  (tmp_path / "blocked").write_text("")
  with (
    pytest.raises(UserError, match="cannot write"),
    atomic_path(tmp_path / "blocked" / "x.txt"),
  ):
    pass


# Statistics.


def test_quantiles_map_to_plus_and_minus_one():
  generator = np.random.default_rng(0)
  windows = generator.uniform(-3, 5, size=(4000, WINDOW, 3)).astype(np.float32)
  windows[..., 2] = 0.25
  stats = dataset.compute_norm_stats(windows)
  np.testing.assert_allclose(stats.q_low[:2], -3 + 0.08, atol=0.02)
  np.testing.assert_allclose(stats.q_high[:2], 5 - 0.08, atol=0.02)
  assert stats.q_high[2] - stats.q_low[2] == 1.0
  assert 0.5 * (stats.q_high[2] + stats.q_low[2]) == 0.25
  assert stats.q_low.dtype == np.float32


def test_stats_script_round_trip(tmp_path, capsys):
  a = some_windows(tmp_path / "a.npz", n=50)
  out = tmp_path / "stats.npz"
  run_stats(StatsCfg(inputs=(a,), output=out))
  stats = dataset.load_stats(out)
  assert (span_difference(stats, stats) == 0).all()
  # What is compared with is read before it is written over.
  capsys.readouterr()
  b = some_windows(tmp_path / "b.npz", n=50)
  arrays = dict(np.load(b))
  np.savez(b, **{**arrays, "windows": 3.0 * arrays["windows"]})
  run_stats(StatsCfg(inputs=(b,), output=out, compare=out, overwrite=True))
  differing = capsys.readouterr().out
  assert "left_knee" in differing
  run_stats(StatsCfg(inputs=(b,), output=out, compare=out, overwrite=True))
  assert capsys.readouterr().out != differing
  assert span_difference(dataset.load_stats(out), stats).any()
  plain = tmp_path / "stats"
  run_stats(StatsCfg(inputs=(a,), output=plain))
  assert (span_difference(dataset.load_stats(plain), stats) == 0).all()
  assert not list(tmp_path.glob(".*"))
  load_familiar().save(tmp_path / "familiar")
  assert (tmp_path / "familiar").stat().st_size > 1000
  assert len(feature_labels()) == len(set(feature_labels())) == FEATURE_DIM


def test_bad_statistics_are_refused(tmp_path):
  path = tmp_path / "s.npz"
  np.savez(path, q_low=np.zeros(59), q_high=np.zeros(59))
  with pytest.raises(UserError, match="above q_low"):
    dataset.load_stats(path)
  np.savez(path, q_low=np.zeros(59), q_high=np.ones(58))
  with pytest.raises(UserError, match="must be"):
    dataset.load_stats(path)


def test_shipped_statistics_are_of_the_robot():
  from smp.paths import NORM_STATS

  stats = dataset.load_stats(NORM_STATS)
  assert stats.q_low.shape == (FEATURE_DIM,)
  height = slice(2, 3)
  assert 0.0 < stats.q_low[height] < 0.2 and 0.75 < stats.q_high[height] < 0.9


# Selection.


def test_selection_finds_straight_stretches_only():
  fast = synthetic_clip(200)
  t = np.arange(200) / 30
  straight = np.stack((2.0 * t, 0 * t, 0.76 + 0 * t), axis=1)
  upright = np.tile([1.0, 0.0, 0.0, 0.0], (200, 1))
  joints = np.zeros((200, 29))
  joints[:, 3] = 0.3 * np.sin(9 * t)
  base = type(fast)("c", 30, straight, upright, joints)
  cfg = SelectCfg(output=Path("unused"), skip_s=0.0)
  pieces = pieces_of(base, cfg)
  assert sum(p.seconds for p in pieces) > 6.0
  assert all(abs(p.speed - 2.0) < 0.05 for p in pieces)
  sideways = type(fast)("c", 30, straight[:, [1, 0, 2]], upright, joints)
  assert not pieces_of(sideways, cfg)
  half = 0.5 * 2.0 * t
  turning = np.stack((np.cos(half), 0 * t, 0 * t, np.sin(half)), axis=1)
  assert not is_locomotion(
    measure(type(fast)("c", 30, straight, turning, joints)), cfg
  ).any()
  crouched = straight - [0, 0, 0.3]
  assert not pieces_of(type(fast)("c", 30, crouched, upright, joints), cfg)
  still = type(fast)("c", 30, straight * [0, 0, 1], upright, 0 * joints)
  assert sum(p.seconds for p in pieces_of(still, cfg)) > 6.0
  waving = type(fast)("c", 30, straight * [0, 0, 1], upright, joints * 20)
  assert not pieces_of(waving, cfg)


def test_selection_leaves_out_the_poses_that_clips_begin_and_end_with():
  """Actors stand in a T-pose there, as quietly as anyone who just stands."""
  upright = np.tile([1.0, 0.0, 0.0, 0.0], (600, 1))
  place = np.tile([0.0, 0.0, 0.76], (600, 1))
  still = type(synthetic_clip(2))("c", 30, place, upright, np.zeros((600, 29)))
  pieces = pieces_of(still, SelectCfg(output=Path("unused"), skip_s=4.0))
  assert min(p.start for p in pieces) == 120
  assert max(p.stop for p in pieces) == 480
  whole = pieces_of(still, SelectCfg(output=Path("unused"), skip_s=0.0))
  assert (min(p.start for p in whole), max(p.stop for p in whole)) == (0, 600)
  short = still.cut(0, 100)
  assert not pieces_of(short, SelectCfg(output=Path("unused"), skip_s=4.0))


def test_selection_leaves_self_collisions_out():
  clip = synthetic_clip(200)
  still = np.tile([0.0, 0.0, 0.76], (200, 1))
  upright = np.tile([1.0, 0.0, 0.0, 0.0], (200, 1))
  arms = np.zeros((200, 29))
  arms[:, [16, 23]] = 0.6, -0.6  # Shoulder roll, left and right: away from the body.
  cfg = SelectCfg(output=Path("unused"), skip_s=0.0)
  free = type(clip)("c", 30, still, upright, arms)
  assert sum(p.seconds for p in pieces_of(free, cfg)) > 6.0
  arms[100:, [16, 23]] = -0.3, 0.3
  inside = type(clip)("c", 30, still, upright, arms)
  # The arms' jump is no quiet standing either, hence a few rows less.
  assert 85 < max(p.stop for p in pieces_of(inside, cfg)) <= 100


def test_selection_writes_a_motion_set_and_a_picture(tmp_path, lafan_dir):
  out, plot = tmp_path / "m.yaml", tmp_path / "m.png"
  cfg = SelectCfg(
    output=out,
    input_dir=lafan_dir,
    clips=("run1_subject2", "sprint1_subject2"),
    val=("sprint1_subject2",),
    max_bin_s=3.0,
    plot=plot,
  )
  select(cfg)
  motions = dataset.load_motions(out)
  assert {entry.split for entry in motions.clips} == {"train", "val"}
  assert plot.stat().st_size > 10_000
  with pytest.raises(UserError, match="--val"):
    again = replace(cfg, val=("nobody",), overwrite=True)
    select(again)


@pytest.mark.parametrize("path", sorted(MOTIONS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_motion_sets(path, request):
  motions = dataset.load_motions(path)
  assert motions.name == path.stem
  lafan = request.getfixturevalue("lafan_dir")
  for entry in motions.clips:
    rows = len((lafan / f"{entry.clip}.csv").read_text().splitlines())
    assert all(stop <= rows for _, stop in entry.ranges)
