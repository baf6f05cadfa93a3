"""Policy files: one file for each policy, smaller than a checkpoint, without code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smp.errors import UserError, shown
from smp.mdp.smp_reward import TIMESTEPS
from smp.rl.actor import Actor, ActorSpec, actor_from
from smp.rl.checkpoint import read_checkpoint
from smp.utils.tensor_files import load_tensors, save_tensors

FORMAT = "smp policy 2"
"""Mark of a policy file, with the version of its layout."""
FORMER_FORMATS = ("smp policy 1",)
"""Layouts that are still read: 1 has no ``actor_spec``, as all actors were PPO's."""

CLIP = "clip_actions"
"""Entry of a checkpoint's origin and of a card: the largest action of the training."""
_UNKNOWN = "unknown"
_NEVER_NEGATIVE = ("mean", "count", "obs_normalizer._std", "action_bound")


def save_policy(
  checkpoint: str | os.PathLike[str],
  output: str | os.PathLike[str],
  task: str,
  others: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
  """Write the policy of a checkpoint, without what only training needs (`make_policy`).

  Returns:
    The card.

  Raises:
    UserError: As of `make_policy`, or the output cannot be written.
  """
  policy = make_policy(checkpoint, task, others)
  save_tensors(output, policy)
  return policy["card"]


def make_policy(
  checkpoint: str | os.PathLike[str],
  task: str,
  others: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
  """Return the contents of the policy file of a checkpoint.

  The file holds the actor with its normaliser of observations, the running means that
  normalise the reward, and the card: task, iteration, steps, prior, commit and command.

  Args:
    checkpoint: model_N.pt of a run.
    task: Task that the policy was trained on.
    others: Earlier checkpoints of the same run. The weights become the mean of all,
      which is often steadier than any one (stochastic weight averaging, Izmailov et al.,
      arXiv 1803.05407); all else is of ``checkpoint``.

  Raises:
    UserError: A checkpoint is damaged, or of another task or network.
  """
  loaded = read_checkpoint(checkpoint, "cpu")
  infos = loaded["infos"]
  if "progress" not in infos:
    raise UserError(
      f"{checkpoint}: not a checkpoint of this project (no infos.progress)"
    )
  origin = infos.get("origin", {})
  _check_task(checkpoint, origin, task)
  card = {
    "task": task,
    "learner": loaded.get("learner", "ppo"),
    "iteration": loaded["iter"],
    "steps": infos["progress"]["total_steps"],
    "minutes": round(float(infos["progress"].get("total_time", 0.0)) / 60.0, 1),
    **({"updates": loaded["updates"]} if "updates" in loaded else {}),
    **{
      name: str(origin.get(name, _UNKNOWN)) for name in ("prior", "commit", "command")
    },
    **{name: origin[name] for name in ("style", "actor", CLIP) if name in origin},
  }
  means = infos.get("smp", {"mean": torch.zeros(0), "count": torch.zeros(1)})
  if others:
    same = [Path(path).resolve() for path in (checkpoint, *others)]
    if len(set(same)) < len(same):
      raise UserError(f"{checkpoint}: averaged with a checkpoint that is given twice")
    read = [read_checkpoint(other, "cpu") for other in others]
    _average(loaded, dict(zip(map(str, others), read, strict=True)))
    card["mean_of_iterations"] = [*(each["iter"] for each in read), loaded["iter"]]
  policy = {
    "format": FORMAT,
    "actor_state_dict": loaded["actor_state_dict"],
    "actor_spec": loaded.get("actor_spec", ActorSpec().to_dict()),
    "mean": means["mean"],
    "count": means["count"],
    **({TIMESTEPS: means[TIMESTEPS]} if TIMESTEPS in means else {}),
    "card": card,
  }
  _check(Path(checkpoint), policy)
  return policy


def _average(loaded: dict[str, Any], others: dict[str, dict[str, Any]]) -> None:
  """Replace the weights of a checkpoint's actor by the mean with those of others.

  The normaliser of observations, which only grows more exact, stays the checkpoint's.

  Raises:
    UserError: One is of another network; the message names it.
  """
  own = loaded["actor_state_dict"]
  sizes = {name: value.shape for name, value in own.items()}
  for path, other in others.items():
    theirs = other["actor_state_dict"]
    if {name: value.shape for name, value in theirs.items()} != sizes:
      raise UserError(f"{path}: of another network; average checkpoints of one run")
    for what, first, second in _origins(loaded, other):
      if first != second:
        raise UserError(
          f"{path}: its {what} is {shown(second)}, the checkpoint's {shown(first)}; "
          "average checkpoints of one run"
        )
    bound = "action_bound"
    if bound in own and not torch.equal(own[bound], theirs[bound]):
      raise UserError(f"{path}: has other {bound}; average checkpoints of one run")
  for name in own:
    if name.startswith("mlp."):
      values = [
        own[name],
        *(other["actor_state_dict"][name] for other in others.values()),
      ]
      own[name] = torch.stack(values).double().mean(dim=0).to(own[name].dtype)


def _origins(
  loaded: dict[str, Any], other: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
  """Yield what two checkpoints of one run have in common: its name and both values."""
  yield "network", loaded.get("actor_spec"), other.get("actor_spec")
  origins = [each["infos"].get("origin", {}) for each in (loaded, other)]
  for name in ("task", "prior", "style", "actor", CLIP):
    yield name, *(origin.get(name) for origin in origins)


def read_policy(
  path: str | os.PathLike[str], map_location: str = "cpu"
) -> dict[str, Any]:
  """Read a policy file written by `save_policy`; no code in it is run.

  Raises:
    UserError: The file is missing, damaged, or not a policy of this project.
  """
  loaded = load_tensors(path, "policy", map_location)
  if not _is_policy(loaded):
    raise UserError(
      f"{path}: not a policy file of this version; write it with scripts/package_policy.py"
    )
  _check(Path(path), loaded)
  return loaded


def read_means(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Read the running means of the SDS losses from a checkpoint or policy file.

  Returns:
    ``mean`` (K,), ``count`` (1,) and ``iteration``; the first two are None of a policy
    that was trained without a prior. And the K ``timesteps``, if the file says so.

  Raises:
    UserError: The file is missing, damaged, or not of this project.
  """
  loaded = load_tensors(path, "policy", "cpu")
  if _is_policy(loaded):
    _check(Path(path), loaded)
    means, iteration = _known(loaded), loaded["card"].get("iteration")
  else:
    loaded = read_checkpoint(path, "cpu")
    means, iteration = loaded["infos"].get("smp") or {}, loaded["iter"]
  return {
    "mean": means.get("mean"),
    "count": means.get("count"),
    "iteration": iteration,
    **({TIMESTEPS: means[TIMESTEPS]} if TIMESTEPS in means else {}),
  }


def read_origin(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Return where a policy is from: a checkpoint's origin, or a policy file's card.

  Raises:
    UserError: The file is missing, damaged, or not of this project.
  """
  loaded = load_tensors(path, "policy", "cpu")
  if _is_policy(loaded):
    _check(Path(path), loaded)
    return loaded["card"]
  infos = loaded.get("infos")
  origin = infos.get("origin") if isinstance(infos, dict) else None
  return origin if isinstance(origin, dict) else {}


def _known(policy: dict[str, Any]) -> dict[str, Any]:
  """Return ``mean`` and ``count`` of a policy file; nothing if there was no prior."""
  return policy if policy["mean"].numel() else {}


@dataclass
class TrainedPolicy:
  """A policy, whichever learner trained it and whichever file it was in."""

  actor: Actor
  card: dict[str, Any]
  """Card of a policy file; of a checkpoint, its iteration and origin."""
  means: dict[str, Any] | None
  """``mean`` (K,) and ``count`` (1,) that normalise the reward of its training, and the K
  ``timesteps``, if the file says so. None: it was trained without a prior."""


def load_trained(
  path: str | os.PathLike[str], task: str | None = None, device: str = "cpu"
) -> TrainedPolicy:
  """Return the policy in a checkpoint or policy file; no code in it is run.

  Args:
    path: A checkpoint (model_N.pt), or a file written by `save_policy`.
    task: The task that it must be for; None: any.
    device: Device of the actor.

  Raises:
    UserError: The file is missing, damaged, or of another task.
  """
  loaded = load_tensors(path, "policy", "cpu")
  if _is_policy(loaded):
    _check(Path(path), loaded)
    card, means = loaded["card"], _known(loaded) or None
  else:
    loaded = read_checkpoint(path, "cpu")
    infos = loaded["infos"]
    card = {
      **(infos.get("origin") or {}),
      "learner": loaded.get("learner", "ppo"),
      "iteration": loaded["iter"],
    }
    means = infos.get("smp")
  _check_task(path, card, task)
  actor = actor_from(loaded, path).to(device)
  actor.output_clip = _clip_of(path, card)
  if means is not None:
    timesteps = {TIMESTEPS: means[TIMESTEPS]} if TIMESTEPS in means else {}
    means = {**{k: means[k].to(device) for k in ("mean", "count")}, **timesteps}
  return TrainedPolicy(actor, card, means)


def _clip_of(path: str | os.PathLike[str], card: dict[str, Any]) -> float | None:
  """Return the largest action in a card; None if it names none.

  Raises:
    UserError: It is no number above 0.
  """
  clip = card.get(CLIP)
  if clip is None:
    return None
  if isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip:
    raise UserError(f"{path}: {CLIP} is {shown(clip)}, expected a number above 0")
  return float(clip)


def _check_task(
  path: str | os.PathLike[str], origin: dict[str, Any], task: str | None
) -> None:
  """Raise an error for a policy that says that it is of another task."""
  found = origin.get("task", task)
  if task is not None and found != task:
    raise UserError(f"{path}: a policy of {found}, not of {task}")


def _is_policy(loaded: dict[str, Any]) -> bool:
  return loaded.get("format") in (FORMAT, *FORMER_FORMATS)


def _check(path: Path, policy: dict[str, Any]) -> None:
  """Raise an error for contents that `save_policy` does not write."""
  wrong = f"{path}: not a policy of this project"
  actor, card = policy.get("actor_state_dict"), policy.get("card")
  if not isinstance(actor, dict) or not actor or not isinstance(card, dict):
    raise UserError(f"{wrong} (missing: actor_state_dict or card)")
  if not isinstance(card.get("task"), str):
    raise UserError(f"{wrong} (its card names no task)")
  iteration = card.get("iteration")
  if type(iteration) is not int or iteration < 0:
    raise UserError(f"{wrong} (its card's iteration is {shown(iteration)})")
  numbers = {name: policy.get(name) for name in ("mean", "count")}
  for name, value in {**actor, **numbers}.items():
    if not isinstance(value, torch.Tensor):
      raise UserError(f"{wrong} ({name} is not a tensor)")
    if not bool(value.isfinite().all()):
      raise UserError(f"{path}: {name} has values that are not finite")
    if name in _NEVER_NEGATIVE and bool((value < 0.0).any()):
      raise UserError(f"{path}: {name} has values below 0")
  timesteps = policy.get(TIMESTEPS, [])
  if not isinstance(timesteps, list) or not all(type(t) is int for t in timesteps):
    raise UserError(f"{wrong} ({TIMESTEPS} is no list of whole numbers)")
