"""Events that make robots differ, on the native engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from mjlab.entity import Entity
from mjlab.envs import ManagerBasedRlEnv

from smp.errors import UserError
from smp.mdp.events import HELP, help_up_at_first
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


# Help.


def helped(most: float, num_envs: int = N) -> ManagerBasedRlEnv:
  cfg = small_env_cfg("Smp-Getup-G1", num_envs)
  cfg.events = {}
  cfg.observations["actor"].enable_corruption = False
  help_up_at_first(cfg, most)
  return make_env(cfg, "native", "cpu", threads=1)


def test_help_pulls_the_torso_alone_straight_up_by_a_share_of_the_weight():
  env = helped(0.5)
  env.reset()
  force = env.sim.data.xfrc_applied[:].clone()
  torso = env.sim.mj_model.body("robot/torso_link").id
  mass = env.sim.mj_model.body_subtreemass[0]  # Of the world: of the robot, in effect.
  share = force[:, torso, 2] / (mass * 9.81)
  assert 0.0 <= share.min() < 0.05 and 0.45 < share.max() <= 0.5
  assert 0.31 < share.mean() < 0.44  # 0.375: most of them near the largest.
  force[:, torso, 2] = 0.0
  assert not force.any()
  # The critic alone observes it, in every frame of its history.
  critic, actor = (env.observation_manager.compute()[g] for g in ("critic", "actor"))
  assert isinstance(critic, torch.Tensor) and isinstance(actor, torch.Tensor)
  seen = (critic - share.unsqueeze(1)).abs() < 1e-6
  assert seen.all(dim=0).sum() >= 1
  assert not ((actor - share.unsqueeze(1)).abs() < 1e-6).all(dim=0).any()
  # Another episode has another share; the others keep theirs.
  env.reset(env_ids=torch.tensor([3]))
  again = env.sim.data.xfrc_applied[:, torso, 2] / (mass * 9.81)
  changed = (again - share).abs() > 1e-6
  assert changed.nonzero().tolist() == [[3]]
  env.event_manager.get_term_cfg(HELP).params["most"] = 0.0
  env.reset()
  assert not env.sim.data.xfrc_applied[:].any()
  env.close()


def test_help_of_much_of_the_weight_lifts_a_robot_that_does_nothing():
  heights = {}
  for most in (0.0, 0.7):
    env = helped(0.0, 8)
    env.cfg.terminations = {}
    env.reset()
    robot = robot_of(env)
    ids, _ = robot.find_bodies("torso_link")
    force = torch.zeros(8, 1, 3)
    force[..., 2] = most * env.sim.mj_model.body_subtreemass[0] * 9.81
    robot.write_external_wrench_to_sim(force, force * 0.0, body_ids=ids)
    for _ in range(60):
      robot.data.joint_pos_target[:] = robot.data.default_joint_pos
      robot.write_data_to_sim()
      for _ in range(env.cfg.decimation):
        env.sim.step()
    heights[most] = robot.data.root_link_pos_w[:, 2].clone()
    env.close()
  assert heights[0.0].median() < 0.2 and heights[0.7].median() > 0.4
