"""Rotations: algebra, limits, and the heading of lying bodies."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from smp.motion import rotations as rot
from tests.references import quat_exp

torch.manual_seed(0)


def random_quats(n: int = 500) -> torch.Tensor:
  return rot.quat_normalize(torch.randn(n, 4, dtype=torch.float64))


def about(axis: str, angle: float | torch.Tensor) -> torch.Tensor:
  half = torch.as_tensor(angle, dtype=torch.float64) / 2
  parts = [half.cos(), *(half.sin() * (name == axis) for name in "xyz")]
  return torch.stack(parts, dim=-1)


def test_agrees_with_scipy():
  a, b, v = random_quats(), random_quats(), torch.randn(500, 3, dtype=torch.float64)

  def to_scipy(q):
    return Rotation.from_quat(q[:, [1, 2, 3, 0]].numpy())

  ra, rb = to_scipy(a), to_scipy(b)
  want = torch.from_numpy((ra * rb).as_matrix())
  torch.testing.assert_close(rot.quat_to_matrix(rot.quat_mul(a, b)), want)
  torch.testing.assert_close(rot.quat_rotate(a, v), torch.from_numpy(ra.apply(v)))
  torch.testing.assert_close(rot.quat_log(a), torch.from_numpy(ra.as_rotvec()))


def test_round_trips():
  q = random_quats()
  q = torch.where(q[:, :1] < 0, -q, q)
  torch.testing.assert_close(rot.quat_from_matrix(rot.quat_to_matrix(q)), q)
  torch.testing.assert_close(quat_exp(rot.quat_log(q)), q)
  torch.testing.assert_close(rot.quat_from_rot6d(rot.rot6d_from_quat(q)), q)
  identity = rot.quat_mul(q, rot.quat_conj(q))
  torch.testing.assert_close(identity[:, 0], torch.ones_like(identity[:, 0]))


@pytest.mark.parametrize("axis", "xyz")
def test_half_turns_survive_the_matrix(axis):
  q = about(axis, math.pi)
  back = rot.quat_from_matrix(rot.quat_to_matrix(q))
  assert abs(float((back * q).sum())) == pytest.approx(1.0)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-5, 1e-3, 1.0, 3.1])
def test_log_keeps_the_smallest_angles(angle):
  q = about("y", angle)
  torch.testing.assert_close(
    rot.quat_log(q),
    torch.tensor([0.0, angle, 0.0], dtype=torch.float64),
    rtol=1e-9,
    atol=0.0,
  )
  torch.testing.assert_close(rot.quat_log(-q), rot.quat_log(q))
  single = rot.quat_log(q.float())
  assert torch.isfinite(single).all()


def test_network_output_becomes_a_rotation():
  q = rot.quat_from_rot6d(torch.randn(200, 6, dtype=torch.float64) * 3)
  m = rot.quat_to_matrix(q)
  eye = torch.eye(3).double().expand(200, 3, 3)
  torch.testing.assert_close(m @ m.transpose(-1, -2), eye)
  assert (torch.linalg.det(m) > 0.99).all()


# Heading.


@pytest.mark.parametrize("kind", ["twist", "yaw"])
def test_heading_of_upright_bodies_is_their_yaw(kind):
  yaw = torch.linspace(-3.1, 3.1, 50).double()
  cos, sin = rot.heading(about("z", yaw), kind)
  torch.testing.assert_close(torch.atan2(sin, cos), yaw)


@pytest.mark.parametrize("kind", ["twist", "yaw"])
def test_heading_turns_with_the_world(kind):
  q, turn = random_quats(), 0.7
  cos, sin = rot.heading(q, kind)
  cos2, sin2 = rot.heading(rot.quat_mul(about("z", turn).expand_as(q), q), kind)
  change = torch.atan2(sin2 * cos - cos2 * sin, cos2 * cos + sin2 * sin)
  torch.testing.assert_close(change, torch.full_like(change, turn))


def test_twist_mirrors():
  q = random_quats()
  cos, sin = rot.heading(q)
  cos_m, sin_m = rot.heading(q * torch.tensor([1.0, -1.0, 1.0, -1.0]).double())
  torch.testing.assert_close(cos_m, cos)
  torch.testing.assert_close(sin_m, -sin)


def largest_step(path: torch.Tensor, kind: rot.HeadingKind) -> float:
  cos, sin = rot.heading(path, kind)
  cross = cos[:-1] * sin[1:] - sin[:-1] * cos[1:]
  return float(torch.asin(cross.clamp(-1, 1)).abs().max())


@pytest.mark.parametrize("lie_down", ["supine", "prone", "left", "right"])
def test_twist_is_continuous_while_lying_and_rolling(lie_down):
  """Falling over and wobbling past the vertical: yaw jumps, twist does not."""
  axis, sign = {
    "supine": ("y", -1),
    "prone": ("y", 1),
    "left": ("x", -1),
    "right": ("x", 1),
  }[lie_down]
  fall = torch.linspace(0, sign * math.radians(100), 400).double()
  wobble = 0.05 * torch.sin(torch.linspace(0, 20, 400)).double()
  path = rot.quat_mul(about("x" if axis == "y" else "y", wobble), about(axis, fall))
  assert largest_step(path, "twist") < 0.05
  if lie_down in ("supine", "prone"):
    assert largest_step(path, "yaw") > 0.1


def test_twist_upside_down_is_defined():
  cos, sin = rot.heading(torch.tensor([0.0, 1.0, 0.0, 0.0]))
  assert (cos.item(), sin.item()) == (1.0, 0.0)
