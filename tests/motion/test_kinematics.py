"""Tensor kinematics against MuJoCo's own."""

import mujoco
import numpy as np
import pytest
import torch

from smp.motion.kinematics import Kinematics, mj_ee_positions
from smp.robots import g1


def random_qpos(n: int) -> np.ndarray:
  generator = np.random.default_rng(0)
  qpos = generator.normal(size=(n, 36))
  qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
  return qpos


def test_all_bodies_agree_with_mujoco():
  model = g1.load_model()
  data, kinematics = mujoco.MjData(model), Kinematics(model).double()
  for frame in random_qpos(20):
    data.qpos[:] = frame
    mujoco.mj_kinematics(model, data)
    q = torch.from_numpy(frame)
    pos, quat = kinematics(q[:3], q[3:7], q[7:])
    assert np.abs(pos.numpy() - data.xpos[1:]).max() < 1e-6
    same = np.abs((quat.numpy() * data.xquat[1:]).sum(axis=1))
    assert np.abs(same - 1).max() < 1e-6


def test_end_effectors_agree_in_single_precision_and_any_batch_shape():
  qpos = random_qpos(24)
  q = torch.from_numpy(qpos).float().view(2, 3, 4, 36)
  kinematics = Kinematics(g1.load_model())
  ee = kinematics.ee_positions(q[..., :3], q[..., 3:7], q[..., 7:])
  want = mj_ee_positions(g1.load_model(), qpos).reshape(2, 3, 4, 5, 3)
  assert np.abs(ee.numpy() - want).max() < 1e-5


def test_end_effectors_in_c_are_those_in_tensors():
  q = torch.from_numpy(random_qpos(9)).float()
  parts = q[:, :3], q[:, 3:7], q[:, 7:]
  kinematics = Kinematics(g1.load_model())
  in_tensors = kinematics.ee_positions_torch(*parts)
  torch.testing.assert_close(
    kinematics.ee_positions(*parts), in_tensors, rtol=1e-5, atol=1e-6
  )
  assert kinematics.ee_positions(*(part[:0] for part in parts)).shape == (0, 5, 3)
  for wrong in ((parts[0][:3], *parts[1:]), (*parts[:2], parts[2][:, :28])):
    with pytest.raises(ValueError):
      kinematics.ee_positions(*wrong)


def test_light_model_has_the_kinematics_and_shapes_of_the_full_one():
  full = mujoco.MjModel.from_xml_path(str(g1.model_path()))
  light = g1.load_model()
  assert light.nq == full.nq == 36
  np.testing.assert_allclose(light.body_pos, full.body_pos)
  np.testing.assert_allclose(light.jnt_axis, full.jnt_axis)

  def names(m):
    return {
      m.geom(i).name
      for i in range(m.ngeom)
      if m.geom_contype[i] or m.geom_conaffinity[i]
    }

  assert names(light) == names(full) != set()


def test_sides_and_signs():
  assert len(g1.JOINT_NAMES) == 29
  index = np.array(g1.MIRROR_INDEX)
  assert (index[index] == np.arange(29)).all()
  swapped = [g1.JOINT_NAMES[i] for i in index]
  for name, other in zip(g1.JOINT_NAMES, swapped, strict=True):
    assert g1.other_side(name) == other
  negated = {n for n, s in zip(g1.JOINT_NAMES, g1.MIRROR_SIGN, strict=True) if s < 0}
  assert {"left_hip_roll_joint", "waist_yaw_joint", "right_wrist_yaw_joint"} <= negated
  assert not any(
    "pitch" in name or "knee" in name or "elbow" in name for name in negated
  )
