"""Make a policy file of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smp.cli.tasks import check_task
from smp.paths import policy_path
from smp.rl.policy_file import save_policy


@dataclass(frozen=True)
class ShipCfg:
  """Write what a policy needs to be shown, without what only training needs."""

  checkpoint: Annotated[Path, tyro.conf.Positional]
  """model_N.pt of a run."""

  task: Annotated[str, tyro.conf.Positional]
  """The task that it was trained on."""

  output: Path | None = None
  """Default: the shipped policy of the task, datasets/policies/NAME.pt."""


def main() -> None:
  cfg = tyro.cli(ShipCfg)
  check_task(cfg.task)
  output = cfg.output or policy_path(cfg.task)
  card = save_policy(cfg.checkpoint, output, cfg.task)
  print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
  for name, value in card.items():
    print(f"  {name}: {value}")
