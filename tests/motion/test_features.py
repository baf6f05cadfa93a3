"""The 59 features: one encoder, one decoder."""

import pytest
import torch

from smp.errors import UserError
from smp.motion import rotations as rot
from smp.motion.features import (
  FEATURE_DIM,
  SLICES,
  WINDOW,
  FeatureSpec,
  MotionState,
  anchor_of,
  decode,
  encode,
  g1_spec,
  mirror_features,
  window_velocities,
)
from smp.motion.kinematics import Kinematics
from smp.robots import g1
from tests.references import mirror_state, quat_exp


def random_state(n: int = 40, seed: int = 0) -> MotionState:
  """Smooth random windows in every orientation, with the robot's own kinematics."""
  generator = torch.Generator().manual_seed(seed)

  def normal(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

  pos = normal(n, 1, 3) + 0.02 * normal(n, WINDOW, 3).cumsum(1)
  quat = rot.quat_normalize(normal(n, 1, 4) + 0.05 * normal(n, WINDOW, 4).cumsum(1))
  joints = 0.5 * normal(n, 1, 29) + 0.02 * normal(n, WINDOW, 29).cumsum(1)
  ee = Kinematics(g1.load_model()).double().ee_positions(pos, quat, joints)
  lin, ang = window_velocities(pos, quat, 50)
  return MotionState(pos, quat, lin, ang, joints, ee)


def moved(state: MotionState, angle: float, shift: tuple[float, float]) -> MotionState:
  """The same motion elsewhere in the world, facing another way."""
  angle_t = torch.tensor(angle, dtype=torch.float64)
  cos, sin = angle_t.cos(), angle_t.sin()
  turn = torch.stack(((angle_t / 2).cos(), *torch.zeros(2), (angle_t / 2).sin()))
  offset = torch.tensor([*shift, 0.0], dtype=torch.float64)

  def spin(v):
    return rot.rotate_z(cos, sin, v)

  return MotionState(
    spin(state.root_pos_w) + offset,
    rot.quat_mul(turn.double().expand_as(state.root_quat_w), state.root_quat_w),
    spin(state.root_lin_vel_w),
    spin(state.root_ang_vel_w),
    state.joint_pos,
    spin(state.ee_pos_w) + offset,
  )


@pytest.mark.parametrize("heading", ["twist", "yaw"])
def test_decoding_undoes_encoding(heading):
  state = random_state()
  back = decode(encode(state, heading), anchor_of(state, heading))
  same = (back.root_quat_w * state.root_quat_w).sum(-1).abs()
  torch.testing.assert_close(same, torch.ones_like(same))
  for name in MotionState._fields:
    if name != "root_quat_w":
      torch.testing.assert_close(getattr(back, name), getattr(state, name))


def test_encoding_undoes_decoding():
  features = encode(random_state())
  torch.testing.assert_close(encode(decode(features)), features)


@pytest.mark.parametrize("heading", ["twist", "yaw"])
def test_place_and_direction_do_not_matter(heading):
  state = random_state()
  there = moved(state, 2.3, (40.0, -7.0))
  gap = encode(there, heading) - encode(state, heading)
  assert gap.abs().max() < 1e-9
  single = encode(MotionState(*(part.float() for part in there)), heading)
  assert (single - encode(state, heading)).abs().max() < 1e-4


def test_height_does_matter():
  state = random_state()
  up = state._replace(root_pos_w=state.root_pos_w + torch.tensor([0.0, 0.0, 0.5]))
  gap = (encode(up) - encode(state))[..., SLICES["root_pos"]]
  torch.testing.assert_close(gap[..., 2], torch.full_like(gap[..., 2], 0.5))


def test_mirror_twice_is_the_identity():
  state = random_state()
  for got, want in zip(mirror_state(mirror_state(state)), state, strict=True):
    torch.testing.assert_close(got, want)
  features = encode(state)
  torch.testing.assert_close(mirror_features(mirror_features(features)), features)
  assert (mirror_features(features) - features).abs().max() > 0.1


def test_mirror_commutes_with_encoding_velocities_and_kinematics():
  state = random_state()
  mirrored = mirror_state(state)
  torch.testing.assert_close(encode(mirrored), mirror_features(encode(state)))
  lin, ang = window_velocities(mirrored.root_pos_w, mirrored.root_quat_w, 50)
  torch.testing.assert_close(lin, mirrored.root_lin_vel_w)
  torch.testing.assert_close(ang, mirrored.root_ang_vel_w)
  ee = (
    Kinematics(g1.load_model())
    .double()
    .ee_positions(mirrored.root_pos_w, mirrored.root_quat_w, mirrored.joint_pos)
  )
  # The two sides of the model differ by fractions of a millimetre.
  torch.testing.assert_close(ee, mirrored.ee_pos_w, rtol=0.0, atol=2e-3)


def test_last_frame_is_the_anchor():
  features = encode(random_state())
  last = features[:, -1]
  assert last[:, SLICES["root_pos"]][:, :2].abs().max() < 1e-12
  cos, sin = rot.heading(decode(features).root_quat_w[:, -1])
  torch.testing.assert_close(cos, torch.ones_like(cos))
  assert sin.abs().max() < 1e-9


def test_layout_is_that_of_the_design():
  assert FEATURE_DIM == 59
  bounds = [(s.start, s.stop) for s in SLICES.values()]
  assert bounds == [(0, 3), (3, 9), (9, 38), (38, 53), (53, 56), (56, 59)]
  upright = MotionState(
    torch.tensor([[0.0, 0.0, 0.8]]),
    torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
    torch.tensor([[1.0, 2.0, 3.0]]),
    torch.tensor([[4.0, 5.0, 6.0]]),
    torch.arange(29.0)[None],
    torch.tensor([0.0, 0.0, 0.8]) + torch.arange(15.0).view(1, 5, 3),
  )
  want = [0, 0, 0.8, 1, 0, 0, 0, 0, 1, *range(29), *range(15), 1, 2, 3, 4, 5, 6]
  torch.testing.assert_close(encode(upright)[0], torch.tensor(want).float())


# Velocities.


def test_velocity_of_uniform_motion_is_exact_everywhere():
  t = torch.arange(WINDOW, dtype=torch.float64)[:, None] / 50
  velocity, spin = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0, -2.0])
  quat = quat_exp(t * spin)
  lin, ang = window_velocities(t * velocity, quat, 50)
  torch.testing.assert_close(lin, velocity.double().expand(WINDOW, 3))
  torch.testing.assert_close(ang, spin.double().expand(WINDOW, 3))


def test_angular_velocity_is_about_world_axes():
  """A lying body spun about the vertical: its own axes would say something else."""
  t = torch.arange(WINDOW, dtype=torch.float64)[:, None] / 50
  spin = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
  lying = quat_exp(torch.tensor([0.0, 1.5, 0.0], dtype=torch.float64))
  quat = rot.quat_mul(quat_exp(t * spin), lying.expand(WINDOW, 4))
  _, ang = window_velocities(torch.zeros(WINDOW, 3).double(), quat, 50)
  torch.testing.assert_close(ang, spin.expand(WINDOW, 3))


def test_velocity_at_the_ends_is_of_second_order():
  t = torch.arange(WINDOW, dtype=torch.float64)[:, None] / 50
  pos = torch.cat((4.0 * t**2, t, torch.sin(3 * t)), dim=-1)
  quat = torch.tensor([1.0, 0, 0, 0]).double().expand(WINDOW, 4)
  lin, ang = window_velocities(pos, quat, 50)
  torch.testing.assert_close(lin[:, 0], 8.0 * t[:, 0])
  assert (lin[:, 2] - 3 * torch.cos(3 * t[:, 0])).abs().max() < 0.01
  assert ang.abs().max() == 0.0


def test_second_order_ends_need_three_frames():
  state = random_state(2)
  pos, quat = state.root_pos_w[:, :2], state.root_quat_w[:, :2]
  with pytest.raises(ValueError, match="needs 3"):
    window_velocities(pos, quat, 50)


def test_velocity_ignores_the_sign_of_quaternions():
  state = random_state(3)
  flipped = state.root_quat_w.clone()
  flipped[:, ::2] *= -1
  for a, b in zip(
    window_velocities(state.root_pos_w, flipped, 50),
    window_velocities(state.root_pos_w, state.root_quat_w, 50),
    strict=True,
  ):
    torch.testing.assert_close(a, b)


# Spec.


def test_spec_round_trip_and_refusals():
  spec = g1_spec()
  assert FeatureSpec.from_dict(spec.to_dict()) == spec
  spec.check(g1_spec())
  wrong_joints = (*g1.JOINT_NAMES[:3], "extra_joint", *g1.JOINT_NAMES[4:])
  for other, field in (
    (g1_spec(window=8), "window"),
    (g1_spec(fps=30), "fps"),
    (g1_spec(heading="yaw"), "heading"),
    (g1_spec(joint_names=wrong_joints), "joint_names"),
  ):
    with pytest.raises(UserError, match=field):
      spec.check(other)
  with pytest.raises(UserError, match="extra_joint.* at position 3"):
    spec.check(g1_spec(joint_names=wrong_joints))
  with pytest.raises(UserError, match="'window' is missing"):
    FeatureSpec.from_dict({k: v for k, v in spec.to_dict().items() if k != "window"})
