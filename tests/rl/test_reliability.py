"""What is left when training is killed, or its disk is full."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from smp.errors import UserError
from smp.rl.checkpoint import newest_checkpoint, read_checkpoint
from smp.rl.off_policy import REPLAY_FILE
from smp.utils.files import atomic_path, check_folder, remove_leftovers
from tests import toy_training

pytestmark = pytest.mark.slow
KILLS = 10
LEARNERS = ["ppo", "td3"]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
  """Forks of a process that has imported what takes long."""
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.toy_training"])
  return context


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "nothing happened"
    time.sleep(0.001)


@pytest.mark.parametrize("learner", LEARNERS)
def test_training_killed_in_the_middle_of_saving_goes_on(processes, tmp_path, learner):
  """Ten SIGKILLs, most of them while a checkpoint is being written."""
  chance = random.Random(0)
  caught, last = 0, -1
  for kill in range(KILLS):
    name = f"run_{kill:02d}"
    folder = tmp_path / name
    arguments = (tmp_path, name, learner)
    process = processes.Process(target=toy_training.train, args=arguments)
    process.start()
    wait_for(lambda folder=folder: folder.is_dir() and any(folder.glob("model_*.pt")))
    wait_for(lambda folder=folder: any(folder.glob(".model_*")))
    time.sleep(chance.uniform(0.0, 0.05))
    process.kill()
    process.join()
    caught += any(folder.glob(".model_*"))

    saved = sorted(
      read_checkpoint(path, "cpu")["iter"] for path in folder.glob("model_*.pt")
    )
    # It went on where the one before it was when it saved last, and left no gap.
    assert saved == list(range(last + 1, last + 1 + len(saved)))
    newest = newest_checkpoint(tmp_path)
    assert newest == folder / f"model_{saved[-1]}.pt"
    assert not any(folder.glob(".model_*"))
    check_counters(newest)
    last = saved[-1]
  print(f"{caught} of {KILLS} kills left a file half-written")
  assert caught >= KILLS // 2


def check_counters(path: Path) -> None:
  """All that counts in a checkpoint counted the same iterations."""
  saved = read_checkpoint(path, "cpu")
  steps = (saved["iter"] + 1) * toy_training.STEPS
  assert saved["infos"]["env_state"]["common_step_counter"] == steps
  windows = steps * toy_training.ENVS
  assert saved["infos"]["progress"]["total_steps"] == windows
  assert saved["infos"]["smp"]["count"].item() == windows


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_polite_kill_saves_and_ends(processes, tmp_path, learner):
  """SIGTERM, sent at any moment: the last checkpoint goes on from where it was."""
  arguments = (tmp_path, "run_0", learner)
  process = processes.Process(target=toy_training.train, args=arguments)
  process.start()
  wait_for(lambda: any(tmp_path.glob("run_0/model_*.pt")))
  process.terminate()
  process.join(60)
  output = (tmp_path / "run_0.txt").read_text()
  assert process.exitcode == 0, output[-2000:]
  newest = newest_checkpoint(tmp_path)
  assert f"Interrupted. Saved {newest}" in output and "Traceback" not in output
  assert read_checkpoint(newest, "cpu").get("learner") == learner
  assert not list((tmp_path / "run_0").glob(".model_*"))


@pytest.mark.parametrize("learner", LEARNERS)
def test_full_disk_stops_training_and_spares_the_last_checkpoint(
  processes, tmp_path, learner
):
  """The system refuses to write more than the first megabyte of a file."""
  arguments = (tmp_path, "run_0", learner)
  process = processes.Process(target=toy_training.train, args=arguments)
  process.start()
  wait_for(lambda: any(tmp_path.glob("run_0/model_*.pt")))
  process.kill()
  process.join()
  arguments = (tmp_path, "run_1", learner, 2**20)
  process = processes.Process(target=toy_training.train, args=arguments)
  process.start()
  process.join(60)
  assert process.exitcode == 2
  errors = [
    line
    for line in (tmp_path / "run_1.txt").read_text().splitlines()
    if "error" in line.lower() or "Traceback" in line
  ]
  assert len(errors) == 1
  assert "too large" in errors[0] and "free some space" in errors[0]
  assert not list((tmp_path / "run_1").glob("*model*"))
  assert newest_checkpoint(tmp_path).parent.name == "run_0"


SMALL = {
  "ppo": "--agent.algorithm.num-mini-batches 2",
  "td3": "--agent.algorithm.batch-size 8 --agent.replay-steps 50 "
  "--agent.learning-starts 1 --agent.refill-steps 5 --agent.save-replay True",
}


@pytest.mark.parametrize(
  ("learner", "killed"), [("ppo", True), ("td3", True), ("td3", False)]
)
def test_training_of_robots_ended_and_resumed(processes, tmp_path, learner, killed):
  """The real thing: the command line, physics, and the prior.

  Some are killed, one is ended by SIGTERM, which acts as Ctrl-C does.
  """
  words = f"""Smp-Forward-G1 --learner {learner} {SMALL[learner]}
    --env.scene.num-envs 4 --agent.num-steps-per-env 4 --agent.save-interval 1
    --threads 1 --engine native --env.commands.smp.gsi-buffer-size 16
    --agent.logger tensorboard --log-root {tmp_path} --agent.resume""".split()
  runs = tmp_path / "smp_forward_g1"
  target = toy_training.train_robots

  first = [*words, "False", "--agent.run-name", "a"]
  process = processes.Process(target=target, args=(first, tmp_path / "a.txt"))
  process.start()
  wait_for(lambda: any(runs.glob("*_a/model_1.pt")))
  (process.kill if killed else process.terminate)()
  process.join(60)
  assert process.exitcode == (-9 if killed else 0)
  newest = newest_checkpoint(runs)
  before = read_checkpoint(newest, "cpu")
  assert (newest.parent / REPLAY_FILE).is_file() == (not killed)
  # A run that was killed before its first checkpoint, and what it left behind.
  empty = runs / "9999-12-31_23-59-59"
  empty.mkdir()
  (empty / ".model_0.0abcdefg.tmp.pt").write_bytes(b"half")

  then = [*words, "True", "--agent.run-name", "b", "--agent.max-iterations", "2"]
  process = processes.Process(target=target, args=(then, tmp_path / "b.txt"))
  process.start()
  process.join(100)
  output = (tmp_path / "b.txt").read_text()
  assert process.exitcode == 0, output[-2000:]
  assert f"Loading model checkpoint from: {newest}" in output
  assert not list(empty.iterdir())
  loaded = re.findall(r"Replay buffer of (\d+) steps", output)
  assert len(loaded) == (not killed)
  if loaded:
    # It holds the last 50 steps; that which was interrupted may count or not.
    done = before["infos"]["env_state"]["common_step_counter"]
    assert int(loaded[0]) in {min(50, done), min(50, done - 1)}
  elif learner == "td3":
    assert "steps per environment, which fill the replay buffer" in output
  saved = [read_checkpoint(path, "cpu") for path in sorted(runs.glob("*_b/model_*.pt"))]
  assert [part["iter"] - before["iter"] for part in saved] == [1, 2]
  for part in saved:
    later = 4 * (part["iter"] - before["iter"])
    for name, per_step in (("env_state", 1), ("progress", 4)):
      old, new = (next(iter(p["infos"][name].values())) for p in (before, part))
      assert new - old == later * per_step
    # The off-policy learner's scale is the prior's own, and counts nothing.
    counted = 4 * later if learner == "ppo" else 0
    count = before["infos"]["smp"]["count"] + counted
    assert part["infos"]["smp"]["count"] == count


def test_a_writers_file_is_no_leftover(tmp_path):
  """What is being written stays; what a dead writer left goes."""
  dead = tmp_path / ".model_3.0abcdefg.tmp.pt"
  other = tmp_path / ".model_3.notes"
  for path in (dead, other):
    path.write_bytes(b"half")
  with atomic_path(tmp_path / "model_4.pt") as temporary:
    assert not dead.exists()
    assert temporary.exists()
    temporary.write_bytes(b"whole")
    assert remove_leftovers(tmp_path) == []
    assert temporary.exists()
  assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, "model_4.pt"]


def test_damaged_checkpoints_are_passed_over(tmp_path, capsys):
  for name in ("run_0", "run_1", "run_2"):
    (tmp_path / name).mkdir()
  toy = toy_training.make_runner(None)
  good = tmp_path / "run_0" / "model_9.pt"
  toy.save(str(good))
  whole = bytearray(good.read_bytes())
  (tmp_path / "run_1" / "model_20.pt").write_bytes(whole[: len(whole) // 2])
  whole[len(whole) // 2] ^= 1  # A number in the middle of a tensor.
  (tmp_path / "run_1" / "model_100.pt").write_bytes(whole)
  assert newest_checkpoint(tmp_path) == good
  warnings = capsys.readouterr().out
  assert "model_20.pt" in warnings and "model_100.pt" in warnings
  with pytest.raises(UserError, match="model_20.pt: not a readable"):
    newest_checkpoint(tmp_path, run="run_1", name="model_20")
  with pytest.raises(UserError, match="run_2"):
    newest_checkpoint(tmp_path, run="run_2")
  with pytest.raises(UserError, match="regular expression"):
    newest_checkpoint(tmp_path, run="[")


def test_checkpoints_are_ordered_by_number_not_by_letters(tmp_path):
  (tmp_path / "run").mkdir()
  toy = toy_training.make_runner(None)
  for number in (999, 1000):
    toy.save(str(tmp_path / "run" / f"model_{number}.pt"))
  assert newest_checkpoint(tmp_path).name == "model_1000.pt"


def test_a_read_only_folder_is_one_line(tmp_path):
  blocked = tmp_path / "file"
  blocked.touch()
  with pytest.raises(UserError, match="cannot write here"):
    check_folder(blocked / "logs")
  readonly = tmp_path / "readonly"
  readonly.mkdir(mode=0o500)
  if os.access(readonly, os.W_OK):
    pytest.skip("the superuser may write anywhere")
  with pytest.raises(UserError, match="Permission denied"):
    check_folder(readonly)
