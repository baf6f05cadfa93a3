"""Checkpoints of runs on W&B, by options that several scripts share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smp.errors import UserError
from smp.utils.wandb_files import fetch_checkpoint


@dataclass(frozen=True)
class WandbRunArgs:
  """Run on W&B, and one of its checkpoints."""

  wandb_run_path: str | None = None
  """A run on W&B: ORG/PROJECT/RUN. The newest checkpoint unless one is named."""

  wandb_checkpoint_name: str | None = None
  """A checkpoint of that run, for example model_4000.pt."""

  log_root: str = "logs/rsl_rl"
  """Folder for checkpoints from W&B, which lie in the task's experiment folder."""


def run_checkpoint(
  task: str, args: WandbRunArgs, file: str | Path | None
) -> Path | None:
  """Return the checkpoint of the named run, downloaded or from an earlier call.

  Args:
    task: The task, whose experiment folder keeps the checkpoint.
    args: The options that name the run.
    file: Value of --checkpoint-file, which excludes a run.

  Returns:
    None if no run was named.

  Raises:
    UserError: Options exclude each other, or W&B has no such run or checkpoint.
  """
  if args.wandb_run_path is None:
    if args.wandb_checkpoint_name is not None:
      raise UserError(
        f"--wandb-checkpoint-name {args.wandb_checkpoint_name}: of which run? give "
        "--wandb-run-path ORG/PROJECT/RUN too"
      )
    return None
  if file is not None:
    raise UserError(
      f"--checkpoint-file {file} and --wandb-run-path {args.wandb_run_path}: give one "
      "of them"
    )
  from mjlab.tasks.registry import load_rl_cfg

  folder = Path(args.log_root).expanduser() / load_rl_cfg(task).experiment_name
  path, cached = fetch_checkpoint(
    folder.resolve(), args.wandb_run_path, args.wandb_checkpoint_name
  )
  print(f"[INFO] Checkpoint {path.name} ({'cached' if cached else 'downloaded'})")
  return path
