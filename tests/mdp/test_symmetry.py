"""The sagittal mirror of observations and actions, against physics and rewards."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import mujoco
import numpy as np
import pytest
import torch
from mjlab.asset_zoo.robots.unitree_g1.g1_constants import get_spec
from mjlab.envs import mdp as envs_mdp
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.tasks.registry import list_tasks
from torch import Tensor

import smp.tasks  # noqa: F401
from smp.errors import UserError
from smp.mdp.rewards import TaskReward
from smp.mdp.smp_term import SMP_TERM, SmpTerm
from smp.mdp.symmetry import (
  AXIAL,
  POLAR,
  Mirror,
  action_mirror,
  joint_mirror,
  observation_mirror,
  register_invariant,
  register_mirror,
)
from smp.mdp.terminations import out_of_distribution
from smp.motion.features import MotionState, mirror_features
from smp.motion.mirror import mirror_joints, mirror_qpos
from smp.robots import g1
from smp.sim import make_env
from tests.conftest import small_env_cfg, style_of
from tests.references import mirror_state

TASKS = [task for task in list_tasks() if task.startswith("Smp-")]
STEPS = 4
N = 16
"""Robots. As many more are their mirror images."""


def mirror_qvel(qvel: Tensor) -> Tensor:
  """Mirror velocities (N, 35) of MuJoCo: linear in the world, angular in the body."""
  joints = mirror_joints(qvel[:, 6:])
  root = qvel[:, :6] * qvel.new_tensor((1.0, -1.0, 1.0, -1.0, 1.0, -1.0))
  return torch.cat((root, joints), dim=-1)


def symmetric_spec() -> mujoco.MjSpec:
  """Return mjlab's G1 with what is not quite alike on both sides made alike."""
  spec = get_spec()
  flip = np.diag((1.0, -1.0, 1.0))
  for body in spec.bodies:
    if body.name.startswith("right_"):
      left = spec.body(g1.other_side(body.name))
      body.mass, body.inertia = left.mass, left.inertia
      body.pos, body.ipos = flip @ left.pos, flip @ left.ipos
      body.iquat = left.iquat * (1.0, -1.0, 1.0, -1.0)
    elif not body.name.startswith("left_") and body.mass > 0.0:
      axes = np.zeros(9)
      mujoco.mju_quat2Mat(axes, body.iquat / np.linalg.norm(body.iquat))
      axes = axes.reshape(3, 3)
      inertia = axes @ np.diag(body.inertia) @ axes.T
      values, axes = np.linalg.eigh(0.5 * (inertia + flip @ inertia @ flip))
      axes[:, 0] *= np.linalg.det(axes)
      quat = np.zeros(4)
      mujoco.mju_mat2Quat(quat, axes.flatten())
      body.ipos[1], body.inertia, body.iquat = 0.0, values, quat
  spec.geom("left_foot1_collision").fromto[1::3] = -0.026
  return spec


class Twins:
  """An environment whose robots N to 2N are the mirror images of robots 0 to N."""

  def __init__(self, task: str, symmetric: bool = True) -> None:
    cfg = small_env_cfg(task, num_envs=2 * N)
    cfg.events = {}
    cfg.auto_reset = False
    # Depends on the denoiser, which is a little different for mirrored motion.
    for name, term in list(cfg.terminations.items()):
      if term.func is out_of_distribution:
        del cfg.terminations[name]
    cfg.observations["actor"].enable_corruption = False
    if symmetric:
      cfg.scene.entities["robot"].spec_fn = symmetric_spec
    self.env = make_env(cfg, "native", "cpu", threads=1)
    self.smp_term = cast(SmpTerm, self.env.command_manager.get_term(SMP_TERM))
    self._mirror_starts()
    self._mirror_noise()
    self.env.reset()
    self._mirror_commands()
    self.act = action_mirror(self.env)

  def _mirror_starts(self) -> None:
    starts = self.smp_term.init_states
    draw = starts.draw

    def twins(count: int, *_: Any, **__: Any) -> tuple[MotionState, Tensor]:
      state, kind = draw(count // 2)
      pairs = zip(state, mirror_state(state), strict=True)
      return MotionState(*(torch.cat(pair) for pair in pairs)), kind.repeat(2)

    starts.draw = twins

  def _mirror_noise(self) -> None:
    step, style = self.smp_term.style_step, style_of(self.smp_term)
    compute = step._compute

    def twins() -> None:
      style.noise[:, N:] = mirror_features(style.noise[:, :N])
      compute()

    step._compute = twins

  def _mirror_commands(self) -> None:
    if "command" not in self.env.command_manager.active_terms:
      return
    command: Any = self.env.command_manager.get_term("command")
    command.time_left.fill_(1e9)
    origin = self.env.scene.env_origins[:, :2]
    flip = torch.tensor((1.0, -1.0))
    for name in ("speed", "direction_w", "facing_w", "goal_w", "values"):
      value = getattr(command, name, None)
      if value is None or len(value) != 2 * N:
        continue  # A direction that all share lies in the mirror.
      if name == "speed":
        value[N:] = value[:N]
      elif name == "values":
        value[N:] = value[:N] * torch.tensor((1.0, -1.0, -1.0))
      elif name == "goal_w":
        value[N:] = (value[:N] - origin[:N]) * flip + origin[N:]
      else:
        value[N:] = value[:N] * flip
    command._update_command(None)
    self.env.observation_manager.reset()
    self.env.obs_buf = self.env.observation_manager.compute(update_history=True)

  def local_qpos(self) -> Tensor:
    """Poses (2N, 36) relative to the origins of the environments."""
    qpos = self.env.sim.data.qpos[:].clone()
    qpos[:, :3] -= self.env.scene.env_origins
    return qpos

  def step(self, seed: int) -> Step:
    """Do what a drawn action does, and in the mirror its mirror image."""
    env = self.env
    generator = torch.Generator().manual_seed(seed)
    action = torch.randn(N, g1.NUM_JOINTS, generator=generator)
    obs, *_ = env.step(torch.cat((action, self.act(action))))
    env._manual_reset_pending.zero_()  # Who fell goes on.
    qpos, qvel = self.local_qpos(), env.sim.data.qvel[:].clone()
    ends = env.termination_manager
    return Step(
      qpos,
      qvel,
      {name: cast(Tensor, value).clone() for name, value in obs.items()},
      {name: value(env) for name, value in task_rewards(env).items()},
      {name: ends.get_term(name).clone() for name in ends.active_terms},
      self.smp_term.sds_loss().clone(),
    )


class Step(NamedTuple):
  """What is compared after a step: 2N rows, mirror images in the second half."""

  qpos: Tensor
  qvel: Tensor
  obs: dict[str, Tensor]
  rewards: dict[str, Tensor]
  ends: dict[str, Tensor]
  error: Tensor


def task_rewards(env: Any) -> dict[str, Any]:
  """Return the task's rewards as functions of the environment, without the prior."""
  manager, found = env.reward_manager, {}
  for name in manager.active_terms:
    cfg = manager.get_term_cfg(name)
    if isinstance(cfg.func, TaskReward):
      params = dict(cfg.params)
      task = params.pop("task")
      found[name] = lambda env, task=task, params=params: task(env, **params)
  return found


def halves(value: Tensor) -> tuple[Tensor, Tensor]:
  return value[:N], value[N:]


def close(a: Tensor, b: Tensor, atol: float) -> None:
  torch.testing.assert_close(a, b, rtol=0.0, atol=atol)


@pytest.fixture(scope="module", params=TASKS)
def run(request) -> Iterator[tuple[Twins, list[Step]]]:
  """A task on a robot that is exactly symmetric, and what happens in some steps."""
  twins = Twins(request.param)
  yield twins, [twins.step(seed) for seed in range(STEPS)]
  twins.env.close()


# Against the environment.


@pytest.mark.slow
@pytest.mark.parametrize("group", ["actor", "critic"])
def test_mirroring_an_observation_twice_gives_it_back(run, group: str):
  twins, steps = run
  mirror, obs = observation_mirror(twins.env, group), steps[-1].obs[group]
  assert not torch.equal(mirror(obs), obs)
  assert torch.equal(mirror(mirror(obs)), obs)


@pytest.mark.slow
def test_mirroring_an_action_twice_gives_it_back(run):
  twins, _ = run
  action = torch.randn(5, 2, g1.NUM_JOINTS)
  assert not torch.equal(twins.act(action), action)
  assert torch.equal(twins.act(twins.act(action)), action)


@pytest.mark.slow
def test_mirrored_actions_in_mirrored_states_lead_to_mirrored_states(run):
  _, steps = run
  for step in steps:
    qpos, image = halves(step.qpos)
    close(mirror_qpos(qpos), image, 1e-4)
    qvel, image = halves(step.qvel)
    close(mirror_qvel(qvel), image, 1e-2)
  assert steps[-1].qvel.abs().amax() > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("group", ["actor", "critic"])
def test_mirrored_states_look_like_mirrored_observations(run, group: str):
  twins, steps = run
  mirror = observation_mirror(twins.env, group)
  for step in steps:
    obs, image = halves(step.obs[group])
    close(mirror(obs), image, 1e-2)


@pytest.mark.slow
def test_task_rewards_and_ends_are_alike_in_the_mirror(run):
  _, steps = run
  for step in steps:
    assert step.rewards
    for reward in step.rewards.values():
      close(*halves(reward), 1e-4)
      assert reward[:N].std() > 1e-4
    for end in step.ends.values():
      assert torch.equal(*halves(end))


@pytest.mark.slow
def test_the_prior_hardly_tells_a_motion_from_its_mirror_image(run):
  """A denoiser is trained on motion of both sides, not built to be symmetric."""
  _, steps = run
  error, image = halves(torch.stack([step.error for step in steps], dim=1))
  close(error.log().mean(dim=(0, 1)), image.log().mean(dim=(0, 1)), 0.15)
  assert (error / image).log().abs().mean() < 0.15
  assert error.log().std() > 0.3  # Between robots, and from step to step.


@pytest.mark.slow
def test_the_robot_itself_is_nearly_symmetric():
  twins = Twins("Smp-Forward-G1", symmetric=False)
  qvel, image = halves(twins.step(0).qvel)
  twins.env.close()
  assert (mirror_qvel(qvel) - image).abs().amax() < 0.1
  assert qvel.abs().amax() > 5.0


# What is declared, and what is refused.


def seen_by(env: Any, *parts: tuple[str, ObservationTermCfg, tuple[int, ...]]) -> Any:
  """Return an environment with a group "actor" of terms (name, settings, shape)."""
  terms = {name: cfg for name, cfg, _ in parts}
  env.device = "cpu"
  env.observation_manager = SimpleNamespace(
    active_terms={"actor": list(terms)},
    group_obs_concatenate={"actor": True},
    group_obs_term_dim={"actor": [shape for *_, shape in parts]},
    get_term_cfg=lambda group, name: terms[name],
  )
  return env


def term(func: Any, **settings: Any) -> ObservationTermCfg:
  return ObservationTermCfg(func=func, **settings)


def moved_by(**term: Any) -> Any:
  """Return an environment whose actions move joints with these settings."""
  from mjlab.envs.mdp.actions.actions import JointPositionAction

  action: Any = object.__new__(JointPositionAction)
  names = list(g1.JOINT_NAMES)
  action._target_names = term.get("names", names)
  count = len(action._target_names)
  action._scale = term.get("scale", torch.ones(1, count))
  action._offset = term.get("offset", torch.zeros(1, count))
  action.cfg = SimpleNamespace(clip=None)
  if "clip" in term:
    action.cfg.clip, action._clip = {}, term["clip"]
  manager = SimpleNamespace(active_terms=["legs"], get_term=lambda name: action)
  return SimpleNamespace(device="cpu", action_manager=manager)


def test_history_is_mirrored_frame_by_frame():
  gravity = term(envs_mdp.projected_gravity, history_length=2)
  spin = term(envs_mdp.base_ang_vel, history_length=3)
  env = seen_by(SimpleNamespace(), ("up", gravity, (6,)), ("spin", spin, (9,)))
  mirror = observation_mirror(env, "actor")
  assert mirror.sign.tolist() == [*POLAR * 2, *AXIAL * 3]
  assert len(mirror) == 15


def test_history_that_is_not_flattened_is_mirrored_along_the_last_axis():
  spin = term(envs_mdp.base_ang_vel, history_length=3, flatten_history_dim=False)
  env = seen_by(SimpleNamespace(), ("spin", spin, (3, 3)))
  x = torch.randn(2, 3, 3)
  assert torch.equal(observation_mirror(env, "actor")(x), x * torch.tensor(AXIAL))


def test_joints_of_a_history_change_places_within_their_frame():
  def angles(env: Any) -> None: ...

  register_mirror(angles, lambda env, width: joint_mirror(g1.JOINT_NAMES))
  cfg, joints = term(angles, history_length=2), joint_mirror(g1.JOINT_NAMES)
  env = seen_by(SimpleNamespace(), ("angles", cfg, (58,)))
  x = torch.randn(4, 2, 29)
  image = observation_mirror(env, "actor")(x.flatten(1))
  assert torch.equal(image, joints(x).flatten(1))


def test_a_term_can_be_declared_invariant():
  @register_invariant
  def errors(env: Any) -> None: ...

  env = seen_by(SimpleNamespace(), ("errors", term(errors), (3,)))
  x = torch.randn(4, 3)
  assert torch.equal(observation_mirror(env, "actor")(x), x)


def test_a_term_can_be_a_class():
  class Contacts:
    pass

  register_mirror(Contacts, lambda env, width: Mirror([1, 0], [1.0, 1.0]))
  env = seen_by(SimpleNamespace(), ("contacts", term(Contacts()), (2,)))
  assert observation_mirror(env, "actor").index.tolist() == [1, 0]


def test_a_term_that_nobody_declared_is_refused():
  def air_time(env: Any) -> None: ...

  env = seen_by(SimpleNamespace(), ("feet", term(air_time), (2,)))
  with pytest.raises(
    UserError, match="'feet' of group 'actor'.*register_mirror.air_time"
  ):
    observation_mirror(env, "actor")


def test_a_command_that_does_not_say_how_it_is_mirrored_is_refused():
  command = SimpleNamespace(get_term=lambda name: object())
  cfg = term(envs_mdp.generated_commands, params={"command_name": "twist"})
  env = seen_by(SimpleNamespace(command_manager=command), ("command", cfg, (3,)))
  with pytest.raises(UserError, match="'command' of.*'twist'.*mirror_sign"):
    observation_mirror(env, "actor")


def test_a_mirror_of_another_size_is_refused():
  env = seen_by(SimpleNamespace(), ("up", term(envs_mdp.projected_gravity), (4,)))
  with pytest.raises(UserError, match="'up'.* 3 components, it has 4"):
    observation_mirror(env, "actor")


def test_unknown_and_separate_groups_are_refused():
  env = seen_by(SimpleNamespace(), ("up", term(envs_mdp.projected_gravity), (3,)))
  with pytest.raises(UserError, match="'eyes': no such group; choose of actor"):
    observation_mirror(env, "eyes")
  env.observation_manager.group_obs_concatenate["actor"] = False
  with pytest.raises(UserError, match="'actor'.*concatenate_terms"):
    observation_mirror(env, "actor")


@pytest.mark.parametrize(
  "settings", [{"clip": (-1.0, 2.0)}, {"scale": torch.tensor((1.0, 2.0))}]
)
def test_a_term_that_is_processed_unevenly_is_refused(settings: dict[str, Any]):
  def pair(env: Any) -> None: ...

  register_mirror(pair, lambda env, width: Mirror([1, 0], [-1.0, -1.0]))
  env = seen_by(SimpleNamespace(), ("pair", term(pair, **settings), (2,)))
  with pytest.raises(UserError, match=f"'pair'.*{next(iter(settings))}"):
    observation_mirror(env, "actor")


UNEVEN = torch.arange(29.0).unsqueeze(0) + 1.0
CLIP = torch.stack((torch.full((1, 29), -1.0), UNEVEN), dim=-1)


@pytest.mark.parametrize(
  "settings", [{"scale": UNEVEN}, {"offset": UNEVEN}, {"clip": CLIP}]
)
def test_actions_that_are_not_alike_on_both_sides_are_refused(settings: dict[str, Any]):
  with pytest.raises(UserError, match=f"'legs': {next(iter(settings))}"):
    action_mirror(moved_by(**settings))


def test_actions_follow_the_order_of_their_joints():
  names = ["left_knee_joint", "waist_yaw_joint", "right_knee_joint"]
  mirror = action_mirror(moved_by(names=names, scale=1.0, offset=0.0))
  image = mirror(torch.tensor((1.0, 2.0, 3.0)))
  assert image.tolist() == [3.0, -2.0, 1.0]


@pytest.mark.parametrize(
  "names, what",
  [
    (["left_knee_joint"], "'right_knee_joint'"),
    (["tail_joint"], "'tail_joint'.*not a joint of the G1"),
  ],
)
def test_joints_without_a_counterpart_are_refused(names: list[str], what: str):
  with pytest.raises(UserError, match=f"'legs'.*{what}"):
    action_mirror(moved_by(names=names))


def test_actions_on_other_things_than_joints_are_refused():
  manager = SimpleNamespace(active_terms=["grip"], get_term=lambda name: object())
  with pytest.raises(UserError, match="'grip'.*only actions on joints"):
    action_mirror(cast(Any, SimpleNamespace(device="cpu", action_manager=manager)))


@pytest.mark.parametrize(
  "sensor, remedy",
  [
    ('<gyro name="s" site="left"/>', "on one side.*left_foot"),
    ('<framequat name="s" objtype="site" objname="left"/>', "kind.*register_mirror"),
  ],
)
def test_sensors_that_have_no_mirror_are_refused(sensor: str, remedy: str):
  body = '<body name="left_foot"><site name="left"/><geom size="1"/></body>'
  model = mujoco.MjModel.from_xml_string(
    f"<mujoco><worldbody>{body}</worldbody><sensor>{sensor}</sensor></mujoco>"
  )
  cfg = term(envs_mdp.builtin_sensor, params={"sensor_name": "s"})
  env = SimpleNamespace(sim=SimpleNamespace(mj_model=model))
  with pytest.raises(UserError, match=f"'imu'.*{remedy}"):
    observation_mirror(seen_by(env, ("imu", cfg, (3,))), "actor")


@pytest.mark.parametrize(
  "index, sign",
  [([1, 2, 0], [1.0] * 3), ([1, 0], [1.0, -1.0]), ([0], [0.5]), ([0, 1], [1.0])],
)
def test_what_is_not_its_own_inverse_is_no_mirror(index: list[int], sign: list[float]):
  with pytest.raises(ValueError, match="mirror"):
    Mirror(index, sign)


def test_mirrors_leave_no_trace_in_checkpoints():
  assert not Mirror.of_signs(POLAR).state_dict()
