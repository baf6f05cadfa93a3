"""Files as nobody meant them: refused in a line, or read as something sound.

``SMP_FUZZ_EXAMPLES`` sets the number of examples of each test (default 40).
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from smp.data.read_clips import load_clip, load_csv
from smp.data.source import SourceCfg
from smp.data.text_files import CSV_COLUMNS
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import METADATA_KEY, MotionPrior
from smp.diffusion.reproduction import import_reproduction
from smp.diffusion.training_state import read_state
from smp.errors import UserError
from smp.motion.dataset import (
  NormStats,
  load_clip_windows,
  load_motions,
  load_stats,
  save_stats,
  save_windows,
)
from smp.motion.features import g1_spec
from smp.rl.checkpoint import read_checkpoint
from smp.rl.policy_file import load_trained, read_policy
from smp.robots import g1
from smp.utils.config import load_config
from tests import toy_training
from tests.fakes import checkpoint_content, td3_checkpoint_content

FUZZ = settings(
  max_examples=int(os.environ.get("SMP_FUZZ_EXAMPLES", "40")),
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SPEC = g1_spec()
DIM = sum(SPEC.feature_dims)


# Valid files, made once.


@dataclass(frozen=True)
class Sample:
  """Keys of the nested lists and tables below."""

  name: str = ""
  number: int = 3
  rate: float = 0.5
  kind: Literal["a", "b"] = "a"
  path: Path | None = None
  paths: tuple[Path, ...] = ()


def csv_bytes() -> bytes:
  row = np.zeros(CSV_COLUMNS)
  row[6] = 1.0
  buffer = io.StringIO()
  np.savetxt(buffer, np.tile(row, (12, 1)), delimiter=",", fmt="%.4f")
  return buffer.getvalue().encode()


def gmr_content() -> dict[str, Any]:
  quat = np.tile([0.0, 0.0, 0.0, 1.0], (12, 1))
  parts = {"root_pos": np.zeros((12, 3)), "root_rot": quat}
  return {"fps": 30, **parts, "dof_pos": np.zeros((12, g1.NUM_JOINTS))}


def torch_bytes(content: Any) -> bytes:
  buffer = io.BytesIO()
  torch.save(content, buffer)
  return buffer.getvalue()


def policy_content() -> dict[str, Any]:
  return {
    "format": "smp policy 1",
    "actor_state_dict": {"mlp.0.weight": torch.zeros(4, 3)},
    "mean": torch.ones(3, dtype=torch.float64),
    "count": torch.ones(1, dtype=torch.float64),
    "card": {"task": "Smp-Forward-G1", "iteration": 3},
  }


def published_content() -> dict[str, Any]:
  denoiser = Denoiser(feature_dim=DIM, window=10, d_model=8, nhead=2, num_layers=1)
  sizes = {"d_model": 8, "nhead": 2, "num_layers": 1, "num_timesteps": 50}
  return {
    "model": denoiser.state_dict(),
    "q_low": -np.ones(DIM, np.float32),
    "q_high": np.ones(DIM, np.float32),
    "cfg": {**sizes, "feature_dim": DIM, "window_size": 10},
    "epoch": 1,
  }


def file_of(write: Callable[[Path], object], suffix: str, folder: Path) -> bytes:
  path = folder / f"valid{suffix}"
  write(path)
  return path.read_bytes()


@dataclass(frozen=True)
class Reader:
  """A function that reads a file, and the bytes of a file that it reads."""

  read: Callable[[Path], Any]
  suffix: str
  valid: bytes = field(repr=False)


NAMES = (
  "csv",
  "judged",
  "gmr",
  "windows",
  "stats",
  "motions",
  "config",
  "prior",
  "published",
  "checkpoint",
  "td3",
  "policy",
  "state",
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, Reader]:
  folder = tmp_path_factory.mktemp("valid")
  rng = np.random.default_rng(0)
  windows = rng.normal(size=(3, 10, DIM)).astype(np.float32)
  denoiser = Denoiser(feature_dim=DIM, window=10, d_model=8, nhead=2, num_layers=1)
  prior = MotionPrior(denoiser, -torch.ones(DIM), torch.ones(DIM), SPEC, 50)
  stats = NormStats(-np.ones(DIM, np.float32), np.ones(DIM, np.float32))
  mirrored = np.zeros(3, bool)
  motions = yaml.safe_dump({"clips": [{"clip": "walk", "ranges": [[0, 5]]}, "run"]})
  config = yaml.safe_dump({"name": "n", "rate": 0.1, "paths": ["a", "b"], "kind": "b"})
  state = {"version": 1, "config": {}, "step": 3, "denoiser": {}}
  return {
    "csv": Reader(load_csv, ".csv", csv_bytes()),
    "judged": Reader(
      lambda path: load_clip(path, SourceCfg(), accept=True)[0], ".csv", csv_bytes()
    ),
    "gmr": Reader(load_csv, ".pkl", pickle.dumps(gmr_content())),
    "windows": Reader(
      load_clip_windows,
      ".npz",
      file_of(
        lambda p: save_windows(
          p, windows, SPEC, clip="c", stride=1, mirrored=mirrored, ranges=[(0, 5)]
        ),
        ".npz",
        folder,
      ),
    ),
    "stats": Reader(
      load_stats,
      ".npz",
      file_of(lambda p: save_stats(p, stats, SPEC, ["c"]), ".npz", folder),
    ),
    "motions": Reader(load_motions, ".yaml", motions.encode()),
    "config": Reader(lambda path: load_config(path, Sample), ".yaml", config.encode()),
    "prior": Reader(
      MotionPrior.load, ".safetensors", file_of(prior.save, ".safetensors", folder)
    ),
    "published": Reader(import_reproduction, ".pt", torch_bytes(published_content())),
    "checkpoint": Reader(
      lambda path: read_checkpoint(path, "cpu"),
      ".pt",
      torch_bytes(checkpoint_content()),
    ),
    "td3": Reader(load_trained, ".pt", torch_bytes(td3_checkpoint_content())),
    "policy": Reader(read_policy, ".pt", torch_bytes(policy_content())),
    "state": Reader(read_state, ".pt", torch_bytes(state)),
  }


def attempt(reader: Reader, content: bytes, folder: Path) -> Any:
  """What is read, or None if it is refused properly."""
  path = folder / f"file{reader.suffix}"
  path.write_bytes(content)
  try:
    result = reader.read(path)
  except UserError as error:
    assert "\n" not in str(error).strip(), "one line"
    assert "file" in str(error), "which names the file"
    return None
  check_sound(result)
  return result


def check_sound(result: Any) -> None:
  """What was read is finite, in all its arrays."""
  if isinstance(result, MotionPrior):
    result = dict(result.state_dict())
  elif hasattr(result, "__dataclass_fields__"):
    result = vars(result)
  if isinstance(result, dict):
    for value in result.values():
      check_sound(value)
  elif isinstance(result, np.ndarray) and result.dtype.kind == "f":
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", NAMES)
def test_valid_files_are_read(readers, name, tmp_path):
  assert attempt(readers[name], readers[name].valid, tmp_path) is not None


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(content=st.binary(max_size=300))
def test_random_bytes(readers, name, tmp_path, content):
  attempt(readers[name], content, tmp_path)


@pytest.mark.parametrize("name", NAMES)
@FUZZ
@given(data=st.data())
def test_cut_and_flipped_files(readers, name, tmp_path, data):
  content = bytearray(readers[name].valid)
  if data.draw(st.booleans(), label="cut"):
    del content[data.draw(st.integers(0, len(content)), label="length") :]
  # Headers and directories are at the two ends.
  ends = st.integers(0, 400) | st.integers(-400, -1) | st.integers(0, 1 << 30)
  for _ in range(data.draw(st.integers(0, 3), label="flips")):
    if content:
      place = data.draw(ends, label="place") % len(content)
      content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
  attempt(readers[name], bytes(content), tmp_path)


PLAIN = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-5, 1 << 40)
  | st.floats()
  | st.text(max_size=5)
  | st.dates(),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
  ),
  max_leaves=6,
)
ARRAYS = st.sampled_from(
  [
    np.zeros(()),
    np.zeros(DIM),
    np.zeros((3, 10, DIM), np.float32),
    np.full((3, 10, DIM), np.nan, np.float32),
    np.zeros((0, 10, DIM), np.float32),
    np.zeros((2, 3), np.int64),
    np.array("text"),
    np.array(["a", "b"]),
    np.array(json.dumps({"window": "x"})),
    np.array(json.dumps([1])),
    np.zeros(3, complex),
    np.zeros(3, "M8[D]"),
    np.zeros(3, [("a", "f4")]),
    np.array([{"a": 1}], dtype=object),
  ]
)


@pytest.mark.parametrize("name", ["windows", "stats"])
@FUZZ
@given(data=st.data())
def test_arrays_of_other_kinds(readers, name, tmp_path, data):
  reader = readers[name]
  with np.load(io.BytesIO(reader.valid)) as archive:
    arrays = dict(archive)
  for key in data.draw(
    st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)
  ):
    if data.draw(st.booleans()):
      arrays.pop(key, None)
    else:
      arrays[key] = data.draw(ARRAYS)
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
  attempt(reader, buffer.getvalue(), tmp_path)


@FUZZ
@given(data=st.data())
def test_spec_of_windows_with_other_values(readers, tmp_path, data):
  with np.load(io.BytesIO(readers["windows"].valid)) as archive:
    arrays = dict(archive)
  spec = SPEC.to_dict()
  spec[data.draw(st.sampled_from(sorted(spec)))] = data.draw(PLAIN_JSON)
  arrays["spec"] = np.array(json.dumps(spec))
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
  attempt(readers["windows"], buffer.getvalue(), tmp_path)


PLAIN_JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3)
  ),
  max_leaves=6,
)


@FUZZ
@given(data=st.data())
def test_priors_described_otherwise(readers, tmp_path, data):
  path = tmp_path / "file.safetensors"
  path.write_bytes(readers["prior"].valid)
  prior = MotionPrior.load(path)
  description: dict[str, Any] = {"format_version": 1, "spec": SPEC.to_dict()}
  description |= {"d_model": 8, "nhead": 2, "num_layers": 1, "num_timesteps": 50}
  place = description
  if data.draw(st.booleans()):
    place = description["spec"]
  place[data.draw(st.sampled_from(sorted(place)))] = data.draw(PLAIN_JSON)
  tensors = {k: v.contiguous() for k, v in prior.state_dict().items()}
  content = safetensors_bytes(tensors, {METADATA_KEY: json.dumps(description)})
  attempt(readers["prior"], content, tmp_path)


@pytest.mark.parametrize("name", ["motions", "config"])
@FUZZ
@given(data=st.data())
def test_yaml_of_other_shapes(readers, name, tmp_path, data):
  table = yaml.safe_load(readers[name].valid)
  table[data.draw(st.sampled_from([*sorted(table), *KEYS[name]]))] = data.draw(PLAIN)
  if name == "motions" and data.draw(st.booleans()):
    entry = {"clip": "a", data.draw(st.sampled_from(ENTRY)): data.draw(PLAIN)}
    table["clips"] = [entry]
  content = yaml.safe_dump(table, allow_unicode=True).encode(errors="replace")
  attempt(readers[name], content, tmp_path)


KEYS = {
  "motions": ["name", "description", "mirror"],
  "config": ["number", "path", "name"],
}
ENTRY = ["clip", "ranges", "mirror", "split"]


CONTENTS = {
  "checkpoint": checkpoint_content,
  "td3": td3_checkpoint_content,
  "policy": policy_content,
  "published": published_content,
}
VALUES = PLAIN | st.sampled_from(
  [
    torch.zeros(0),
    torch.zeros(3),
    torch.full((3,), torch.nan),
    torch.zeros(2, 3).bool(),
  ]
)


def change(content: dict[Any, Any], data: st.DataObject) -> None:
  """Remove an entry of a table or of one in it, or give it another value."""
  table = content
  while True:
    key = data.draw(st.sampled_from(sorted(table)))
    inner = table[key]
    if not isinstance(inner, dict) or not inner or data.draw(st.booleans()):
      break
    table = inner
  # torch's loader knows no dates.
  if data.draw(st.booleans()):
    del table[key]
  else:
    table[key] = data.draw(VALUES)


@pytest.mark.parametrize("name", sorted(CONTENTS))
@FUZZ
@given(data=st.data())
def test_checkpoints_of_other_shapes(readers, name, tmp_path, data):
  content: Any = CONTENTS[name]()
  change(content, data)
  attempt(readers[name], torch_bytes(content), tmp_path)


@pytest.mark.parametrize(
  ("keys", "value"),
  [
    (("learner",), []),
    (("learner",), torch.zeros(2, 3)),
    (("updates",), float("inf")),
    (("infos", "origin"), "text"),
  ],
)
def test_values_of_other_kinds_are_refused(readers, tmp_path, keys, value):
  content = table = td3_checkpoint_content()
  for key in keys[:-1]:
    table = table[key]
  table[keys[-1]] = value
  assert attempt(readers["td3"], torch_bytes(content), tmp_path) is None


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[toy_training.OffPolicyRunner, bytes]:
  """An off-policy runner and a checkpoint of it, optimizers and all."""
  runner = toy_training.make_off_policy_runner(None, hidden_dims=(4,))
  runner.learn(4)
  path = tmp_path_factory.mktemp("learned") / "model_3.pt"
  runner.save(str(path))
  return runner, path.read_bytes()


@FUZZ
@given(data=st.data())
def test_learners_of_other_shapes_are_refused_or_go_on(learned, tmp_path, data):
  runner, whole = learned
  content = torch.load(io.BytesIO(whole), weights_only=True)
  change(content, data)
  resume = Reader(lambda path: runner.load(str(path)), ".pt", whole)
  attempt(resume, torch_bytes(content), tmp_path)


CSV_CELLS = st.sampled_from(
  ["", "nan", "inf", "1e400", "0x10", "1_000", "٣", "a", "#", '"1"', "-", "1e5", " 1 "]
)


@FUZZ
@given(row=st.integers(0, 11), column=st.integers(0, 35), cell=CSV_CELLS)
def test_csv_cells(readers, tmp_path, row, column, cell):
  lines = [line.split(",") for line in readers["csv"].valid.decode().splitlines()]
  lines[row][column] = cell
  content = "\n".join(map(",".join, lines)).encode()
  attempt(readers["csv"], content, tmp_path)


# Files that ask for code to be run.


class Runs:
  """Pickles as a call of ``function``."""

  def __init__(self, function: Any, *arguments: Any):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def attacks(mark: Path) -> list[Runs]:
  return [
    Runs(os.system, f"touch {mark}"),
    Runs(builtins.eval, f"open({str(mark)!r}, 'w')"),
    Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
    Runs(Path.touch, mark),
    Runs(np.savetxt, str(mark), [1.0]),
    Runs(map, eval, [f"open({str(mark)!r}, 'w')"]),
    Runs(torch.load, str(mark)),
  ]


@pytest.mark.parametrize("attack", range(7))
def test_no_file_runs_code(readers, tmp_path, attack):
  mark = tmp_path / "ran"
  bad = attacks(mark)[attack]
  for name, reader in readers.items():
    contents = [pickle.dumps(bad), torch_bytes(bad)]
    if name in CONTENTS:
      contents.append(torch_bytes({**CONTENTS[name](), "more": bad}))
    if reader.suffix == ".npz":
      with np.load(io.BytesIO(reader.valid)) as archive:
        arrays: dict[str, Any] = dict(archive)
      for key in list(arrays):
        buffer = io.BytesIO()
        np.savez(buffer, **{**arrays, key: np.array([bad], dtype=object)})
        contents.append(buffer.getvalue())
    for content in contents:
      # An array that is not asked for is not read.
      attempt(reader, content, tmp_path)
      assert not mark.exists(), name


@pytest.mark.parametrize("name", ["motions", "config"])
@pytest.mark.parametrize(
  "text",
  [
    "name: !!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:pathlib.Path ['{mark}']",
    "name: !!python/name:os.system",
    "clips: !!python/object/apply:builtins.eval [\"open('{mark}','w')\"]",
  ],
)
def test_no_yaml_runs_code(readers, tmp_path, name, text):
  mark = tmp_path / "ran"
  assert attempt(readers[name], text.format(mark=mark).encode(), tmp_path) is None
  assert not mark.exists()


def test_clips_know_the_robot(readers, tmp_path):
  """The fuzzed CSV is a clip: else the tests above would test less than they seem to."""
  clip = attempt(readers["csv"], readers["csv"].valid, tmp_path)
  assert clip.joint_pos.shape == (12, g1.NUM_JOINTS)
