"""The network: its size, and what it must and must not depend on."""

import torch
import torch.nn.functional as F

from smp.diffusion.denoiser import (
  Block,
  Denoiser,
  SwiGLU,
  sinusoidal_positions,
  sinusoidal_time,
)


def _denoiser() -> Denoiser:
  torch.manual_seed(0)
  return Denoiser(feature_dim=59, window=10).eval().requires_grad_(False)


def test_has_as_many_parameters_as_the_published_network():
  assert sum(parameter.numel() for parameter in _denoiser().parameters()) == 698_674


def test_names_match_the_published_checkpoints():
  names = set(_denoiser().state_dict())
  assert "adaln_single.timestep_embedder.linear_2.bias" in names
  assert "blocks.1.ff.act.proj.weight" in names
  assert not [name for name in names if "positions" in name]


def test_precomputed_modulation_shared_by_windows_equals_one_call_each():
  denoiser = _denoiser()
  t = torch.tensor([8, 15, 22])
  x = torch.randn(3, 5, 10, 59)
  together = denoiser.forward_modulated(x, denoiser.time_modulation(t).unsqueeze(2))
  apart = torch.stack([denoiser(x[i], t[i].repeat(5)) for i in range(3)])
  torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_output_depends_on_time_and_on_the_order_of_frames():
  denoiser = _denoiser()
  x = torch.randn(2, 10, 59)
  early = denoiser(x, torch.tensor([3, 3]))
  assert not torch.allclose(early, denoiser(x, torch.tensor([30, 30])), atol=1e-3)
  flipped = denoiser(x.flip(1), torch.tensor([3, 3])).flip(1)
  assert not torch.allclose(early, flipped, atol=1e-3)


def test_windows_of_a_batch_do_not_mix():
  denoiser = _denoiser()
  x = torch.randn(4, 10, 59)
  t = torch.tensor([1, 2, 3, 4])
  changed = x.clone()
  changed[0] += 1.0
  torch.testing.assert_close(denoiser(x, t)[1:], denoiser(changed, t)[1:])


def test_every_frame_sees_every_other():
  denoiser = _denoiser()
  x = torch.randn(1, 10, 59)
  changed = x.clone()
  changed[0, 9] += 1.0
  t = torch.tensor([5])
  moved = (denoiser(x, t) - denoiser(changed, t)).abs().amax(-1)[0]
  assert (moved > 1e-5).all()


def test_time_features_put_cosines_first():
  features = sinusoidal_time(torch.tensor([0, 7]))
  assert features.shape == (2, 256)
  assert torch.equal(features[0, :128], torch.ones(128))
  torch.testing.assert_close(features[1, 0], torch.tensor(7.0).cos())
  torch.testing.assert_close(features[1, 128], torch.tensor(7.0).sin())


def test_positions_interleave_sines_and_cosines():
  positions = sinusoidal_positions(10, 128)
  torch.testing.assert_close(positions[3, 0], torch.tensor(3.0).sin())
  torch.testing.assert_close(positions[3, 1], torch.tensor(3.0).cos())


def test_gated_feed_forward_puts_the_gate_first():
  torch.manual_seed(0)
  act = SwiGLU(4, 3)
  x = torch.randn(5, 4)
  weight, bias = act.proj.weight, act.proj.bias
  gate, value = x @ weight[:3].T + bias[:3], x @ weight[3:].T + bias[3:]
  torch.testing.assert_close(act(x), gate * gate.sigmoid() * value)


def test_order_of_the_six_modulations():
  """Shift, scale, gate of the attention, then of the feed-forward."""
  torch.manual_seed(0)
  block, x = Block(16, 4), torch.randn(2, 10, 16)
  normed = F.layer_norm(x, (16,))

  def modulation(**rows: float) -> torch.Tensor:
    names = ("shift_a", "scale_a", "gate_a", "shift_f", "scale_f", "gate_f")
    return torch.tensor([rows.get(name, 0.0) for name in names])[:, None].expand(6, 16)

  def output(**rows: float) -> torch.Tensor:
    return block(x, modulation(**rows))

  assert torch.equal(output(shift_a=1.0, scale_a=2.0, shift_f=3.0, scale_f=4.0), x)
  torch.testing.assert_close(
    output(gate_f=1.0, scale_f=0.5, shift_f=0.2), x + block.ff(normed * 1.5 + 0.2)
  )
  torch.testing.assert_close(
    output(gate_a=2.0, scale_a=0.5, shift_a=0.2),
    x + 2.0 * block._attend(normed * 1.5 + 0.2),
  )


def test_attention_averages_values_by_similarity():
  torch.manual_seed(0)
  block, x = Block(8, 2), torch.randn(3, 10, 8)
  q, k, v = block.to_q(x), block.to_k(x), block.to_v(x)
  heads = []
  for part in (slice(0, 4), slice(4, 8)):
    likeness = q[..., part] @ k[..., part].transpose(1, 2) / 2.0
    heads.append(likeness.softmax(dim=-1) @ v[..., part])
  expected = block.to_out(torch.cat(heads, dim=-1))
  torch.testing.assert_close(block._attend(x), expected)


def test_every_block_adds_its_own_table_to_the_shared_modulation():
  denoiser = _denoiser()
  modulation = denoiser.time_modulation(torch.tensor([3, 30]))
  assert modulation.shape == (2, 2, 6, 128)
  shared = denoiser.adaln_single(torch.tensor([3, 30]))
  for block, found in zip(denoiser.blocks, modulation, strict=True):
    assert isinstance(block, Block)
    table = block.scale_shift_table[0].expand_as(found)
    torch.testing.assert_close(found - shared, table, atol=1e-6, rtol=1e-5)
