"""The head, from the robot's own coordinates."""

from __future__ import annotations

import mujoco
import numpy as np
import torch

from smp.motion.head import Head
from smp.motion.rotations import quat_rotate
from smp.robots import g1

HEAD = Head(g1.load_model()).double()


def random_state(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A configuration (36,) and velocity (35,), all joints turned and turning."""
  rng = np.random.default_rng(seed)
  quat = rng.normal(size=4)
  qpos = np.concatenate(
    (rng.normal(size=3), quat / np.linalg.norm(quat), rng.uniform(-0.5, 0.5, 29))
  )
  return qpos, rng.normal(size=35)


def head_of(qpos: np.ndarray, qvel: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
  q, v = torch.from_numpy(qpos), torch.from_numpy(qvel)
  spin = quat_rotate(q[3:7], v[3:6])
  return HEAD(q[:3], q[3:7], q[7:], v[:3], spin, v[6:])


def test_position_and_velocity_are_mujocos():
  model = g1.load_model()
  data = mujoco.MjData(model)
  body = model.body(g1.HEAD_BODY).id
  for seed in range(5):
    qpos, qvel = random_state(seed)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    point = data.xpos[body] + data.xmat[body].reshape(3, 3) @ np.array(g1.HEAD_OFFSET)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jac(model, data, jacobian, None, point, body)
    pos, vel = head_of(qpos, qvel)
    np.testing.assert_allclose(pos, point, atol=1e-6)
    np.testing.assert_allclose(vel, jacobian @ qvel, atol=1e-6)


def test_velocity_is_the_rate_of_the_position():
  model, dt = g1.load_model(), 1e-6
  qpos, qvel = random_state(7)
  later = qpos.copy()
  mujoco.mj_integratePos(model, later, qvel, dt)
  pos, vel = head_of(qpos, qvel)
  after, _ = head_of(later, qvel)
  np.testing.assert_allclose((after - pos) / dt, vel, atol=1e-4)


def test_at_rest_without_velocities():
  qpos, qvel = random_state(3)
  q = torch.from_numpy(qpos)
  pos, vel = HEAD(q[:3], q[3:7], q[7:])
  torch.testing.assert_close(pos, head_of(qpos, qvel)[0])
  assert vel.abs().max() == 0.0


def test_a_standing_robot_has_its_head_at_success_height():
  """The get-up task calls a head at 1.2 m standing."""
  pos, _ = HEAD(
    torch.tensor([0.0, 0.0, 0.79]).double(),
    torch.tensor([1.0, 0.0, 0.0, 0.0]).double(),
    torch.zeros(29).double(),
  )
  assert 1.2 < pos[2] < 1.35
