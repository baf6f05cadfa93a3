"""Training of a motion prior from files to files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smp.cli import options
from smp.cli.upload import UploadCfg, upload_file
from smp.data.stats import doubt_stats
from smp.diffusion.trainer import (
  Interrupted,
  PretrainCfg,
  StopSignal,
  TrainData,
  pretrain,
)
from smp.errors import UserError
from smp.evaluation.prior.prior_plots import save_training_picture
from smp.motion.dataset import WindowSet, load_stats, load_windows
from smp.utils.config import load_config, to_plain
from smp.utils.loggers import make_logger
from smp.utils.wandb_files import check_names

DESCRIPTION = """Train a motion prior on windows.

Example: uv run scripts/pretrain.py --config configs/priors/loco.yaml

Give --config FILE.yaml first to start from a configuration (configs/priors/); the other
options override it. Ctrl-C saves; continue with --resume."""


def parse(arguments: Sequence[str]) -> PretrainCfg:
  """Parse the options of a configuration file, overridden by the command line."""
  arguments = list(arguments)
  default = PretrainCfg()
  for position, argument in enumerate(arguments):
    if argument == "--config" or argument.startswith("--config="):
      name, _, value = argument.partition("=")
      if not value and position + 1 == len(arguments):
        raise UserError(f"{name}: give the path of a YAML file after it")
      path = Path(value or arguments[position + 1])
      default = load_config(path, PretrainCfg)
      del arguments[position : position + (1 if value else 2)]
      break
  return options.parse(PretrainCfg, arguments, default=default, description=DESCRIPTION)


def load_data(cfg: PretrainCfg) -> TrainData:
  """Load windows and statistics, split into training and held-out clips."""
  if not cfg.windows:
    raise UserError("no windows: give --windows with NPZ files or folders, or --config")
  windows, stats = load_windows(cfg.windows), load_stats(cfg.stats)
  doubt = doubt_stats(windows.windows, stats)
  if doubt:
    print(
      f"warning: {cfg.stats} does not fit the windows: {doubt}; other data, or "
      "statistics of other clips? scripts/compute_norm_stats.py makes them anew",
      file=sys.stderr,
    )
  if cfg.only_styles:
    windows = windows.of_styles(cfg.only_styles)
  if cfg.style_seconds is not None:
    try:
      windows = windows.first_seconds(cfg.style_seconds)
    except UserError as error:
      raise UserError(f"--style-seconds: {error}") from error
  if not cfg.hold_out:
    windows = replace(windows, splits=("train",) * len(windows.clips))
  return TrainData(
    train=torch.from_numpy(windows.select("train")),
    val=torch.from_numpy(windows.select("val")),
    q_low=torch.from_numpy(stats.q_low),
    q_high=torch.from_numpy(stats.q_high),
    spec=windows.spec,
    description=describe(windows),
    styles=windows.styles,
    train_labels=torch.from_numpy(windows.select_styles("train")),
    val_labels=torch.from_numpy(windows.select_styles("val")),
  )


def describe(windows: WindowSet) -> list[dict[str, Any]]:
  """Return the entry of each clip for a prior's metadata."""
  return [
    {
      "clip": clip,
      "split": windows.splits[i],
      "windows": int(np.sum(windows.clip_index == i)),
      "mirrored": int(np.sum(windows.mirrored[windows.clip_index == i])),
      "stride": windows.stride,
      **_styles_of(windows, i),
    }
    for i, clip in enumerate(windows.clips)
  ]


def _styles_of(windows: WindowSet, clip: int) -> dict[str, dict[str, int]]:
  """Return the number of windows of each style in a clip, if there are any."""
  if not windows.styles:
    return {}
  found = windows.style_index[windows.clip_index == clip]
  counts = np.bincount(found[found >= 0], minlength=len(windows.styles))
  pairs = zip(windows.styles, counts, strict=True)
  return {"styles": {style: int(count) for style, count in pairs if count}}


def main(arguments: Sequence[str] | None = None) -> None:
  """Run ``pretrain [--config FILE] [OPTIONS]``."""
  cfg = parse(sys.argv[1:] if arguments is None else arguments)
  cfg = replace(cfg, run_dir=cfg.folder())
  cfg.check()
  if cfg.upload:
    check_names(cfg.output, cfg.wandb_project)
  data = load_data(cfg)
  if not len(data.val):
    print("[INFO] no held-out clips (split val): the last weights become the prior")
  print(
    f"[INFO] {len(data.train)} training and {len(data.val)} held-out windows, "
    f"{cfg.batch_size * cfg.draws} noised windows a step"
  )
  if data.styles:
    print(f"[INFO] styles: {', '.join(data.styles)}")
  logger = make_logger(
    cfg.logger, cfg.folder(), cfg.wandb_project, cfg.output.stem, to_plain(cfg)
  )
  stop = StopSignal()
  try:
    with stop.listen():
      trainer = pretrain(data, cfg, logger, stop)
  except Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(130)
  picture = cfg.folder() / "training.png"
  real = data.val if len(data.val) else data.train
  save_training_picture(picture, trainer.best_prior(), trainer.history, real)
  if cfg.upload:
    upload_file(UploadCfg(cfg.output, project=cfg.wandb_project, log_dir=cfg.folder()))
  print(f"{cfg.output}: weights of step {trainer.best['step']}; picture {picture}")
