"""What an actor observes: chosen for a training, remembered by its policy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from mjlab.tasks.registry import load_env_cfg

from smp.cli import compare_simulators, evaluate, export, package_policy, play, train
from smp.errors import UserError
from smp.paths import POLICIES
from smp.rl.actor_layout import ActorLayout
from smp.rl.off_policy import OffPolicyRunnerCfg
from smp.rl.policy_file import read_policy, save_policy
from smp.tasks.base import observe_without_velocity
from smp.utils.tensor_files import load_tensors, save_tensors

TASK = "Smp-Forward-G1"
slow = pytest.mark.slow


def call(main: Any, *words: object) -> None:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", ["script", *map(str, words)])
    main()


def trains(folder: Path, *words: object) -> Path:
  """Train for two iterations; return the run's folder."""
  options = f"""--learner td3 --env.scene.num-envs 4 --threads 1
    --agent.max-iterations 2 --agent.num-steps-per-env 4 --agent.replay-steps 40
    --agent.algorithm.hidden-dims (16,16) --env.commands.smp.gsi-buffer-size 16
    --agent.logger tensorboard --log-root {folder}"""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch.cuda, "device_count", lambda: 0)
    patch.setenv("WANDB_MODE", "disabled")
    call(train.main, TASK, *options.split(), *words)
  return max(folder.glob("smp_forward_g1/*"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Iterator[Path]:
  """A policy without base velocity of a task whose policies have it."""
  folder = tmp_path_factory.mktemp("logs")
  yield trains(folder, "--actor", "proprioceptive") / "model_1.pt"


@slow
def test_networks_are_as_large_as_what_a_training_begins_or_goes_on_with(
  checkpoint: Path, capsys, monkeypatch
):
  monkeypatch.setattr(train, "fetch_checkpoint", lambda *_: (checkpoint, True))
  config = replace(
    train.default_config(TASK, has_gpu=False), log_root=str(checkpoint.parents[2])
  )
  agent = cast(OffPolicyRunnerCfg, config.agent)
  for choose, run in (
    ({"resume": True}, None),
    ({"resume": True}, "org/project/run"),
    ({"init_policy": str(checkpoint)}, None),
  ):
    asked = replace(config, agent=replace(agent, **choose), wandb_run_path=run)
    found = train.choose_checkpoint(asked).agent
    assert cast(OffPolicyRunnerCfg, found).algorithm.hidden_dims == (16, 16)
    assert "Layers of model_1.pt: 16, 16" in capsys.readouterr().out
  # Neither: as configured.
  found = train.choose_checkpoint(config).agent
  assert cast(OffPolicyRunnerCfg, found).algorithm == agent.algorithm


def test_without_velocity_and_with_history():
  cfg = load_env_cfg(TASK)
  before = ActorLayout.of(cfg)
  assert before.history == 1 and before.terms[0] == "base_lin_vel"
  observe_without_velocity(cfg)
  after = ActorLayout.of(cfg)
  assert after == ActorLayout(before.terms[1:], 5)
  # The critic and the task itself are as before.
  assert "base_lin_vel" in cfg.observations["critic"].terms
  assert ActorLayout.of(load_env_cfg(TASK)) == before


def test_a_history_that_was_asked_for_stays():
  cfg = load_env_cfg(TASK)
  cfg.observations["actor"].history_length = 8
  observe_without_velocity(cfg)
  assert ActorLayout.of(cfg).history == 8


def test_a_layout_goes_there_and_back():
  cfg, other = load_env_cfg(TASK), load_env_cfg(TASK)
  observe_without_velocity(cfg)
  ActorLayout.of(cfg).apply(other)
  assert ActorLayout.of(other) == ActorLayout.of(cfg)
  ActorLayout.of(load_env_cfg(TASK, play=True)).apply(load_env_cfg(TASK))


def test_an_observation_that_the_task_lacks_is_refused():
  layout = ActorLayout(("joint_pos", "lidar"), 1)
  with pytest.raises(UserError, match="observes 'lidar', which this task does not"):
    layout.apply(load_env_cfg(TASK))


@slow
def test_checkpoints_and_policy_files_remember_it(checkpoint: Path, tmp_path: Path):
  wanted = ActorLayout.read(checkpoint)
  assert wanted is not None and wanted.history == 5
  assert "base_lin_vel" not in wanted.terms
  call(package_policy.main, checkpoint, TASK, "--output", tmp_path / "one.pt")
  assert ActorLayout.read(tmp_path / "one.pt") == wanted
  assert read_policy(tmp_path / "one.pt")["card"]["actor"] == wanted.to_dict()


def test_policies_from_before_observe_what_the_task_does(tmp_path: Path):
  policy = read_policy(POLICIES / "forward.pt")
  assert ActorLayout.read(POLICIES / "forward.pt") is not None
  del policy["card"]["actor"]
  save_tensors(tmp_path / "old.pt", policy)
  assert ActorLayout.read(tmp_path / "old.pt") is None


@slow
def test_a_policy_of_another_task_is_refused_before_an_environment_is_built(
  checkpoint: Path, tmp_path: Path, monkeypatch
):
  path = tmp_path / "velocity.pt"
  save_policy(checkpoint, path, TASK)
  monkeypatch.setattr("smp.rl.loading.make_env", None)
  for file in (checkpoint, path):
    for command in (play, evaluate):
      with pytest.raises(UserError, match=f"{file}: a policy of {TASK}, not of"):
        call(command.main, "Smp-Getup-G1", "--checkpoint-file", str(file))


@slow
@pytest.mark.parametrize(
  "wrong, message",
  [
    ("all", "'actor'"),
    ({"terms": ["joint_pos"]}, "'history' is missing"),
    ({"terms": ["joint_pos"], "history": 0}, "'history' is 0"),
    ({"terms": [3], "history": 1}, "terms"),
  ],
)
def test_a_spoiled_layout_is_refused(checkpoint, tmp_path, wrong: Any, message: str):
  loaded = load_tensors(checkpoint, "checkpoint", "cpu")
  loaded["infos"]["origin"]["actor"] = wrong
  save_tensors(tmp_path / "model_1.pt", loaded)
  with pytest.raises(UserError, match=message):
    ActorLayout.read(tmp_path / "model_1.pt")


@slow
def test_it_is_played_without_being_told(checkpoint: Path, monkeypatch):
  seen = []

  class Viewer:
    """Takes one step."""

    def __init__(self, env: Any, policy: Any, **_: Any) -> None:
      self.env, self.policy = env, policy

    def run(self) -> None:
      obs, *_ = self.env.step(self.policy(self.env.get_observations()))
      seen.append(obs["actor"].shape[1])

  monkeypatch.setattr(play, "PlottingViewer", Viewer)
  options = "--viewer viser --device cpu --threads 1"
  call(play.main, TASK, "--checkpoint-file", checkpoint, *options.split())
  assert seen == [5 * (3 + 3 + 3 * 29 + 3)]


@slow
def test_it_is_evaluated_without_being_told(checkpoint: Path, tmp_path, monkeypatch):
  monkeypatch.setattr(evaluate, "SAMPLES", 32)
  options = "--num-envs 15 --seconds 1 --no-frames --device cpu --threads 1".split()
  file = "--checkpoint-file", checkpoint, "--output-dir", tmp_path
  call(evaluate.main, TASK, *file, *options)
  assert (tmp_path / "evaluation.json").is_file()


@slow
def test_it_is_exported_and_compared_without_being_told(
  checkpoint: Path, tmp_path: Path, capsys
):
  file = tmp_path / "policy.onnx"
  call(export.main, TASK, "--checkpoint-file", checkpoint, "--output", file)
  options = "--speed 1 --seconds 0.2 --starts 1".split()
  call(compare_simulators.main, file, *options)
  assert "environment / plain MuJoCo" in capsys.readouterr().out


@slow
def test_a_resumed_training_goes_on_without_being_told(checkpoint: Path, capsys):
  root = checkpoint.parents[2]
  run = trains(root, "--agent.resume", "True")
  assert "The actor observes what it did: base_ang_vel" in capsys.readouterr().out
  assert ActorLayout.read(run / "model_3.pt") == ActorLayout.read(checkpoint)


def test_the_option_is_for_tasks_of_this_project(monkeypatch):
  config = train.TrainArgs(
    **vars(train.TrainConfig.from_task(TASK)), actor="proprioceptive"
  )
  with pytest.raises(UserError, match="--actor proprioceptive.*no task of this"):
    train._choose_actor("Mjlab-Velocity-Flat-Unitree-G1", config)


def test_events_are_left_out_by_name():
  config = train.default_config("Smp-Velocity-G1", has_gpu=False)
  config = replace(config, without_events="payload,actuator_delay")
  before = set(config.env.events)
  train._leave_out_events(config)
  assert before - set(config.env.events) == {"payload", "actuator_delay"}
  with pytest.raises(UserError, match="--without-events payload: .* it has push_robot"):
    train._leave_out_events(config)
