"""Packaging of a checkpoint as a policy file with a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smp.cli.options import parse
from smp.cli.task_argument import check_task
from smp.errors import UserError
from smp.evaluation.policy.card import card_text, draw_curve
from smp.rl.actor import actor_from
from smp.rl.policy_file import make_policy, read_policy
from smp.tasks.registry import policy_path
from smp.utils.files import atomic_path
from smp.utils.tensor_files import save_tensors


@dataclass(frozen=True)
class PackageCfg:
  """Make a policy file of a checkpoint, and a card (Markdown) beside it.

  Example: uv run scripts/package_policy.py logs/rsl_rl/smp_forward_g1/RUN/model_500.pt
  Smp-Forward-G1 --evaluation
  logs/rsl_rl/smp_forward_g1/RUN/evaluation_model_500/evaluation.json

  The file holds what is needed to run the policy, without what only training needs.
  """

  checkpoint: Annotated[Path, tyro.conf.Positional]
  """model_N.pt of a run."""

  task: Annotated[str, tyro.conf.Positional]
  """Task that the policy was trained on."""

  average_with: tuple[Path, ...] = ()
  """Earlier checkpoints of the same run: the policy gets the mean of their weights and
  its own."""

  output: Path | None = None
  """Default: the shipped policy of the task, datasets/policies/NAME.pt."""

  evaluation: Path | None = None
  """evaluation.json of this policy, for the card."""

  runs: tuple[Path, ...] = ()
  """Folders of the training runs of the policy, oldest first, for the card's curve."""

  notes: str = ""
  """A paragraph for the card: what the film shows, where it falls short."""

  machine: str = ""
  """Machine that the policy was trained on, for the card."""


def _check_output(output: Path, checkpoints: Sequence[Path]) -> None:
  """Raise an error for an output that would destroy a training's checkpoint."""
  given = next((c for c in checkpoints if c.resolve() == output.resolve()), None)
  if given is not None:
    raise UserError(f"--output {output}: is the checkpoint itself; give another name")
  if not output.exists():
    return
  try:
    read_policy(output)
  except UserError as error:
    raise UserError(
      f"--output {output}: exists and is no policy file; give another name"
    ) from error


def main() -> None:
  """Run ``package_policy CHECKPOINT TASK [OPTIONS]``."""
  cfg = parse(PackageCfg)
  check_task(cfg.task)
  output = cfg.output or policy_path(cfg.task)
  if output.suffix != ".pt":
    raise UserError(f"--output {output}: end the name in .pt; a card goes beside it")
  for option, paths in (("--evaluation", (cfg.evaluation,)), ("--runs", cfg.runs)):
    gone = [path for path in paths if path is not None and not path.exists()]
    if gone:
      raise UserError(f"{option} {gone[0]}: does not exist")
  _check_output(output, (cfg.checkpoint, *cfg.average_with))
  policy = make_policy(cfg.checkpoint, cfg.task, cfg.average_with)
  card = policy["card"]
  if cfg.machine:
    card = {**card, "machine": cfg.machine}
  weights = actor_from(policy, cfg.checkpoint).digest()
  curve = output.with_suffix(".png") if cfg.runs else None
  # What can be wrong is found before anything is written.
  text = card_text(card, cfg.evaluation, curve, cfg.notes, weights)
  if curve is not None:
    draw_curve(curve, cfg.runs)
  save_tensors(output, policy)
  with atomic_path(output.with_suffix(".md")) as path:
    path.write_text(text, encoding="utf-8")
  print(f"{output}: {output.stat().st_size / 2**20:.1f} MiB")
  for name, value in card.items():
    print(f"  {name}: {value}")
