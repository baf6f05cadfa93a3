"""Training: it learns, continues exactly, stops politely, and says what it did."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smp import errors
from smp.cli import pretrain as cli
from smp.diffusion import trainer
from smp.diffusion.prior import MotionPrior
from smp.diffusion.reference_errors import measure_reference
from smp.diffusion.trainer import (
  Evaluation,
  Interrupted,
  PretrainCfg,
  StopSignal,
  TrainData,
  Trainer,
  learning_rate,
  pretrain,
)
from smp.diffusion.training_state import read_state
from smp.errors import UserError
from smp.motion.dataset import NormStats, save_stats, save_windows
from smp.motion.features import g1_spec
from smp.utils.config import load_config
from smp.utils.tensor_files import load_tensors, save_tensors
from tests.references import remove_noise
from tests.wandb_server import kept_artifacts

ROOT = Path(__file__).resolve().parents[2]
FEATURES = 59


def _windows(n: int, seed: int) -> Tensor:
  """Smooth made-up motion: a few sinusoids with a random phase and speed."""
  generator = torch.Generator().manual_seed(seed)
  phase = 6.3 * torch.rand(n, 1, 1, generator=generator)
  rate = 0.2 + 0.3 * torch.rand(n, 1, 1, generator=generator)
  time_ = torch.arange(10.0).view(1, 10, 1)
  return torch.sin(phase + rate * time_ + torch.arange(float(FEATURES)))


@pytest.fixture
def data() -> TrainData:
  return TrainData(
    train=_windows(200, 0),
    val=_windows(60, 1),
    q_low=-torch.ones(FEATURES),
    q_high=torch.ones(FEATURES),
    spec=g1_spec(),
    description=[{"clip": "made_up", "split": "train"}],
  )


@pytest.fixture
def cfg(tmp_path: Path) -> PretrainCfg:
  return PretrainCfg(
    output=tmp_path / "prior.safetensors",
    run_dir=tmp_path / "run",
    steps=20,
    batch_size=8,
    draws=2,
    d_model=16,
    num_layers=1,
    eval_interval=10,
    log_interval=5,
    device="cpu",
  )


class _StopAt(StopSignal):
  """Requests a stop before the given number of steps is exceeded."""

  def __init__(self, steps: int):
    self.left = steps

  @property
  def requested(self) -> bool:  # type: ignore[override]
    self.left -= 1
    return self.left < 0


class _Record:
  def __init__(self) -> None:
    self.values: list[dict[str, float]] = []

  def log(self, step: int, values) -> None:
    self.values.append({"step": step, **values})

  def close(self) -> None:
    pass


def _weights(path: Path) -> dict[str, Tensor]:
  return MotionPrior.load(path).state_dict()


# Learning.


def test_training_lowers_the_held_out_loss_and_error(data: TrainData, cfg: PretrainCfg):
  cfg = replace(cfg, steps=160, batch_size=32, learning_rate=3e-3, eval_interval=80)
  cfg = replace(cfg, d_model=64, warmup_steps=20)
  trainer = pretrain(data, cfg)
  before = Trainer(data, cfg).evaluate(1.0)
  history = trainer.history
  assert history["step"] == [80.0, 160.0]
  assert before["val_loss"] == pytest.approx(math.sqrt(2.0 / math.pi), rel=0.2)
  assert history["val_loss"][-1] < 0.6 * before["val_loss"]
  assert history["val_error"][-1] < 0.5 * before["val_error"]
  assert history["loss"][-1] < history["loss"][0]


def test_evaluation_uses_the_same_noise_every_time(data: TrainData, cfg: PretrainCfg):
  prior = Trainer(data, cfg).prior()
  first = Evaluation(data.val, 40, 50)
  torch.randn(3)
  again = Evaluation(data.val, 40, 50)
  assert first.run(prior) == first.run(prior) == again.run(prior)


def test_evaluation_does_not_disturb_training(data: TrainData, cfg: PretrainCfg):
  often = replace(cfg, eval_interval=3)
  rare = replace(cfg, eval_interval=20, output=cfg.output.with_name("b.safetensors"))
  rare = replace(rare, run_dir=cfg.folder() / "b")
  one, two = pretrain(data, often), pretrain(data, rare)
  for name, value in one.denoiser.state_dict().items():
    assert torch.equal(value, two.denoiser.state_dict()[name]), name


def test_draws_share_windows_but_not_noise(data: TrainData, cfg: PretrainCfg):
  trainer = Trainer(data, replace(cfg, batch_size=5, draws=3))
  x, t, eps, _ = trainer._draw_batch()
  clean = remove_noise(trainer.noise_schedule, x, eps, t).view(3, 5, 10, FEATURES)
  reachable = (t < 40).view(3, 5).all(0)
  torch.testing.assert_close(
    clean[0, reachable], clean[1, reachable], atol=1e-3, rtol=1e-3
  )
  assert len(t.unique()) > 5
  assert not torch.equal(eps[0], eps[5])
  assert eps.std().item() == pytest.approx(1.0, abs=0.05)


def test_timesteps_are_uniform(data: TrainData, cfg: PretrainCfg):
  trainer = Trainer(data, replace(cfg, batch_size=1000, draws=10))
  counts = torch.bincount(trainer._draw_batch()[1], minlength=50)
  assert len(counts) == 50
  assert counts.min() > 120 and counts.max() < 290


def test_running_average_becomes_the_prior(data: TrainData, cfg: PretrainCfg):
  cfg = replace(cfg, ema_decay=0.9, learning_rate=1e-2)
  trainer = Trainer(data, cfg)
  start = trainer.ema.proj_in.weight.clone()
  trainer.train_step()
  decay = min(0.9, 1.0 / 10.0)
  expected = decay * start + (1.0 - decay) * trainer.denoiser.proj_in.weight
  torch.testing.assert_close(trainer.ema.proj_in.weight, expected.detach())
  for _ in range(5):
    trainer.train_step()
  prior = trainer.prior().network().proj_in.weight
  assert torch.equal(prior, trainer.ema.proj_in.weight)
  assert not torch.equal(prior, trainer.denoiser.proj_in.weight)


def test_learning_rate_warms_up_and_falls():
  cfg = PretrainCfg(steps=100, warmup_steps=10, schedule="cosine", learning_rate=1.0)
  rates = [learning_rate(cfg, step) for step in range(100)]
  assert 0.0 < rates[0] < 0.2
  assert np.argmax(rates) == 10 and rates[10] == pytest.approx(1.0)
  assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[10:]) < 0).all()
  assert rates[-1] < 0.01
  assert learning_rate(replace(cfg, schedule="constant"), 99) == 1.0


def test_bfloat16_trains_to_about_the_same(data: TrainData, cfg: PretrainCfg):
  losses = []
  for precision in ("float32", "bf16"):
    trainer = Trainer(data, replace(cfg, precision=precision))
    for _ in range(10):
      trainer.train_step()
    losses.append(trainer.take_loss())
    assert trainer.denoiser.proj_in.weight.dtype == torch.float32
  assert losses[0] == pytest.approx(losses[1], rel=0.02)
  assert losses[0] != losses[1]


# Files.


def test_best_and_last_weights_are_kept(data: TrainData, cfg: PretrainCfg):
  # Training that diverges after the first evaluation: the best is not the last.
  trainer = pretrain(data, replace(cfg, steps=10))
  trainer.cfg = replace(cfg, learning_rate=0.3)
  for _ in range(10):
    trainer.train_step()
  trainer.evaluate(trainer.take_loss())
  trainer.save()
  assert trainer.history["val_loss"][1] > trainer.history["val_loss"][0]
  best = MotionPrior.load(cfg.output)
  last = MotionPrior.load(cfg.folder() / "last.safetensors")
  assert best.info["step"] == 10 and last.info["step"] == 20
  assert not torch.equal(best.network().proj_in.weight, last.network().proj_in.weight)
  torch.testing.assert_close(
    last.network().proj_in.weight, trainer.denoiser.proj_in.weight.detach()
  )


def test_the_last_weights_can_be_asked_for(data: TrainData, cfg: PretrainCfg):
  trainer = pretrain(data, replace(cfg, steps=10, keep="last"))
  trainer.cfg = replace(trainer.cfg, learning_rate=0.3)
  for _ in range(10):
    trainer.train_step()
  trainer.evaluate(trainer.take_loss())
  assert trainer.history["val_loss"][1] > trainer.history["val_loss"][0]
  assert trainer.best["step"] == 20


def test_without_held_out_clips_the_last_weights_win(data: TrainData, cfg: PretrainCfg):
  trainer = pretrain(replace(data, val=data.val[:0]), cfg)
  assert trainer.best["step"] == 20
  assert "val_loss" not in trainer.history


def test_the_prior_says_where_it_comes_from(data: TrainData, cfg: PretrainCfg):
  pretrain(data, replace(cfg, licence="CC0", notes="for a test"))
  prior = MotionPrior.load(cfg.output)
  prior.spec.check(g1_spec())
  assert prior.info["licence"] == "CC0" and prior.info["notes"] == "for a test"
  assert prior.info["config"]["batch_size"] == 8
  assert prior.info["data"] == data.description
  assert len(prior.info["data_sha256"]) == 64
  assert prior.info["history"]["step"] == [10.0, 20.0]
  assert len(prior.info["history"]["loss"]) == 2
  assert "git_revision" in prior.info


def test_the_prior_carries_its_reference_errors(data: TrainData, cfg: PretrainCfg):
  held_out = {"clip": "unseen", "split": "val"}
  data = replace(data, description=[*data.description, held_out])
  trainer = pretrain(data, cfg)
  reference = MotionPrior.load(cfg.output).reference
  best = trainer.best_prior()
  assert reference == measure_reference(best, data.val, "held_out", ["unseen"])
  # Of the weights that were kept, with their description; not in the last ones.
  assert MotionPrior.load(cfg.output).info["step"] == trainer.best["step"]
  assert MotionPrior.load(cfg.folder() / "last.safetensors").reference is None

  trainer = pretrain(replace(data, val=data.val[:0]), replace(cfg, overwrite=True))
  reference = MotionPrior.load(cfg.output).reference
  best = trainer.best_prior()
  assert reference == measure_reference(best, data.train, "training", ["made_up"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_equals_one_that_never_stopped(
  data: TrainData, cfg: PretrainCfg, ema: float
):
  cfg = replace(cfg, ema_decay=ema, schedule="cosine")
  whole = replace(cfg, output=cfg.output.with_name("whole.safetensors"))
  whole = replace(whole, run_dir=cfg.folder() / "whole")
  straight = pretrain(data, whole)
  # 7 is between two evaluations, so a half-made mean of the loss is resumed too.
  with pytest.raises(Interrupted, match="step 7 of 20"):
    pretrain(data, cfg, stop=_StopAt(7))
  resumed = pretrain(data, replace(cfg, resume=True))
  assert resumed.history == straight.history
  for name, value in straight.denoiser.state_dict().items():
    assert torch.equal(value, resumed.denoiser.state_dict()[name]), name
  for name, value in _weights(whole.output).items():
    assert torch.equal(value, _weights(cfg.output)[name]), name


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"learning_rate": 1e-3}, "learning_rate 0.0003, now it is 0.001"),
    ({"seed": 5}, "seed 0, now it is 5"),
    ({"steps": 5}, "at step 20, beyond steps 5"),
  ],
)
def test_resuming_another_run_is_refused(
  data: TrainData, cfg: PretrainCfg, change: dict[str, Any], message: str
):
  pretrain(data, cfg)
  with pytest.raises(UserError, match=message):
    pretrain(data, replace(cfg, resume=True, **change))


def test_a_state_older_than_an_option_was_trained_with_its_default(
  data: TrainData, cfg: PretrainCfg
):
  pretrain(data, cfg)
  path = cfg.folder() / "state.pt"
  state = load_tensors(path, "training state")
  del state["config"]["label_dropout"]
  save_tensors(path, state)
  with pytest.raises(UserError, match="label_dropout 0.1, now it is 0.2"):
    pretrain(data, replace(cfg, resume=True, label_dropout=0.2))
  again = Trainer(data, replace(cfg, resume=True))
  again.load()
  assert again.step == cfg.steps


def test_resuming_on_other_data_is_refused(data: TrainData, cfg: PretrainCfg):
  pretrain(data, cfg)
  other = replace(data, train=data.train + 1e-3)
  with pytest.raises(UserError, match="other windows or statistics"):
    pretrain(other, replace(cfg, resume=True))


def test_a_finished_run_can_be_prolonged(data: TrainData, cfg: PretrainCfg):
  pretrain(data, cfg)
  longer = pretrain(data, replace(cfg, steps=30, resume=True))
  assert longer.step == 30 and longer.history["step"] == [10.0, 20.0, 30.0]


def test_nothing_is_overwritten_unasked(data: TrainData, cfg: PretrainCfg):
  pretrain(data, cfg)
  with pytest.raises(UserError, match="--resume.*--overwrite"):
    pretrain(data, cfg)
  pretrain(data, replace(cfg, overwrite=True))


@pytest.mark.parametrize("content", [None, b"", b"not a state", "list"])
def test_an_unusable_state_is_refused(
  data: TrainData, cfg: PretrainCfg, content: bytes | str | None
):
  state = cfg.folder() / "state.pt"
  state.parent.mkdir(parents=True)
  if content == "list":
    torch.save([1], state)
  elif isinstance(content, bytes):
    state.write_bytes(content)
  with pytest.raises(UserError, match="state.pt"):
    pretrain(data, replace(cfg, resume=True))


def test_a_state_with_a_hole_is_refused(data: TrainData, cfg: PretrainCfg):
  pretrain(data, cfg)
  path = cfg.folder() / "state.pt"
  whole = load_tensors(path, "training state")
  for name, value in (
    ("config", 3),
    ("data_sha256", None),
    ("step", "many"),
    ("denoiser", {}),
    ("optimizer", {"state": {}}),
    ("generator", torch.zeros(3)),
    ("loss_sum", torch.zeros(7)),
    ("history", None),
    ("history", 3),
    ("loss_count", "many"),
    ("best", {"judged": 0.1}),
  ):
    state = dict(whole)
    if value is None:
      del state[name]
    else:
      state[name] = value
    save_tensors(path, state)
    with pytest.raises(UserError, match="state.pt: .*start anew with --overwrite"):
      pretrain(data, replace(cfg, resume=True))


def test_a_full_device_is_not_called_a_damaged_state(
  data: TrainData, cfg: PretrainCfg, monkeypatch
):
  pretrain(data, cfg)

  def full(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")

  monkeypatch.setattr(torch.optim.Optimizer, "load_state_dict", full)
  with pytest.raises(torch.OutOfMemoryError):
    Trainer(data, replace(cfg, resume=True)).load()


def test_a_loss_that_is_not_finite_stops_and_spoils_no_file(
  data: TrainData, cfg: PretrainCfg, monkeypatch
):
  pretrain(data, cfg)
  before = cfg.output.read_bytes(), (cfg.folder() / "state.pt").read_bytes()
  monkeypatch.setattr(
    trainer.F, "l1_loss", lambda a, b: (a - b).abs().mean() * float("nan")
  )
  with pytest.raises(UserError, match="training loss is nan at step 25"):
    pretrain(data, replace(cfg, steps=40, resume=True))
  after = cfg.output.read_bytes(), (cfg.folder() / "state.pt").read_bytes()
  assert before == after


def test_what_is_logged(data: TrainData, cfg: PretrainCfg):
  record = _Record()
  pretrain(data, cfg, record)
  assert [v["step"] for v in record.values] == [5, 10, 15, 20]
  assert record.values[0]["train/windows_per_s"] > 0
  assert "eval/val_error_15" in record.values[1]


# Options.


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"steps": 0}, "--steps 0: must be at least 1"),
    ({"ema_decay": 1.0}, "--ema-decay 1.0: must be below 1"),
    ({"nhead": 3}, "nhead 3"),
    ({"num_timesteps": 20}, "--num-timesteps 20: must be above 22"),
    (
      {"output": Path("prior.pt")},
      "--output prior.pt: give a name that ends in .safetensors",
    ),
    ({"device": "nonsense"}, "device 'nonsense'"),
    ({"device": "cuda:77"}, "device 'cuda:77'"),
  ],
)
def test_senseless_options_are_refused_by_name(
  data: TrainData, cfg: PretrainCfg, change: dict[str, Any], message: str
):
  with pytest.raises(UserError, match=message):
    pretrain(data, replace(cfg, **change))


def test_no_training_windows_is_refused(data: TrainData, cfg: PretrainCfg):
  with pytest.raises(UserError, match="no training windows"):
    pretrain(replace(data, train=data.train[:0]), cfg)


def test_the_command_line_overrides_the_configuration(tmp_path: Path):
  config = tmp_path / "prior.yaml"
  config.write_text(
    "steps: 7\nlearning_rate: 1e-3\nwindows: [a, b]\nschedule: cosine\n"
  )
  cfg = cli.parse(["--config", str(config), "--steps", "9"])
  assert (cfg.steps, cfg.learning_rate, cfg.schedule) == (9, 1e-3, "cosine")
  assert cfg.windows == (ROOT / "a", ROOT / "b")
  assert cfg.draws == PretrainCfg().draws
  assert cli.parse([f"--config={config}"]).steps == 7


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("step: 7", "unknown key 'step'; did you mean 'steps'"),
    ("xyzzy: 7", "unknown key 'xyzzy'; known: windows"),
    ("steps: many", "'steps' is 'many', expected a valid integer"),
    ("schedule: linear", "'schedule' is 'linear', expected 'constant' or 'cosine'"),
    ("steps: [", "not valid YAML"),
    ("- steps", "expected 'key: value' lines"),
  ],
)
def test_a_wrong_configuration_is_refused_by_key(
  tmp_path: Path, text: str, message: str
):
  config = tmp_path / "prior.yaml"
  config.write_text(text)
  with pytest.raises(UserError, match=message) as caught:
    load_config(config, PretrainCfg)
  assert str(config) in str(caught.value)


def test_shipped_configurations_are_readable():
  for path in sorted((ROOT / "configs" / "priors").glob("*.yaml")):
    load_config(path, PretrainCfg).check()


# The script.


def _write_clip(path: Path, seed: int, **more: Any) -> None:
  """Write 50 windows of a clip, called as its file."""
  save_windows(
    path,
    _windows(50, seed).numpy(),
    g1_spec(),
    clip=path.stem,
    stride=1,
    mirrored=np.zeros(50, dtype=bool),
    **more,
  )


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
  """Arguments of the script for tiny windows on disk."""
  for name, split, seed in (("walk", "train", 0), ("run", "val", 1)):
    _write_clip(tmp_path / "npz" / f"{name}.npz", seed, split=split)
  ones = np.ones(FEATURES, dtype=np.float32)
  save_stats(tmp_path / "stats.npz", NormStats(-ones, ones), g1_spec(), ["walk"])
  text = f"windows: [{tmp_path / 'npz'}]\nstats: {tmp_path / 'stats.npz'}\n"
  (tmp_path / "prior.yaml").write_text(
    text + "batch_size: 8\ndraws: 2\nd_model: 16\neval_interval: 5\ndevice: cpu\n"
  )
  return [
    "--config",
    str(tmp_path / "prior.yaml"),
    "--output",
    str(tmp_path / "out.safetensors"),
    "--run-dir",
    str(tmp_path / "run"),
  ]


def test_files_in_files_out(files: list[str], tmp_path: Path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  cli.main([*files, "--steps", "10", "--logger", "tensorboard"])
  prior = MotionPrior.load(tmp_path / "out.safetensors")
  clips = {(entry["clip"], entry["split"]) for entry in prior.info["data"]}
  assert clips == {("walk", "train"), ("run", "val")}
  assert (prior.info["train_windows"], prior.info["val_windows"]) == (50, 50)
  assert json.loads(json.dumps(prior.info)) == prior.info
  assert (tmp_path / "run" / "training.png").stat().st_size > 10_000
  assert list((tmp_path / "run").glob("events.*"))
  assert "out.safetensors" in capsys.readouterr().out


def test_other_styles_are_left_out_if_asked(files: list[str], tmp_path: Path):
  for name, seed in (("walk", 0), ("run", 1)):
    _write_clip(tmp_path / "npz" / f"{name}.npz", seed, styles=[name] * 50)
  both = cli.load_data(cli.parse(files))
  assert both.styles == ("run", "walk") and len(both.train) == 100
  alone = cli.load_data(cli.parse([*files, "--only-styles", "walk"]))
  assert alone.styles == ("walk",) and torch.equal(alone.train, _windows(50, 0))
  with pytest.raises(UserError, match="style 'wlak'.*did you mean 'walk'"):
    cli.load_data(cli.parse([*files, "--only-styles", "wlak"]))


def test_less_of_each_style_is_taken_if_asked(files: list[str], tmp_path: Path):
  labels = ["walk"] * 30 + ["run"] * 20
  _write_clip(tmp_path / "npz" / "walk.npz", 0, styles=labels)
  data = cli.load_data(cli.parse([*files, "--style-seconds", "0.4"]))
  rows = [*range(20), *range(30, 50)]  # 20 windows a style, at 50 a second.
  assert torch.equal(data.train, _windows(50, 0)[rows])
  with pytest.raises(
    UserError, match="--style-seconds: 0.001 s of a style are no window"
  ):
    cli.load_data(cli.parse([*files, "--style-seconds", "0.001"]))


def test_the_prior_is_uploaded_if_asked(files: list[str], tmp_path: Path, monkeypatch):
  """Without a login it waits in the folder of the run."""
  for name in ("WANDB_API_KEY", "NETRC"):
    monkeypatch.setenv(name, "")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_DIR", str(tmp_path / "run"))
  monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
  words = [*files, "--steps", "2", "--wandb-project", "mine", "--upload"]
  cli.main(words)
  (kept,) = kept_artifacts(tmp_path / "run")
  assert (kept.name, kept.type, kept.project) == ("out", "prior", "mine")
  metadata = json.loads(kept.metadata)
  assert metadata["train_windows"] == 50 and metadata["spec"]["fps"] == 50.0
  assert [entry.path for entry in kept.manifest.contents] == ["out.safetensors"]


def test_no_upload_unasked(files: list[str], tmp_path: Path, monkeypatch):
  monkeypatch.setenv("WANDB_MODE", "offline")
  cli.main([*files, "--steps", "2"])
  assert not list((tmp_path / "run").glob("wandb"))


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--wandb-project", "a/b"], "project 'a/b'"),
    (["--output", "my walk.safetensors"], "my walk.safetensors: .* rename the file"),
  ],
)
def test_what_could_not_be_uploaded_is_refused_before_training(
  files: list[str], tmp_path: Path, monkeypatch, words: list[str], message: str
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message) as error:
    cli.main([*files, "--steps", "2", "--upload", *words])
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_everything_can_be_trained_on(files: list[str], tmp_path: Path, capsys):
  cli.main([*files, "--steps", "2", "--no-hold-out"])
  prior = MotionPrior.load(tmp_path / "out.safetensors")
  assert {entry["split"] for entry in prior.info["data"]} == {"train"}
  assert (prior.info["train_windows"], prior.info["val_windows"]) == (100, 0)
  captured = capsys.readouterr()
  assert "no held-out clips" in captured.out
  assert "held out -" in captured.err and "nan" not in captured.err


def test_windows_must_be_named(tmp_path: Path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match="--windows"):
    cli.main(["--output", "x.safetensors"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_continue(
  files: list[str], tmp_path: Path, number: signal.Signals, monkeypatch, capsys
):
  step = Trainer.train_step

  def step_then_signal(trainer: Trainer) -> None:
    step(trainer)
    if trainer.step == 3:
      os.kill(os.getpid(), number)

  monkeypatch.setattr(Trainer, "train_step", step_then_signal)
  with pytest.raises(SystemExit) as caught:
    errors.run(lambda: cli.main(files))
  assert caught.value.code == 130
  assert capsys.readouterr().err == (
    f"interrupted at step 3 of 10000, saved in {tmp_path / 'run'}; "
    "continue with --resume\n"
  )
  assert read_state(tmp_path / "run" / "state.pt")["step"] == 3
  cli.main([*files, "--resume", "--steps", "5"])
  assert MotionPrior.load(tmp_path / "out.safetensors").info["step"] == 5


def test_stopping_twice_acts_at_once():
  # Whoever runs the tests in the background may have had the signal ignored.
  original = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    stop = StopSignal()
    with pytest.raises(KeyboardInterrupt), stop.listen():
      os.kill(os.getpid(), signal.SIGINT)
      assert stop.requested
      os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, original)
