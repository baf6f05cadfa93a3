"""Training of a motion prior on windows of motion.

The loss is the L1 distance between predicted and true noise at uniformly drawn timesteps.
The whole data set is on the device, and batches, timesteps and noise are drawn there, all
from one generator whose state is part of the checkpoint, so a resumed run continues
exactly.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from smp import paths
from smp.diffusion.ddpm import NUM_TIMESTEPS, CosineSchedule
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import SCORED_TIMESTEPS, MotionPrior, check_heads
from smp.diffusion.progress import Report
from smp.diffusion.reference import Reference
from smp.diffusion.reference_errors import choose_windows, measure_reference
from smp.diffusion.styles import StyleCfg
from smp.diffusion.training_state import (
  MAY_DIFFER,
  STATE_VERSION,
  check_same_config,
  read_state,
)
from smp.errors import UserError
from smp.motion.features import FeatureSpec
from smp.utils.config import to_plain
from smp.utils.device import choose_device
from smp.utils.git import git_revision
from smp.utils.limits import (
  BelowOne,
  Count,
  NotNegative,
  Positive,
  Seed,
  Share,
  TensorFile,
  WholeNumber,
  check_limits,
)
from smp.utils.loggers import Logger, LoggerKind, NoLogger
from smp.utils.tensor_files import save_tensors

_EVAL_SEED = 20_000
"""Seed of the evaluation noise, the same in every evaluation of every run."""
_EVAL_CHUNK = 512
STYLE_REFERENCE_WINDOWS = 256
"""Maximum number of windows that the reference errors of a style are measured on."""


@dataclass(frozen=True)
class PretrainCfg:
  """Train a motion prior on windows."""

  windows: tuple[Path, ...] = ()
  """NPZ files of windows, or folders of them. Clips of split ``val`` are held out."""

  only_styles: tuple[str, ...] = ()
  """Train on the windows of these styles alone; empty: on all windows."""

  style_seconds: Positive | None = None
  """Train on the first seconds of each style alone, to see how much motion it takes."""

  hold_out: bool = True
  """Off: train on the clips of split ``val`` too, and evaluate on none. For a prior to
  publish, after the same training with them held out has been evaluated."""

  stats: Path = paths.NORM_STATS
  """Quantiles to normalise by (scripts/compute_norm_stats.py)."""

  output: TensorFile = Path("prior.safetensors")
  """Prior to write: the weights that ``keep`` chooses."""

  keep: Literal["best", "last"] = "best"
  """``best``: the weights with the lowest loss on held-out clips; ``last``: the last.
  """

  run_dir: Path | None = None
  """Folder for the training state, last weights, picture and logs. Default:
  logs/pretrain/NAME, with the name of ``output``."""

  resume: bool = False
  """Continue from the training state in ``run_dir``."""

  overwrite: bool = False
  """Start anew although ``output`` or a training state exists."""

  steps: Count = 10_000
  """Optimiser steps."""

  batch_size: Count = 1024
  """Windows per step."""

  draws: Count = 10
  """Independent draws of timestep and noise for each window of a batch."""

  learning_rate: Positive = 3e-4
  weight_decay: NotNegative = 1e-4
  max_grad_norm: Positive = 1.0

  schedule: Literal["constant", "cosine"] = "constant"
  """Learning rate after the warm-up; ``cosine`` falls to zero at ``steps``."""

  warmup_steps: WholeNumber = 0
  """Steps over which the learning rate rises from zero."""

  ema_decay: BelowOne = 0.0
  """Decay of the running average of the weights, which becomes the prior; 0: off."""

  d_model: Count = 128
  nhead: Count = 4
  num_layers: Count = 2
  num_timesteps: Annotated[int, Field(gt=max(SCORED_TIMESTEPS))] = NUM_TIMESTEPS

  label_dropout: Share = 0.1
  """Share of windows whose style is withheld in training, so that the prior also knows
  all of them without a label. Without effect on windows without styles."""

  balance_styles: bool = False
  """Draw windows of every style equally often, however few there are of one. Windows
  without a label count as a style of their own."""

  seed: Seed = 0

  device: str = "auto"
  """``auto``: a CUDA GPU if there is one, else the CPU."""

  precision: Literal["float32", "bf16"] = "float32"
  """``bf16`` computes the network in bfloat16 (autocast); weights stay float32."""

  eval_interval: Count = 500
  """Steps between evaluations on held-out windows, each followed by a checkpoint."""

  eval_windows: Count = 1024
  """Held-out windows to evaluate on, spread evenly over all of them."""

  log_interval: Count = 50
  """Steps between two records of the training loss."""

  logger: LoggerKind = "none"
  wandb_project: str = "smp"

  upload: bool = False
  """Upload the prior to W&B at the end, as an artifact with its description."""

  licence: str = "that of the motion clips it was trained on"
  """Licence text to store with the prior."""

  notes: str = ""
  """Free text to store with the prior."""

  def folder(self) -> Path:
    """Return the folder of the run."""
    return self.run_dir or Path("logs") / "pretrain" / self.output.stem

  def check(self) -> None:
    """Raise an error that names the first option with an impossible value."""
    check_limits(self)
    check_heads("configuration", self.d_model, self.nhead)


MIN_STYLE_WINDOWS = 100
"""Minimum number of training windows of a style: two seconds of motion."""


def _no_labels() -> Tensor:
  return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class TrainData:
  """Training data of a prior: raw windows on the CPU, their layout and provenance."""

  train: Tensor
  """(N, W, F) float32."""
  val: Tensor
  """(M, W, F) float32, from clips that are not in ``train``; may be empty."""
  q_low: Tensor
  q_high: Tensor
  spec: FeatureSpec
  description: list[dict[str, Any]] = field(default_factory=list)
  """One entry per clip, in JSON types, for the prior's metadata."""
  styles: tuple[str, ...] = ()
  """Names of the styles; empty: an unconditional prior."""
  train_labels: Tensor = field(default_factory=_no_labels)
  """(N,) int64, style of each window of ``train``; -1: none. Empty without styles."""
  val_labels: Tensor = field(default_factory=_no_labels)
  """The same of ``val``."""

  def check(self) -> None:
    """Raise ``UserError`` for missing windows or statistics of another length."""
    if not len(self.train):
      raise UserError(
        "no training windows: every clip is held out (split val); give at least one of "
        "split train"
      )
    dim = sum(self.spec.feature_dims)
    if self.q_low.shape != (dim,):
      raise UserError(
        f"normalisation statistics have {len(self.q_low)} features, the windows {dim}; "
        "compute them again with scripts/compute_norm_stats.py"
      )
    for label, style in enumerate(self.styles):
      count = int((self.train_labels == label).sum())
      if count < MIN_STYLE_WINDOWS:
        raise UserError(
          f"style '{style}' has {count} training windows, expected at least "
          f"{MIN_STYLE_WINDOWS}; give it more motion of split train, or remove its label"
        )

  def of_style(self, style: str) -> tuple[Tensor, bool]:
    """Return the windows (n, W, F) of a style, and whether they are held out.

    They are training windows where none are held out.
    """
    label = self.styles.index(style)
    held_out = self.val[self.val_labels == label] if len(self.val) else self.val
    if len(held_out):
      return held_out, True
    return self.train[self.train_labels == label], False

  def digest(self) -> str:
    """Return a hash of the numbers, which tells whether a resumed run sees the same."""
    sha = hashlib.sha256()
    for tensor in (self.train, self.val, self.q_low, self.q_high):
      sha.update(tensor.contiguous().numpy().data)
    if self.styles:
      sha.update(",".join(self.styles).encode())
      sha.update(self.train_labels.contiguous().numpy().data)
    return sha.hexdigest()


class Interrupted(Exception):
  """Training was stopped by Ctrl-C or SIGTERM; its state is saved."""


class StopSignal:
  """Request to save the training and stop after the current step."""

  def __init__(self) -> None:
    self.requested = False

  @contextlib.contextmanager
  def listen(self) -> Iterator[None]:
    """Treat the first Ctrl-C or SIGTERM as a request; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(kind) for kind in kinds]

    def restore() -> None:
      for kind, handler in zip(kinds, before, strict=True):
        signal.signal(kind, handler)

    def request(_number: int, _frame: Any) -> None:
      self.requested = True
      restore()

    for kind in kinds:
      signal.signal(kind, request)
    try:
      yield
    finally:
      restore()


class Trainer:
  """State of a training, and the operations on it."""

  def __init__(self, data: TrainData, cfg: PretrainCfg):
    self.cfg = cfg
    self.data = data
    self.digest = data.digest()
    self.device = choose_device(cfg.device)
    with torch.random.fork_rng(devices=[]):
      torch.manual_seed(cfg.seed)
      self.denoiser = Denoiser(
        feature_dim=sum(data.spec.feature_dims),
        window=data.spec.window,
        d_model=cfg.d_model,
        nhead=cfg.nhead,
        num_layers=cfg.num_layers,
        num_styles=len(data.styles),
      ).to(self.device)
    self.ema = copy.deepcopy(self.denoiser).requires_grad_(False)
    self.noise_schedule = CosineSchedule(cfg.num_timesteps).to(self.device)
    self.optimizer = torch.optim.AdamW(
      self.denoiser.parameters(),
      lr=cfg.learning_rate,
      weight_decay=cfg.weight_decay,
      fused=True,
    )
    self.generator = torch.Generator(self.device).manual_seed(cfg.seed)
    self.windows = self.prior().normalize(data.train.to(self.device))
    self.labels = data.train_labels.to(self.device)
    self.chances = self._equal_chances() if cfg.balance_styles else None
    self.evaluation = Evaluation(
      data.val, cfg.eval_windows, cfg.num_timesteps, data.val_labels
    )
    self.step = 0
    self.loss_sum = torch.zeros((), device=self.device)
    self.loss_count = 0
    self.history: dict[str, list[float]] = {}
    self.best: dict[str, Any] = {}

  def _equal_chances(self) -> Tensor:
    """Return the chance of each window (N,) that gives each label the same share."""
    if not self.data.styles:
      raise UserError("balance_styles is on, but no clip of the windows has a style")
    _, group, count = self.labels.unique(return_inverse=True, return_counts=True)
    return 1.0 / count[group]

  def train_step(self) -> None:
    """Take one step of the optimiser; the loss stays on the device."""
    cfg = self.cfg
    x, t, eps, labels = self._draw_batch()
    with torch.autocast(
      self.device.type, torch.bfloat16, enabled=cfg.precision == "bf16"
    ):
      predicted = self.denoiser(x, t, labels)
    loss = F.l1_loss(predicted.float(), eps)
    self.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), cfg.max_grad_norm)
    for group in self.optimizer.param_groups:
      group["lr"] = learning_rate(cfg, self.step)
    self.optimizer.step()
    self._update_ema()
    self.step += 1
    self.loss_sum += loss.detach()
    self.loss_count += 1

  def _draw_batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Draw noised windows (draws * batch, W, F), their timesteps, the noise, labels.

    Labels are None without styles.
    """
    cfg = self.cfg
    options: dict[str, Any] = {"generator": self.generator, "device": self.device}
    if self.chances is None:
      rows = torch.randint(len(self.windows), (cfg.batch_size,), **options)
    else:
      rows = torch.multinomial(
        self.chances, cfg.batch_size, replacement=True, generator=self.generator
      )
    x0 = self.windows[rows].repeat(cfg.draws, 1, 1)
    t = torch.randint(cfg.num_timesteps, (len(x0),), **options)
    eps = torch.randn(x0.shape, **options)
    labels = None
    if self.data.styles:
      labels = with_no_label(self.labels[rows], len(self.data.styles)).repeat(cfg.draws)
      withheld = torch.rand(len(labels), **options) < cfg.label_dropout
      labels = labels.masked_fill(withheld, len(self.data.styles))
    return self.noise_schedule.add_noise(x0, eps, t), t, eps, labels

  @torch.no_grad()
  def _update_ema(self) -> None:
    if not self.cfg.ema_decay:
      return
    # Early on the average forgets faster, or it would keep the initial weights.
    decay = min(self.cfg.ema_decay, (1.0 + self.step) / (10.0 + self.step))
    for average, weight in zip(
      self.ema.parameters(), self.denoiser.parameters(), strict=True
    ):
      average.lerp_(weight, 1.0 - decay)

  def take_loss(self) -> float:
    """Return the mean training loss since the last call, and reset it.

    Raises:
      UserError: It is not finite. Nothing is saved after that.
    """
    loss = float(self.loss_sum) / max(self.loss_count, 1)
    if not math.isfinite(loss):
      raise UserError(
        f"training loss is {loss} at step {self.step}; resume from the last checkpoint "
        f"in {self.cfg.folder()}, or start anew with a lower learning_rate than "
        f"{self.cfg.learning_rate}"
      )
    self.loss_sum.zero_()
    self.loss_count = 0
    return loss

  def prior(self) -> MotionPrior:
    """Return the present prior: the average of the weights if there is one."""
    source = self.ema if self.cfg.ema_decay else self.denoiser
    return self._prior_of(copy.deepcopy(source))

  def _prior_of(self, denoiser: Denoiser) -> MotionPrior:
    data = self.data
    return MotionPrior(
      denoiser,
      data.q_low,
      data.q_high,
      data.spec,
      self.cfg.num_timesteps,
      styles=data.styles,
    ).to(self.device)

  def evaluate(self, loss: float) -> dict[str, float]:
    """Evaluate the prior on held-out windows, keep the best, extend the history."""
    prior = self.prior()
    values = {"step": float(self.step), "loss": loss}
    if self.evaluation:
      values |= self.evaluation.run(prior)
    for name, value in values.items():
      self.history.setdefault(name, []).append(value)
    # Without held-out clips there is no criterion, so the last weights are kept.
    judged = values.get("val_loss", -float(self.step))
    newest = not self.best or self.cfg.keep == "last"
    if newest or judged < self.best["judged"]:
      weights = {k: v.cpu().clone() for k, v in prior.denoiser.state_dict().items()}
      self.best = {"judged": judged, "step": self.step, "weights": weights}
    return values

  def best_prior(self) -> MotionPrior:
    """Return the prior with the best weights so far."""
    denoiser = copy.deepcopy(self.denoiser)
    denoiser.load_state_dict(self.best["weights"])
    return self._prior_of(denoiser)

  def info(self, step: int) -> dict[str, Any]:
    """Return the provenance of a step's weights, without paths of this machine."""
    config = to_plain(self.cfg)
    return {
      "licence": self.cfg.licence,
      "notes": self.cfg.notes,
      "data": self.data.description,
      "data_sha256": self.digest,
      "train_windows": len(self.data.train),
      "val_windows": len(self.data.val),
      "config": {k: v for k, v in config.items() if k not in MAY_DIFFER},
      "git_revision": git_revision(),
      "step": step,
      "history": self.history,
    }

  # Checkpoints.

  def save(self) -> None:
    """Write the state to resume from, the last weights, and the best as the prior."""
    folder = self.cfg.folder()
    state = {
      "version": STATE_VERSION,
      "config": to_plain(self.cfg),
      "data_sha256": self.digest,
      "step": self.step,
      "denoiser": self.denoiser.state_dict(),
      "ema": self.ema.state_dict(),
      "optimizer": self.optimizer.state_dict(),
      "generator": self.generator.get_state(),
      "loss_sum": self.loss_sum,
      "loss_count": self.loss_count,
      "history": self.history,
      "best": self.best,
    }
    save_tensors(folder / "state.pt", state)
    last = self.prior()
    last.info = self.info(self.step)
    last.save(folder / "last.safetensors")
    if self.best:
      self._described_best().save(self.cfg.output)

  def _described_best(self) -> MotionPrior:
    best = self.best_prior()
    best.info = self.info(self.best["step"])
    return best

  def finish(self) -> None:
    """Write the prior with its reference errors, at the end of the training."""
    best = self._described_best()
    best.reference = self._reference(best)
    for style in self.data.styles:
      windows, held_out = self.data.of_style(style)
      rows = choose_windows(len(windows), STYLE_REFERENCE_WINDOWS)
      best.style_references[style] = measure_reference(
        best.with_style(StyleCfg(style)),
        windows[rows],
        "held_out" if held_out else "training",
        windows_in_all=len(windows),
      )
    best.save(self.cfg.output)

  def _reference(self, prior: MotionPrior) -> Reference:
    """Measure errors on held-out windows, or on training windows if none are held out."""
    held_out = len(self.data.val) > 0
    windows = self.data.val if held_out else self.data.train
    split = "val" if held_out else "train"
    clips = [c["clip"] for c in self.data.description if c["split"] == split]
    rows = choose_windows(len(windows))
    return measure_reference(
      prior,
      windows[rows],
      "held_out" if held_out else "training",
      clips,
      len(windows),
    )

  def load(self) -> None:
    """Continue from the saved state.

    Raises:
      UserError: There is none, it is damaged, or it belongs to another configuration or
        other data.
    """
    path = self.cfg.folder() / "state.pt"
    state = read_state(path)
    try:
      self._continue_from(path, state)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
      if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
        raise  # Of the device, not of the file.
      raise UserError(
        f"{path}: damaged, or of another version ({type(error).__name__}); start anew "
        "with --overwrite"
      ) from error

  def _continue_from(self, path: Path, state: dict[str, Any]) -> None:
    """Take over a state that was read from a file."""
    # An option that is younger than the state was at its default.
    trained = to_plain(PretrainCfg()) | state["config"]
    check_same_config(path, trained, to_plain(self.cfg))
    if state["data_sha256"] != self.digest:
      raise UserError(
        f"{path}: was trained on other windows or statistics; use the same, or start "
        "anew with --overwrite"
      )
    if state["step"] > self.cfg.steps:
      raise UserError(
        f"{path}: is at step {state['step']}, beyond steps {self.cfg.steps}; "
        "raise steps"
      )
    self.denoiser.load_state_dict(state["denoiser"])
    self.ema.load_state_dict(state["ema"])
    self.optimizer.load_state_dict(state["optimizer"])
    self.generator.set_state(state["generator"])
    self.loss_sum.copy_(state["loss_sum"])
    self.loss_count = state["loss_count"]
    self.step, self.history, self.best = state["step"], state["history"], state["best"]
    for name, value, kind in (
      ("step", self.step, int),
      ("loss_count", self.loss_count, int),
      ("history", self.history, dict),
      ("best", self.best, dict),
    ):
      if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}")
    if self.best and not {"judged", "step", "weights"} <= self.best.keys():
      raise KeyError("best")


class Evaluation:
  """Held-out loss and SDS loss under noise that never changes.

  The values of a run are thus comparable from one evaluation to the next, and from one
  run to another on the same windows.
  """

  def __init__(
    self,
    val: Tensor,
    count: int,
    num_timesteps: int,
    labels: Tensor | None = None,
  ):
    rows = torch.linspace(0, max(len(val) - 1, 0), min(count, len(val))).long()
    self.windows = val[rows]
    self.labels = labels[rows] if labels is not None and len(labels) else None
    generator = torch.Generator().manual_seed(_EVAL_SEED)
    shape = (1 + len(SCORED_TIMESTEPS), *self.windows.shape)
    self.noise = torch.randn(shape, generator=generator)
    self.t = torch.randint(num_timesteps, (len(rows),), generator=generator)

  def __bool__(self) -> bool:
    return len(self.windows) > 0

  @torch.no_grad()
  def run(self, prior: MotionPrior) -> dict[str, float]:
    """Return the metrics of a prior on the held-out windows.

    ``val_loss``: L1 loss as in training, under the labels of the windows.
    ``val_error``: SDS loss of the reward without a label, mean over its timesteps,
    median over windows. ``val_error_T``: mean at timestep T.
    """
    device = prior.q_low.device
    score = prior.sds_loss_at(SCORED_TIMESTEPS, "float32")
    losses, errors = [], []
    for start in range(0, len(self.windows), _EVAL_CHUNK):
      part = slice(start, start + _EVAL_CHUNK)
      features = self.windows[part].to(device)
      noise, t = self.noise[:, part].to(device), self.t[part].to(device)
      noised = prior.schedule.add_noise(prior.normalize(features), noise[0], t)
      labels = self._labels(part, prior)
      off = (prior.denoiser(noised, t, labels) - noise[0]).abs().mean(dim=(1, 2))
      losses.append(off)
      errors.append(score(features, noise[1:]))
    error = torch.cat(errors)
    values = {
      "val_loss": float(torch.cat(losses).mean()),
      "val_error": float(error.mean(dim=1).median()),
    }
    for i, timestep in enumerate(SCORED_TIMESTEPS):
      values[f"val_error_{timestep}"] = float(error[:, i].mean())
    return values

  def _labels(self, part: slice, prior: MotionPrior) -> Tensor | None:
    if self.labels is None:
      return None
    return with_no_label(self.labels[part], len(prior.styles)).to(prior.q_low.device)


def with_no_label(styles: Tensor, num_styles: int) -> Tensor:
  """Return labels of styles (N,), where -1 becomes the label for none."""
  return styles.where(styles >= 0, num_styles)


def pretrain(
  data: TrainData,
  cfg: PretrainCfg,
  logger: Logger | None = None,
  stop: StopSignal | None = None,
) -> Trainer:
  """Train, evaluate and save until ``cfg.steps``, then measure reference errors.

  Raises:
    UserError: Bad options, data or files, or a loss that is not finite.
    Interrupted: ``stop`` was requested; the state is saved.
  """
  cfg.check()
  data.check()
  logger, stop = logger or NoLogger(), stop or StopSignal()
  state = cfg.folder() / "state.pt"
  if not (cfg.resume or cfg.overwrite):
    for path in (cfg.output, state):
      if path.exists():
        raise UserError(
          f"{path}: exists; continue that run with --resume, start anew with "
          "--overwrite, or choose another output"
        )
  trainer = Trainer(data, cfg)
  if cfg.resume:
    trainer.load()
  per_step = cfg.batch_size * cfg.draws
  with Report(trainer.step, cfg.steps, per_step, logger) as report:
    while trainer.step < cfg.steps and not stop.requested:
      trainer.train_step()
      report.advance(trainer.step)
      at_end = trainer.step == cfg.steps
      if at_end or trainer.step % cfg.eval_interval == 0:
        report.evaluated(trainer.evaluate(trainer.take_loss()))
        trainer.save()
      elif trainer.step % cfg.log_interval == 0:
        report.trained(_running_loss(trainer))
    if stop.requested and trainer.step < cfg.steps:
      _running_loss(trainer)
      trainer.save()
      raise Interrupted(
        f"interrupted at step {trainer.step} of {cfg.steps}, saved in {cfg.folder()}; "
        "continue with --resume"
      )
    trainer.finish()
  return trainer


def _running_loss(trainer: Trainer) -> float:
  """Return the mean loss since the last evaluation, without resetting the mean."""
  total, count = trainer.loss_sum.clone(), trainer.loss_count
  loss = trainer.take_loss()
  trainer.loss_sum, trainer.loss_count = total, count
  return loss


def learning_rate(cfg: PretrainCfg, step: int) -> float:
  """Return the learning rate of a step, counted from 0."""
  if step < cfg.warmup_steps:
    return cfg.learning_rate * (step + 1) / (cfg.warmup_steps + 1)
  if cfg.schedule == "constant":
    return cfg.learning_rate
  done = (step - cfg.warmup_steps) / max(cfg.steps - cfg.warmup_steps, 1)
  return cfg.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
