"""Files on W&B, fetched by its real client from a stand-in for its server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.motion.features import g1_spec
from smp.wandb_files import fetch_checkpoint, fetch_prior, upload
from tests.wandb_server import Store, serve

pytestmark = pytest.mark.slow
RUN, EMPTY = "org/proj/run1", "org/proj/run2"
FILES = {f"model_{n}.pt": f"weights {n}".encode() for n in (5, 10, 900)}


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
  monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
  monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "4")
  monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
  monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
  for name in ("HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
    monkeypatch.delenv(name, raising=False)
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
  assert path == tmp_path / "wandb_checkpoints" / "run1" / "model_900.pt"
  assert path.read_bytes() == b"weights 900" and not cached
  named, cached = fetch_checkpoint(tmp_path, RUN, "model_10.pt")
  assert named.read_bytes() == b"weights 10" and not cached
  assert fetch_checkpoint(tmp_path, RUN) == (path, True)
  assert sorted(p.name for p in path.parent.iterdir()) == [named.name, path.name]


def test_wrong_paths_and_empty_runs(tmp_path):
  assert "org/proj/gone" in refusal(fetch_checkpoint, tmp_path, "org/proj/gone")
  assert "expected ORG/PROJECT/RUN" in refusal(fetch_checkpoint, tmp_path, "run1")
  assert "no checkpoint" in refusal(fetch_checkpoint, tmp_path, EMPTY)
  line = refusal(fetch_checkpoint, tmp_path, RUN, "model_7.pt")
  assert "model_7.pt" in line and "model_900.pt" in line
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
  assert "wandb login" in refusal(fetch_checkpoint, tmp_path, RUN)
  assert "wandb login" in refusal(fetch_prior, "org/proj/walk", tmp_path)


def test_a_key_that_is_refused(tmp_path, monkeypatch, store):
  monkeypatch.setattr(store, "keys_accepted", False)
  assert "login" in refusal(fetch_checkpoint, tmp_path, RUN)


def test_no_network(tmp_path, monkeypatch):
  with socket.create_server(("127.0.0.1", 0)) as closed:
    port = closed.getsockname()[1]
  monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
  line = refusal(fetch_checkpoint, tmp_path, RUN)
  assert "no connection" in line and str(port) in line


def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch, store):
  monkeypatch.setattr(store, "get", lambda path: None)
  refusal(fetch_prior, "org/proj/walk", tmp_path)
  assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]


def test_uploads_wait_offline(tmp_path, monkeypatch):
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_DIR", str(tmp_path))
  file = tmp_path / "walk.safetensors"
  file.write_bytes(prior_bytes(tmp_path))
  assert upload(file, "prior", "smp", {"licence": "none"}, tmp_path) == "walk"
  assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
  missing = tmp_path / "gone.pt"
  assert "gone.pt" in refusal(upload, missing, "policy", "smp", {}, tmp_path)
