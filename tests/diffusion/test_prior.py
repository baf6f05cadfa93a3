"""The prior: units, scores, and files that are exactly what they say or refused."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smp.data.read_clips import load_csv
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import METADATA_KEY, SCORED_TIMESTEPS, MotionPrior
from smp.diffusion.reference_errors import sds_losses
from smp.errors import UserError
from smp.motion.clips import clip_windows, resample
from smp.motion.features import decode, encode, g1_spec
from smp.paths import resolve_prior

FEATURES = 59
TIMESTEPS = (8, 15, 22)


def _prior(seed: int = 0) -> MotionPrior:
  torch.manual_seed(seed)
  low = -torch.rand(FEATURES) - 0.1
  high = torch.rand(FEATURES) + 0.1
  low[5] = high[5] = 0.4
  denoiser = Denoiser(FEATURES, 10, d_model=32, nhead=4, num_layers=2)
  return MotionPrior(denoiser, low, high, g1_spec(), 50, {"licence": "test"})


def _windows(n: int, seed: int = 1) -> Tensor:
  generator = torch.Generator().manual_seed(seed)
  return torch.randn(n, 10, FEATURES, generator=generator)


class _Answer(nn.Module):
  """A denoiser with a fixed answer, whatever it is asked."""

  def __init__(self, answer: Tensor):
    super().__init__()
    self.answer = answer

  def time_modulation(self, t: Tensor) -> Tensor:
    return torch.zeros(1, len(t), 6, 1)

  def forward_modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
    return self.answer


# Units.


def test_quantiles_normalise_to_minus_one_and_one():
  prior = _prior()
  varied = torch.arange(FEATURES) != 5
  torch.testing.assert_close(
    prior.normalize(prior.q_low)[varied], -torch.ones(FEATURES - 1)
  )
  torch.testing.assert_close(
    prior.normalize(prior.q_high)[varied], torch.ones(FEATURES - 1)
  )


def test_a_constant_feature_is_shifted_not_blown_up():
  prior = _prior()
  features = torch.zeros(FEATURES)
  features[5] = 0.4 + 0.01
  assert prior.normalize(features)[5] == pytest.approx(-1.0 + 0.02, abs=1e-6)


def test_normalisation_is_not_clipped_and_comes_back():
  prior = _prior()
  features = 10.0 * _windows(7)
  assert prior.normalize(features).abs().max() > 5.0
  torch.testing.assert_close(
    prior.denormalize(prior.normalize(features)), features, atol=1e-4, rtol=1e-5
  )


# Scores.


def test_a_perfect_denoiser_has_no_error():
  prior = _prior()
  noise = torch.randn(3, 4, 10, FEATURES)
  prior.denoiser = _Answer(noise)  # type: ignore[assignment]
  error = prior.denoising_error(_windows(4), torch.tensor(TIMESTEPS), noise)
  assert torch.equal(error, torch.zeros(4, 3))


def test_predicting_no_noise_has_error_one_in_expectation():
  prior = _prior()
  prior.denoiser = _Answer(torch.zeros(()))  # type: ignore[assignment]
  generator = torch.Generator().manual_seed(0)
  error = prior.denoising_error(
    _windows(200), torch.tensor(TIMESTEPS), generator=generator
  )
  assert error.mean().item() == pytest.approx(1.0, abs=0.01)


def test_one_batched_call_equals_a_call_for_every_timestep():
  prior = _prior()
  features, noise = _windows(6), torch.randn(3, 6, 10, FEATURES)
  together = prior.denoising_error(features, torch.tensor(TIMESTEPS), noise)
  apart = [
    prior.denoising_error(features, torch.tensor([t]), noise[i : i + 1])
    for i, t in enumerate(TIMESTEPS)
  ]
  assert together.shape == (6, 3)
  torch.testing.assert_close(together, torch.cat(apart, dim=1))


def test_precomputed_score_equals_denoising_error():
  prior = _prior()
  features, noise = _windows(6), torch.randn(3, 6, 10, FEATURES)
  torch.testing.assert_close(
    prior.sds_loss_at(TIMESTEPS)(features, noise),
    prior.denoising_error(features, torch.tensor(TIMESTEPS), noise),
  )


@pytest.mark.parametrize("timesteps", [(), (8, 50), (-1,)])
def test_timesteps_outside_the_schedule_are_refused(timesteps: tuple[int, ...]):
  with pytest.raises(UserError, match="timesteps"):
    _prior().sds_loss_at(timesteps)


def test_the_prior_is_frozen():
  prior = _prior()
  assert not prior.training
  assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_sampling_repeats_with_a_seed_and_comes_in_raw_units():
  prior = _prior()
  draw = [prior.sample(4, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
  assert draw[0].shape == (4, 10, FEATURES)
  assert torch.equal(draw[0], draw[1])
  assert not torch.equal(draw[0], draw[2])


# Files.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
  path = tmp_path / "prior.safetensors"
  _prior().save(path)
  return path


def test_saving_and_loading_changes_nothing(saved: Path):
  prior, loaded = _prior(), MotionPrior.load(saved)
  assert loaded.spec == prior.spec and loaded.info == prior.info
  assert set(loaded.state_dict()) == set(prior.state_dict())
  for name, value in prior.state_dict().items():
    assert torch.equal(value, loaded.state_dict()[name]), name
  noise = torch.randn(3, 6, 10, FEATURES)
  features = _windows(6)
  assert torch.equal(
    prior.sds_loss_at(TIMESTEPS)(features, noise),
    loaded.sds_loss_at(TIMESTEPS)(features, noise),
  )


def _rewrite(path: Path, tensors: dict | None = None, **fields: object) -> None:
  """Change a saved prior's tensors or metadata fields; None removes a field."""
  from safetensors import safe_open

  with safe_open(path, framework="pt") as file:
    description = json.loads(file.metadata()[METADATA_KEY])
  description.update(fields)
  description = {key: value for key, value in description.items() if value is not None}
  save_file(tensors or load_file(path), path, {METADATA_KEY: json.dumps(description)})


def test_missing_file_is_refused(tmp_path: Path):
  with pytest.raises(UserError, match="no such file"):
    MotionPrior.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 20_000])
def test_truncated_file_is_refused(saved: Path, keep: int):
  saved.write_bytes(saved.read_bytes()[:keep])
  with pytest.raises(UserError, match="cut short"):
    MotionPrior.load(saved)


def test_foreign_files_are_refused(tmp_path: Path):
  pickle_file = tmp_path / "prior.pt"
  torch.save({"model": torch.zeros(3)}, pickle_file)
  with pytest.raises(UserError, match="import_prior"):
    MotionPrior.load(pickle_file)
  other = tmp_path / "other.safetensors"
  save_file({"weight": torch.zeros(3)}, other)
  with pytest.raises(UserError, match="not a motion prior"):
    MotionPrior.load(other)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("missing", "'q_high' is missing"),
    ("shape", r"'q_high' is torch.float32 \(3,\), expected torch.float32 \(59,\)"),
    ("dtype", "'q_high' is torch.float64"),
    ("nan", "'q_high' has non-finite"),
    ("unknown", "unknown tensor 'surprise'"),
  ],
)
def test_wrong_tensors_are_refused_by_name(saved: Path, change: str, message: str):
  tensors = load_file(saved)
  if change == "missing":
    del tensors["q_high"]
  elif change == "shape":
    tensors["q_high"] = torch.zeros(3)
  elif change == "dtype":
    tensors["q_high"] = tensors["q_high"].double()
  elif change == "nan":
    tensors["q_high"] = tensors["q_high"] * float("nan")
  else:
    tensors["surprise"] = torch.zeros(1)
  _rewrite(saved, tensors)
  with pytest.raises(UserError, match=message):
    MotionPrior.load(saved)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"format_version": 99}, "format_version is 99, this program reads 1"),
    (
      {"d_model": 10**9},
      "'d_model' is 1000000000, expected less than or equal to 8192",
    ),
    ({"num_layers": None}, "'num_layers' is missing"),
    ({"nhead": 5}, "d_model 32 .* nhead 5"),
    ({"spec": {"fps": 50}}, "'spec.joint_names' is missing; train or copy"),
    ({"spec": 3}, "'spec' is 3, expected a table of fields"),
    (
      {"spec": g1_spec().to_dict() | {"window": "ten"}},
      "'spec.window' is 'ten', expected a valid integer",
    ),
    ({"spec": g1_spec().to_dict() | {"feature_dims": 3}}, "'spec.feature_dims' is 3"),
    ({"d_model": 64}, "tensor 'denoiser.*expected"),
  ],
)
def test_wrong_metadata_is_refused_by_field(saved: Path, fields: dict, message: str):
  _rewrite(saved, **fields)
  with pytest.raises(UserError, match=message):
    MotionPrior.load(saved)


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch):
  before = saved.read_bytes()

  def broken(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
      file.write(content[:1000])
    raise RuntimeError("disk on fire")

  monkeypatch.setattr(Path, "write_bytes", broken)
  with pytest.raises(RuntimeError):
    _prior(seed=3).save(saved)
  assert saved.read_bytes() == before
  assert os.listdir(saved.parent) == [saved.name]


def test_metadata_that_is_not_json_is_refused(saved: Path):
  for text in ("{", "[" * 100_000):
    save_file(load_file(saved), saved, {METADATA_KEY: text})
    with pytest.raises(UserError, match="is not JSON") as error:
      MotionPrior.load(saved)
    assert "\n" not in str(error.value)


def test_a_saved_prior_can_be_read_by_others(saved: Path):
  umask = os.umask(0)
  os.umask(umask)
  assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


# Shipped.


def test_to_hold_still_is_as_familiar_as_standing(lafan_dir: Path):
  """A person who stands sways; a robot that stands should not move at all."""
  prior = MotionPrior.load(resolve_prior("walk_run"))
  clip = load_csv(lafan_dir / "fallAndGetUp1_subject5.csv").cut(2392, 2430)
  standing = clip_windows(resample(clip), stride=5)
  poses = decode(standing.double())
  held = type(poses)(*(part[:, -1:].expand_as(part).clone() for part in poses))
  still = torch.zeros_like(held.root_lin_vel_w)
  held = encode(held._replace(root_lin_vel_w=still, root_ang_vel_w=still)).float()
  trembling = held.clone()
  noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
  trembling[..., 9:38] += 0.05 * noise[..., 9:38]

  def loss(windows: Tensor) -> float:
    return float(sds_losses(prior, windows, SCORED_TIMESTEPS, draws=4).mean())

  assert loss(held) < 1.05 * loss(standing)
  assert loss(trembling) > 1.5 * loss(standing)
