"""Exported policies against the environment that they come from."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import mujoco
import numpy as np
import onnx
import pytest
import torch
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import list_tasks, load_rl_cfg, load_runner_cls

import smp.tasks  # noqa: F401
from smp.cli import compare_simulators as compare_cli
from smp.cli import export as export_cli
from smp.deploy import agreement
from smp.deploy import onnx_export as export_module
from smp.deploy.deploy_file import check_against, read_deploy
from smp.deploy.mujoco_robot import build_model
from smp.deploy.onnx_export import FILE_NAME, describe
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError, run
from smp.rl import runner as runner_module
from smp.rl.checkpoint import read_checkpoint
from smp.rl.runner import SmpRunner
from smp.sim.engine import make_env
from tests.conftest import small_env_cfg

pytestmark = pytest.mark.slow
TASKS = [task for task in list_tasks() if task.startswith("Smp-")]
GIVEN: dict[str, dict[str, tuple[float, ...]]] = {
  "Smp-Forward-G1": {"speed": (1.5,)},
  "Smp-Steering-G1": {"speed": (1.2,), "direction": (40.0,), "facing": (-100.0,)},
  "Smp-Location-G1": {"goal": (-2.0, 3.0)},
  "Smp-Getup-G1": {},
  "Smp-Velocity-G1": {"vx": (0.6,), "vy": (-0.2,), "yaw_rate": (0.5,)},
}
SIZES = {
  "Smp-Forward-G1": [("direction", 2), ("speed", 1)],
  "Smp-Steering-G1": [("direction", 2), ("speed", 1), ("facing", 2)],
  "Smp-Location-G1": [("goal", 2)],
  "Smp-Getup-G1": [],
  "Smp-Velocity-G1": [("vx", 1), ("vy", 1), ("yaw_rate", 1)],
}
PRIORS = {
  "Smp-Forward-G1": "loco",
  "Smp-Steering-G1": "lafan_run",
  "Smp-Location-G1": "lafan_run",
  "Smp-Getup-G1": "getup",
  "Smp-Velocity-G1": "walk_run",
}


@dataclass
class Exported:
  task: str
  env: RslRlVecEnvWrapper
  runner: SmpRunner
  path: Path
  observed: list[Any]
  """Observations of the environment, as the runner gets them."""

  @property
  def spec(self) -> PolicySpec:
    return OnnxPolicy(self.path).spec


def make_runner(env: RslRlVecEnvWrapper, task: str, log_dir: Path | None) -> SmpRunner:
  agent = asdict(load_rl_cfg(task))
  agent.update(logger="tensorboard")
  runner_cls: Any = load_runner_cls(task)
  return runner_cls(env, agent, None if log_dir is None else str(log_dir), "cpu")


@pytest.fixture(scope="module", params=TASKS)
def exported(request, tmp_path_factory) -> Iterator[Exported]:
  """A random policy, which knows its observations' spread, as ONNX."""
  task = request.param
  torch.manual_seed(0)
  cfg = agreement.undisturbed(small_env_cfg(task, num_envs=1, play=True))
  env = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  runner = make_runner(env, task, None)
  actor: Any = runner.alg.get_policy()
  observed = []
  with torch.inference_mode():
    env.reset()
    for _ in range(40):
      observed.append(env.step(torch.randn(1, 29))[0].clone())
  actor.update_normalization(torch.cat(observed))
  with torch.no_grad():
    actor.mlp[-1].weight.mul_(3.0)  # Actions that move the robot.
  path = tmp_path_factory.mktemp("exported") / FILE_NAME
  runner.export(path)
  yield Exported(task, env, runner, path, observed)
  env.close()


def test_onnx_and_torch_agree_on_real_observations(exported: Exported):
  policy = OnnxPolicy(exported.path)
  theirs = exported.runner.get_inference_policy("cpu")
  sizes = []
  for seen in exported.observed:
    with torch.inference_mode():
      want = theirs(seen)[0].numpy()
    np.testing.assert_allclose(policy(seen["actor"][0].numpy()), want, atol=1e-5)
    sizes.append(np.abs(want).max())
  assert np.mean(sizes) > 0.1  # The policy does something.


def test_metadata_says_all_that_mjlab_says(exported: Exported):
  spec, model = exported.spec, onnx.load(str(exported.path))
  table = {entry.key: entry.value for entry in model.metadata_props}
  for name in (
    "joint_stiffness",
    "joint_damping",
    "default_joint_pos",
    "action_scale",
    "observation_terms_history_length",
    "observation_terms_scale",
  ):
    assert table[name], name
  # Only what is observed: not the prior, which is a command term too.
  assert table["command_names"] == ("command" if spec.command else "")
  assert tuple(table["joint_names"].split(",")) == spec.joints.names
  names = [part.name for part in spec.observations]
  assert table["observation_names"].split(",") == names
  for theirs, ours in (
    ("joint_stiffness", spec.joints.stiffness),
    ("joint_damping", spec.joints.damping),
    ("default_joint_pos", spec.joints.default_pos),
    ("action_scale", spec.joints.action_scale),
  ):
    rounded = np.array(table[theirs].split(","), float)
    np.testing.assert_allclose(rounded, ours, atol=5.1e-4)


def test_metadata_says_what_the_task_asks_for(exported: Exported):
  spec, task = exported.spec, exported.task
  assert spec.task == task and spec.prior == PRIORS[task]
  assert spec.control_hz == pytest.approx(50.0)
  assert spec.physics.timestep == 0.005 and spec.physics.decimation == 4
  assert [(part.name, part.size) for part in spec.command] == SIZES[task]
  assert spec.observation_size == exported.observed[0]["actor"].shape[1]
  noise = {part.name: part.noise for part in spec.observations}
  assert noise["base_ang_vel"] == (-0.2, 0.2) and noise["actions"] == (0.0, 0.0)
  # What no sensor of a robot measures.
  assert ("base_lin_vel" in noise) == (task != "Smp-Velocity-G1")


# Whatever these hold decides how the robot moves.
BODIES = ("mass", "inertia", "ipos", "iquat", "pos", "quat", "invweight0")
GEOMS = ("contype", "conaffinity", "condim", "priority", "friction", "solmix", "solref")
GEOMS += ("solimp", "margin", "gap", "pos", "quat", "size", "type")
DOFS = ("armature", "damping", "frictionloss", "M0", "invweight0", "solref", "solimp")
JOINTS = ("range", "limited", "axis", "pos", "type", "stiffness", "solref", "solimp")
ACTUATORS = ("gainprm", "biasprm", "forcerange", "forcelimited", "ctrllimited", "gear")


def same(kind: str, names: tuple[str, ...], ours: Any, theirs: Any, pairs: Any) -> None:
  for i, j in pairs:
    for name in names:
      field = f"{kind}_{name}"
      a, b = getattr(ours, field)[i], getattr(theirs, field)[j]
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=0, err_msg=f"{field} {i}")


def test_plain_model_is_the_environments(exported: Exported):
  ours, theirs = build_model(exported.spec), exported.env.unwrapped.sim.mj_model

  def pairs(kind: str, count: int) -> list[tuple[int, int]]:
    names = [getattr(ours, kind)(i).name for i in range(count)]
    found = [getattr(theirs, kind)(f"robot/{name}").id for name in names if name]
    return list(zip(range(count), found, strict=True))

  bodies = [(i, theirs.body(f"robot/{ours.body(i).name}").id) for i in range(1, 31)]
  assert ours.nbody == 31
  same("body", BODIES, ours, theirs, bodies)
  same("dof", DOFS, ours, theirs, [(i, i) for i in range(ours.nv)])
  same("jnt", JOINTS, ours, theirs, [(i, i) for i in range(ours.njnt)])
  same("actuator", ACTUATORS, ours, theirs, pairs("actuator", ours.nu))
  floor = mujoco.mj_name2id(ours, mujoco.mjtObj.mjOBJ_GEOM, "floor")
  geoms = [
    (i, theirs.geom("terrain" if i == floor else f"robot/{ours.geom(i).name}").id)
    for i in range(ours.ngeom)
  ]
  same("geom", tuple(n for n in GEOMS if n != "size"), ours, theirs, geoms)
  same("geom", ("size",), ours, theirs, [pair for pair in geoms if pair[0] != floor])
  assert ours.stat.meaninertia == theirs.stat.meaninertia
  auto = mujoco.mjtDisableBit.mjDSBL_AUTORESET.value
  for name in dir(theirs.opt):
    if not name.startswith("_"):
      a, b = getattr(ours.opt, name), getattr(theirs.opt, name)
      a = a & ~auto if name == "disableflags" else a
      np.testing.assert_array_equal(a, b, err_msg=name)


def test_simulators_agree(exported: Exported):
  """From one state, each by itself. The issue asks for 0.05 rad; what is left is the
  rounding of the environment's state to 32 bits, which contacts magnify."""
  for _ in range(2):  # Two starts.
    found = agreement.compare(
      exported.env, str(exported.path), GIVEN[exported.task], seconds=1.0
    )
    assert found.observations[0] < 1e-5
    assert found.joints_until(0.5) < 0.01
    assert max(found.apart().values()) < 0.1, found
    assert found.ours["speed"] > 0.02  # It moves, even where it lies.


def test_a_history_without_base_velocity_is_told_and_agrees(tmp_path: Path):
  """What a robot can sense, five frames of it, and of the command only the last."""
  task = "Smp-Forward-G1"
  cfg = agreement.undisturbed(small_env_cfg(task, num_envs=1, play=True))
  terms = cfg.observations["actor"].terms
  del terms["base_lin_vel"]
  for name, term in terms.items():
    term.history_length = 0 if name == "command" else 5
  terms["joint_vel"].delay_max_lag = 1  # Drawn in training; exact in play.
  told = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  terms["joint_vel"].delay_max_lag = 0
  env = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  try:
    spec = describe(told.unwrapped, task, None, 0)
    runner = make_runner(env, task, None)
    with torch.no_grad():
      cast(Any, runner.alg.get_policy()).mlp[-1].weight.mul_(3.0)
    assert runner.export(tmp_path / FILE_NAME) == spec
    frames = {part.name: part.history_length for part in spec.observations}
    assert "base_lin_vel" not in frames
    assert frames.pop("command") == 1 and set(frames.values()) == {5}
    assert spec.observation_size == 5 * (3 + 3 + 3 * 29) + 3
    found = agreement.compare(env, tmp_path / FILE_NAME, GIVEN[task], seconds=0.5)
    assert found.observations[:6].max() < 1e-4
    assert found.joints_until(0.5) < 0.01
  finally:
    env.close()
    told.close()


def test_agreement_sees_a_difference(exported: Exported, tmp_path: Path):
  """Without the right gains the same check fails."""
  if exported.task != "Smp-Forward-G1":
    pytest.skip("one task is enough")
  model = onnx.load(str(exported.path))
  for entry in model.metadata_props:
    if entry.key == "smp":
      table = json.loads(entry.value)
      table["joints"]["stiffness"] = [g / 2 for g in table["joints"]["stiffness"]]
      entry.value = json.dumps(table)
  onnx.save(model, str(tmp_path / FILE_NAME))
  found = agreement.compare(
    exported.env, str(tmp_path / FILE_NAME), GIVEN[exported.task], seconds=0.5
  )
  assert found.joints_until(0.5) > 0.05


def test_what_cannot_be_told_is_refused(exported: Exported):
  """Rather than written down wrongly."""
  raw = exported.env.unwrapped
  manager = raw.observation_manager
  cfg = manager.get_term_cfg("actor", "joint_pos")
  func = cfg.func
  for name, value, message in (
    ("func", lambda env: None, "'joint_pos'"),
    ("delay_min_lag", 2, "a clip or a constant delay"),
    ("clip", (-1.0, 1.0), "a clip or a constant delay"),
  ):
    before = getattr(cfg, name)
    setattr(cfg, name, value)
    try:
      with pytest.raises(UserError, match=message):
        describe(raw, exported.task, None, 0)
    finally:
      setattr(cfg, name, before)
  assert cfg.func is func and describe(raw, exported.task, None, 0)


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("actuator_ctrllimited", 1, "no position servo"),
    ("actuator_forcelimited", 0, "no position servo"),
    ("actuator_dyntype", mujoco.mjtDyn.mjDYN_FILTER, "no position servo"),
    ("actuator_biastype", mujoco.mjtBias.mjBIAS_NONE, "no position servo"),
    ("actuator_trntype", mujoco.mjtTrn.mjTRN_SITE, "no position servo"),
    ("actuator_biasprm", -1.0, "no position servo"),
    ("geom_contype", 0, "without a plane"),
    ("geom_type", mujoco.mjtGeom.mjGEOM_BOX, "geom 'terrain', which is neither"),
  ],
)
def test_models_that_cannot_be_told_are_refused(
  exported: Exported, monkeypatch, field, value, message
):
  raw = exported.env.unwrapped
  model = copy.copy(raw.sim.mj_model)
  of_geom = field.startswith("geom")
  row = model.geom("terrain").id if of_geom else 3
  getattr(model, field)[row] = value
  if field == "geom_contype":
    model.geom_conaffinity[row] = 0
  monkeypatch.setattr(raw.sim, "_mj_model", model)
  with pytest.raises(UserError, match=message):
    describe(raw, exported.task, None, 0)


def test_actions_that_cannot_be_told_are_refused(exported: Exported, monkeypatch):
  raw = exported.env.unwrapped
  action: Any = raw.action_manager.get_term("joint_pos")
  changes = (
    (action.cfg, "clip", {".*": (-1.0, 1.0)}),
    (action, "_target_names", list(reversed(action.target_names))),
  )
  for owner, name, value in changes:
    with monkeypatch.context() as patch:
      patch.setattr(owner, name, value)
      with pytest.raises(UserError, match="one position target per joint"):
        describe(raw, exported.task, None, 0)


def test_physics_of_ones_own_is_told(exported: Exported, monkeypatch):
  """Options and contacts other than those of the task."""
  raw = exported.env.unwrapped
  model = copy.copy(raw.sim.mj_model)
  options = dict(impratio=7.0, iterations=33, ls_iterations=44, ccd_iterations=55)
  options |= dict(noslip_iterations=3, tolerance=1e-5, ls_tolerance=0.02)
  options |= dict(ccd_tolerance=1e-4, noslip_tolerance=1e-3, density=1.5, viscosity=0.5)
  options |= dict(cone=mujoco.mjtCone.mjCONE_ELLIPTIC, solver=mujoco.mjtSolver.mjSOL_CG)
  contact = dict(solmix=0.3, condim=4, priority=2, margin=0.01, gap=0.002)
  for name, value in options.items():
    setattr(model.opt, name, value)
  model.opt.gravity[:] = model.opt.wind[:] = (0.1, 0.2, -8.0)
  foot = model.geom("robot/left_foot1_collision").id
  for name, value in contact.items():
    getattr(model, f"geom_{name}")[foot] = value
  monkeypatch.setattr(raw.sim, "_mj_model", model)
  built = build_model(describe(raw, exported.task, None, 0))
  for name, value in options.items():
    assert getattr(built.opt, name) == pytest.approx(value)
  assert built.opt.gravity.tolist() == built.opt.wind.tolist() == [0.1, 0.2, -8.0]
  foot = built.geom("left_foot1_collision").id
  for name, value in contact.items():
    assert getattr(built, f"geom_{name}")[foot] == pytest.approx(value)


def test_what_is_configured_is_told(exported: Exported, monkeypatch):
  """Scale of an observation, clip of actions, what the command may be."""
  raw = exported.env.unwrapped
  cfg = raw.observation_manager.get_term_cfg("actor", "joint_vel")
  monkeypatch.setattr(cfg, "scale", 0.25)
  spec = describe(raw, exported.task, 3.0, 0)
  scales = {part.name: part.scale for part in spec.observations}
  assert scales["joint_vel"] == (0.25,) and scales["joint_pos"] == (1.0,)
  assert spec.clip_actions == 3.0
  monkeypatch.setattr(export_module, "_SENSOR_UNITS", {})
  with pytest.raises(UserError, match="sensor that is not of velocity"):
    describe(raw, exported.task, None, 0)


def test_the_command_is_told(exported: Exported, monkeypatch):
  raw = exported.env.unwrapped
  if "command" not in raw.command_manager.active_terms:
    assert describe(raw, exported.task, None, 0).command == ()
    return
  term: Any = raw.command_manager.get_term("command")
  if exported.task == "Smp-Location-G1":
    monkeypatch.setattr(term.cfg, "distance_range", (1.25, 4.5))
    (goal,) = describe(raw, exported.task, None, 0).command
    assert (goal.low, goal.high, goal.settable) == (1.25, 4.5, True)
  elif exported.task == "Smp-Velocity-G1":
    monkeypatch.setattr(term.cfg, "vx_range", (-0.25, 1.5))
    told = {part.name: part for part in describe(raw, exported.task, None, 0).command}
    assert (told["vx"].low, told["vx"].high) == (-0.25, 1.5)
    assert told["yaw_rate"].default == (0.0,) and told["yaw_rate"].unit == "rad/s"
  else:
    for low, default in ((0.25, 1.0), (1.5, 1.5)):
      monkeypatch.setattr(term.cfg, "speed_range", (low, 3.25))
      told = {part.name: part for part in describe(raw, exported.task, None, 0).command}
      assert (told["speed"].low, told["speed"].high) == (low, 3.25)
      assert told["speed"].default == (default,)
    if exported.task == "Smp-Forward-G1":
      monkeypatch.setattr(term, "direction_w", torch.tensor([0.0, -1.0]))
      along = describe(raw, exported.task, None, 0).command[0]
      assert along.default == pytest.approx((-90.0,)) and not along.settable
      assert along.low == along.high == along.default[0]
  other = raw.command_manager.get_term("smp")
  monkeypatch.setitem(raw.command_manager._terms, "command", other)
  with pytest.raises(UserError, match="command SmpTerm"):
    describe(raw, exported.task, None, 0)


def test_actions_clipped_by_the_runner_are_told(
  exported: Exported, monkeypatch, tmp_path
):
  monkeypatch.setattr(exported.runner.env, "clip_actions", 2.5)
  assert exported.runner.export(tmp_path / "p.onnx").clip_actions == 2.5


# Saving.


def test_saving_writes_the_policy_too(exported: Exported, tmp_path: Path):
  runner = exported.runner
  runner.current_learning_iteration = 12
  runner.save(str(tmp_path / "model_12.pt"))
  names = sorted(path.name for path in tmp_path.iterdir())
  assert names == ["model_12.pt", "policy.deploy.yaml", FILE_NAME]
  assert OnnxPolicy(tmp_path / FILE_NAME).spec.iteration == 12


def test_an_export_that_fails_costs_no_checkpoint(
  exported: Exported, tmp_path: Path, monkeypatch, capsys
):
  def fail(*_: object, **__: object) -> None:
    raise RuntimeError("no\nexport")

  monkeypatch.setattr(runner_module, "export_policy", fail)
  exported.runner.save(str(tmp_path / "model_3.pt"))
  assert read_checkpoint(tmp_path / "model_3.pt", "cpu")["iter"] >= 0
  warning = capsys.readouterr().out.strip().splitlines()
  assert len(warning) == 1 and "not exported (no export)" in warning[0]
  assert [path.name for path in tmp_path.iterdir()] == ["model_3.pt"]


def test_both_files_are_uploaded(exported: Exported, tmp_path: Path, monkeypatch):
  runner, uploaded = exported.runner, []
  monkeypatch.setitem(runner.cfg, "upload_model", True)
  monkeypatch.setattr(
    runner.logger, "save_model", lambda path, it: uploaded.append(Path(path).name)
  )
  runner.save(str(tmp_path / "model_5.pt"))
  assert uploaded == ["model_5.pt", FILE_NAME, "policy.deploy.yaml"]


# From the command line.


def exit_line(capsys, main=export_cli.main) -> str:
  """The error of the script."""
  with pytest.raises(SystemExit) as end:
    run(main)
  assert end.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1
  return lines[0]


def test_export_from_the_command_line(
  exported: Exported, tmp_path: Path, monkeypatch, capsys
):
  if exported.task != "Smp-Forward-G1":
    pytest.skip("one task is enough")
  checkpoint, file = tmp_path / "model_9.pt", tmp_path / "out" / "walk.onnx"
  exported.runner.current_learning_iteration = 9
  origin = {"prior": "other", "clip_actions": 50.0}
  monkeypatch.setitem(exported.runner.__dict__, "_origin", origin)
  exported.runner.save(str(checkpoint))
  words = ["--checkpoint-file", str(checkpoint), "--output", str(file)]
  monkeypatch.setattr(sys, "argv", ["export", exported.task, *words])
  export_cli.main()
  assert "iteration 9" in capsys.readouterr().out
  policy, seen = OnnxPolicy(file), exported.observed[0]["actor"][0].numpy()
  np.testing.assert_array_equal(policy(seen), OnnxPolicy(exported.path)(seen))
  # The prior is the one it was trained with, the fall that of the task.
  assert policy.spec.prior == "other"
  assert policy.spec.fallen_below == 0.3
  # So is the largest action that its training let pass.
  assert policy.spec.clip_actions == 50.0
  # What a controller reads is what the policy was trained with.
  deploy = read_deploy(tmp_path / "out" / "walk.deploy.yaml")
  check_against(deploy, policy.spec, "walk.deploy.yaml")
  assert deploy.policy.file == "walk.onnx"


def test_export_refuses_in_one_line(tmp_path: Path, monkeypatch, capsys):
  bad = tmp_path / "model_1.pt"
  bad.write_bytes(b"damaged")

  def refused(task: str, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["export", task, *words])
    return exit_line(capsys)

  good = ["--checkpoint-file", str(bad)]
  assert "model_1.pt: not a readable policy" in refused(TASKS[0], *good)
  assert "did you mean Smp-Forward-G1" in refused("Smp-Foward-G1", *good)
  assert "end the name in .onnx" in refused(TASKS[0], *good, "--output", "walk.pt")
  theirs = next(task for task in list_tasks() if not task.startswith("Smp-"))
  assert "not a task of this project" in refused(theirs, *good)
  missing = ["--checkpoint-file", str(tmp_path / "gone.pt")]
  assert "gone.pt: no such policy" in refused(TASKS[0], *missing)
  assert [path.name for path in tmp_path.iterdir()] == ["model_1.pt"]


def test_simulators_are_compared_from_the_command_line(
  exported: Exported, monkeypatch, capsys
):
  """Two starts of some steps: the table shows the numbers of both simulators."""
  if exported.task != "Smp-Forward-G1":
    pytest.skip("one task is enough")
  options = ["--speed", "1.5", "--seconds", "0.2", "--starts", "2"]
  monkeypatch.setenv("COLUMNS", "240")
  monkeypatch.setattr(sys, "argv", ["compare", str(exported.path), *options])
  compare_cli.main()
  table = capsys.readouterr().out
  assert "environment / plain MuJoCo" in table
  lines = [line.split() for line in table.splitlines()]
  rows = [words for words in lines if words and words[0].isdigit()]
  assert [row[0] for row in rows] == ["1", "2"]
  for row in rows:
    assert float(row[1]) < 0.01  # rad
    numbers = [float(word) for word in row[2:] if word != "/"]
    theirs, ours = numbers[0::2], numbers[1::2]
    assert len(ours) == 4 and ours == pytest.approx(theirs, rel=0.1, abs=0.01)
  assert rows[0] != rows[1]


def test_the_table_shows_both_simulators(monkeypatch, capsys):
  joints, none = np.array([0.1, 0.2, 0.3]), np.zeros(3)
  found = agreement.Agreement(joints, none, {"speed": 1.5}, {"speed": 2.5}, 0.25)
  compare_cli.Console().print(compare_cli._table([found]))
  row = capsys.readouterr().out.splitlines()[-2].split()
  # The largest difference of the first half second; then theirs and ours.
  assert row == ["1", "0.3", "1.5", "/", "2.5"]


def test_comparing_refuses_in_one_line(exported: Exported, monkeypatch, capsys):
  if exported.task != "Smp-Forward-G1":
    pytest.skip("one task is enough")

  def refused(*words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    return exit_line(capsys, compare_cli.main)

  good = str(exported.path)
  assert "--starts 0: must be at least 1" in refused(good, "--starts", "0")
  assert "--seconds 0.0: must be above 0" in refused(good, "--seconds", "0")
  assert "gone.onnx" in refused("gone.onnx")
  assert "facing" in refused(good, "--facing", "10")
  assert "--engine fast: no such engine" in refused(good, "--engine", "fast")
  # Called from Python too.
  nothing = compare_cli.CompareSimulatorsCfg(exported.path, starts=0)
  with pytest.raises(UserError, match="--starts 0: must be at least 1"):
    compare_cli.compare_simulators(nothing)
