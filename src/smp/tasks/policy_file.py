"""Policies to show and to hand on: one file, smaller than a checkpoint, without code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from smp.errors import UserError
from smp.tasks.checkpoint import read_checkpoint
from smp.tensor_files import load_tensors, save_tensors

if TYPE_CHECKING:
  from smp.tasks.runner import SmpRunner

FORMAT = "smp policy 1"
"""Mark of a policy file, with the version of its layout."""

_UNKNOWN = "unknown"


def save_policy(
  checkpoint: str | os.PathLike[str], output: str | os.PathLike[str], task: str
) -> dict[str, Any]:
  """Write the policy of a checkpoint, without what only training needs.

  Kept are the actor with its normaliser of observations, the running means by which the
  reward is shown, and the card: task, iteration, steps, prior, commit and command.

  Returns:
    The card.

  Raises:
    UserError: the checkpoint is damaged, or the output cannot be written.
  """
  loaded = read_checkpoint(checkpoint, "cpu")
  infos = loaded["infos"]
  origin = infos.get("origin", {})
  card = {
    "task": task,
    "iteration": loaded["iter"],
    "steps": infos["progress"]["total_steps"],
    **{
      name: str(origin.get(name, _UNKNOWN)) for name in ("prior", "commit", "command")
    },
  }
  guidance = infos["guidance"]
  policy = {
    "format": FORMAT,
    "actor_state_dict": loaded["actor_state_dict"],
    "mean": guidance["mean"],
    "count": guidance["count"],
    "card": card,
  }
  _check(Path(output), policy)
  save_tensors(output, policy)
  return card


def read_policy(
  path: str | os.PathLike[str], map_location: str = "cpu"
) -> dict[str, Any]:
  """A policy file as `save_policy` writes it; no code in it is run.

  Raises:
    UserError: the file is missing, damaged, or not a policy of this project.
  """
  loaded = load_tensors(path, "policy", map_location)
  if loaded.get("format") != FORMAT:
    raise UserError(
      f"{path}: not a policy file of this version; write it with scripts/ship_policy.py"
    )
  _check(Path(path), loaded)
  return loaded


def read_means(path: str | os.PathLike[str]) -> dict[str, Any]:
  """What scales the reward, of a checkpoint or of a policy file, and its ``iteration``.

  Returns:
    ``mean`` (K,), ``count`` (1,) and ``iteration``.

  Raises:
    UserError: the file is missing, damaged, or not of this project.
  """
  loaded = load_tensors(path, "policy", "cpu")
  if loaded.get("format") == FORMAT:
    _check(Path(path), loaded)
    means, iteration = loaded, loaded["card"].get("iteration")
  else:
    loaded = read_checkpoint(path, "cpu")
    means, iteration = loaded["infos"]["guidance"], loaded["iter"]
  return {"mean": means["mean"], "count": means["count"], "iteration": iteration}


def load_actor(
  runner: SmpRunner, path: str | os.PathLike[str], task: str | None = None
) -> dict[str, Any]:
  """Load the actor of a checkpoint or of a policy file into ``runner``.

  The running means of the guidance come along, so that the reward shown is the one
  that the policy was trained on.

  Args:
    runner: With the environment of the task that the policy is for.
    path: A checkpoint (model_N.pt), or what `save_policy` wrote.
    task: The task to be shown; None: any whose observations and actions fit.

  Returns:
    The card of the policy: of a checkpoint, its iteration, prior, commit and command.

  Raises:
    UserError: the file is missing, damaged, or of another task.
  """
  device = str(runner.device)
  loaded = load_tensors(path, "policy", device)
  if loaded.get("format") != FORMAT:
    runner.load(str(path), load_cfg={"actor": True}, map_location=device)
    origin = loaded["infos"].get("origin") or {}
    return {**origin, "iteration": loaded["iter"]}
  _check(Path(path), loaded)
  card = loaded["card"]
  if task is not None and card["task"] != task:
    raise UserError(f"{path}: a policy of {card['task']}, not of {task}")
  runner.load_policy(str(path), loaded)
  return card


def _check(path: Path, policy: dict[str, Any]) -> None:
  """Refuse what `save_policy` does not write."""
  wrong = f"{path}: not a policy of this project"
  actor, card = policy.get("actor_state_dict"), policy.get("card")
  if not isinstance(actor, dict) or not actor or not isinstance(card, dict):
    raise UserError(f"{wrong} (missing: actor_state_dict or card)")
  if not isinstance(card.get("task"), str):
    raise UserError(f"{wrong} (its card names no task)")
  numbers = {name: policy.get(name) for name in ("mean", "count")}
  for name, value in {**actor, **numbers}.items():
    if not isinstance(value, torch.Tensor):
      raise UserError(f"{wrong} ({name} is not a tensor)")
    if not bool(value.isfinite().all()):
      raise UserError(f"{path}: {name} has values that are not finite")
