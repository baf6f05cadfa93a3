"""Import of published priors: pickles are read without running what is in them."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smp.data.read_clips import load_csv
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.reproduction import import_reproduction
from smp.errors import UserError
from smp.evaluation.prior.judge import time_shuffled
from smp.motion.clips import clip_windows, resample
from smp.motion.features import SLICES

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "import_prior.py"


def _checkpoint() -> dict:
  torch.manual_seed(0)
  return {
    "epoch": 3,
    "model": Denoiser(59, 10, d_model=16, nhead=4, num_layers=1).state_dict(),
    "q_low": -np.ones(59, dtype=np.float32),
    "q_high": np.ones(59, dtype=np.float32),
    "cfg": {
      "d_model": 16,
      "nhead": 4,
      "num_layers": 1,
      "num_timesteps": 50,
      "feature_dim": 59,
      "window_size": 10,
    },
  }


@pytest.fixture
def published(tmp_path: Path) -> Path:
  path = tmp_path / "published.pt"
  torch.save(_checkpoint(), path)
  return path


def test_the_script_converts_what_the_library_loads(published: Path, tmp_path: Path):
  output = tmp_path / "prior.safetensors"
  done = subprocess.run(
    [sys.executable, SCRIPT, published, output], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  prior = MotionPrior.load(output)
  assert (prior.spec.heading, prior.spec.velocity) == ("yaw", "clip")
  assert "licence" in prior.info and prior.info["source"]["epoch"] == 3
  for name, value in _checkpoint()["model"].items():
    assert torch.equal(prior.denoiser.state_dict()[name], value), name


def test_the_script_ends_in_one_line_for_a_bad_file(tmp_path: Path):
  output = tmp_path / "prior.safetensors"
  done = subprocess.run(
    [sys.executable, SCRIPT, tmp_path / "none.pt", output],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert not output.exists()


class _Malicious:
  def __init__(self, target: Path):
    self.target = target

  def __reduce__(self):
    return (Path.touch, (self.target,))


@pytest.mark.parametrize("container", ["torch", "plain pickle"])
def test_a_malicious_pickle_runs_no_code(tmp_path: Path, container: str):
  proof, path = tmp_path / "proof", tmp_path / "bad.pt"
  content = _checkpoint() | {"q_low": _Malicious(proof)}
  if container == "torch":
    torch.save(content, path)
  else:
    path.write_bytes(pickle.dumps(content))
  with pytest.raises(UserError, match="refused|cannot be read") as caught:
    import_reproduction(path)
  assert "\n" not in str(caught.value)
  assert not proof.exists()
  # The file is indeed malicious: the plain loader would have run it.
  torch.load(path, weights_only=False) if container == "torch" else pickle.loads(
    path.read_bytes()
  )
  assert proof.exists()


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_damaged_files_are_refused(published: Path, keep: int):
  published.write_bytes(published.read_bytes()[:keep])
  with pytest.raises(UserError):
    import_reproduction(published)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda c: c.pop("q_low"), "no 'q_low'"),
    (lambda c: c.update(q_low=np.ones(3, dtype=np.float32)), "'q_low' is not an array"),
    (lambda c: c.update(q_high=np.full(59, np.nan, np.float32)), "non-finite"),
    (lambda c: c["cfg"].update(feature_dim=60), "'cfg.feature_dim' is 60"),
    (lambda c: c["cfg"].update(window_size=12), "'cfg.window_size' is 12"),
    (lambda c: c["cfg"].update(d_model=10**9), "'cfg.d_model' is 1000000000"),
    (lambda c: c["cfg"].update(d_model=32), "expected torch.float32"),
    (lambda c: c["model"].pop("proj_in.weight"), "'proj_in.weight' is missing"),
    (lambda c: c["model"].update(extra=torch.ones(1)), "unknown tensor 'extra'"),
    (lambda c: c.update(model=3), "'model' is not a table"),
  ],
)
def test_foreign_content_is_refused_by_name(tmp_path: Path, change, message: str):
  checkpoint = _checkpoint()
  change(checkpoint)
  path = tmp_path / "published.pt"
  torch.save(checkpoint, path)
  with pytest.raises(UserError, match=message):
    import_reproduction(path)


@pytest.mark.parametrize(
  ("name", "samples_error"),
  [("loco", 0.0096), ("lafan_run", None), ("getup_f2s2", None)],
)
def test_published_priors_find_their_own_samples_familiar(
  reference_dir: Path, name: str, samples_error: float | None
):
  prior = import_reproduction(reference_dir / f"pretrained_{name}.pt")
  assert sum(parameter.numel() for parameter in prior.denoiser.parameters()) == 698_674
  error = _error(prior, prior.sample(256, torch.Generator().manual_seed(0)))
  # Wrong details of the network (order of the gates, positions) give errors above 0.5.
  assert error < 0.03
  if samples_error is not None:
    assert error == pytest.approx(samples_error, rel=0.15)


def _error(prior: MotionPrior, windows: Tensor) -> float:
  """SDS loss, mean over the scored timesteps, median over windows."""
  generator = torch.Generator().manual_seed(0)
  noise = torch.randn(3, *windows.shape, generator=generator)
  return prior.sds_loss_at(SCORED_TIMESTEPS)(windows, noise).mean(-1).median().item()


def _published_windows(path: Path) -> Tensor:
  """A clip as the published priors saw it."""
  clip = resample(load_csv(path), method="linear")
  return clip_windows(clip, heading="yaw", velocity="clip")


def test_published_errors_are_reproduced(reference_dir: Path, forward_dir: Path):
  """The figures known of the published loco prior, within 15%."""
  prior = import_reproduction(reference_dir / "pretrained_loco.pt")
  own = torch.cat([_published_windows(p) for p in sorted(forward_dir.glob("*.csv"))])
  assert len(own) == 210
  assert _error(prior, own) == pytest.approx(0.0085, rel=0.15)
  joints = SLICES["joint_pos"]
  generator = torch.Generator().manual_seed(0)
  noisy = own.clone()
  noisy[..., joints] += 0.1 * torch.randn(noisy[..., joints].shape, generator=generator)
  assert _error(prior, noisy) == pytest.approx(0.115, rel=0.15)
  # "Frames shuffled" reproduces for the joint angles alone; whole frames give 0.15.
  shuffled = own.clone()
  shuffled[..., joints] = time_shuffled(own, generator)[..., joints]
  assert _error(prior, shuffled) == pytest.approx(0.051, rel=0.15)


def test_published_prior_finds_a_dance_strange(reference_dir: Path, lafan_dir: Path):
  prior = import_reproduction(reference_dir / "pretrained_loco.pt")
  windows = _published_windows(lafan_dir / "dance1_subject2.csv")[::10]
  assert _error(prior, windows) == pytest.approx(0.90, rel=0.15)
