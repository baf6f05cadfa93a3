"""The rolling window: it returns what slicing a recording returns."""

import torch

from smp.motion.buffer import MotionBuffer
from smp.motion.features import WINDOW, MotionState, encode, window_velocities

JOINTS, EE = 29, 5


def recording(frames: int, envs: int, seed: int = 0):
  """Smooth random poses (frames, envs, ...)."""
  generator = torch.Generator().manual_seed(seed)

  def walk(*shape):
    return torch.randn(frames, envs, *shape, generator=generator).cumsum(0) * 0.02

  quat = torch.tensor([1.0, 0.0, 0.0, 0.0]) + walk(4)
  return walk(3), quat / quat.norm(dim=-1, keepdim=True), walk(JOINTS), walk(EE, 3)


def offline_window(parts, last: int) -> MotionState:
  pos, quat, joints, ee = (
    part[last - WINDOW + 1 : last + 1].transpose(0, 1) for part in parts
  )
  lin, ang = window_velocities(pos, quat, 50)
  return MotionState(pos, quat, lin, ang, joints, ee)


def test_streaming_equals_slicing():
  parts = recording(37, envs=4)
  buffer = MotionBuffer(4, JOINTS, EE, "cpu")
  for t in range(37):
    buffer.push(*(part[t] for part in parts))
    if t >= WINDOW - 1:
      expected = offline_window(parts, t)
      for got, want in zip(buffer.window(), expected, strict=True):
        assert torch.equal(got, want)
      assert torch.equal(encode(buffer.window()), encode(expected))


def test_fill_replaces_only_its_environments_at_any_ring_position():
  parts = recording(25, envs=5)
  start = recording(WINDOW, envs=2, seed=1)
  for pushes in (12, 13, 20):
    buffer = MotionBuffer(5, JOINTS, EE, "cpu")
    for t in range(pushes):
      buffer.push(*(part[t] for part in parts))
    before = buffer.window()
    untouched = [part[[0, 2, 4]].clone() for part in before]
    filled = offline_window(start, WINDOW - 1)
    buffer.fill(torch.tensor([3, 1]), filled)
    after = buffer.window()
    for got, want in zip(after, filled, strict=True):
      torch.testing.assert_close(got[[3, 1]], want, rtol=1e-6, atol=1e-6)
    for got, want in zip(after, untouched, strict=True):
      torch.testing.assert_close(got[[0, 2, 4]], want, rtol=1e-6, atol=1e-6)


def test_frames_after_a_fill_follow_on():
  parts = recording(WINDOW + 3, envs=1)
  buffer = MotionBuffer(1, JOINTS, EE, "cpu")
  buffer.fill(torch.tensor([0]), offline_window(parts, WINDOW - 1))
  for t in range(WINDOW, WINDOW + 3):
    buffer.push(*(part[t] for part in parts))
  expected = offline_window(parts, WINDOW + 2)
  for got, want in zip(buffer.window(), expected, strict=True):
    assert torch.equal(got, want)


def test_steps_reuse_their_storage():
  parts = recording(30, envs=3)
  buffer = MotionBuffer(3, JOINTS, EE, "cpu")
  addresses = set()
  for t in range(30):
    buffer.push(*(part[t] for part in parts))
    addresses.add(buffer.window().root_pos_w.data_ptr())
  assert len(addresses) == 1
