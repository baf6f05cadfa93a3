"""The classifier of windows by style: what it learns, sees, and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from smp.cli import train_style_classifier as cli
from smp.diffusion.styles import body_masks
from smp.errors import UserError, run
from smp.evaluation import style_classifier
from smp.evaluation.style_classifier import (
  LOWER,
  METADATA_KEY,
  PARTS,
  UPPER,
  WHOLE,
  ClassifierCfg,
  StyleClassifier,
  judge,
  labelled,
  mean_accuracy,
  train_classifier,
)
from smp.motion.dataset import NormStats, WindowSet, save_windows
from smp.motion.features import g1_spec, mirror_features

STYLES = ("crouch", "run", "walk")
SPEC = g1_spec()
SIZE = sum(SPEC.feature_dims)
STATS = NormStats(-np.ones(SIZE, np.float32), np.ones(SIZE, np.float32))
QUICK = ClassifierCfg(steps=60, batch_size=64, hidden=16)
UPPER_MASK = body_masks(SPEC)[0]


def motion(label: np.ndarray, seed: int, mask: Tensor) -> np.ndarray:
  """Windows of noise, shifted along a direction of their style within ``mask``."""
  own = torch.Generator().manual_seed(0)
  axes = 0.5 * torch.randn(len(STYLES), 1, SIZE, generator=own) * mask
  # A style looks the same in the mirror.
  axes = 0.5 * (axes + mirror_features(axes))
  noise = torch.from_numpy(
    np.random.default_rng(seed).normal(size=(len(label), 10, SIZE))
  )
  return (axes[label] + 0.3 * noise).float().numpy()


def windows(
  mask: Tensor | None = None, count: int = 120, styles: tuple[str, ...] = STYLES
) -> WindowSet:
  """Two clips, the second held out; stride 10, so that no windows overlap."""
  label = np.arange(2 * count) % len(STYLES)
  mask = torch.ones(SIZE) if mask is None else mask
  return WindowSet(
    windows=motion(label, 1, mask),
    spec=SPEC,
    stride=10,
    clips=("a_subject1", "a_subject2"),
    clip_index=np.arange(2 * count) // count,
    mirrored=np.zeros(2 * count, bool),
    splits=("train", "val"),
    styles=styles,
    style_index=label,
  )


def mean_of(classifier: StyleClassifier, part: str) -> float:
  found = mean_accuracy(classifier.held_out, part)
  assert found is not None
  return found


@pytest.fixture(scope="module")
def classifier() -> StyleClassifier:
  return train_classifier(windows(), STATS, QUICK)


def test_it_knows_held_out_windows_of_styles_that_differ(classifier):
  for part in PARTS:
    rows = [each for each in classifier.held_out if each.part == part]
    assert [each.style for each in rows] == list(STYLES)
    for each in rows:
      assert each.windows == 40 and sum(each.given.values()) == pytest.approx(1.0)
      assert each.low <= each.accuracy <= each.high
    assert mean_of(classifier, part) > 0.9
  assert classifier.info["held_out_clips"]["run"] == ["a_subject2"]


def test_a_part_sees_its_own_features_alone(classifier):
  one = torch.from_numpy(windows().windows[:20])
  for part, hidden in ((UPPER, 1.0 - UPPER_MASK), (LOWER, UPPER_MASK)):
    other = one + 5.0 * hidden
    assert torch.equal(classifier(one, part), classifier(other, part))
    assert not torch.equal(classifier(one, WHOLE), classifier(other, WHOLE))


def test_a_part_without_a_difference_is_at_chance():
  found = train_classifier(windows(UPPER_MASK, count=600), STATS, QUICK)
  assert mean_of(found, UPPER) > 0.9
  assert mean_of(found, LOWER) < 0.45


def test_the_held_out_clips_do_not_train_it(classifier):
  data = windows()
  other = data.windows.copy()
  other[data.rows_of("val")] += 1.0
  again = train_classifier(replace(data, windows=other), STATS, QUICK)
  for name, value in classifier.state_dict().items():
    assert torch.equal(value, again.state_dict()[name])


def test_every_style_and_of_a_style_every_clip_weighs_the_same():
  data = windows()
  data = labelled(replace(data, splits=("train", "train")), "train")
  keep = (data.label != 1) | (torch.arange(len(data.label)) % 4 == 0)
  keep &= (data.clip == 0) | (torch.arange(len(data.label)) % 3 != 2)
  data = style_classifier.LabelledWindows(
    data.features[keep], data.label[keep], data.clip[keep]
  )
  weights = style_classifier._balance(data)
  for style in data.label.unique():
    own = data.label == style
    assert weights[own].sum() == pytest.approx(1.0)
    clips = data.clip[own].unique()
    for clip in clips:
      share = weights[own & (data.clip == clip)].sum()
      assert share == pytest.approx(1.0 / len(clips))


def test_windows_that_overlap_or_are_mirrored_count_once():
  data = windows()
  mirrored = np.arange(240) % 2 == 1
  found = labelled(replace(data, stride=5, mirrored=mirrored), "val")
  # Of the 120 windows 60 are not mirrored, 20 of each style, and of these every second.
  assert len(found.label) == 30 and torch.bincount(found.label).tolist() == [10] * 3


def test_the_matrix_counts_labels(classifier):
  data = labelled(windows(), "val")
  turned = replace(data, label=(data.label + 1) % 3)
  for each in judge(classifier, turned):
    before = STYLES[(STYLES.index(each.style) - 1) % 3]
    assert max(each.given, key=lambda name: each.given[name]) == before


def test_a_file_keeps_all_of_it(classifier, tmp_path: Path):
  path = tmp_path / "c.safetensors"
  classifier.save(path)
  again = StyleClassifier.load(path)
  one = torch.from_numpy(windows().windows[:20])
  for part in PARTS:
    assert torch.equal(classifier(one, part), again(one, part))
  assert again.held_out == classifier.held_out and again.info == classifier.info
  assert again.styles == STYLES and again.spec == SPEC


# Bad input.


def rewritten(path: Path, **changes: object) -> Path:
  """Change entries of the metadata of a classifier's file."""
  with safe_open(path, framework="pt") as file:
    described = json.loads(file.metadata()[METADATA_KEY])
    tensors = {name: file.get_tensor(name) for name in file.keys()}
  described.update(changes)
  save_file(tensors, path, {METADATA_KEY: json.dumps(described)})
  return path


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"spec": {**SPEC.to_dict(), "fps": 60.0}}, "other windows: .*'fps' is 60.0"),
    (
      {"spec": {**SPEC.to_dict(), "joint_names": ["a", *SPEC.joint_names[1:]]}},
      "other windows: .*'joint_names' is 'a'",
    ),
    ({"styles": ["walk"]}, "'styles' is"),
    ({"styles": ["walk", "run"]}, "tensor 'networks.whole.6.weight' is"),
    ({"format_version": 9}, "'format_version' is 9"),
    ({"hidden": -1}, "'hidden' is -1"),
  ],
)
def test_files_of_others_are_refused(classifier, tmp_path: Path, changes, message):
  path = tmp_path / "c.safetensors"
  classifier.save(path)
  with pytest.raises(UserError, match=message) as error:
    StyleClassifier.load(rewritten(path, **changes))
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damaged_files_are_refused(classifier, tmp_path: Path):
  path = tmp_path / "c.safetensors"
  classifier.save(path)
  content = path.read_bytes()
  for damaged in (content[: len(content) // 2], content[:20], b"", b"\x00" * 100):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="not a readable style classifier"):
      StyleClassifier.load(path)
  save_file({"a": torch.zeros(1)}, path, {METADATA_KEY: "[" * 100_000})
  with pytest.raises(UserError, match="not a readable style classifier"):
    StyleClassifier.load(path)
  save_file({"a": torch.zeros(1)}, path)
  with pytest.raises(UserError, match="not a style classifier"):
    StyleClassifier.load(path)
  with pytest.raises(UserError, match="no such file"):
    StyleClassifier.load(tmp_path / "d.safetensors")


def test_windows_that_cannot_train_it_are_refused():
  data = windows()
  with pytest.raises(UserError, match=r"style 'crouch' has 3 window\(s\)"):
    few = np.where((data.style_index == 0) & (np.arange(240) > 8), 1, data.style_index)
    train_classifier(replace(data, style_index=few), STATS, QUICK)
  with pytest.raises(UserError, match=r"0 style\(s\)"):
    train_classifier(replace(data, styles=()), STATS, QUICK)
  with pytest.raises(UserError, match="'heading' is 'yaw'"):
    train_classifier(replace(data, spec=g1_spec(heading="yaw")), STATS, QUICK)
  with pytest.raises(UserError, match="--steps 0"):
    train_classifier(data, STATS, ClassifierCfg(steps=0))


# The script.


def save_sets(folder: Path) -> Path:
  folder.mkdir()
  data = windows()
  for clip, split in enumerate(data.splits):
    rows = data.clip_index == clip
    save_windows(
      folder / f"{data.clips[clip]}.npz",
      data.windows[rows],
      SPEC,
      clip=data.clips[clip],
      stride=10,
      mirrored=data.mirrored[rows],
      split=split,
      styles=[STYLES[i] for i in data.style_index[rows]],
    )
  return folder


def test_the_script_prints_the_accuracy_and_writes_the_file(tmp_path: Path, capsys):
  path, folder = tmp_path / "c.safetensors", save_sets(tmp_path / "npz")
  cli.main(f"{path} --windows {folder} --steps 60 --hidden 16".split())
  printed = capsys.readouterr()
  assert printed.out.count("(mean over styles)") == 3 and "95 %" in printed.out
  assert printed.err == "" and StyleClassifier.load(path).styles == STYLES
  only = folder / "a_subject1.npz"
  cli.main(f"{path} --windows {only} --steps 2 --hidden 16".split())
  assert "no clip of split val shows crouch, run, walk" in capsys.readouterr().err


def test_the_script_wants_its_own_suffix(tmp_path: Path, capsys):
  with pytest.raises(SystemExit) as ended:
    run(lambda: cli.main([str(tmp_path / "c.pt"), "--windows", str(tmp_path)]))
  assert ended.value.code == 2
  assert "must end in .safetensors" in capsys.readouterr().err
