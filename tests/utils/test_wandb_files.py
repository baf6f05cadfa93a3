"""Files on W&B, fetched by its real client from a stand-in for its server."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import wandb

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.motion.features import g1_spec
from smp.utils.wandb_files import _whole, fetch_checkpoint, fetch_prior, upload
from tests.wandb_server import Store, kept_artifacts, log_in, nobody_listens, serve

pytestmark = pytest.mark.slow
RUN, EMPTY = "org/proj/run1", "org/proj/run2"
FILES = {f"model_{n}.pt": f"weights {n}".encode() for n in (5, 10, 100)}


def prior_bytes(folder: Path) -> bytes:
  spec = g1_spec()
  size = sum(spec.feature_dims)
  denoiser = Denoiser(feature_dim=size, window=10, d_model=8, nhead=2, num_layers=1)
  path = folder / "made.safetensors"
  MotionPrior(denoiser, -torch.ones(size), torch.ones(size), spec, 50).save(path)
  return path.read_bytes()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
  prior = prior_bytes(tmp_path_factory.mktemp("prior"))
  return Store(
    runs={RUN: {**FILES, "model_x.pt": b"", "config.yaml": b""}, EMPTY: {"a.txt": b""}},
    artifacts={
      "org/proj/walk:v2": {"walk.safetensors": b"an older one"},
      "org/proj/walk:v3": {"walk.safetensors": prior},
      "org/proj/notes:v0": {"notes.txt": b"no prior"},
    },
  )


@pytest.fixture(autouse=True)
def server(store, monkeypatch, tmp_path) -> Iterator[str]:
  log_in(monkeypatch, tmp_path)
  with serve(store) as url:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    yield url


def refusal(function, *arguments) -> str:
  with pytest.raises(UserError) as error:
    function(*arguments)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_newest_and_named_checkpoints(tmp_path):
  path, cached = fetch_checkpoint(tmp_path, RUN)
  assert path == tmp_path / "wandb_checkpoints" / "run1" / "model_100.pt"
  assert path.read_bytes() == b"weights 100" and not cached
  named, cached = fetch_checkpoint(tmp_path, RUN, "model_10.pt")
  assert named.read_bytes() == b"weights 10" and not cached
  assert fetch_checkpoint(tmp_path, RUN) == (path, True)
  assert sorted(p.name for p in path.parent.iterdir()) == [named.name, path.name]


def test_wrong_paths_and_empty_runs(tmp_path):
  assert "org/proj/gone" in refusal(fetch_checkpoint, tmp_path, "org/proj/gone")
  assert "expected ORG/PROJECT/RUN" in refusal(fetch_checkpoint, tmp_path, "run1")
  assert "no checkpoint" in refusal(fetch_checkpoint, tmp_path, EMPTY)
  line = refusal(fetch_checkpoint, tmp_path, RUN, "model_7.pt")
  assert "model_7.pt" in line and "model_100.pt" in line
  assert not list(tmp_path.rglob("*.pt"))


def test_priors_of_artifacts(tmp_path, store):
  path = fetch_prior("org/proj/walk", tmp_path)
  assert path == tmp_path / "walk-v3" / "walk.safetensors"
  assert MotionPrior.load(path).spec == g1_spec()
  older = fetch_prior("org/proj/walk:v2", tmp_path)
  assert older.read_bytes() == b"an older one"
  asked = store.asked.count("GetArtifactMembershipFileUrls")
  assert fetch_prior("org/proj/walk", tmp_path) == path
  assert store.asked.count("GetArtifactMembershipFileUrls") == asked
  assert "org/proj/gone" in refusal(fetch_prior, "org/proj/gone", tmp_path)
  assert "0 priors" in refusal(fetch_prior, "org/proj/notes", tmp_path)
  assert "expected ORG/PROJECT/ARTIFACT" in refusal(fetch_prior, "walk", tmp_path)


def test_no_login(tmp_path, monkeypatch):
  monkeypatch.setenv("WANDB_API_KEY", "")
  monkeypatch.setenv("NETRC", str(tmp_path / "none"))
  assert "no login on this machine" in refusal(fetch_checkpoint, tmp_path, RUN)
  assert "no login on this machine" in refusal(fetch_prior, "org/proj/walk", tmp_path)


def test_a_key_that_is_refused(tmp_path, monkeypatch, store):
  monkeypatch.setattr(store, "keys_accepted", False)
  assert "login" in refusal(fetch_checkpoint, tmp_path, RUN)


def test_no_network(tmp_path, monkeypatch):
  url = nobody_listens()
  monkeypatch.setenv("WANDB_BASE_URL", url)
  line = refusal(fetch_checkpoint, tmp_path, RUN)
  assert f"no connection to {url}" in line


def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch, store):
  monkeypatch.setattr(store, "get", lambda path: None)
  refusal(fetch_prior, "org/proj/walk", tmp_path)
  assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


# Downloads that were killed.


def download_for_ever(folder: Path) -> None:
  """A program to be killed in the middle of a download."""
  path = folder / "wandb_checkpoints" / "other" / "model_1.pt"
  with _whole(path) as temporary:
    (temporary / "half").write_bytes(b"half")
    time.sleep(600)


def downloading(folder: Path) -> list[Path]:
  return list(folder.glob("wandb_checkpoints/*/.download.*/half"))


def test_a_killed_download_is_cleaned_up_by_the_next_and_a_living_one_is_not(tmp_path):
  process = multiprocessing.get_context("fork").Process(
    target=download_for_ever, args=(tmp_path,)
  )
  process.start()
  while not downloading(tmp_path):
    assert process.is_alive()
    time.sleep(0.01)
  fetch_checkpoint(tmp_path, RUN, "model_5.pt")
  assert len(downloading(tmp_path)) == 1
  process.kill()
  process.join()
  assert len(downloading(tmp_path)) == 1
  fetch_checkpoint(tmp_path, RUN, "model_10.pt")
  found = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
  assert found == ["model_10.pt", "model_5.pt"]
  assert not list(tmp_path.rglob(".download.*"))


def test_only_unfinished_downloads_are_removed(tmp_path):
  """Not files, not what a link leads to, and not what only begins alike."""
  beside = tmp_path / "wandb_checkpoints" / "run0"
  (beside / ".downloads").mkdir(parents=True)
  (beside / ".download.file").touch()
  (tmp_path / "mine").mkdir()
  (beside / ".download.link").symlink_to(tmp_path / "mine")
  (beside / ".download.dead").mkdir()
  (beside / ".download.dead" / "half").touch()
  fetch_checkpoint(tmp_path, RUN)
  names = sorted(path.name for path in beside.iterdir())
  assert names == [".download.file", ".download.link", ".downloads"]
  assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_written_is_not_wandbs_fault(tmp_path):
  (tmp_path / "wandb_checkpoints").touch()
  line = refusal(fetch_checkpoint, tmp_path, RUN)
  assert "cannot write here" in line and "W&B" not in line


def test_a_full_disk_is_not_wandbs_fault(tmp_path, monkeypatch):
  def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "replace", full)
  line = refusal(fetch_checkpoint, tmp_path, RUN)
  assert "No space left" in line and "W&B" not in line
  assert not [path for path in tmp_path.rglob("*") if "model" in path.name]


# Uploads.


@pytest.mark.parametrize(
  ("file", "project", "message"),
  [
    ("my walk.pt", "smp", "rename the file"),
    (f"{'x' * 129}.pt", "smp", "rename the file"),
    ("walk.pt", "team/smp", "project 'team/smp'"),
    ("walk.pt", "x" * 129, "at most 128"),
  ],
)
def test_names_that_wandb_refuses(tmp_path, file, project, message):
  (tmp_path / file).touch()
  assert message in refusal(upload, tmp_path / file, "policy", project, {}, tmp_path)
  assert os.listdir(tmp_path) == [file]


def test_uploads_wait_offline(tmp_path, monkeypatch):
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_DIR", str(tmp_path))
  file = tmp_path / "walk.safetensors"
  file.write_bytes(prior_bytes(tmp_path))
  assert upload(file, "prior", "smp", {"licence": "none"}, tmp_path) == "walk"
  (kept,) = kept_artifacts(tmp_path)
  assert (kept.name, kept.type, kept.project) == ("walk", "prior", "smp")
  assert json.loads(kept.metadata) == {"licence": "none"}
  assert [entry.path for entry in kept.manifest.contents] == [file.name]
  missing = tmp_path / "gone.pt"
  assert "gone.pt" in refusal(upload, missing, "policy", "smp", {}, tmp_path)


def test_what_fails_offline_is_not_the_networks_fault(tmp_path, monkeypatch):
  def fail(**_: object) -> None:
    raise RuntimeError("no\nroom")

  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_BASE_URL", nobody_listens())
  monkeypatch.setattr(wandb, "init", fail)
  (tmp_path / "walk.pt").touch()
  line = refusal(upload, tmp_path / "walk.pt", "policy", "smp", {}, tmp_path)
  assert "client failed (no room)" in line and "network" not in line
