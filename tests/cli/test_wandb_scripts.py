"""What people type to put policies and priors on W&B, and to take them from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from mjlab.tasks.registry import list_tasks

from smp import paths
from smp.cli import evaluate, play, train, upload
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.errors import run
from smp.motion.features import g1_spec
from smp.rl.policy_file import read_policy, save_policy
from tests import toy_training
from tests.wandb_server import Store, kept_artifacts, log_in, nobody_listens, serve

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
  """A prior that fits the robot."""
  spec = g1_spec()
  size = sum(spec.feature_dims)
  denoiser = Denoiser(feature_dim=size, window=10, d_model=8, nhead=2, num_layers=1)
  path = tmp_path_factory.mktemp("prior") / "walk.safetensors"
  made = MotionPrior(denoiser, -torch.ones(size), torch.ones(size), spec, 50)
  made.info = {"licence": "none"}
  made.save(path)
  return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
  """A checkpoint of a training that was short."""
  folder = tmp_path_factory.mktemp("run")
  runner = toy_training.make_runner(None)
  runner.current_learning_iteration = 6
  runner.save(str(folder / "model_6.pt"))
  return folder / "model_6.pt"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
  """Without a login and without a GPU, in an empty folder."""
  wandb.teardown()  # It keeps what it once saw of the environment.
  log_in(monkeypatch, tmp_path / "client")
  monkeypatch.setenv("WANDB_API_KEY", "")
  monkeypatch.setenv("WANDB_SILENT", "true")
  monkeypatch.setenv("NETRC", str(tmp_path / "none"))
  monkeypatch.delenv("WANDB_MODE", raising=False)
  monkeypatch.delenv("WANDB_DIR", raising=False)
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  yield
  wandb.teardown()
  # `choose_wandb_mode` sets these where they are missing.
  for name in ("WANDB_MODE", "WANDB_DIR"):
    os.environ.pop(name, None)


@pytest.fixture
def server(offline, monkeypatch, tmp_path, prior, checkpoint) -> Iterator[Store]:
  """A login, and a server that has a run, a prior, and what is no prior."""
  store = Store(
    runs={"org/proj/run1": {"model_6.pt": checkpoint.read_bytes(), "model_2.pt": b""}},
    artifacts={
      "org/proj/walk:v3": {"walk.safetensors": prior.read_bytes()},
      "org/proj/bad:v0": {"bad.safetensors": b"no prior"},
    },
  )
  log_in(monkeypatch, tmp_path / "client")
  with serve(store) as url:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    yield store


class Script:
  """Runs the main of a script as the script does."""

  def __init__(self, monkeypatch, capsys):
    self._patch, self._capsys = monkeypatch, capsys

  def __call__(
    self, main: Callable[[], object], *words: object
  ) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    self._patch.setattr(sys, "argv", ["script", *map(str, words)])
    with pytest.raises(SystemExit) as end:
      run(main)
    said = self._capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err

  def refused(self, main: Callable[[], object], *words: object) -> str:
    """The one line of a script that cannot do it."""
    code, _, errors = self(main, *words)
    assert code == 2, errors
    (line,) = errors.strip().splitlines()
    return line


@pytest.fixture
def script(monkeypatch, capsys) -> Script:
  return Script(monkeypatch, capsys)


# scripts/upload.py.


def test_a_prior_is_uploaded_with_its_description(script, prior, tmp_path):
  code, out, errors = script(
    upload.main, prior, "--project", "mine", "--log-dir", "logs"
  )
  assert (code, errors) == (0, "") and "artifact walk in project mine" in out
  assert "wandb sync logs/wandb" in out
  (kept,) = kept_artifacts(Path("logs"))
  assert (kept.name, kept.type, kept.project) == ("walk", "prior", "mine")
  metadata = json.loads(kept.metadata)
  assert metadata["licence"] == "none"
  assert metadata["spec"] == json.loads(json.dumps(g1_spec().to_dict()))


def test_a_policy_is_uploaded_with_its_card(script, checkpoint, tmp_path):
  policy = tmp_path / "forward.pt"
  card = save_policy(checkpoint, policy, TASK)
  code, _, errors = script(upload.main, policy)
  assert code == 0, errors
  (kept,) = kept_artifacts(Path("logs"))
  assert (kept.name, kept.type, kept.project) == ("forward", "policy", "smp")
  assert json.loads(kept.metadata) == card


def test_what_is_not_uploaded(script, prior, checkpoint, tmp_path):
  def line(name: str, content: bytes | None, *words: str) -> str:
    path = tmp_path / name
    if content is not None:
      path.write_bytes(content)
    said = script.refused(upload.main, path, *words)
    assert words or name in said
    return said

  good = prior.read_bytes()
  assert "no such file" in line("gone.safetensors", None)
  assert "no such policy" in line("gone.pt", None)
  assert "not a safetensors file" in line("cut.safetensors", good[:2000])
  assert "not a readable policy" in line("cut.pt", checkpoint.read_bytes()[:2000])
  assert "package_policy.py" in line("model_6.pt", checkpoint.read_bytes())
  assert "give a prior (.safetensors) or a policy (.pt)" in line("walk.onnx", good)
  assert "rename the file" in line("my walk.safetensors", good)
  assert "project 'a/b'" in line("walk.safetensors", good, "--project", "a/b")
  assert not kept_artifacts(Path("logs"))


def test_an_upload_without_a_network(script, prior, monkeypatch):
  url = nobody_listens()
  monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
  monkeypatch.setenv("WANDB_BASE_URL", url)
  monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
  line = script.refused(upload.main, prior)
  assert f"upload of {prior}: no connection to {url}" in line


def test_the_upload_script_itself(prior):
  """In a process of its own, as people run it."""
  command = [sys.executable, paths.ROOT / "scripts" / "upload.py", str(prior)]
  # Not with the part of the client that runs beside this process.
  env = {name: value for name, value in os.environ.items() if "SERVICE" not in name}
  done = subprocess.run(command, capture_output=True, text=True, env=env)
  assert done.returncode == 0, done.stderr
  assert [kept.name for kept in kept_artifacts(Path("logs"))] == ["walk"]


# scripts/train.py.


@pytest.fixture
def training(monkeypatch, checkpoint) -> list[Any]:
  """Training that saves a checkpoint at once; the configurations it was given.

  Beside it others of the same task begin, before and after.
  """
  given = []

  def launch(task: str, config: Any) -> None:
    given.append(config)
    experiment = Path(config.log_root) / config.agent.experiment_name
    now = datetime.now()
    for late in (0, -60, 3600):
      name = (now + timedelta(seconds=late)).strftime("%Y-%m-%d_%H-%M-%S")
      (experiment / f"{name}_a").mkdir(parents=True)
      (experiment / f"{name}_other").mkdir()
      if not late:
        (experiment / f"{name}_a" / "model_6.pt").write_bytes(checkpoint.read_bytes())

  monkeypatch.setattr(train, "launch_training", launch)
  return given


def another_task() -> str:
  """One of mjlab's own."""
  return next(task for task in list_tasks() if not task.startswith("Smp-"))


def config_of(root: Path) -> train.TrainArgs:
  config = train.default_config(TASK, has_gpu=False)
  config.agent.wandb_project = "mine"
  return replace(config, log_root=str(root))


def test_a_policy_is_made_of_the_run_and_uploaded(checkpoint, tmp_path):
  """Of this run, though another has the same beginning of a name, and a later one."""
  experiment = tmp_path / "smp_forward_g1"
  runs = [experiment / f"2026-01-02_03-04-05{end}" for end in ("", "_b")]
  for folder in runs:
    folder.mkdir(parents=True)
    (folder / "model_6.pt").write_bytes(checkpoint.read_bytes())
  newer = torch.load(checkpoint, weights_only=True)
  newer["iter"] = 9
  torch.save(newer, runs[1] / "model_9.pt")
  train.upload_policy(TASK, config_of(tmp_path), runs[0])
  policy = read_policy(runs[0] / "forward.pt")
  assert policy["card"]["iteration"] == 6 and policy["card"]["task"] == TASK
  (kept,) = kept_artifacts(runs[0])
  assert (kept.name, kept.type, kept.project) == ("forward", "policy", "mine")
  assert json.loads(kept.metadata) == policy["card"]
  assert not (runs[1] / "forward.pt").exists()


def test_a_damaged_checkpoint_is_not_uploaded(checkpoint, tmp_path):
  folder = tmp_path / "smp_forward_g1" / "run"
  folder.mkdir(parents=True)
  (folder / "model_6.pt").write_bytes(checkpoint.read_bytes()[:3000])
  with pytest.raises(train.UserError, match="model_6.pt: not a readable checkpoint"):
    train.upload_policy(TASK, config_of(tmp_path), folder)
  assert [path.name for path in folder.iterdir()] == ["model_6.pt"]


@pytest.mark.parametrize("asked", [False, True])
def test_training_uploads_its_policy_if_asked(script, training, tmp_path, asked):
  """And not that of another training, whenever it began."""
  words = [TASK, "--log-root", tmp_path / "logs", "--upload-policy", asked]
  code, _, errors = script(train.main, *words, "--agent.run-name", "a")
  assert (code, errors) == (0, "") and len(training) == 1
  experiment = tmp_path / "logs" / "smp_forward_g1"
  found = sorted(experiment.rglob("forward.pt"))
  runs = [path.parent for path in experiment.glob("*/model_6.pt")]
  assert [path.parent for path in found] == runs * asked
  kept = [a.name for folder in experiment.iterdir() for a in kept_artifacts(folder)]
  assert kept == ["forward"] * asked


def test_whose_run_it_is(tmp_path):
  experiment = tmp_path / "smp_forward_g1"
  config = config_of(tmp_path)
  noon = datetime(2026, 1, 2, 12)
  with pytest.raises(train.UserError, match="no run since 12:00:00"):
    train.own_run(config, noon)
  for name in ("11-59-59", "12-00-01", "12-00-00_a", "13-00-00", "12-00-02_ab"):
    (experiment / f"2026-01-02_{name}").mkdir(parents=True)
  (experiment / "2026-01-02_12-00-00").touch()  # No folder.
  (experiment / "wandb_checkpoints").mkdir()
  assert train.own_run(config, noon).name == "2026-01-02_12-00-01"
  config.agent.run_name = "a"
  assert train.own_run(config, noon).name == "2026-01-02_12-00-00_a"
  config.agent.run_name = "c"
  with pytest.raises(train.UserError):
    train.own_run(config, noon)


def test_what_could_not_be_uploaded_is_refused_before_training(
  script, training, tmp_path
):
  words = ["--log-root", tmp_path, "--upload-policy", "True"]
  line = script.refused(train.main, TASK, *words, "--agent.wandb-project", "a/b")
  assert "project 'a/b'" in line
  line = script.refused(train.main, another_task(), *words)
  assert f"{another_task()} is no task of this project" in line
  assert not training


def test_training_under_a_prior_of_wandb(script, training, server, prior, tmp_path):
  words = [TASK, "--log-root", tmp_path, "--wandb-prior"]
  assert script(train.main, *words, "org/proj/walk")[0] == 0
  (config,) = training
  used = Path(config.env.commands["smp"].prior)
  assert used.is_absolute() and used.read_bytes() == prior.read_bytes()
  assert used == Path("logs/wandb_priors/walk-v3/walk.safetensors").resolve()


def test_priors_that_wandb_does_not_give(
  script, training, server, monkeypatch, tmp_path
):
  words = [TASK, "--log-root", tmp_path, "--wandb-prior"]
  assert "expected ORG/PROJECT/ARTIFACT" in script.refused(train.main, *words, "walk")
  gone = script.refused(train.main, *words, "org/proj/gone")
  assert "--wandb-prior org/proj/gone: W&B refused" in gone
  line = script.refused(train.main, another_task(), *words[1:], "org/proj/walk")
  assert "--wandb-prior org/proj/walk: this task has no prior" in line
  monkeypatch.setenv("WANDB_BASE_URL", nobody_listens())
  assert "no connection" in script.refused(train.main, *words, "org/proj/walk")
  monkeypatch.setenv("WANDB_API_KEY", "")
  monkeypatch.setenv("WANDB_SILENT", "true")
  assert "wandb login" in script.refused(train.main, *words, "org/proj/walk")
  assert not training and not Path("logs").exists()


# scripts/evaluate.py and scripts/play.py.


def test_evaluation_of_a_run_of_wandb(script, server, monkeypatch, tmp_path):
  """Up to the work: which policy is it, and where do the results go?"""
  asked = []

  def stop(task: str, args: evaluate.EvaluateArgs) -> None:
    asked.append(
      (evaluate.find_policies(task, args)[0], evaluate.output_dir(task, args))
    )
    raise KeyboardInterrupt

  monkeypatch.setattr(evaluate, "load_data", stop)
  words = [TASK, "--log-root", "kept", "--wandb-run-path", "org/proj/run1"]
  assert script(evaluate.main, *words)[0] == 130
  ((policy, output),) = asked
  folder = Path("kept/smp_forward_g1/wandb_checkpoints/run1").resolve()
  assert policy.file == folder / "model_6.pt" and policy.name == "run1/model_6"
  assert policy.means["iteration"] == 6
  assert output == folder / "evaluation_model_6"
  # Another time it is there.
  monkeypatch.setattr(server, "get", lambda path: None)
  code, out, _ = script(evaluate.main, *words)
  assert code == 130 and "model_6.pt (cached)" in out and len(asked) == 2


@pytest.mark.parametrize("main", [evaluate.main, play.main])
def test_runs_that_wandb_does_not_give(main, script, server, monkeypatch):
  words = [TASK, "--wandb-run-path"]
  name = ["--wandb-checkpoint-name", "model_7.pt"]
  assert "org/proj/gone" in script.refused(main, *words, "org/proj/gone")
  assert "expected ORG/PROJECT/RUN" in script.refused(main, *words, "run1")
  line = script.refused(main, *words, "org/proj/run1", *name)
  assert "no checkpoint model_7.pt" in line and "model_6.pt" in line
  both = script.refused(main, *words, "org/proj/run1", "--checkpoint-file", "a.pt")
  assert "give one of them" in both
  assert "of which run?" in script.refused(main, TASK, *name)
  monkeypatch.setenv("WANDB_BASE_URL", nobody_listens())
  assert "no connection" in script.refused(main, *words, "org/proj/run1")
  monkeypatch.setenv("WANDB_API_KEY", "")
  monkeypatch.setenv("WANDB_SILENT", "true")
  assert "wandb login" in script.refused(main, *words, "org/proj/run1")
  assert not list(Path().rglob("*.pt"))
