"""Events that make robots differ, on the native engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnv

from smp.errors import UserError
from smp.sim import make_env
from tests.conftest import small_env_cfg

TASK = "Smp-Velocity-G1"
N = 64
pytestmark = pytest.mark.slow


def build(num_envs: int, only: tuple[str, ...]) -> ManagerBasedRlEnv:
  """Smp-Velocity-G1 with these events alone, and exact observations."""
  cfg = small_env_cfg(TASK, num_envs)
  cfg.events = {name: cfg.events[name] for name in only}
  cfg.observations["actor"].enable_corruption = False
  return make_env(cfg, "native", "cpu", threads=1)


@pytest.fixture(scope="module")
def env() -> Iterator[ManagerBasedRlEnv]:
  env = build(N, ("payload", "motor_gains", "actuator_delay"))
  env.reset()
  yield env
  env.close()


def robot_of(env: ManagerBasedRlEnv) -> Entity:
  return cast(Entity, env.scene["robot"])


def test_the_torso_carries_something_and_nothing_else_does(env):
  robot = robot_of(env)
  ids = robot.indexing.body_ids
  added = env.sim.model.body_mass[:, ids] - env.sim.get_default_field("body_mass")[ids]
  torso = robot.body_names.index("torso_link")
  payload = added[:, torso].clone()
  added[:, torso] = 0.0
  assert added.abs().max() < 1e-6
  assert -1.0 <= payload.min() < -0.5 and 2.5 < payload.max() <= 3.0
  # What follows from the mass was computed anew.
  root = robot.indexing.root_body_id
  heavy = env.sim.model.body_subtreemass[:, root]
  light = env.sim.get_default_field("body_subtreemass")[root]
  torch.testing.assert_close(heavy - light, payload, atol=1e-4, rtol=0.0)


def test_the_gains_of_each_motor_differ_by_a_fifth(env):
  gain, bias = env.sim.model.actuator_gainprm[:], env.sim.model.actuator_biasprm[:]
  stiff = gain[..., 0] / env.sim.get_default_field("actuator_gainprm")[:, 0]
  damp = bias[..., 2] / env.sim.get_default_field("actuator_biasprm")[:, 2]
  for ratio in (stiff, damp):
    assert 0.8 <= ratio.min() < 0.82 and 1.18 < ratio.max() <= 1.2
    assert ratio.std(dim=0).min() > 0.05 and ratio.std(dim=1).min() > 0.05
  torch.testing.assert_close(bias[..., 1], -gain[..., 0])


def lags(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Lags of all motors (motors, N), physics steps."""
  buffers = [cast(Any, each._delay_buffer) for each in robot_of(env).actuators]
  return torch.stack([buffer.current_lags for buffer in buffers])


def test_each_episode_has_a_delay_of_its_own_which_stays(env):
  first = lags(env).clone()
  assert first.unique().tolist() == [0, 1, 2, 3, 4]
  assert (first == first[0]).all()  # One bus for all motors.
  for _ in range(3):
    env.step(torch.zeros(N, 29))
  lasting = env.episode_length_buf == 3
  assert lasting.sum() > N // 2
  assert torch.equal(lags(env)[:, lasting], first[:, lasting])
  env.reset()
  assert not torch.equal(lags(env), first)


def test_a_target_arrives_as_late_as_its_delay_says():
  """Of 4 physics steps a robot with a lag of 3 still has the old target after 3."""
  env = build(5, ("actuator_delay",))
  env.reset()
  robot = robot_of(env)
  wanted = torch.arange(5)
  for actuator in robot.actuators:
    actuator.set_lags(wanted)
  sent = []
  step = env.sim.step

  def noting() -> None:
    sent.append(env.sim.data.ctrl.clone())
    step()

  cast(Any, env.sim).step = noting
  env.step(torch.ones(5, 29))
  default = robot.data.default_joint_pos
  target = robot.data.joint_pos_target
  order = robot.indexing.ctrl_ids
  joints = torch.cat([each.target_ids for each in robot.actuators])
  place = torch.cat([each.ctrl_ids for each in robot.actuators])
  for now, ctrl in enumerate(sent):
    ctrl = ctrl[:, order][:, place]
    for env_id, lag in enumerate(wanted.tolist()):
      expected = target if now >= lag else default
      torch.testing.assert_close(ctrl[env_id], expected[env_id, joints])
  env.close()


def test_without_the_event_there_is_no_delay():
  env = build(4, ())
  env.reset()
  env.step(torch.zeros(4, 29))
  assert (lags(env) == 0).all()
  env.close()


def test_a_delay_that_the_robot_was_not_made_for_is_refused():
  cfg = small_env_cfg(TASK, 2)
  cfg.events["actuator_delay"].params["delay_range"] = (0.0, 0.05)
  env = make_env(cfg, "native", "cpu", threads=1)
  with pytest.raises(UserError, match=r"a delay of \(0.0, 0.05\) s.*0 to 0.02 s"):
    env.reset()
  env.close()
