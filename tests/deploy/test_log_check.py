"""Mistakes made on purpose in controllers, and their names in `check_log`.

The controllers here are written by themselves, step by step, and share nothing with the
code that looks for the mistakes.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import onnx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from smp.cli.check_log import CheckLogCfg, check, lines, main
from smp.cli.sim2sim import Sim2SimCfg, sim2sim
from smp.deploy.deploy_file import describe_deploy, write_deploy
from smp.deploy.log_check import CONTROL_RATE, MISSED_STEPS, Check
from smp.deploy.mistakes import Fit, action_mistakes, joint_swaps, target_mistakes
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.policy_spec import KEY, STYLE, Observation, PolicySpec
from smp.deploy.robot_log import read_log
from smp.errors import UserError, run
from smp.paths import ROOT
from smp.robots import g1
from smp.utils.components import scalar
from tests.deploy_fakes import g1_policy, robot_policy, write_policy

COMMAND = (
  scalar("vx", "m/s", "forward", -0.5, 3.0, 0.0),
  scalar("vy", "m/s", "to the left", -0.6, 0.6, 0.0),
  scalar("yaw_rate", "rad/s", "turning left", -1.5, 1.5, 0.0),
)
STEPS, FRAMES = 220, 3
Row = dict[str, np.ndarray]


def write_network(path: Path, spec: PolicySpec) -> Path:
  """A network of two layers that listens to all it sees."""
  random, hidden = np.random.default_rng(1), 48
  weights = {
    "one": random.normal(size=(spec.observation_size, hidden)) / 12.0,
    "two": random.normal(size=(hidden, len(spec.joints.names))) / 6.0,
  }
  graph = helper.make_graph(
    [
      helper.make_node("MatMul", ["obs", "one"], ["sum"]),
      helper.make_node("Tanh", ["sum"], ["hidden"]),
      helper.make_node("MatMul", ["hidden", "two"], ["actions"]),
    ],
    "policy",
    [
      helper.make_tensor_value_info(
        "obs", TensorProto.FLOAT, [1, spec.observation_size]
      )
    ],
    [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 29])],
    [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
  model.ir_version = 10
  helper.set_model_props(model, {KEY: spec.dumps()})
  onnx.save(model, str(path))
  return path


PLAIN = robot_policy(COMMAND, FRAMES)
STYLES = Observation(
  STYLE, STYLE, 2, "1", "", (1.0,), (0.0, 0.0), choices=("walk", "run")
)
SPEC = replace(PLAIN, observations=(*PLAIN.observations, STYLES))
DEFAULT = np.array(SPEC.joints.default_pos)
SCALE = np.array(SPEC.joints.action_scale)
RANGE = np.array([g1.load_model().joint(name).range for name in g1.JOINT_NAMES]).T


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> OnnxPolicy:
  return OnnxPolicy(write_network(tmp_path_factory.mktemp("log") / "policy.onnx", SPEC))


def matrix(quat: np.ndarray) -> np.ndarray:
  found = np.zeros(9)
  mujoco.mju_quat2Mat(found, quat)
  return found.reshape(3, 3)


def measured(seed: int = 0) -> list[Row]:
  """What a robot that moves and tilts measures, step by step."""
  random = np.random.default_rng(seed)

  def waves(count: int, size: float) -> np.ndarray:
    time = 0.02 * np.arange(STEPS)[:, None]
    rate, phase = random.uniform(2.0, 9.0, count), random.uniform(0.0, 6.0, count)
    return size * np.sin(rate * time + phase) + size * random.uniform(-0.5, 0.5, count)

  q, dq = DEFAULT + waves(29, 0.3), waves(29, 2.0)
  quat = np.concatenate((np.ones((STEPS, 1)), waves(3, 0.25)), axis=1)
  quat /= np.linalg.norm(quat, axis=1, keepdims=True)
  gyro, command = waves(3, 0.8), waves(3, 0.7)
  style = np.eye(2)[np.arange(STEPS) // 40 % 2]
  arrays = dict(q=q, dq=dq, quat=quat, gyro=gyro, command=command, style=style)
  return [{name: array[t] for name, array in arrays.items()} for t in range(STEPS)]


class Controller:
  """A right controller of `SPEC`; the wrong ones change a method."""

  ago: tuple[int, ...] = (2, 1, 0)
  """Steps since the frames of `vector`."""

  def __init__(self, policy: OnnxPolicy) -> None:
    self.policy = policy
    self.frames: list[list[np.ndarray]] = []
    self.actions = [np.zeros(29)] * 3

  def read(self, rows: list[Row], now: int) -> Row:
    return rows[now]

  def last_action(self) -> np.ndarray:
    return self.actions[-1]

  def terms(self, row: Row) -> list[np.ndarray]:
    down = matrix(row["quat"]).T @ [0.0, 0.0, -1.0]
    return [
      0.5 * row["gyro"],
      down,
      row["q"] - DEFAULT,
      0.05 * row["dq"],
      self.last_action(),
      row["command"],
      row["style"],
    ]

  def vector(self, past: list[list[np.ndarray]]) -> np.ndarray:
    """From the last frames, oldest first."""
    parts = [frame[i] for i in range(5) for frame in past]
    return np.concatenate([*parts, *past[-1][5:]])

  def answer(self, observation: np.ndarray) -> np.ndarray:
    return self.policy(observation).astype(float)

  def target(self, action: np.ndarray) -> np.ndarray:
    return DEFAULT + SCALE * action

  def logged_action(self, action: np.ndarray) -> np.ndarray:
    return action

  def run(self, rows: list[Row]) -> dict[str, np.ndarray]:
    found = []
    for now in range(len(rows)):
      self.frames.append(self.terms(self.read(rows, now)))
      past = [self.frames[max(0, now - ago)] for ago in self.ago]
      action = self.answer(self.vector(past))
      self.actions.append(action)
      found.append(self.logged_action(action))
    return {
      "format": np.array(1),
      "period": np.array(0.02),
      "joint_names": np.array(SPEC.joints.names),
      "time": 0.02 * np.arange(len(rows)),
      "joint_pos": np.stack([row["q"] for row in rows]),
      "joint_vel": np.stack([row["dq"] for row in rows]),
      "imu_quat": np.stack([row["quat"] for row in rows]),
      "imu_gyro": np.stack([row["gyro"] for row in rows]),
      "command": np.stack([row["command"] for row in rows]),
      "style": np.stack([row["style"] for row in rows]),
      "action": np.stack(found),
      "target": np.stack([self.target(action) for action in self.actions[3:]]),
    }


def reads(change: Callable[[Row], Row]) -> type[Controller]:
  """A controller that takes a measurement for another."""

  class Wrong(Controller):
    def read(self, rows: list[Row], now: int) -> Row:
      return {**rows[now], **change(rows[now])}

  return Wrong


def late(steps: int, *names: str) -> type[Controller]:
  """A controller that sees some of it later."""

  class Wrong(Controller):
    def read(self, rows: list[Row], now: int) -> Row:
      before = rows[max(0, now - steps)]
      return {**rows[now], **{name: before[name] for name in names}}

  return Wrong


def observes(term: int, change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  """A controller that computes a term of the observation otherwise."""

  class Wrong(Controller):
    def terms(self, row: Row) -> list[np.ndarray]:
      found = super().terms(row)
      found[term] = change(found[term])
      return found

  return Wrong


def arranges(
  change: Callable[[list[list[np.ndarray]]], np.ndarray],
) -> type[Controller]:
  class Wrong(Controller):
    def vector(self, past: list[list[np.ndarray]]) -> np.ndarray:
      return change(past)

  return Wrong


def remembers(*ago: int, present: bool = True) -> type[Controller]:
  """A controller with other frames in its history, from the steps ``ago``."""

  class Wrong(Controller):
    def vector(self, past: list[list[np.ndarray]]) -> np.ndarray:
      return plain(past if present else past[:-1], past[-1])

  Wrong.ago = ago
  return Wrong


def feeds_back(change: Callable[[list[np.ndarray]], np.ndarray]) -> type[Controller]:
  class Wrong(Controller):
    def last_action(self) -> np.ndarray:
      return change(self.actions)

  return Wrong


def sends(change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  class Wrong(Controller):
    def target(self, action: np.ndarray) -> np.ndarray:
      return change(action)

  return Wrong


def logs(change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  class Wrong(Controller):
    def logged_action(self, action: np.ndarray) -> np.ndarray:
      return change(action)

  return Wrong


def answers(change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  """A controller that changes the network's output before anything else."""

  class Wrong(Controller):
    def answer(self, observation: np.ndarray) -> np.ndarray:
      return change(super().answer(observation))

  return Wrong


def writes(name: str, change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  """A controller that is right, but for one array (T, ...) of its log."""

  class Wrong(Controller):
    def run(self, rows: list[Row]) -> dict[str, np.ndarray]:
      found = super().run(rows)
      return {**found, name: change(found[name])}

  return Wrong


def plain(
  past: list[list[np.ndarray]], present: list[np.ndarray] | None = None
) -> np.ndarray:
  parts = [frame[i] for i in range(5) for frame in past]
  return np.concatenate([*parts, *(present or past[-1])[5:]])


BREADTH_FIRST = [0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 22, 4, 10, 16, 23, 5, 11, 17]
BREADTH_FIRST += [24, 18, 25, 19, 26, 20, 27, 21, 28]
SIDES = [*range(6, 12), *range(6), 12, 13, 14, *range(22, 29), *range(15, 22)]


def swap(values: np.ndarray, i: int, j: int) -> np.ndarray:
  found = values.copy()
  found[[i, j]] = found[[j, i]]
  return found


def flip(values: np.ndarray, *places: int) -> np.ndarray:
  found = values.copy()
  found[list(places)] *= -1.0
  return found


def mounted(axis: int, degrees: float) -> type[Controller]:
  """A controller whose IMU is turned against the pelvis about x, y or z."""
  mount, turn = np.zeros(4), np.eye(3)[axis]
  mujoco.mju_axisAngle2Quat(mount, turn, math.radians(degrees))

  def change(row: Row) -> Row:
    quat = np.zeros(4)
    mujoco.mju_mulQuat(quat, row["quat"], mount)
    return {"quat": quat, "gyro": matrix(mount).T @ row["gyro"]}

  return reads(change)


def of_the_torso(row: Row) -> Row:
  yaw, roll, pitch = row["q"][12:15]
  quat, gyro = row["quat"], row["gyro"]
  for axis, angle, rate in (
    ((0.0, 0.0, 1.0), yaw, row["dq"][12]),
    ((1.0, 0.0, 0.0), roll, row["dq"][13]),
    ((0.0, 1.0, 0.0), pitch, row["dq"][14]),
  ):
    turn, product = np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, np.array(axis), angle)
    mujoco.mju_mulQuat(product, quat, turn)
    quat, gyro = product, matrix(turn).T @ gyro + rate * np.array(axis)
  return {"quat": quat, "gyro": gyro}


def both(change: Callable[[np.ndarray], np.ndarray]) -> type[Controller]:
  """Of joint positions and velocities."""
  return reads(lambda row: {"q": change(row["q"]), "dq": change(row["dq"])})


MISTAKES: dict[str, type[Controller]] = {
  "joint order: joint positions and velocities: in the order of Isaac Lab": both(
    lambda x: x[BREADTH_FIRST]
  ),
  "joint order: joint positions and velocities: in the order of the SDK with left and": both(
    lambda x: x[SIDES]
  ),
  "joint order: joint velocities: in the order of Isaac Lab": reads(
    lambda row: {"dq": row["dq"][np.argsort(BREADTH_FIRST)]}
  ),
  "joints exchanged: left_ankle_pitch_joint and left_ankle_roll_joint": both(
    lambda x: swap(x, 4, 5)
  ),
  "joint sign: right_knee_joint: the sign is reversed": both(lambda x: flip(x, 9)),
  "joint sign: waist_yaw_joint: the sign is reversed, of its velocity alone": reads(
    lambda row: {"dq": flip(row["dq"], 12)}
  ),
  "joint sign: left_elbow_joint: the sign is reversed, of its position alone": reads(
    lambda row: {"q": flip(row["q"], 18)}
  ),
  "joint position sign: ": reads(lambda row: {"q": -row["q"]}),
  "sign of all joints: ": both(np.negative),
  "joint velocity sign: ": reads(lambda row: {"dq": -row["dq"]}),
  "joint positions in degrees: ": reads(lambda row: {"q": np.degrees(row["q"])}),
  "joint velocities in degrees: ": reads(lambda row: {"dq": np.degrees(row["dq"])}),
  "gyroscope in degrees: ": reads(lambda row: {"gyro": np.degrees(row["gyro"])}),
  "scale of a term: joint_vel_rel: 20 times": observes(3, lambda x: 20.0 * x),
  "scale of a term: base_ang_vel: 0.5 times": observes(0, lambda x: 0.5 * x),
  "scale of a term: projected_gravity: 9.81 times": observes(1, lambda x: 9.81 * x),
  "default position not subtracted: ": observes(2, lambda x: x + DEFAULT),
  "default position subtracted twice: ": observes(2, lambda x: x - DEFAULT),
  "quaternion order: ": reads(lambda row: {"quat": np.roll(row["quat"], 1)}),
  "quaternion inverted: ": reads(lambda row: {"quat": flip(row["quat"], 1, 2, 3)}),
  "gravity sign: ": observes(1, lambda x: -x),
  "gyroscope frame: ": reads(lambda row: {"gyro": matrix(row["quat"]) @ row["gyro"]}),
  "gyroscope sign: ": reads(lambda row: {"gyro": -row["gyro"]}),
  "IMU axis sign: base_ang_vel: the sign of y": observes(0, lambda x: flip(x, 1)),
  "IMU axis sign: projected_gravity: the sign of x": observes(1, lambda x: flip(x, 0)),
  "IMU frame pitched: the IMU's frame is pitched against the pelvis' by 10.0°": mounted(
    1, 10.0
  ),
  "IMU frame rolled: the IMU's frame is rolled against the pelvis' by -5.0°": mounted(
    0, -5.0
  ),
  "IMU frame turned: the IMU's frame is turned against the pelvis' by 90.0°": mounted(
    2, 90.0
  ),
  "IMU of the torso: ": reads(of_the_torso),
  "last action missing: ": feeds_back(lambda past: np.zeros(29)),
  "last action delay: the last action: 1 step late": feeds_back(lambda past: past[-2]),
  "last action clipped: ": feeds_back(lambda past: np.clip(past[-1], -1.0, 1.0)),
  "last action scaled: ": feeds_back(lambda past: SCALE * past[-1]),
  "last action is the target: ": feeds_back(lambda past: DEFAULT + SCALE * past[-1]),
  "joint order: the last action: in the order of Isaac Lab": feeds_back(
    lambda past: past[-1][BREADTH_FIRST]
  ),
  "command order: velocity_commands: in the order vy, vx, yaw_rate": reads(
    lambda row: {"command": row["command"][[1, 0, 2]]}
  ),
  "command sign: velocity_commands: the sign of yaw_rate": reads(
    lambda row: {"command": flip(row["command"], 2)}
  ),
  "command scale: velocity_commands: 2 times": reads(
    lambda row: {"command": 2.0 * row["command"]}
  ),
  "command scale: velocity_commands (yaw_rate): 0.25 times": reads(
    lambda row: {"command": row["command"] * [1.0, 1.0, 0.25]}
  ),
  "command missing: ": reads(lambda row: {"command": np.zeros(3)}),
  "command delay: velocity_commands: 10 steps late": late(10, "command"),
  "style missing: ": reads(lambda row: {"style": np.zeros(2)}),
  "style ignored: style: always walk": reads(lambda row: {"style": np.eye(2)[0]}),
  "observation delay: joints and IMU: 1 step late": late(1, "q", "dq", "quat", "gyro"),
  "observation delay: joints and IMU: 2 steps late": late(2, "q", "dq", "quat", "gyro"),
  "joint delay: joints: 1 step late": late(1, "q", "dq"),
  "IMU delay: the IMU: 2 steps late": late(2, "quat", "gyro"),
  "delay of a term: joint_vel_rel: 1 step late": late(1, "dq"),
  "history order: ": arranges(lambda past: plain(past[::-1], past[-1])),
  "no history: ": arranges(lambda past: plain([past[-1]] * 3)),
  "rate of the history: ": remembers(4, 2, 0),
  "history without the present: ": remembers(3, 2, 1, 0, present=False),
  "layout of the history: ": arranges(
    lambda past: np.concatenate(
      [*(x for frame in past for x in frame[:5]), *past[-1][5:]]
    )
  ),
  "order of terms: observations: base_ang_vel and projected_gravity": arranges(
    lambda past: plain([[f[1], f[0], *f[2:]] for f in past])
  ),
  "actions scaled: ": logs(lambda action: SCALE * action),
  "actions are targets: ": logs(lambda action: DEFAULT + SCALE * action),
  "sign of actions: ": logs(np.negative),
  "actions clipped: actions: clipped to 0.8": answers(lambda x: np.clip(x, -0.8, 0.8)),
  "order of actions: ": logs(lambda action: action[BREADTH_FIRST]),
  "target offset: targets: the offset is missing": sends(lambda action: SCALE * action),
  "action scale: targets: 0.5 times": sends(
    lambda action: DEFAULT + 0.5 * SCALE * action
  ),
  "action scale: targets: another action scale, 0.25 for": sends(
    lambda action: DEFAULT + 0.25 * action
  ),
  "target order: targets: in the order of Isaac Lab": sends(
    lambda action: (DEFAULT + SCALE * action)[BREADTH_FIRST]
  ),
  "target sign: ": sends(lambda action: DEFAULT - SCALE * action),
  "target delay: ": writes("target", lambda x: np.concatenate((x[:1], x[:-1]))),
  "targets limited: ": sends(lambda action: np.clip(DEFAULT + SCALE * action, *RANGE)),
  "control rate: rows are 0.01 s apart": writes("time", lambda x: x / 2.0),
  "missed steps: 1 of 219 steps take": writes("time", lambda x: x + 0.02 * (x > 1.99)),
}
"""Beginning of the finding, and a controller that makes the mistake."""


def check_arrays(policy: OnnxPolicy, path: Path, arrays: dict[str, Any]) -> list[str]:
  """Lines of the tool on a log."""
  np.savez(path, **arrays)
  return lines(check(CheckLogCfg(policy.path, path)))


def test_a_right_controller_agrees(policy: OnnxPolicy, tmp_path: Path):
  text = check_arrays(policy, tmp_path / "log.npz", Controller(policy).run(measured()))
  assert text[-1] == "the log is what the policy would have done" and len(text) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(policy: OnnxPolicy, tmp_path: Path, name: str):
  arrays = MISTAKES[name](policy).run(measured())
  text = check_arrays(policy, tmp_path / "log.npz", arrays)
  found = [line for line in text[1:] if not line.startswith(("differs", "note"))]
  assert len(found) == 1 and found[0].startswith(name), text
  if name in FIRST.values():
    kind, message = found[0].split(": ", 1)
    assert documented()[kind] == message


FIRST = {name.split(":")[0]: name for name in reversed(MISTAKES)}
"""The first of `MISTAKES` of each kind; docs/deploy.md says what the tool says of it."""


def documented() -> dict[str, str]:
  """Messages by kind in the table of docs/deploy.md."""
  page = (ROOT / "docs/deploy.md").read_text()
  table = page.split("| mistake | `check_log.py` says |\n|---|---|\n")[1]
  rows = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines())
  return dict(row.strip("| ").split(" | ") for row in rows)


def test_every_kind_that_the_tool_knows_is_made_on_purpose_and_documented(
  policy: OnnxPolicy, tmp_path: Path
):
  np.savez(tmp_path / "log.npz", **recorded(policy))
  deploy = describe_deploy(SPEC)
  log = read_log(tmp_path / "log.npz", deploy)
  assert log.target is not None
  tried = [
    *(
      m.at(m.grid[0]) if isinstance(m, Fit) else m for m in action_mistakes(deploy, log)
    ),
    *joint_swaps(deploy),
    *target_mistakes(deploy, log.action, log.target),
  ]
  kinds = {mistake.kind for mistake in tried} | {CONTROL_RATE, MISSED_STEPS}
  assert kinds == set(FIRST) == set(documented())
  assert len(kinds) > 50


def test_mistakes_together_are_each_named(policy: OnnxPolicy, tmp_path: Path):
  class Wrong(Controller):
    def read(self, rows: list[Row], now: int) -> Row:
      row = rows[now]
      return {**row, "quat": np.roll(row["quat"], 1), "q": flip(row["q"], 3)}

    def target(self, action: np.ndarray) -> np.ndarray:
      return DEFAULT + 0.5 * SCALE * action

  found = check_found(policy, tmp_path, Wrong(policy).run(measured()))
  kinds = {each.kind for each in found.findings}
  assert kinds == {"quaternion order", "joint sign", "action scale"}
  assert not found.unexplained


def check_found(policy: OnnxPolicy, folder: Path, arrays: dict[str, Any]) -> Check:
  np.savez(folder / "log.npz", **arrays)
  return check(CheckLogCfg(policy.path, folder / "log.npz"))


def test_what_nobody_knows_is_said(policy: OnnxPolicy, tmp_path: Path):
  odd = reads(lambda row: {"q": row["q"] ** 2 + 0.3, "gyro": np.exp(row["gyro"])})
  found = check_found(policy, tmp_path, odd(policy).run(measured()))
  assert found.unexplained and not found.agrees
  assert "a difference is left" in "\n".join(lines(found))


def test_a_single_odd_row_is_not_overlooked(policy: OnnxPolicy, tmp_path: Path):
  arrays = Controller(policy).run(measured())
  arrays["action"][-1, 4] += 0.5
  found = check_found(policy, tmp_path, arrays)
  assert not found.agrees and "most at 4.38 s (left_ankle_pitch_joint)" in found.where


def test_measurements_beyond_all_bounds_are_no_agreement(
  policy: OnnxPolicy, tmp_path: Path
):
  arrays = Controller(policy).run(measured())
  gyro = next(name for name in arrays if "gyro" in name)
  arrays[gyro] = arrays[gyro].astype(float)
  arrays[gyro][40] = 1e300
  with pytest.raises(UserError, match=r"the log's row \d+ .* not a finite number"):
    check_found(policy, tmp_path, arrays)


def test_time_stamps_are_checked(policy: OnnxPolicy, tmp_path: Path):
  arrays = Controller(policy).run(measured())
  slow = check_found(policy, tmp_path, arrays | {"time": arrays["time"] / 2.0})
  (finding,) = slow.findings
  assert finding.kind == "control rate" and "rows are 0.01 s apart" in finding.text
  late = arrays["time"] + 0.02 * (np.arange(STEPS) >= 100)
  (finding,) = check_found(policy, tmp_path, arrays | {"time": late}).findings
  assert finding.kind == "missed steps" and "the first at 1.98 s" in finding.text


def test_joints_are_found_by_name(policy: OnnxPolicy, tmp_path: Path):
  arrays = Controller(policy).run(measured())
  order = np.random.default_rng(0).permutation(29)
  for name in ("joint_names", "joint_pos", "joint_vel", "action", "target"):
    arrays[name] = arrays[name][..., order]
  assert check_found(policy, tmp_path, arrays).agrees


def test_what_a_log_cannot_show_is_noted(policy: OnnxPolicy, tmp_path: Path):
  rows = [dict(measured()[0], quat=np.array([1.0, 0.0, 0.0, 0.0]))] * STEPS
  arrays = Controller(policy).run(rows)
  del arrays["target"]
  found = check_found(policy, tmp_path, arrays)
  text = " ".join(found.notes)
  assert found.agrees
  for word in ("command is constant", "not tilt", "not turn", "29 joints", "'target'"):
    assert word in text


def test_a_log_of_a_policy_without_styles_agrees(tmp_path: Path, capsys):
  file = write_policy(tmp_path / "policy.onnx", PLAIN, 0.02)
  write_deploy(PLAIN, file)
  sim2sim(Sim2SimCfg(file, seconds=2.0, log=tmp_path / "log.npz"))
  assert "style" not in np.load(tmp_path / "log.npz")
  assert check(CheckLogCfg(file, tmp_path / "log.npz")).agrees


def test_a_log_of_sim2sim_agrees(tmp_path: Path, capsys):
  """Unless its policy is another, with other gains or another iteration."""
  file = write_policy(tmp_path / "policy.onnx", SPEC, 0.02)
  write_deploy(SPEC, file)
  log = tmp_path / "log.npz"
  sim2sim(Sim2SimCfg(file, seconds=2.0, log=log, command=("vx=0.5",), style="run"))
  found = check(CheckLogCfg(file, log))
  assert found.agrees and found.largest < 1e-4 and found.steps > 60
  names = set(np.load(log))
  assert {"qpos", "qvel", "obs", "joint_pos", "imu_quat", "target"} <= names
  stiff = replace(SPEC.joints, stiffness=(100.0,) * 29)
  write_deploy(replace(SPEC, joints=stiff), file)
  with pytest.raises(UserError, match="policy.deploy.yaml: 'stiffness.0.' .left_hip"):
    check(CheckLogCfg(file, log))
  other = write_policy(tmp_path / "other.onnx", SPEC, -0.02)
  assert not check(CheckLogCfg(other, log)).agrees


def test_from_the_command_line(policy: OnnxPolicy, tmp_path: Path, monkeypatch, capsys):
  log = tmp_path / "log.npz"
  wrong: dict[str, Any] = MISTAKES["gravity sign: "](policy).run(measured())
  right: dict[str, Any] = Controller(policy).run(measured())
  np.savez(log, **wrong)
  monkeypatch.setattr(sys, "argv", ["check_log", str(policy.path), str(log)])
  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 1
  assert "gravity sign: projected_gravity: points up" in capsys.readouterr().out
  np.savez(log, **right)
  monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
  main()
  assert json.loads(capsys.readouterr().out)["findings"] == []


@pytest.fixture
def exit_line(tmp_path: Path, monkeypatch, capsys) -> Callable[[Path], str]:
  """The line with which the script refuses a policy beside ``log.npz``."""

  def refused(policy: Path) -> str:
    words = ["check_log", str(policy), str(tmp_path / "log.npz")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
      run(main)
    shown = capsys.readouterr()
    assert end.value.code == 2 and shown.out == ""
    (line,) = shown.err.splitlines()
    return line

  return refused


@pytest.mark.parametrize(
  "name, change, message",
  [
    ("period", lambda x: 2 * x, "a row every 0.04 s, the policy acts every 0.02 s"),
    ("joint_names", lambda x: x[:23], "23 joints, the policy has 29"),
  ],
)
def test_the_script_refuses_a_log_of_another_robot_or_rate(
  policy: OnnxPolicy, tmp_path: Path, exit_line, name: str, change: Any, message: str
):
  arrays = {**recorded(policy), name: change(recorded(policy)[name])}
  np.savez(tmp_path / "log.npz", **arrays)
  assert f"{tmp_path / 'log.npz'}: {message}" in exit_line(policy.path)


def repeated_joint(table: dict[str, Any]) -> None:
  table["joint_names"][3] = table["joint_names"][0]


@pytest.mark.parametrize(
  "edit, message",
  [
    (
      lambda table: table["stiffness"].__setitem__(3, 0.0),
      "'stiffness' of left_knee_joint is 0, expected above 0",
    ),
    (repeated_joint, "'joint_names' has left_hip_pitch_joint twice"),
    (
      lambda table: table["actions"]["JointPositionAction"].update(scale=[0.25] * 12),
      "'actions.JointPositionAction.scale' has 12 values, not 29",
    ),
    (
      lambda table: table["actions"]["JointPositionAction"].update(scale=[0.25] * 29),
      "'actions.JointPositionAction.scale[0]' (left_hip_pitch_joint) is 0.25, the policy",
    ),
    (
      lambda table: table["observations"]["joint_vel_rel"].update(scale=[1.0] * 29),
      "'observations.joint_vel_rel.scale[0]' is 1, the policy was trained with 0.05",
    ),
  ],
)
def test_the_script_refuses_a_deploy_file_edited_to_nonsense(
  policy: OnnxPolicy, tmp_path: Path, exit_line, edit: Any, message: str
):
  file = write_network(tmp_path / "policy.onnx", SPEC)
  np.savez(tmp_path / "log.npz", **recorded(policy))
  path = write_deploy(SPEC, file)
  table = yaml.safe_load(path.read_text())
  edit(table)
  path.write_text(yaml.safe_dump(table, sort_keys=False))
  line = exit_line(file)
  assert f"{path}: {message}" in line and line.endswith("export the policy again")


def test_the_script_refuses_a_policy_with_base_velocity(tmp_path: Path, exit_line):
  file = write_policy(tmp_path / "walk.onnx", g1_policy())
  assert "walk.onnx: observes base_lin_vel" in exit_line(file)


def test_a_policy_with_base_velocity_cannot_be_checked(tmp_path: Path):
  file = write_policy(tmp_path / "walk.onnx", g1_policy())
  with pytest.raises(UserError) as error:
    check(CheckLogCfg(file, tmp_path / "log.npz"))
  text = str(error.value)
  assert text.startswith("walk.onnx: observes base_lin_vel, which joint encoders and")
  assert "so check_log cannot compute it" in text and "\n" not in text


@pytest.mark.parametrize(
  "name, change, message",
  [
    ("period", lambda x: x / 4, "a row every 0.005 s, the policy acts every 0.02 s"),
    ("period", lambda x: np.array("fast"), "'period' is fast, expected one number"),
    ("format", lambda x: x + 1, "'format' is 2, this version reads 1"),
    ("joint_names", lambda x: x[:23], "23 joints, the policy has 29"),
    ("joint_names", lambda x: np.array([*x[:-1], x[0]]), "has left_hip_pitch_joint 2"),
    ("joint_names", lambda x: np.arange(29), "'joint_names' is no list of names"),
    ("joint_pos", lambda x: x[:, :23], "'joint_pos' has shape (220, 23), expected"),
    ("imu_quat", lambda x: x[:, :3], "'imu_quat' has shape (220, 3)"),
    ("command", lambda x: x[:100], "'command' has shape (100, 3), expected (220, 3)"),
    ("action", lambda x: x.astype(str), "'action' holds <U32, expected numbers"),
    (
      "imu_quat",
      lambda x: np.where(np.arange(220)[:, None] == 9, 0.0, x),
      "zero in row 9",
    ),
    ("time", lambda x: x[:, None], "'time' has shape (220, 1), expected (220,)"),
    ("imu_gyro", lambda x: np.where(x == x[7], np.nan, x), "is not a number in row 7"),
    ("target", lambda x: x[:, :3], "'target' has shape (220, 3)"),
    ("style", lambda x: x[:, :1], "'style' has shape (220, 1), expected (220, 2)"),
    ("style", lambda x: None, "no array 'style'; docs/deploy.md lists"),
    ("imu_quat", lambda x: None, "no array 'imu_quat'; docs/deploy.md lists"),
    ("joint_pos", lambda x: np.array([{}]), "not a readable .npz file"),
  ],
)
def test_a_log_of_something_else_is_one_line(
  policy: OnnxPolicy, tmp_path: Path, name: str, change: Any, message: str
):
  arrays = Controller(policy).run(measured())
  arrays[name] = change(arrays[name])
  arrays = {key: value for key, value in arrays.items() if value is not None}
  with pytest.raises(UserError) as error:
    check_found(policy, tmp_path, arrays)
  text = str(error.value)
  assert message in text and "log.npz: " in text and "\n" not in text


def test_other_bad_input_is_one_line(policy: OnnxPolicy, tmp_path: Path):
  with pytest.raises(UserError, match="gone.npz: no such log"):
    check(CheckLogCfg(policy.path, tmp_path / "gone.npz"))
  with pytest.raises(UserError, match="--tolerance 0.0: must be above 0"):
    check(CheckLogCfg(policy.path, tmp_path / "gone.npz", tolerance=0.0))
  whole = recorded(policy)
  empty = whole | {name: value[:0] for name, value in whole.items() if value.ndim}
  empty["joint_names"] = whole["joint_names"]
  with pytest.raises(UserError, match="log.npz: a log without rows"):
    check_found(policy, tmp_path, empty)
  short = Controller(policy).run(measured()[:40])
  with pytest.raises(UserError, match="a log of 40 rows is too short"):
    check_found(policy, tmp_path, short)


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 10**7), st.binary(min_size=0, max_size=6), st.integers(0, 300))
def test_a_damaged_log_is_refused_in_a_line_or_sound(
  policy: OnnxPolicy, tmp_path: Path, place: int, put: bytes, cut: int
):
  path, deploy = tmp_path / "log.npz", describe_deploy(SPEC)
  np.savez(path, **recorded(policy))
  whole = path.read_bytes()
  at = place % len(whole)
  path.write_bytes(whole[:at] + put + whole[at + cut :])
  try:
    log = read_log(path, deploy)
  except UserError as error:
    assert "\n" not in str(error)
  else:
    assert np.isfinite(log.signals.joint_pos).all() and log.action.shape[1] == 29


@functools.cache
def recorded(policy: OnnxPolicy) -> dict[str, Any]:
  return Controller(policy).run(measured())
