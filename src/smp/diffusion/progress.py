"""Progress of a pretraining run for people."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)

from smp.utils.loggers import Logger


class Report:
  """Progress for people: a bar on a terminal, a line per evaluation everywhere."""

  def __init__(self, step: int, steps: int, windows_per_step: int, logger: Logger):
    """Create the bar and start measuring the speed.

    Args:
      step: Steps done so far.
      steps: Steps in all.
      windows_per_step: Noised windows per step.
      logger: Receives the numbers.
    """
    self._step, self._steps, self._per_step = step, steps, windows_per_step
    self._logger = logger
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
      total=steps,
      completed=step,
      loss="-",
      val="-",
      speed="-",
    )
    self._since, self._since_step = time.perf_counter(), step

  def __enter__(self) -> Report:
    # Even a disabled bar would print an empty line on anything but a terminal.
    if self._console.is_terminal:
      self._progress.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._console.is_terminal:
      self._progress.stop()
    self._logger.close()

  def advance(self, step: int) -> None:
    """Update the number of steps done."""
    self._step = step
    self._progress.update(self._task, completed=step)

  def trained(self, loss: float) -> None:
    """Show and log the loss of the last steps."""
    speed = self._speed()
    self._progress.update(self._task, loss=f"{loss:.4f}", speed=f"{speed:.0f}")
    values = {"train/loss": loss, "train/windows_per_s": speed}
    self._logger.log(self._step, values)

  def evaluated(self, values: dict[str, float]) -> None:
    """Print and log the values of an evaluation."""
    step, speed = self._step, self._speed()
    left = self._steps - step
    held_out, error = "-", "-"  # Without held-out clips there are no such values.
    if "val_loss" in values:
      held_out, error = f"{values['val_loss']:.4f}", f"{values['val_error']:.4f}"
    self._progress.update(
      self._task,
      loss=f"{values['loss']:.4f}",
      val=held_out,
      speed=f"{speed:.0f}",
    )
    self._console.print(
      f"step {step:>7}  loss {values['loss']:.4f}  held out {held_out}  "
      f"SDS loss {error}  {speed:.0f} windows/s  "
      f"{left * self._per_step / max(speed, 1.0) / 60.0:.1f} min left",
      highlight=False,
      soft_wrap=True,
    )
    self._logger.log(step, {f"eval/{k}": v for k, v in values.items()})
    # Leave out the time of evaluating and saving.
    self._since, self._since_step = time.perf_counter(), step

  def _speed(self) -> float:
    """Return noised windows per second since the last evaluation."""
    windows = (self._step - self._since_step) * self._per_step
    return windows / max(time.perf_counter() - self._since, 1e-9)
