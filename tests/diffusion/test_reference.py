"""Reference errors: measured as they say, kept in the prior's file, and its scale."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from smp.cli import measure_reference as cli
from smp.diffusion import reference_errors
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import (
  METADATA_KEY,
  SCORED_TIMESTEPS,
  MotionPrior,
  store_reference,
)
from smp.diffusion.reference import REFERENCE_KEY, Reference
from smp.diffusion.reference_errors import (
  measure_reference,
  reference_on_samples,
  sds_losses,
)
from smp.errors import UserError
from smp.motion.features import g1_spec
from smp.paths import resolve_prior
from tests.cli.test_evaluate_prior import _write

FEATURES = 59
WALK = [{"clip": "a", "split": "train"}, {"clip": "b", "split": "val"}]


def _prior(info: dict | None = None) -> MotionPrior:
  torch.manual_seed(0)
  denoiser = Denoiser(FEATURES, 10, d_model=16, nhead=4, num_layers=1)
  ones = torch.ones(FEATURES)
  return MotionPrior(denoiser, -ones, ones, g1_spec(), 50, info)


def _windows(n: int) -> Tensor:
  generator = torch.Generator().manual_seed(1)
  scale = 0.2 + torch.rand(n, 1, 1, generator=generator)
  return scale * torch.randn(n, 10, FEATURES, generator=generator)


@pytest.fixture
def reference() -> Reference:
  median = tuple(0.5 / (t + 3) for t in range(50))
  return Reference(median, "held_out", ("b", "c"), 20, 60, 4, 0)


@pytest.fixture(autouse=True)
def few(monkeypatch):
  """Few windows: what is tested does not depend on how many there are."""
  monkeypatch.setattr(reference_errors, "REFERENCE_WINDOWS", 32)


def _metadata(path: Path) -> dict[str, str]:
  with safe_open(path, framework="pt") as file:
    return file.metadata()


def _data(path: Path) -> bytes:
  """The bytes of the tensors, behind the header."""
  content = path.read_bytes()
  return content[8 + int.from_bytes(content[:8], "little") :]


# Measured.


def test_half_of_the_windows_lie_below_at_every_timestep():
  prior, windows = _prior(), _windows(61)
  found = measure_reference(prior, windows, "training", ("a",))
  errors = sds_losses(prior, windows, range(50)).double()
  below = (errors < torch.tensor(found.median).double()).sum(dim=0)
  assert (below == 30).all()
  assert (found.windows, found.windows_in_all) == (61, 61)


def test_errors_are_those_of_the_prior():
  """In expectation over the noise, which is drawn elsewhere in another order."""
  prior, windows = _prior(), _windows(3)
  found = sds_losses(prior, windows, (8, 22), draws=200)
  torch.manual_seed(5)
  repeated = windows.repeat_interleave(200, dim=0)
  plain = prior.denoising_error(repeated, torch.tensor((8, 22)))
  torch.testing.assert_close(
    found, plain.view(3, 200, 2).mean(dim=1), rtol=0.03, atol=0
  )


def test_measuring_twice_gives_the_same():
  prior = _prior()
  torch.manual_seed(1)
  first = reference_on_samples(prior)
  torch.manual_seed(2)
  assert reference_on_samples(prior) == first
  assert (first.windows_of, first.windows, first.clips) == ("samples", 32, ())


def test_a_reference_says_what_it_is_of():
  found = measure_reference(_prior(), _windows(5), "held_out", ("a", "b"))
  assert found.what() == "5 windows of 2 held-out clips"
  # A style's clips are not named.
  assert dataclasses.replace(found, clips=()).what() == "5 held-out windows"
  assert (
    dataclasses.replace(found, windows_of="unrecorded").what() == "5 windows of 2 clips"
  )
  assert (
    dataclasses.replace(found, windows_of="samples").what() == "5 of its own samples"
  )


def test_no_windows_are_refused():
  with pytest.raises(UserError, match="no windows"):
    measure_reference(_prior(), _windows(0), "training")


# In the file.


def test_a_prior_is_saved_with_its_reference(tmp_path: Path, reference: Reference):
  prior = _prior()
  prior.reference = reference
  prior.save(tmp_path / "p.safetensors")
  assert MotionPrior.load(tmp_path / "p.safetensors").reference == reference


def test_a_prior_without_one_loads(tmp_path: Path):
  _prior().save(tmp_path / "p.safetensors")
  assert REFERENCE_KEY not in json.loads(
    _metadata(tmp_path / "p.safetensors")[METADATA_KEY]
  )
  assert MotionPrior.load(tmp_path / "p.safetensors").reference is None


def test_storing_changes_nothing_else(tmp_path: Path, reference: Reference):
  path = tmp_path / "p.safetensors"
  _prior({"notes": "kept", "history": {"loss": [0.1 + 0.2, 1e-300]}}).save(path)
  description = json.loads(_metadata(path)[METADATA_KEY])
  description["of a later version"] = [1, 0.1]
  metadata = {METADATA_KEY: json.dumps(description), "another": "program's"}
  save_file(load_file(path), path, metadata)
  data = _data(path)
  for stored in (reference, dataclasses.replace(reference, windows=7)):
    store_reference(path, stored)
    assert _data(path) == data
    found = _metadata(path)
    after = json.loads(found.pop(METADATA_KEY))
    assert after.pop(REFERENCE_KEY) == stored.to_dict()
    assert after == description and found == {"another": "program's"}
    assert MotionPrior.load(path).reference == stored


def test_a_failed_store_leaves_the_file(tmp_path: Path, reference, monkeypatch):
  path = tmp_path / "p.safetensors"
  _prior().save(path)
  before = path.read_bytes()

  def broken(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
      file.write(content[:1000])
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Path, "write_bytes", broken)
  with pytest.raises(UserError, match="No space left"):
    store_reference(path, reference)
  assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"median": [0.1] * 49}, "median' must list 50 numbers"),
    ({"median": [0.1] * 49 + [float("nan")]}, r"median\[49\]' is nan"),
    ({"median": [0.1] * 49 + [-0.1]}, r"median\[49\]' is -0.1"),
    ({"median": [0.1] * 49 + ["0.1"]}, r"median\[49\]' is '0.1'"),
    ({"windows_of": "dance"}, "windows_of' is 'dance'"),
    ({"windows_of": ["samples"]}, "windows_of' is"),
    ({"clips": "run"}, "clips' is 'run'"),
    ({"windows": True}, "windows' is True"),
    ({"extra": 1}, "extra'"),
  ],
)
def test_a_wrong_one_is_refused_by_field(tmp_path, reference, fields, message):
  path = tmp_path / "p.safetensors"
  prior = _prior()
  prior.save(path)
  description = json.loads(_metadata(path)[METADATA_KEY])
  description[REFERENCE_KEY] = reference.to_dict() | fields
  save_file(load_file(path), path, {METADATA_KEY: json.dumps(description)})
  with pytest.raises(UserError, match=f"p.safetensors.*{REFERENCE_KEY}.{message}"):
    MotionPrior.load(path)


@pytest.mark.parametrize(
  ("name", "windows_of"),
  [
    ("loco", "held_out"),
    ("walk_run", "held_out"),
    ("styles", "held_out"),
    ("lafan_run", "training"),
    ("getup", "training"),
  ],
)
def test_shipped_priors_say_what_their_windows_were(name: str, windows_of: str):
  prior = MotionPrior.load(resolve_prior(name))
  assert prior.reference is not None
  split = {"held_out": "val", "training": "train"}[windows_of]
  listed = [entry for entry in prior.info["data"] if entry["split"] == split]
  assert prior.reference.windows_of == windows_of
  assert prior.reference.clips == tuple(entry["clip"] for entry in listed)
  assert prior.reference.windows_in_all == sum(entry["windows"] for entry in listed)
  # Less noise is easier to see in, and its own samples are most familiar to a prior.
  scored = prior.reference.at(SCORED_TIMESTEPS)
  assert list(scored) == sorted(scored, reverse=True)
  samples = prior.sample(64, torch.Generator().manual_seed(0))
  own = sds_losses(prior, samples, SCORED_TIMESTEPS, draws=1).median(dim=0).values
  assert (own < torch.tensor(scored)).all()


# The script.


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, list[str]]:
  """A prior that was trained on clip a, not on clip b, and the windows of both."""
  for name, seed in (("a", 0), ("b", 1)):
    _write(tmp_path / "npz" / f"{name}.npz", "train", seed)
  path = tmp_path / "p.safetensors"
  _prior({"data": WALK}).save(path)
  return path, [str(path), "--windows", str(tmp_path / "npz")]


def _found(path: Path) -> Reference:
  found = MotionPrior.load(path).reference
  assert found is not None
  return found


def test_the_script_measures_on_what_was_held_out(files, capsys):
  path, words = files
  cli.main(words)
  found = _found(path)
  assert (found.windows_of, found.clips) == ("held_out", ("b",))
  assert (found.windows, found.windows_in_all) == (21, 21)
  assert "of 1 held-out clips" in capsys.readouterr().out
  with pytest.raises(UserError, match="has reference errors already"):
    cli.main(words)
  assert _found(path) == found
  cli.main([words[0], "--overwrite"])
  assert _found(path).windows_of == "samples"
  assert "what the prior itself generates" in capsys.readouterr().out


def test_without_held_out_clips_it_takes_those_trained_on(files):
  path, words = files
  _prior({"data": WALK[:1]}).save(path)
  cli.main(words)
  assert (_found(path).windows_of, _found(path).clips) == ("training", ("a",))


def test_a_prior_that_lists_no_clips_is_measured_on_all(files):
  path, words = files
  _prior().save(path)
  cli.main(words)
  assert (_found(path).windows_of, _found(path).clips) == ("unrecorded", ("a", "b"))


def test_windows_of_another_prior_are_refused(files):
  path, words = files
  _prior({"data": [{"clip": "dance", "split": "train"}]}).save(path)
  before = path.read_bytes()
  with pytest.raises(UserError, match="none of a, b is among the clips"):
    cli.main(words)
  assert path.read_bytes() == before
