"""Loggers of training curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

LoggerKind = Literal["tensorboard", "wandb", "none"]


class Logger(Protocol):
  """Interface of loggers."""

  def log(self, step: int, values: Mapping[str, float]) -> None:
    """Record scalars of a step."""

  def close(self) -> None:
    """Write pending data and close."""


class NoLogger:
  """Logger that discards everything."""

  def log(self, step: int, values: Mapping[str, float]) -> None:
    """Do nothing."""
    del step, values

  def close(self) -> None:
    """Do nothing."""
    pass


class TensorboardLogger:
  """Logger to TensorBoard files."""

  def __init__(self, folder: Path):
    from torch.utils.tensorboard import SummaryWriter

    self._writer = SummaryWriter(str(folder))

  def log(self, step: int, values: Mapping[str, float]) -> None:
    """Record scalars of a step."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Write pending data and close."""
    self._writer.close()


class WandbLogger:
  """Logger to Weights & Biases; offline without a login."""

  def __init__(self, folder: Path, project: str, name: str, config: dict[str, Any]):
    import wandb

    from smp.utils.wandb_mode import choose_wandb_mode

    folder.mkdir(parents=True, exist_ok=True)
    choose_wandb_mode(folder)
    self._run = wandb.init(project=project, name=name, config=config, dir=str(folder))

  def log(self, step: int, values: Mapping[str, float]) -> None:
    """Record scalars of a step."""
    self._run.log(dict(values), step=step)

  def close(self) -> None:
    """Finish the run."""
    self._run.finish()


def make_logger(
  kind: LoggerKind, folder: Path, project: str, name: str, config: dict[str, Any]
) -> Logger:
  """Return the logger of a kind, which writes under ``folder``."""
  if kind == "tensorboard":
    return TensorboardLogger(folder)
  if kind == "wandb":
    return WandbLogger(folder, project, name, config)
  return NoLogger()
