"""The running scale of the errors."""

import subprocess
import sys

import torch

from smp.mdp import sds_normalizer as normalizer_module
from smp.mdp.sds_normalizer import (
  MU_FLOOR,
  REFERENCE_MULTIPLE,
  ReferenceSdsNormalizer,
  SdsNormalizer,
)


def test_mean_is_over_all_windows_whatever_the_batches():
  torch.manual_seed(0)
  errors = torch.rand(600, 3)
  whole, pieces = SdsNormalizer(3, 1e9), SdsNormalizer(3, 1e9)
  whole.update(errors)
  for batch in errors.split([1, 99, 300, 200]):
    pieces.update(batch)
  torch.testing.assert_close(whole.mean, errors.double().mean(0))
  torch.testing.assert_close(pieces.mean, whole.mean)
  assert pieces.count.item() == 600


def test_first_batch_sets_the_scale():
  normalizer = SdsNormalizer(2, 1e9)
  batch = torch.tensor([[0.2, 4.0], [0.4, 2.0]])
  normalizer.update(batch)
  torch.testing.assert_close(normalizer.scale(), torch.tensor([0.3, 3.0]))
  torch.testing.assert_close(normalizer(batch).mean(0), torch.ones(2))


def test_freezes_after_its_windows():
  normalizer = SdsNormalizer(1, freeze_after_samples=100)
  normalizer.update(torch.full((100, 1), 1.0))
  normalizer.update(torch.full((50, 1), 9.0))
  assert normalizer.scale().item() == 1.0
  assert normalizer.count.item() == 100


def test_small_batches_still_count_late():
  normalizer = SdsNormalizer(1, freeze_after_samples=1e9)
  normalizer.update(torch.full((1, 1), 1.0))
  normalizer.count.fill_(4e7)
  for _ in range(1000):
    normalizer.update(torch.full((64, 1), 2.0))
  expected = 1.0 + 64_000 / (4e7 + 64_000)
  assert abs(normalizer.mean.item() - expected) < 1e-9


def test_floor_and_diverged_environments():
  normalizer = SdsNormalizer(2, 1e9)
  assert torch.equal(normalizer.scale(), torch.full((2,), MU_FLOOR))
  normalizer.update(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0]]))
  assert normalizer.count.item() == 0
  normalizer.update(torch.tensor([[1.0, 3.0], [float("nan"), 1.0]]))
  torch.testing.assert_close(normalizer.scale(), torch.tensor([1.0, 3.0]))
  assert normalizer.count.item() == 1


def test_checkpoint_round_trip():
  saved, restored = SdsNormalizer(2, 1e9), SdsNormalizer(2, 1e9)
  saved.update(torch.rand(10, 2))
  restored.load_state_dict(saved.state_dict())
  for normalizer in (saved, restored):
    normalizer.update(torch.full((5, 2), 0.5))
  assert torch.equal(saved.mean, restored.mean)


# The scale of the prior's own.


def test_a_reference_scale_does_not_move():
  normalizer = ReferenceSdsNormalizer([0.1, 0.02])
  expected = REFERENCE_MULTIPLE * torch.tensor([0.1, 0.02])
  torch.testing.assert_close(normalizer.scale(), expected)
  normalizer.update(torch.full((1000, 2), 9.0))
  normalizer.average_over_ranks()
  torch.testing.assert_close(normalizer.scale(), expected)


def test_a_window_scores_the_same_whatever_was_seen_before():
  torch.manual_seed(0)
  window = torch.rand(1, 3)
  seen = [torch.rand(50, 3), 20.0 * torch.rand(50, 3)]

  def scored(normalizer: SdsNormalizer, before: torch.Tensor) -> torch.Tensor:
    normalizer.update(before)
    return normalizer(window)

  fixed = [scored(ReferenceSdsNormalizer([0.3, 0.2, 0.1]), before) for before in seen]
  assert torch.equal(fixed[0], fixed[1])
  running = [scored(SdsNormalizer(3, 1e9), before) for before in seen]
  assert not torch.allclose(running[0], running[1], rtol=0.5)


def test_a_checkpoint_does_not_change_a_reference_scale(capsys):
  normalizer = ReferenceSdsNormalizer([0.1, 0.02])
  before = normalizer.mean.clone()
  normalizer.load(before.float(), torch.ones(1))
  assert not capsys.readouterr().out
  normalizer.load(torch.tensor([0.6, 0.2]), torch.tensor([1e7]))
  out = capsys.readouterr().out
  assert out.startswith("[WARN]") and "0.6, 0.2" in out and out.count("\n") == 1
  assert torch.equal(normalizer.mean, before)


def test_a_running_mean_can_begin_at_a_reference_scale():
  reference, running = ReferenceSdsNormalizer([0.1, 0.02]), SdsNormalizer(2, 1e9)
  running.load(reference.mean, reference.count)
  torch.testing.assert_close(running.scale(), reference.scale())
  running.update(torch.full((999, 2), 2.0))
  assert (running.scale() > 1.9).all()


# One of two processes that train together: sees its own half of the errors. The module
# is loaded by its file, because importing the package takes a quarter of a minute.
_RANK = """
import importlib.util, sys, torch
source, folder, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec = importlib.util.spec_from_file_location("normalizer", source)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.distributed.init_process_group(
  "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
)
normalizer = module.SdsNormalizer(3, 1e9)
normalizer.load(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([40.0]))
errors = torch.load(f"{folder}/errors.pt", weights_only=True)
for i, batch in enumerate(errors.chunk(2)[rank].split(25)):
  normalizer.update(batch)
  if i % 2 == 1:
    normalizer.average_over_ranks()
torch.save(normalizer.state_dict(), f"{folder}/rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


def _errors() -> torch.Tensor:
  generator = torch.Generator().manual_seed(0)
  # The halves differ: a rank that saw only its own would be far off.
  halves = (
    torch.rand(2, 200, 3, generator=generator) * torch.tensor([1.0, 9.0])[:, None, None]
  )
  return halves.flatten(0, 1)


def test_two_processes_share_one_mean(tmp_path):
  torch.save(_errors(), tmp_path / "errors.pt")
  command = [sys.executable, "-c", _RANK, normalizer_module.__file__, str(tmp_path)]
  ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
  assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
  one = SdsNormalizer(3, 1e9)
  one.load(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([40.0]))
  one.update(_errors())
  for rank in range(2):
    found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
    torch.testing.assert_close(found["mean"], one.mean)
    assert found["count"].item() == 440


def test_alone_there_is_nothing_to_share():
  normalizer = SdsNormalizer(3, 1e9)
  normalizer.update(torch.rand(10, 3))
  mean = normalizer.mean.clone()
  normalizer.average_over_ranks()
  assert torch.equal(normalizer.mean, mean)
  assert normalizer.count.item() == 10
