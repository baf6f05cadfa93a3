"""The script that trains every task: its commands are ones that train.py takes."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mjlab.tasks.registry import list_tasks

import smp.tasks  # noqa: F401
from smp.cli import train

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_policies.sh"


def run_with_stub(tmp_path: Path, *options: str, status: int = 0, resume: str = ""):
  """Run a copy of the script with a ``uv`` that only notes what it is asked."""
  script = tmp_path / "scripts" / SCRIPT.name
  script.parent.mkdir(exist_ok=True)
  shutil.copy(SCRIPT, script)
  stub, log = tmp_path / "uv", tmp_path / "log"
  # Which tasks there are it has to find out; that is no training. It asks once for all.
  known = shlex.quote(str(tmp_path.parent / "tasks"))
  ask = f'{sys.executable} "$@" > {known}.new && mv {known}.new {known} || exit 1'
  stub.write_text(
    "#!/bin/sh\n"
    f'case "$*" in "run python "*) shift 2; [ -f {known} ] || {{ {ask}; }}\n'
    f"exec cat {known} ;; esac\n"
    f'printf "%s\\n" "$*" >> {shlex.quote(str(log))}\nexit {status}\n'
  )
  stub.chmod(0o755)
  path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
  result = subprocess.run(
    ["sh", str(script), *options],
    env={**os.environ, "PATH": path, "RESUME": resume},
    capture_output=True,
  )
  return result.returncode, log.read_text().splitlines()


def test_every_task_is_trained_with_options_that_exist(tmp_path):
  options = ["--env.scene.num-envs", "8", "--agent.max-iterations", "3"]
  status, commands = run_with_stub(tmp_path, *options)
  assert status == 0
  tasks = []
  for command in commands:
    run, script, task, *arguments = shlex.split(command)
    assert (run, script) == ("run", "scripts/train.py")
    config = train._parse(task, arguments, has_gpu=True)
    assert config.env.scene.num_envs == 8
    assert config.agent.max_iterations == 3 and config.agent.save_interval == 100
    tasks.append(task)
  assert sorted(tasks) == sorted(t for t in list_tasks() if t.startswith("Smp-"))


def test_a_training_that_fails_ends_the_script(tmp_path):
  status, commands = run_with_stub(tmp_path, status=2)
  assert status == 2 and len(commands) == 1


def test_only_what_has_a_checkpoint_is_resumed(tmp_path):
  run = tmp_path / "logs" / "rsl_rl" / "smp_getup_g1" / "2026-01-01"
  run.mkdir(parents=True)
  (run / "model_100.pt").write_bytes(b"x")
  _, fresh = run_with_stub(tmp_path)
  assert not any("resume" in command for command in fresh)
  _, commands = run_with_stub(tmp_path, resume="1")
  resumed = [shlex.split(c)[2] for c in commands[4:] if "--agent.resume True" in c]
  assert resumed == ["Smp-Getup-G1"]
