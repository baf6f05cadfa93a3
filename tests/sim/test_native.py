"""MuJoCo's C engine behind mjlab's environments, against MuJoCo and against Warp."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import mujoco
import numpy as np
import pytest
import torch
import warp as wp
from mjlab.envs import ManagerBasedRlEnv, manager_based_rl_env
from mjlab.managers import event_manager
from mjlab.managers.event_manager import RecomputeLevel
from mjlab.sim.sim import MujocoCfg, Simulation, SimulationCfg
from mjlab.sim.sim_data import WarpBridge
from mjlab.tasks.registry import list_tasks, load_env_cfg
from mjlab.utils.nan_guard import NanGuardCfg

import smp.tasks  # noqa: F401
from smp.errors import UserError
from smp.robots import g1
from smp.sim import NativeSimulation, engine, make_env, use_engine
from smp.sim.batch_stepper import FieldMismatch, Row
from smp.sim.native import CONTROLS, RESULTS, STATE
from smp.utils import cpu
from tests.conftest import small_env_cfg

pytestmark = pytest.mark.slow
TASKS = [task for task in list_tasks() if task.startswith("Smp-")]
ROBOTS = 32

SCENE = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1"/>
    <body name="target" mocap="true" pos="0 0 2"><geom size="0.01" contype="0"/></body>
    <body name="box" pos="0 0 0.12">
      <freejoint/>
      <geom name="box" type="box" size="0.1 0.1 0.1" mass="1"/>
      <site name="imu" pos="0.05 0 0"/>
      <body name="arm" pos="0.1 0 0">
        <joint name="hinge" axis="0 1 0" damping="0.1" range="-60 60" limited="true"/>
        <geom name="arm" type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.5"/>
      </body>
    </body>
  </worldbody>
  <equality>
    <joint name="spring" joint1="hinge" polycoef="0.3 0 0 0 0" solref="0.3 1"/>
    <weld name="leash" body1="box" body2="target" active="false" solref="0.3 1"/>
  </equality>
  <actuator>
    <position name="servo" joint="hinge" kp="20"/>
    <general name="lag" joint="hinge" dyntype="filter" dynprm="0.1" gainprm="1"/>
  </actuator>
  <sensor>
    <gyro name="gyro" site="imu"/><accelerometer name="acc" site="imu"/>
    <clock name="clock"/>
    <contact name="touch" geom1="box" geom2="floor" data="found force" num="1"/>
    {sensor}
  </sensor>
</mujoco>
"""


def small_sim(
  num_envs: int = 4, threads: int = 1, sensor: str = "", **cfg: Any
) -> NativeSimulation:
  """A box with an arm on the floor, each robot dropped from another height."""
  spec = mujoco.MjSpec.from_string(SCENE.format(sensor=sensor))
  sim = NativeSimulation(num_envs, SimulationCfg(**cfg), spec=spec, threads=threads)
  sim.data.qpos[:, 2] += 0.05 * torch.arange(num_envs)
  sim.data.qvel[:, 3] = torch.arange(num_envs)
  sim.data.ctrl[:, 0] = 0.1 * torch.arange(num_envs)
  return sim


def alone(sim: Simulation, robot: int) -> mujoco.MjData:
  """The state of one robot in an `MjData` of its own."""
  data = mujoco.MjData(sim.mj_model)
  data.time = float(sim.data.time[robot])
  for name in (*STATE[1:], *CONTROLS):
    one = getattr(data, name)
    if one.size:
      one[:] = getattr(sim.data, name)[robot].numpy().reshape(one.shape)
  return data


def names(sim: Simulation, *groups: tuple[str, ...]) -> list[str]:
  """The arrays of these groups that this model has."""
  return [name for name in sum(groups, ()) if getattr(sim.wp_data, name).size]


def assert_same(sim: NativeSimulation, robot: int, data: mujoco.MjData) -> None:
  for name in (*STATE[1:], *RESULTS):
    one = getattr(data, name)
    if one.size:
      got = getattr(sim.data, name)[robot].numpy().reshape(one.shape)
      np.testing.assert_allclose(got, one, rtol=1e-5, atol=1e-5, err_msg=name)
  assert float(sim.data.time[robot]) == pytest.approx(data.time, abs=1e-6)


# Against MuJoCo, one robot at a time.


@pytest.mark.parametrize("threads", [1, 2])
def test_each_robot_moves_as_mujoco_moves_it(threads: int):
  sim, others = small_sim(threads=threads), []
  for _ in range(60):  # Through the fall and into contact.
    others = [alone(sim, robot) for robot in range(4)]
    sim.step()
  for robot, data in enumerate(others):
    mujoco.mj_step(sim.mj_model, data)
    assert_same(sim, robot, data)
  assert sim.data.sensordata[:, -4].any()  # Some touch the floor.


def test_forward_follows_what_was_written_and_keeps_the_state():
  sim = small_sim()
  for _ in range(50):
    sim.step()
  sim.data.qvel[:, 0] += 1.0  # A push.
  sim.data.xfrc_applied[1, 2, 0] = 3.0
  sim.data.mocap_pos[2, 0, 0] = 0.7
  sim.data.eq_active[2] = torch.tensor([True, True])
  sim.data.eq_active[3] = torch.tensor([False, False])
  before = {name: getattr(sim.data, name).clone() for name in STATE}
  sim.forward()
  for name, value in before.items():
    assert torch.equal(getattr(sim.data, name)[:], value), name
  assert sim.data.xpos[2, 1, 0] == pytest.approx(0.7)
  for robot in range(4):
    data = alone(sim, robot)
    mujoco.mj_forward(sim.mj_model, data)
    assert_same(sim, robot, data)


def test_robots_keep_their_own_model_values():
  sim = small_sim(threads=2)
  fields = ("geom_friction", "body_ipos", "body_mass", "actuator_gainprm")
  sim.expand_model_fields(fields)
  for attempt in range(2):  # The second time as a reset would change them.
    sim.model.geom_friction[1, :, 0] = 0.1 + 0.2 * attempt  # The larger one counts.
    sim.model.body_mass[0, 3] = 2.0 + attempt
    sim.model.body_ipos[2, 2, 1] = 0.05 + 0.02 * attempt
    sim.model.actuator_gainprm[3, 0, 0] = 40.0 + attempt
    sim.data.qvel[:, 0], others = 1.0, []
    for _ in range(40):
      others = [alone(sim, robot) for robot in range(4)]
      sim.step()
    for robot, data in enumerate(others):
      model = copy.copy(sim.mj_model)
      for name in fields:
        getattr(model, name)[:] = getattr(sim.model, name)[robot].numpy()
      model.body_sameframe[:] = 0
      mujoco.mj_step(model, data)
      assert_same(sim, robot, data)
  # Defaults, which randomisation scales, stay; and no thread writes another's model.
  assert sim.mj_model.geom_friction[1, 0] == 1.0 and sim.mj_model.body_mass[3] == 0.5
  assert len({model._address for model in (sim.mj_model, *sim._loop.models)}) == 3


@pytest.mark.parametrize(
  "name",
  [f"{part}_{what}" for part in ("geom", "site") for what in ("pos", "quat")]
  + ["body_ipos", "body_iquat"],
)
def test_robots_keep_their_own_frames(name: str):
  """Which the compiler takes short cuts by, as long as they are the compiled ones."""
  sim = small_sim()
  sim.expand_model_fields((name,))
  generator = torch.Generator().manual_seed(0)
  values, first = getattr(sim.model, name), int(name.startswith("body"))  # No world.
  shape = values[1:, first:].shape
  values[1:, first:] += 0.02 * torch.randn(shape, generator=generator)
  if name.endswith("quat"):
    values[:] /= values[:].norm(dim=-1, keepdim=True)
  sim.forward()
  for robot in range(4):
    model = copy.copy(sim.mj_model)
    getattr(model, name)[:] = values[robot].numpy()
    for kind in ("body", "geom", "site"):
      getattr(model, f"{kind}_sameframe")[:] = 0
    data = alone(sim, robot)
    mujoco.mj_forward(model, data)
    assert_same(sim, robot, data)


def test_derived_constants_are_those_of_each_robot():
  sim = small_sim()
  sim.expand_model_fields(
    ("body_mass", "body_subtreemass", "body_invweight0", "dof_invweight0")
  )
  sim.model.body_mass[2, 3] = 4.0
  sim.recompute_constants(RecomputeLevel.set_const)
  for robot in range(4):
    model = copy.copy(sim.mj_model)
    model.body_mass[:] = sim.model.body_mass[robot].numpy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name in ("body_subtreemass", "body_invweight0", "dof_invweight0"):
      got = getattr(sim.model, name)[robot].numpy()
      np.testing.assert_allclose(got, getattr(model, name), rtol=1e-5, err_msg=name)
  assert sim.mj_model.body_mass[3] == pytest.approx(0.5)


def test_threads_change_nothing():
  one, two = small_sim(7, threads=1), small_sim(7, threads=2)
  for _ in range(100):
    one.step()
    two.step()
  for name in names(one, STATE, RESULTS):
    assert torch.equal(getattr(one.data, name)[:], getattr(two.data, name)[:]), name


def test_a_diverged_robot_stays_alone_until_its_reset(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  guard = NanGuardCfg(enabled=True, output_dir=str(tmp_path / "dumps"))
  broken, healthy = small_sim(nan_guard=guard), small_sim()
  broken.data.qpos[1, 0] = torch.nan
  for _ in range(5):
    broken.step()
    healthy.step()
  rest = torch.tensor([0, 2, 3])
  for name in names(broken, STATE, RESULTS):
    mine, other = getattr(broken.data, name)[rest], getattr(healthy.data, name)[rest]
    assert torch.equal(mine, other), name
  assert torch.isnan(broken.data.qpos[1]).any()
  assert (tmp_path / "dumps" / "nan_dump_latest.npz").exists()
  broken.reset(torch.tensor([1]))
  broken.step()
  assert torch.isfinite(broken.data.qpos[1]).all()
  assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


@pytest.mark.parametrize(("asked", "taken"), [("auto", "SPARSE"), ("dense", "DENSE")])
def test_the_jacobian_is_sparse_unless_asked_otherwise(asked: Any, taken: str):
  cfg = SimulationCfg(mujoco=MujocoCfg(jacobian=asked))
  sim = NativeSimulation(1, cfg, model=g1.load_model())
  (model,) = sim._loop.models
  assert mujoco.mjtJacobian(model.opt.jacobian).name == f"mjJAC_{taken}"


def test_a_reset_is_of_its_robots_only_and_back_to_the_model():
  sim = small_sim()
  sim.expand_model_fields(("qpos0",))
  sim.model.qpos0[2, 0] = 5.0
  cleared = ("qvel", "act", "ctrl", "xfrc_applied", "qfrc_applied", "qacc_warmstart")
  cleared += ("qacc", "act_dot", "sensordata")
  for name in names(sim, STATE, CONTROLS, cleared):
    getattr(sim.data, name)[:] = 1
  sim.data.eq_active[:] = torch.tensor([False, True])
  sim.reset(torch.tensor([1, 2]))
  start = torch.from_numpy(sim.mj_model.qpos0).float()
  torch.testing.assert_close(sim.data.qpos[1], start)
  assert sim.data.qpos[2, 0] == 5.0 and sim.data.qpos[1, 0] == 0.0
  torch.testing.assert_close(sim.data.mocap_pos[1, 0], torch.tensor([0.0, 0.0, 2.0]))
  torch.testing.assert_close(
    sim.data.mocap_quat[1, 0], torch.tensor([1.0, 0.0, 0.0, 0.0])
  )
  assert sim.data.eq_active[1].tolist() == [True, False]
  for name in cleared:
    values = getattr(sim.data, name)
    assert not values[1:3].any() and (values[0] == 1).all(), name
  assert (sim.data.mocap_pos[0] == 1).all() and sim.data.time.tolist() == [1, 0, 0, 1]
  assert sim.data.eq_active[0].tolist() == [False, True]


# Against Warp, in the environments of this project.


@pytest.fixture(scope="module", params=TASKS)
def pair(request) -> Iterator[SimpleNamespace]:
  """The same environment on both engines."""
  envs = {}
  for name in ("native", "warp"):
    envs[name] = make_env(small_env_cfg(request.param, ROBOTS), name, "cpu")
    envs[name].reset()
  yield SimpleNamespace(**envs, both=tuple(envs.values()))
  for env in envs.values():
    env.close()


def put(pair: SimpleNamespace, qpos: torch.Tensor, qvel: torch.Tensor) -> None:
  """Start all robots of both engines from the same state, at rest targets."""
  for env in pair.both:
    torch.manual_seed(0)
    env.reset()
    env.sim.reset()
    env.sim.data.qpos[:], env.sim.data.qvel[:] = qpos, qvel
    env.sim.forward()


def standing(env: ManagerBasedRlEnv) -> torch.Tensor:
  """The key pose (robots, nq), with the lowest foot on the floor."""
  model = env.sim.mj_model
  return torch.from_numpy(model.key_qpos[0]).float().repeat(ROBOTS, 1)


def airborne(env: ManagerBasedRlEnv) -> tuple[torch.Tensor, torch.Tensor]:
  """Near the key pose, high up and moving (robots, nq), (robots, nv)."""
  generator = torch.Generator().manual_seed(1)
  qpos = standing(env)
  qpos[:, 2] += 2.0
  qpos[:, 7:] += 0.05 * torch.randn(ROBOTS, 29, generator=generator)
  return qpos, 0.5 * torch.randn(ROBOTS, 35, generator=generator)


def folded(env: ManagerBasedRlEnv) -> torch.Tensor:
  """Anywhere within the joint limits, in the air: many touch themselves."""
  generator = torch.Generator().manual_seed(2)
  low, high = torch.from_numpy(env.sim.mj_model.jnt_range[1:]).float().unbind(1)
  qpos = standing(env)
  qpos[:, 2] += 2.0
  qpos[:, 7:] = low + (high - low) * torch.rand(ROBOTS, 29, generator=generator)
  return qpos


def step_both(pair: SimpleNamespace, steps: int, scale: float) -> None:
  generator = torch.Generator().manual_seed(3)
  for step in range(steps):
    action = scale * (2.0 * torch.rand(ROBOTS, 29, generator=generator) - 1.0)
    for env in pair.both:
      torch.manual_seed(step)
      env.step(action)


def gap(pair: SimpleNamespace, name: str) -> float:
  first, second = (getattr(env.sim.data, name)[:] for env in pair.both)
  return (first - second).abs().max().item()


def test_randomisation_is_the_same(pair):
  assert pair.native.sim.expanded_fields == pair.warp.sim.expanded_fields
  for name in pair.native.sim.expanded_fields:
    native, warp = (getattr(env.sim.model, name)[:] for env in pair.both)
    torch.testing.assert_close(native, warp, rtol=1e-4, atol=1e-5, msg=name)


def test_shapes_and_types_are_the_same(pair):
  for name in names(pair.warp.sim, STATE, CONTROLS, RESULTS):
    native, warp = (getattr(env.sim.data, name) for env in pair.both)
    assert type(native) is type(warp)
    assert (native.shape, native.dtype) == (warp.shape, warp.dtype), name


def test_engines_agree_in_the_air(pair):
  put(pair, *airborne(pair.warp))
  for name in names(pair.warp.sim, STATE, RESULTS):
    scale = max(1.0, getattr(pair.warp.sim.data, name).abs().max().item())
    assert gap(pair, name) < 1e-3 * scale, name
  step_both(pair, 5, scale=0.1)  # More, and an arm may touch the hip.
  for robot in range(ROBOTS):
    data = alone(pair.native.sim, robot)
    mujoco.mj_forward(pair.native.sim.mj_model, data)
    assert data.ncon == 0 and data.time == pytest.approx(0.1)
  assert gap(pair, "qpos") < 1e-4  # Asked for: 1e-3. Reached: 1e-6.


def test_engines_agree_when_standing(pair):
  put(pair, standing(pair.warp), torch.zeros(ROBOTS, 35))
  step_both(pair, 5, scale=0.0)
  assert gap(pair, "qfrc_constraint") < 1.0
  assert pair.warp.sim.data.qfrc_constraint[:, 2].min() > 10.0  # The floor carries it.
  assert gap(pair, "qpos") < 1e-3  # Asked for: 1e-2. Reached: 1e-5.


@pytest.mark.parametrize("where", ["air", "folded"])
def test_terms_are_equal_on_equal_states(pair, where):
  put(pair, *airborne(pair.warp))
  step_both(pair, 3, scale=0.5)
  if where == "folded":
    pair.warp.sim.data.qpos[:] = folded(pair.warp)
  for name in names(pair.warp.sim, STATE, CONTROLS):
    getattr(pair.native.sim.data, name)[:] = getattr(pair.warp.sim.data, name)[:]
  seen = []
  for env in pair.both:
    env.sim.forward()
    env.scene.update(env.physics_dt)
    env.common_step_counter += 1
    env.observation_manager.reset()  # Frames of starts in which a foot may just touch.
    torch.manual_seed(0)
    ends = env.termination_manager.compute()
    env.reward_manager.compute(env.step_dt)
    terms = dict(env.reward_manager.get_active_iterable_terms(0))
    rewards = env.reward_manager._step_reward
    assert rewards.shape == (ROBOTS, len(terms))
    each = [env.termination_manager.get_term(t) for t in env.cfg.terminations]
    seen.append((env.observation_manager.compute(), rewards, ends, each))
  native, warp = seen
  for group in warp[0]:
    torch.testing.assert_close(native[0][group], warp[0][group], rtol=0, atol=1e-4)
  torch.testing.assert_close(native[1], warp[1], rtol=0, atol=1e-4)
  assert torch.equal(native[2], warp[2])
  assert all(torch.equal(a, b) for a, b in zip(native[3], warp[3], strict=True))
  if where == "folded" and "self_collision" in pair.warp.cfg.terminations:
    assert torch.stack(warp[3]).any()


def test_contact_sensors_and_their_history(pair):
  put(pair, folded(pair.warp), torch.zeros(ROBOTS, 35))
  first, second = (env.sim.data.sensordata[:] for env in pair.both)
  torch.testing.assert_close(first, second, rtol=1e-3, atol=0.05)
  for env in pair.both:
    env.action_manager.process_action(torch.zeros(ROBOTS, 29))
    for _ in range(env.cfg.decimation):
      env.action_manager.apply_action()
      env.scene.write_data_to_sim()
      env.sim.step()
      env.scene.update(env.physics_dt)
  if "self_collision" not in pair.warp.scene.sensors:
    return  # Getting up, contacts with oneself count for nothing.
  native, warp = (env.scene["self_collision"].data for env in pair.both)
  assert native.force_history.shape == warp.force_history.shape
  # The oldest entry is of the equal states that the step began with.
  oldest = [data.force_history[:, :, -1] for data in (native, warp)]
  torch.testing.assert_close(*oldest, rtol=1e-3, atol=0.05)
  assert (oldest[0].norm(dim=-1) > 10.0).sum() > 5
  newest = native.force_history[:, :, 0]
  assert torch.equal(newest, native.force) and not torch.equal(newest, oldest[0])


def test_a_task_of_mjlab_with_terrain_and_rays_agrees():
  """Nothing here knows of our tasks: height scans, terrain, curricula, other sensors."""
  envs = []
  for name in ("native", "warp"):
    cfg = load_env_cfg("Mjlab-Velocity-Rough-Unitree-G1")
    cfg.scene.num_envs, cfg.seed = 3, 0
    assert cfg.scene.terrain is not None and cfg.scene.terrain.terrain_generator
    generator = cfg.scene.terrain.terrain_generator
    generator.num_rows, generator.num_cols = 1, len(generator.sub_terrains)
    env = make_env(cfg, name, "cpu", threads=1)
    env.reset(seed=0)
    envs.append(env)
  native, warp = envs
  for name in ("qpos", "qvel"):
    getattr(native.sim.data, name)[:] = getattr(warp.sim.data, name)[:]
  for env in envs:
    env.sim.forward()
    env.sim.sense()
  found, want = (env.observation_manager.compute() for env in envs)
  assert set(want) == {"actor", "critic"}
  for group in want:
    assert isinstance(found[group], torch.Tensor)
    torch.testing.assert_close(found[group], want[group], rtol=0.0, atol=1e-4)
  for env in envs:
    env.step(torch.zeros(3, env.action_manager.total_action_dim))
    env.close()
  gap = native.sim.data.qpos[:] - warp.sim.data.qpos[:]
  assert gap.abs().max() < 1e-3


def test_reset_clears_what_warp_clears(pair):
  ids = torch.tensor([1, 5])
  cleared = names(pair.warp.sim, STATE, CONTROLS, ("qacc", "act_dot", "sensordata"))
  for env in pair.both:
    for name in cleared:
      getattr(env.sim.data, name)[:] = 1
    env.sim.reset(ids)
  for name in cleared:
    native, warp = (getattr(env.sim.data, name)[:] for env in pair.both)
    assert torch.equal(native, warp), name
    assert (native[0] == 1).all() and not (native[1] == 1).all(), name
  for env in pair.both:
    env.reset()


# What the engine leans on in mjlab: a test each, to say what an update changed.


def test_mjlab_builds_its_simulation_by_this_name():
  assert engine._NAME in inspect.getsource(ManagerBasedRlEnv.__init__)
  assert getattr(manager_based_rl_env, engine._NAME) is Simulation
  with use_engine("native"):
    assert getattr(manager_based_rl_env, engine._NAME) is not Simulation
  assert getattr(manager_based_rl_env, engine._NAME) is Simulation


def test_mjlab_builds_its_simulation_with_these_keywords():
  wanted = inspect.signature(Simulation.__init__).parameters
  have = inspect.signature(NativeSimulation.__init__).parameters
  assert set(wanted) == set(have) - {"threads"}


def test_mjlab_applies_options_and_finishes_as_expected():
  sim = small_sim()
  assert sim.mj_model.opt.timestep == SimulationCfg().mujoco.timestep
  model, data = cast(WarpBridge, sim.model), cast(WarpBridge, sim.data)
  assert model.struct is sim.wp_model and data.struct is sim.wp_data
  assert sim.wp_data.njmax == max(1, sim.mj_data.nefc)  # Not what cfg says.
  assert sim.expanded_fields == sim._expanded_fields


def test_mjlab_steps_through_the_same_methods():
  """Whatever `Simulation` can compute is replaced, or reads arrays that are filled."""
  computing = {"forward", "step", "reset", "recompute_constants", "sense"}
  others = {"expand_model_fields", "get_default_field", "set_sensor_context"}
  public = {
    name
    for name, member in vars(Simulation).items()
    if inspect.isfunction(member) and not name.startswith("_")
  }
  assert public == computing | others | {"create_graph"}
  assert computing - {"sense"} <= set(vars(NativeSimulation))


def test_mjlab_bridges_arrays_as_expected():
  assert "__getattr__" in vars(WarpBridge)
  sim = small_sim()
  assert isinstance(sim.data, WarpBridge) and isinstance(sim.model, WarpBridge)
  assert sim.data.nworld == 4
  shared = sim.wp_data.qpos.numpy()
  sim.data.qpos[2, 0] = 5.0
  assert isinstance(sim.wp_data.qpos, wp.array) and shared[2, 0] == 5.0


def test_mjlab_lists_derived_fields():
  levels = event_manager._DERIVED_FIELDS
  assert set(levels) == set(RecomputeLevel)
  assert "body_subtreemass" in levels[RecomputeLevel.set_const]


def test_mjlab_guards_a_step_from_both_sides():
  sim = small_sim()
  assert inspect.signature(sim.nan_guard.watch).parameters.keys() == {"wp_data"}


# Bad input.


def test_arrays_that_are_not_filled_are_refused():
  sim = small_sim()
  for name in ("contact", "efc", "nacon", "cfrc_ext"):
    with pytest.raises(UserError, match=rf"sim\.data\.{name}.*--engine warp"):
      getattr(sim.data, name)


def test_unsupported_features_are_refused_by_name():
  user = '<user name="mine" dim="1" needstage="acc"/>'
  with pytest.raises(UserError, match="sensor 'mine'.*--engine warp"):
    small_sim(sensor=user)
  spec = mujoco.MjSpec.from_string(SCENE.format(sensor=""))
  spec.actuator("lag").gaintype = mujoco.mjtGain.mjGAIN_USER
  with pytest.raises(UserError, match="actuator gain 'lag'.*--engine warp"):
    NativeSimulation(1, SimulationCfg(), spec=spec)
  sim = small_sim()
  sim._expanded_fields.add("geom_plugin_id")
  with pytest.raises(UserError, match=r"their own geom_plugin_id .*--engine warp"):
    sim._prepare()


def test_features_without_code_are_refused_by_name():
  flex = """<mujoco><worldbody><body name="cloth">
    <flexcomp name="cloth" type="grid" count="3 3 1" spacing="0.1 0.1 0.1" dim="2"
      mass="1" radius="0.01"/></body></worldbody></mujoco>"""
  with pytest.raises(UserError, match="no flexes"):
    NativeSimulation(1, SimulationCfg(), spec=mujoco.MjSpec.from_string(flex))
  with pytest.raises(UserError, match="no enableflag 'sleep'"):
    small_sim(mujoco=MujocoCfg(enableflags=("sleep",)))


@pytest.mark.parametrize(
  ("one", "batch", "message"),
  [
    (np.zeros(3), np.zeros((2, 4), np.float32), "3 values, Warp has 4"),
    (np.zeros(4), np.zeros((2, 4)), "f8, Warp has f8"),
    (np.zeros(4, np.int32), np.zeros((2, 4), np.float32), "i4, Warp has f4"),
  ],
)
def test_arrays_that_do_not_fit_are_named(one, batch, message: str):
  with pytest.raises(FieldMismatch, match=f"qpos .{message}"):
    Row("qpos", one, batch).words()


def test_gravity_compensation_that_would_be_ignored_is_refused():
  with pytest.raises(UserError, match="body_gravcomp.*--engine warp"):
    small_sim().expand_model_fields(("body_gravcomp",))
  spec = mujoco.MjSpec.from_string(SCENE.format(sensor=""))
  spec.body("arm").gravcomp = 0.5
  sim = NativeSimulation(2, SimulationCfg(), spec=spec)
  sim.expand_model_fields(("body_gravcomp",))
  sim.model.body_gravcomp[1] = 0.0
  sim.forward()
  assert sim.data.qfrc_gravcomp[0].abs().max() > 0.0
  assert sim.data.qfrc_gravcomp[1].abs().max() == 0.0


def test_variants_and_gpus_are_refused():
  spec = mujoco.MjSpec.from_string(SCENE.format(sensor=""))
  with pytest.raises(UserError, match=r"mesh variants \(crate\).*--engine warp"):
    NativeSimulation(1, SimulationCfg(), spec=spec, variant_info=[("crate/", None)])
  with pytest.raises(UserError, match="not on 'cuda:0'.*--device cpu"):
    NativeSimulation(1, SimulationCfg(), spec=spec, device="cuda:0")


def test_a_model_that_does_not_compile_is_one_line():
  spec = mujoco.MjSpec.from_string(SCENE.format(sensor=""))
  spec.body("arm").joints[0].type = mujoco.mjtJoint.mjJNT_FREE
  with pytest.raises(UserError, match="does not compile") as error:
    NativeSimulation(1, SimulationCfg(), spec=spec)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("threads", [0, cpu.core_count() + 1])
def test_impossible_threads_are_refused(threads: int):
  with (
    pytest.raises(UserError, match=f"--threads {threads}: give 1 to"),
    use_engine("native", threads),
  ):
    pass


def test_unknown_engines_are_refused():
  with pytest.raises(UserError, match="--engine wrap: no such engine; choose one of"):
    make_env(small_env_cfg(TASKS[0], 1), "wrap")


def test_auto_takes_the_engine_of_the_device():
  assert engine.resolve_engine("auto", "cpu") == "native"
  assert engine.resolve_engine("auto", "cuda:0") == "warp"
  assert engine.resolve_engine("warp", "cpu") == "warp"
