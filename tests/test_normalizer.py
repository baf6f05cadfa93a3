"""The running scale of the errors."""

import torch

from smp.mdp.normalizer import MU_FLOOR, ErrorNormalizer


def test_mean_is_over_all_windows_whatever_the_batches():
  torch.manual_seed(0)
  errors = torch.rand(600, 3)
  whole, pieces = ErrorNormalizer(3, 1e9), ErrorNormalizer(3, 1e9)
  whole.update(errors)
  for batch in errors.split([1, 99, 300, 200]):
    pieces.update(batch)
  torch.testing.assert_close(whole.mean, errors.double().mean(0))
  torch.testing.assert_close(pieces.mean, whole.mean)
  assert pieces.count.item() == 600


def test_first_batch_sets_the_scale():
  normalizer = ErrorNormalizer(2, 1e9)
  batch = torch.tensor([[0.2, 4.0], [0.4, 2.0]])
  normalizer.update(batch)
  torch.testing.assert_close(normalizer.scale(), torch.tensor([0.3, 3.0]))
  torch.testing.assert_close(normalizer(batch).mean(0), torch.ones(2))


def test_freezes_after_its_windows():
  normalizer = ErrorNormalizer(1, freeze_after=100)
  normalizer.update(torch.full((100, 1), 1.0))
  normalizer.update(torch.full((50, 1), 9.0))
  assert normalizer.scale().item() == 1.0
  assert normalizer.count.item() == 100


def test_small_batches_still_count_late():
  normalizer = ErrorNormalizer(1, freeze_after=1e9)
  normalizer.update(torch.full((1, 1), 1.0))
  normalizer.count.fill_(4e7)
  for _ in range(1000):
    normalizer.update(torch.full((64, 1), 2.0))
  expected = 1.0 + 64_000 / (4e7 + 64_000)
  assert abs(normalizer.mean.item() - expected) < 1e-9


def test_floor_and_diverged_environments():
  normalizer = ErrorNormalizer(2, 1e9)
  assert torch.equal(normalizer.scale(), torch.full((2,), MU_FLOOR))
  normalizer.update(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]]))
  assert normalizer.count.item() == 0
  normalizer.update(torch.tensor([[1.0, 3.0], [float("nan"), 1.0]]))
  torch.testing.assert_close(normalizer.scale(), torch.tensor([1.0, 3.0]))
  assert normalizer.count.item() == 1


def test_checkpoint_round_trip():
  saved, restored = ErrorNormalizer(2, 1e9), ErrorNormalizer(2, 1e9)
  saved.update(torch.rand(10, 2))
  restored.load_state_dict(saved.state_dict())
  for normalizer in (saved, restored):
    normalizer.update(torch.full((5, 2), 0.5))
  assert torch.equal(saved.mean, restored.mean)
