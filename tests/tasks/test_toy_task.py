"""A task of one file goes all the way, and no other file speaks of a task."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from smp.cli import (
  compare_simulators,
  evaluate,
  export,
  package_policy,
  play,
  sim2sim,
  train,
)
from smp.mdp.commands import ComponentCommand
from smp.mdp.symmetry import observation_mirror
from smp.paths import ROOT
from smp.tasks.registry import all_tasks, policy_path
from smp.viz.policy_viewer import Session
from tests import toy_task

TASK = toy_task.SPEC.id
slow = pytest.mark.slow


@dataclass
class Trained:
  """What a training of two iterations left."""

  checkpoint: Path
  policy: Path
  """The ONNX file."""


def call(main: Any, *words: object) -> None:
  """Run the main function of a script with these words."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", ["script", *map(str, words)])
    main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
  folder = tmp_path_factory.mktemp("toy")
  words = f"""{TASK} --learner ppo --env.scene.num-envs 4 --threads 1
    --agent.max-iterations 2 --agent.num-steps-per-env 4
    --agent.algorithm.num-mini-batches 2 --env.commands.smp.gsi-buffer-size 16
    --env.commands.command.height-range (0.5,0.8) --curriculum True
    --agent.logger tensorboard --log-root {folder}"""
  with toy_task.registered(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch.cuda, "device_count", lambda: 0)
    patch.setenv("WANDB_MODE", "disabled")
    call(train.main, *words.split())
    (run,) = folder.glob("toy_height_g1/*")
    yield Trained(run / "model_1.pt", run / "policy.onnx")


@slow
def test_it_is_trained_and_exported_on_the_way(trained: Trained):
  assert trained.checkpoint.is_file() and trained.policy.is_file()


@slow
def test_it_is_played_and_its_slider_moves_the_command(trained: Trained, monkeypatch):
  seen = []

  class Viewer:
    """Drives the viewer's slider, and looks at what the policy then sees."""

    def __init__(self, env: Any, policy: Any, **_: Any) -> None:
      self.env, self.policy = env, policy

    def run(self) -> None:
      term = self.env.unwrapped.command_manager.get_term("command")
      assert isinstance(term, ComponentCommand)
      handles = sliders_of(term)
      handles["Manual override"].value = True
      handles["Height (m)"].value = 0.65
      obs, *_ = self.env.step(self.policy(self.env.get_observations()))
      seen.append(obs["actor"][0, -1].item())
      assert observation_mirror(self.env.unwrapped, "actor").sign[-1] == 1.0

  monkeypatch.setattr(play, "PlottingViewer", Viewer)
  options = "--viewer viser --device cpu --threads 1"
  call(play.main, TASK, "--checkpoint-file", trained.checkpoint, *options.split())
  assert seen == pytest.approx([0.65])


def sliders_of(term: ComponentCommand) -> dict[str, Any]:
  """The viewer's controls for a command, by label."""
  handles: dict[str, Any] = {}

  def add(label: str, *_: Any, initial_value: Any, **__: Any) -> Any:
    handles[label] = SimpleNamespace(value=initial_value)
    return handles[label]

  gui: Any = SimpleNamespace(
    add_folder=lambda *_: contextlib.nullcontext(), add_checkbox=add, add_slider=add
  )
  server: Any = SimpleNamespace(gui=gui)
  term.create_gui("command", server, lambda: 0)
  return handles


@slow
def test_it_is_exported_and_runs_in_plain_mujoco(trained: Trained, tmp_path: Path):
  file, log = tmp_path / "toy.onnx", tmp_path / "log.npz"
  call(export.main, TASK, "--checkpoint-file", trained.checkpoint, "--output", file)
  call(sim2sim.main, file, "--height", 0.6, "--seconds", 0.2, "--log", log)
  np.testing.assert_allclose(np.load(log)["command"], 0.6)


@slow
def test_its_browser_page_has_its_slider(trained: Trained, monkeypatch):
  from smp.viz import policy_viewer

  found = []

  def serve(session: Session, title: str, host: str, port: int) -> None:
    command, spec = session.rollout.robot.command, session.rollout.robot.spec
    found.extend([title, command.values, [s.label for s in spec.command[0].sliders()]])

  monkeypatch.setattr(policy_viewer, "serve", serve)
  call(sim2sim.main, trained.policy, "--viewer", "viser", "--command", "height=0.7")
  assert found == [TASK, {"height": (0.7,)}, ["Height (m)"]]


@slow
def test_simulators_are_compared(trained: Trained, capsys):
  options = "--height 0.6 --seconds 0.2 --starts 1".split()
  call(compare_simulators.main, trained.policy, *options)
  assert "environment / plain MuJoCo" in capsys.readouterr().out


@slow
def test_it_is_evaluated_and_packaged(trained: Trained, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(evaluate, "SAMPLES", 32)
  options = "--num-envs 7 --seconds 1 --no-frames --device cpu --threads 1".split()
  file = "--checkpoint-file", trained.checkpoint, "--output-dir", tmp_path
  call(evaluate.main, TASK, *file, *options)
  result = json.loads((tmp_path / "evaluation.json").read_text())
  (policy,) = result["policies"]
  figures = {row["label"]: row["figures"] for row in policy["conditions"]}
  errors = [figures[label]["height_error"]["value"] for label in ("0.6 m", "0.7 m")]
  assert all(0.0 < error < 0.7 for error in errors)
  assert result["protocol"]["conditions"][0]["asked"] == {"height": 0.6}
  assert "height error" in capsys.readouterr().out
  assert policy_path(TASK).name == "height.pt"
  output = tmp_path / "height.pt"
  evaluation = "--evaluation", tmp_path / "evaluation.json"
  call(package_policy.main, trained.checkpoint, TASK, "--output", output, *evaluation)
  assert output.is_file() and "height error" in output.with_suffix(".md").read_text()


# No other file speaks of a task.

SOURCES = sorted(
  path
  for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py"))
  if path.parent.name != "tasks" or path.stem in ("__init__", "base", "registry")
)
COMMANDS = ("Speed", "Steering", "Location", "Velocity")


def code_of(path: Path) -> ast.Module:
  """A module without its documentation."""
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    for name in ("body", "orelse"):
      body = getattr(node, name, None)
      if isinstance(body, list):
        kept = [line for line in body if not _is_text(line)]
        setattr(node, name, kept)
  return tree


def _is_text(node: ast.stmt) -> bool:
  value = getattr(node, "value", None)
  return isinstance(node, ast.Expr) and isinstance(value, ast.Constant)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_file_names_a_task_or_asks_for_the_class_of_its_command(path: Path):
  ids = {spec.id for spec in all_tasks()}
  for node in ast.walk(code_of(path)):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      assert not any(task in node.value for task in ids), f"line {node.lineno}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
      asked = ast.unparse(node.args[1])
      kinds = rf"\b({'|'.join(COMMANDS)})Command(Cfg)?\b"
      assert not re.search(kinds, asked), f"line {node.lineno}: {asked}"


def test_the_rule_sees_what_it_forbids(tmp_path: Path):
  for line in ('x = "Smp-Forward-G1"', "isinstance(x, SpeedCommandCfg)"):
    file = tmp_path / "bad.py"
    file.write_text(f'"""Smp-Forward-G1 in words."""\n{line}\n')
    with pytest.raises(AssertionError, match="line 2"):
      test_no_other_file_names_a_task_or_asks_for_the_class_of_its_command(file)
