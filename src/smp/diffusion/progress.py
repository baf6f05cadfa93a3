"""What training tells people while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from smp.utils.loggers import Logger

if TYPE_CHECKING:
  from smp.diffusion.trainer import Trainer


class Report:
  """Progress for people: a bar on a terminal, a line per evaluation everywhere."""

  def __init__(self, trainer: Trainer, logger: Logger):
    self._trainer, self._logger = trainer, logger
    self._console = Console(stderr=True)
    self._progress = Progress(
      TextColumn("{task.description}"),
      BarColumn(),
      MofNCompleteColumn(),
      TimeRemainingColumn(),
      TextColumn("loss {task.fields[loss]}  held out {task.fields[val]}"),
      TextColumn("{task.fields[speed]} windows/s"),
      console=self._console,
      disable=not self._console.is_terminal,
    )
    self._task = self._progress.add_task(
      "training",
      total=trainer.cfg.steps,
      completed=trainer.step,
      loss="-",
      val="-",
      speed="-",
    )
    self._since, self._since_step = time.perf_counter(), trainer.step

  def __enter__(self) -> Report:
    # On anything but a terminal even a disabled bar would print an empty line.
    if self._console.is_terminal:
      self._progress.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._console.is_terminal:
      self._progress.stop()
    self._logger.close()

  def advance(self) -> None:
    self._progress.update(self._task, completed=self._trainer.step)

  def trained(self, loss: float) -> None:
    speed = self._speed()
    self._progress.update(self._task, loss=f"{loss:.4f}", speed=f"{speed:.0f}")
    values = {"train/loss": loss, "train/windows_per_s": speed}
    self._logger.log(self._trainer.step, values)

  def evaluated(self, values: dict[str, float]) -> None:
    trainer, speed = self._trainer, self._speed()
    left = trainer.cfg.steps - trainer.step
    per_step = trainer.cfg.batch_size * trainer.cfg.draws
    held_out, error = "-", "-"  # There may be no held-out clips.
    if "val_loss" in values:
      held_out, error = f"{values['val_loss']:.4f}", f"{values['val_error']:.4f}"
    self._progress.update(
      self._task,
      loss=f"{values['loss']:.4f}",
      val=held_out,
      speed=f"{speed:.0f}",
    )
    self._console.print(
      f"step {trainer.step:>7}  loss {values['loss']:.4f}  held out {held_out}  "
      f"SDS loss {error}  {speed:.0f} windows/s  "
      f"{left * per_step / max(speed, 1.0) / 60.0:.1f} min left",
      highlight=False,
      soft_wrap=True,
    )
    self._logger.log(trainer.step, {f"eval/{k}": v for k, v in values.items()})
    # Evaluating and saving is not the speed of training.
    self._since, self._since_step = time.perf_counter(), trainer.step

  def _speed(self) -> float:
    """Noised windows per second since the last evaluation."""
    steps = self._trainer.step - self._since_step
    windows = steps * self._trainer.cfg.batch_size * self._trainer.cfg.draws
    return windows / max(time.perf_counter() - self._since, 1e-9)
