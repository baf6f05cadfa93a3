"""The script that checks a GPU: its commands are ones that the programs take."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import tyro

import smp.tasks  # noqa: F401
from smp.cli import benchmark, evaluate, train

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_gpu.sh"
CHECKPOINTS = ("td3/e/run/model_7.pt", "ppo/e/run/model_9.pt")


def run_with_stub(tmp_path: Path, *words: str, status: int = 0, **variables: str):
  """Run a copy of the script with a ``uv`` that only notes what it is asked.

  Returns:
    Its status, the commands, and the summary ("" if it wrote none).
  """
  script, out = tmp_path / "scripts" / SCRIPT.name, tmp_path / "out"
  script.parent.mkdir()
  shutil.copy(SCRIPT, script)
  stub, log = tmp_path / "uv", tmp_path / "log"
  log.touch()
  note = f'printf "%s " "$@" | tr "\\n" " " >> {shlex.quote(str(log))}'
  stub.write_text(
    f"#!/bin/sh\n{note}\necho >> {shlex.quote(str(log))}\nexit {status}\n"
  )
  stub.chmod(0o755)
  path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
  result = subprocess.run(
    ["sh", str(script), *words],
    env={**os.environ, "PATH": path, "OUT": str(out), "SMALL": "", **variables},
    capture_output=True,
  )
  summary = out / "summary.txt"
  text = summary.read_text() if summary.exists() else ""
  return result.returncode, log.read_text().splitlines(), text


def arguments_of(commands: list[str], script: str) -> list[list[str]]:
  start = f"run scripts/{script}.py "
  return [shlex.split(c)[2:] for c in commands if c.startswith(start)]


@pytest.fixture
def checkpoints(tmp_path):
  """What the trainings would leave."""
  for name in CHECKPOINTS:
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.touch()


@pytest.mark.parametrize("small", ["", "1"])
def test_every_command_is_one_that_its_program_takes(tmp_path, checkpoints, small):
  status, commands, summary = run_with_stub(tmp_path, "7.5", SMALL=small)
  assert status == 0 and "0 steps failed" in summary
  learners = []
  for task, *words in arguments_of(commands, "train"):
    config = train._parse(task, words, has_gpu=True)
    learners.append(config.learner)
    assert config.minutes == (0.05 if small else 7.5)
    assert config.env.scene.num_envs == (4 if small else 4096)
    assert config.log_root == str(tmp_path / "out" / config.learner)
  assert learners == ["td3", "ppo"]
  (words,) = arguments_of(commands, "benchmark")
  assert tyro.cli(benchmark.Options, args=words).envs == ((4,) if small else (4096,))
  files = []
  for _, *words in arguments_of(commands, "evaluate"):
    args = tyro.cli(evaluate.EvaluateArgs, args=words)
    files.append(args.checkpoint_file)
    assert args.output_dir is not None and args.output_dir.parent == tmp_path / "out"
    assert (args.seconds is None) == (not small)
  assert files == [tmp_path / "out" / name for name in CHECKPOINTS]
  (tests,) = (shlex.split(c) for c in commands if c.startswith("run pytest "))
  files = [word for word in tests if word.endswith(".py")]
  assert files and all((SCRIPT.parents[1] / name).is_file() for name in files)


def test_what_fails_is_said_and_the_rest_goes_on(tmp_path, checkpoints):
  status, commands, summary = run_with_stub(tmp_path, status=3, SMALL="1")
  assert status == 1 and "7 steps failed" in summary
  assert summary.count("FAILED") == 7 and "status 3" in summary
  assert len(commands) == 7


def test_a_training_without_checkpoint_is_not_evaluated(tmp_path):
  status, commands, summary = run_with_stub(tmp_path, SMALL="1")
  assert status == 1 and not arguments_of(commands, "evaluate")
  assert "FAILED: evaluation_td3, its training left no checkpoint" in summary


def test_without_a_gpu_nothing_begins(tmp_path):
  status, commands, summary = run_with_stub(tmp_path, status=1)
  assert status == 2 and len(commands) == 1 and not summary


@pytest.mark.parametrize("words", [["0"], ["-1"], ["1.2.3"], ["x"], ["1", "2"]])
def test_minutes_that_are_none_are_refused(tmp_path, words):
  status, commands, _ = run_with_stub(tmp_path, *words)
  assert status == 2 and not commands
