"""Evaluation of policies in the simulator, from the command line to the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv

from smp import paths
from smp.cli import evaluate as cli
from smp.cli.evaluate import EvaluateArgs, evaluate
from smp.episodes.protocol import assign, unit
from smp.episodes.trajectory import Trajectory
from smp.errors import UserError
from smp.evaluation.policy import recording as rollouts
from smp.evaluation.policy.recording import FOOT_FORCE, Machine, rollout
from smp.mdp.smp_term import SmpTermCfg
from smp.robots.variation import RobotVariation
from smp.sim import make_env
from smp.tasks.base import FOOT_GEOMS
from smp.tasks.registry import protocol_of
from tests.fakes import checkpoint_content

pytestmark = pytest.mark.slow
NATIVE = Machine(engine="native", device="cpu", threads=1)
FORWARD, STYLES = (
  paths.POLICIES / f"{name}.pt" for name in ("forward", "forward_styles")
)


def recorded(task: str, envs: int, seconds: float, agent: str = "zero") -> Trajectory:
  """What a policy without a checkpoint does."""
  from smp.rl.loading import load_policy

  protocol = protocol_of(task, seconds)
  return rollout(
    protocol,
    assign(protocol, envs, seed=0),
    0,
    lambda env: load_policy(task, env, agent, None),  # pyright: ignore[reportArgumentType]
    None,
    NATIVE,
  )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
  """What an evaluation of a zero policy beside a random one writes."""
  folder = tmp_path_factory.mktemp("evaluation")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cli, "SAMPLES", 32)
    args = EvaluateArgs(
      agent="zero",
      compare="random",
      num_envs=15,
      seconds=2.0,
      output_dir=folder,
      frames=False,
      engine="native",
      device="cpu",
      threads=1,
    )
    evaluate("Smp-Forward-G1", args)
  return folder


def test_known_bad_policies_are_found_bad(files: Path):
  result = json.loads((files / "evaluation.json").read_text())
  zero, random = result["policies"]
  assert (zero["name"], random["name"]) == ("zero", "random")
  for policy in (zero, random):
    metrics = policy["conditions"][-1]["figures"]
    assert metrics["fall_rate"]["value"] > 0.8
    assert metrics["fall_rate"]["low"] > 0.5
    assert metrics["falls_per_minute"]["low"] > 20
    assert metrics["return"]["high"] < 0.5
    assert metrics["sds_loss"]["value"] > 0.05  # The prior's own samples: 0.01.
    assert metrics["r_smp"]["value"] is None  # Without means there is no r_smp.
  of_zero, of_random = (p["conditions"][-1]["figures"] for p in (zero, random))
  assert of_zero["action_rate"]["value"] == 0.0
  assert of_random["action_rate"]["value"] == pytest.approx(2 / 3, abs=0.05)
  assert of_random["jerk"]["value"] > 2 * of_zero["jerk"]["value"]


def test_the_result_says_how_it_came_about(files: Path):
  result = json.loads((files / "evaluation.json").read_text())
  protocol = result["protocol"]
  assert protocol["task"] == "Smp-Forward-G1" and protocol["version"] == 1
  assert not protocol["standard"] and "2 s instead of 20 s" in protocol["notes"][0]
  assert result["seeds"] == [0] and result["num_envs"] == 15
  assert "samples of the prior 'loco'" in result["data"]["what"]
  page = (files / "report.html").read_text()
  assert "Not the standard protocol" in page and "Not rendered" in page


def test_everyone_starts_alike_and_gets_what_the_protocol_says():
  zero = recorded("Smp-Forward-G1", 15, 1.0)
  random = recorded("Smp-Forward-G1", 15, 1.0, "random")
  # The first step is 20 ms after the start: nearly the same pose, not the same.
  apart = (zero.qpos[0] - random.qpos[0]).abs().amax(dim=-1)
  assert apart.max() < 0.2
  between = (zero.qpos[0, 1:, 7:] - zero.qpos[0, :-1, 7:]).abs().amax(dim=-1)
  assert between.median() > 0.3
  speeds = zero.command["speed"][:, 0].tolist()
  assert speeds[:10] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
  assert zero.qpos[0, :, :2].abs().max() < 0.5  # From their own origins.
  assert 0.0 < zero.task_reward.max() <= 1.0 and zero.max_reward == 1.0
  for name in ("torque", "foot_force", "sds_loss"):
    assert getattr(zero, name).isfinite().all()
  # Both feet of robots that fall over carry a robot of 33 kg or so at times.
  assert 100.0 < zero.foot_force.sum(dim=-1).amax(dim=0).median() < 5000.0


def test_getup_starts_lie_as_they_should_and_not_as_in_training(monkeypatch):
  monkeypatch.setattr(rollouts, "FALLS_PER_POSE", 2)
  motion = recorded("Smp-Getup-G1", 10, 1.0)
  x, y = motion.qpos[0, :, 3:7], motion.qpos[0, :5, 2]
  assert y.max() < 0.6
  w, a, b, c = x.unbind(-1)
  forward_z, left_z = 2 * (a * c - w * b), 2 * (b * c + w * a)
  assert forward_z[1] < -0.5 < 0.5 < forward_z[2]  # Prone looks down, supine up.
  assert left_z[3] < -0.5 < 0.5 < left_z[4]
  assert motion.valid().all() and motion.end_names == (
    "diverged",
    "out_of_distribution",
  )
  from smp.motion.fallen_states import sample_fallen_states

  falls = sample_fallen_states(2, 10, 50.0)
  ours = motion.qpos[0, 1:5, 7:].numpy()
  known = falls.qpos[:, -1, 7:]
  nearest = np.abs(ours[:, None] - known[None]).max(axis=-1).min(axis=-1)
  assert nearest.min() > 0.05


def test_steering_and_location_get_what_the_protocol_says():
  steering = recorded("Smp-Steering-G1", 10, 1.0)
  given = assign(protocol_of("Smp-Steering-G1"), 10, seed=0)
  np.testing.assert_allclose(steering.command["speed"], given.command["speed"])
  for name in ("direction", "facing"):
    angle = np.radians(given.command[name][:, 0])
    np.testing.assert_allclose(steering.command[name], unit(angle), atol=1e-6)
  location = recorded("Smp-Location-G1", 9, 1.0)
  given = assign(protocol_of("Smp-Location-G1"), 9, seed=0)
  # Goals count from where robots start, some centimetres off their origins.
  np.testing.assert_allclose(location.command["goal"], given.command["goal"], atol=0.05)
  assert steering.max_reward == location.max_reward == 1.0


def test_evaluation_is_free_of_noise_and_of_learning():
  protocol = protocol_of("Smp-Steering-G1")
  cfg: Any = rollouts.evaluation_cfg(protocol, assign(protocol, 10, 0), 0)
  assert not cfg.events and not cfg.auto_reset
  assert not any(group.enable_corruption for group in cfg.observations.values())
  smp_term = cfg.commands["smp"]
  assert not smp_term.update_statistics and smp_term.gsi_refresh_interval == 0
  assert set(cfg.terminations) == {"diverged", "self_collision", "root_too_low"}
  assert FOOT_FORCE in [sensor.name for sensor in cfg.scene.sensors]
  assert min(cfg.commands["command"].resampling_time_range) > protocol.seconds


def _of_forward(robot: RobotVariation) -> ManagerBasedRlEnv:
  """The evaluation's environment with another robot, reset."""
  protocol = protocol_of("Smp-Forward-G1").on(robot)
  cfg = rollouts.evaluation_cfg(protocol, assign(protocol, 15, 0), 0)
  smp_term = cfg.commands["smp"]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.prior, smp_term.reward_mode = None, "task_only"
  cfg.metrics = {}
  env = make_env(cfg, "native", "cpu", threads=1)
  env.reset()
  return env


def test_another_robot_is_another_in_all_environments():
  nominal = _of_forward(RobotVariation())
  changed = _of_forward(RobotVariation(friction=0.3, payload=3.0, gain_scale=0.8))
  asked, found = nominal.sim.model, changed.sim.model
  torso = nominal.sim.mj_model.body("robot/torso_link").id
  heavier = found.body_mass.sum(dim=-1) - asked.body_mass.sum(dim=-1)
  torch.testing.assert_close(heavier, torch.full((15,), 3.0), atol=1e-4, rtol=0)
  heavier = found.body_mass[:, torso] - asked.body_mass[:, torso]
  torch.testing.assert_close(heavier, torch.full((15,), 3.0), atol=1e-4, rtol=0)
  torch.testing.assert_close(
    found.actuator_gainprm[..., 0], 0.8 * asked.actuator_gainprm[..., 0].expand(15, -1)
  )
  torch.testing.assert_close(
    found.actuator_biasprm[..., :3],
    0.8 * asked.actuator_biasprm[..., :3].expand(15, -1, -1),
  )
  slid = found.geom_friction[..., 0] != asked.geom_friction[..., 0]
  names = [nominal.sim.mj_model.geom(i).name for i in slid[0].nonzero()[:, 0].tolist()]
  assert len(names) == len(FOOT_GEOMS) and set(names) == {
    f"robot/{name}" for name in FOOT_GEOMS
  }
  assert bool((found.geom_friction[..., 0][slid] == 0.3).all())
  for env in (nominal, changed):
    env.close()


@pytest.mark.parametrize(("delay", "differs"), [(0.0, 1), (20.0, 2)])
def test_a_delay_moves_the_robot_later(delay: float, differs: int):
  """A delay of 20 ms is one step of the policy."""
  poses = []
  for action in (0.0, 1.0):
    env = _of_forward(RobotVariation(delay=delay))
    torch.manual_seed(0)
    rows = []
    for _ in range(2):
      env.step(torch.full((15, 29), action))
      rows.append(env.scene["robot"].data.joint_pos.clone())
    poses.append(torch.stack(rows))
    env.close()
  apart = (poses[0] - poses[1]).abs().amax(dim=(1, 2))
  assert apart[differs - 1] > 1e-3 and not apart[: differs - 1].any()


def test_another_robot_is_noted():
  standard = protocol_of("Smp-Velocity-G1")
  assert standard.on(RobotVariation()) is standard and not standard.notes
  other = standard.on(RobotVariation(delay=20.0, gain_scale=0.8))
  assert other.notes == ("another robot: delay 20 ms, gain scale 0.8",)
  assert other.robot.differences() == {"delay": 20.0, "gain_scale": 0.8}


# What goes wrong.


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch):
  def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(cli, "load_data", lambda *_: None)
  monkeypatch.setattr(cli, "run_policy", interrupt)
  folder = tmp_path / "new"
  with pytest.raises(KeyboardInterrupt):
    evaluate("Smp-Forward-G1", EvaluateArgs(agent="zero", output_dir=folder))
  assert not folder.exists()


def test_a_page_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch):
  monkeypatch.setattr(cli, "render_report", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    cli.write(tmp_path / "new", {}, {})
  assert not (tmp_path / "new").exists()


def _checkpoint(path: Path) -> Path:
  torch.save(checkpoint_content(), path)
  return path


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({}, "no policy of this task is shipped"),
    ({"checkpoint_file": Path("none.pt")}, "none.pt: no such policy"),
    ({"agent": "zero", "compare": "none.pt"}, "none.pt: no such policy"),
    ({"agent": "zero", "num_envs": 3}, "15 conditions"),
    ({"agent": "zero", "seconds": -1.0}, "--seconds"),
    ({"agent": "zero", "seeds": (1, 1)}, "--seeds"),
    ({"agent": "zero", "gain_scale": 0.0}, "--gain-scale 0: give 0.1 to 10"),
    ({"agent": "zero", "output_dir": Path("/proc/none")}, "--output-dir|cannot write"),
    ({"agent": "zero", "windows": (Path("none.npz"),)}, "none.npz: no such file"),
    ({"agent": "zero", "prior": "none"}, "prior 'none'"),
    (
      {"checkpoint_file": FORWARD, "compare": str(STYLES)},
      "--compare: .*forward under the task's, .*forward_styles under 'styles'",
    ),
    (
      {"checkpoint_file": STYLES, "compare": str(FORWARD)},
      "--compare: .*forward_styles under 'styles', .*forward under the task's",
    ),
  ],
)
def test_what_cannot_be_done_is_said_in_one_line(
  options: dict[str, Any], message: str, tmp_path: Path, monkeypatch
):
  monkeypatch.setattr(paths, "POLICIES", tmp_path / "none")
  values: dict[str, Any] = {"output_dir": tmp_path / "out"} | options
  args = EvaluateArgs(**values)
  with pytest.raises(UserError, match=message) as caught:
    evaluate("Smp-Forward-G1", args)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_task_is_refused_in_one_line(tmp_path: Path):
  script = paths.ROOT / "scripts" / "evaluate.py"
  file = _checkpoint(tmp_path / "model_1.pt")
  options = ("--num-envs", "15", "--seconds", "1", "--engine", "native")
  result = subprocess.run(
    [sys.executable, script, "Smp-Forward-G1", "--checkpoint-file", file, *options],
    capture_output=True,
    text=True,
    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
  )
  lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
  assert result.returncode == 2 and len(lines) == 1, result.stderr
  assert "model_1.pt: not the actor of a policy" in lines[0]
  assert "Traceback" not in result.stderr
  assert os.listdir(tmp_path) == ["model_1.pt"]
