"""Checkpoints of training: their entries, and the search for the newest."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from smp.errors import UserError, shown
from smp.utils.files import remove_leftovers
from smp.utils.tensor_files import load_tensors

_ENTRIES: dict[tuple[str, ...], type] = {
  ("actor_state_dict",): dict,
  ("iter",): int,
  ("infos", "env_state", "common_step_counter"): int,
}
"""Entries in a checkpoint of any task, mjlab's own included, and their types."""

_PRIOR_ENTRIES: dict[tuple[str, ...], type] = {
  ("infos", "smp", "mean"): torch.Tensor,
  ("infos", "smp", "count"): torch.Tensor,
  ("infos", "smp", "init_states", "root_pos"): torch.Tensor,
  ("infos", "smp", "init_states", "root_quat"): torch.Tensor,
  ("infos", "smp", "init_states", "joint_pos"): torch.Tensor,
  ("infos", "smp", "init_states", "next"): int,
}
"""Further entries for a task with a motion prior."""

_LEARNER_ENTRIES: dict[str, dict[str, type]] = {
  "ppo": dict.fromkeys(("critic_state_dict", "optimizer_state_dict"), dict),
  "td3": {
    **dict.fromkeys(("actor_spec", "critic_state_dict", "critic_normalizer"), dict),
    **dict.fromkeys(("target_actor", "target_critic"), dict),
    **dict.fromkeys(("actor_optimizer", "critic_optimizer"), dict),
    "updates": int,
  },
}
"""Entries that each learner continues from, and their types."""

ANY_RUN = ".*"
"""mjlab's expression for any run."""

_DOWNLOADS = "wandb_checkpoints"
"""Folder among the runs that holds downloaded checkpoints."""


def read_checkpoint(path: str | os.PathLike[str], map_location: str) -> dict[str, Any]:
  """Read a policy checkpoint as plain tensors and numbers; no code in it is run.

  Raises:
    UserError: The file is missing, damaged, or not a checkpoint of this project.
  """
  loaded = load_tensors(path, "checkpoint", map_location)
  _take_former_names(loaded)
  for keys, kind in _expected(loaded, path).items():
    value: Any = loaded
    for key in keys:
      value = value.get(key) if isinstance(value, dict) else None
    name = ".".join(keys)
    if value is None:
      raise UserError(f"{path}: not a checkpoint of this project (missing: {name})")
    if not isinstance(value, kind):
      raise UserError(
        f"{path}: not a checkpoint of this project ({name} is {type(value).__name__}, "
        f"expected {kind.__name__})"
      )
  wrong = next(_not_finite(loaded), None)
  if wrong is not None:
    raise UserError(f"{path}: {wrong} has values that are not finite; use an older one")
  return loaded


def _not_finite(value: object, name: str = "") -> Iterator[str]:
  """Yield the names of the tensors, in tables at any depth, with NaN or infinity."""
  if isinstance(value, dict):
    for key, each in value.items():
      yield from _not_finite(each, f"{name}.{key}" if name else str(key))
  elif isinstance(value, torch.Tensor) and value.is_floating_point():
    if not bool(value.isfinite().all()):
      yield name


def _take_former_names(loaded: dict[str, Any]) -> None:
  """Rename the entries of older checkpoints to the present names."""
  infos = loaded.get("infos")
  if not isinstance(infos, dict) or not isinstance(infos.get("guidance"), dict):
    return
  former = infos.pop("guidance")
  names = {"pool": "init_states", "scale": "sds_normalizer"}
  infos["smp"] = {names.get(name, name): value for name, value in former.items()}


def _expected(loaded: dict[str, Any], path: object) -> dict[tuple[str, ...], type]:
  """Return the entries that a checkpoint of its learner and task must have."""
  learner = loaded.get("learner", "ppo")
  if not isinstance(learner, str) or learner not in _LEARNER_ENTRIES:
    raise UserError(
      f"{path}: not a checkpoint of this project (learner {shown(learner)} is none of "
      f"{', '.join(_LEARNER_ENTRIES)})"
    )
  entries = dict(_ENTRIES)
  entries |= {(name,): kind for name, kind in _LEARNER_ENTRIES[learner].items()}
  infos = loaded.get("infos")
  if isinstance(infos, dict) and (infos.keys() & {"smp", "progress"}):
    entries["infos", "progress", "total_steps"] = int
  if isinstance(infos, dict) and "smp" in infos:
    entries |= _PRIOR_ENTRIES
  if isinstance(infos, dict) and "origin" in infos:
    entries["infos", "origin"] = dict
  return entries


def newest_checkpoint(
  experiment: Path, run: str = ANY_RUN, name: str = r"model_.*\.pt"
) -> Path:
  """Return the newest complete checkpoint among the runs of an experiment.

  Runs are ordered by name, which is their date, and checkpoints by iteration. A run
  that was stopped before its first checkpoint is skipped. So is a damaged file, with a
  warning, if there is an older one. Temporary files of a killed run are never used, and
  are removed.

  Args:
    experiment: Folder of runs, such as logs/rsl_rl/smp_forward_g1.
    run: A run's name or folder, a glob ("2026-11-26*"), or a regular expression of
      whole names. Default: any.
    name: Regular expression that names of checkpoints begin with.

  Raises:
    UserError: There is none.
  """
  candidates = _candidates(experiment, run, name)
  if not candidates:
    raise UserError(
      f"{experiment}: no checkpoint to resume from (--agent.load-run {run} "
      f"--agent.load-checkpoint {name}){_others(experiment)}; leave out --agent.resume "
      "to start anew"
    )
  for path in candidates[:-1]:
    try:
      read_checkpoint(path, "cpu")
    except UserError as error:
      print(f"[WARN] {error}; looking for an older one")
    else:
      return path
  read_checkpoint(candidates[-1], "cpu")
  return candidates[-1]


def _candidates(experiment: Path, run: str, name: str) -> list[Path]:
  """Return matching checkpoints, the newest first."""
  try:
    found = []
    for folder in matching_runs(experiment, run):
      remove_leftovers(folder)
      files = [f for f in folder.iterdir() if re.match(name, f.name) and f.is_file()]
      files = [file for file in files if not file.name.startswith(".")]
      found += sorted(files, key=_iteration, reverse=True)
    return found
  except re.error as error:
    raise UserError(
      f"--agent.load-run {run} --agent.load-checkpoint {name}: not a regular "
      f"expression ({error})"
    ) from error


def matching_runs(experiment: Path, run: str) -> list[Path]:
  """Return the folders of the runs that ``run`` names, the newest first.

  Args:
    experiment: Folder of runs.
    run: As for `newest_checkpoint`; its meanings are tried in the order given there.

  Raises:
    UserError: It is the path of a folder that is no run of this experiment.
    re.error: It is not a regular expression either.
  """
  folders = [
    folder
    for folder in (experiment.iterdir() if experiment.is_dir() else ())
    if folder.is_dir() and folder.name != _DOWNLOADS
  ]
  folders.sort(key=lambda folder: folder.name, reverse=True)
  path = Path(run).expanduser()
  if os.sep in run and path.exists():
    path = path.resolve() if path.is_dir() else path.resolve().parent
    if path not in [folder.resolve() for folder in folders]:
      raise UserError(
        f"--agent.load-run {run}: not a run of {experiment}, where this training looks "
        "(--log-root and --agent.experiment-name)"
      )
    return [folder for folder in folders if folder.resolve() == path]
  exact = [folder for folder in folders if folder.name == run]
  if exact:
    return exact
  globbed = [folder for folder in folders if fnmatch.fnmatchcase(folder.name, run)]
  if globbed:
    return globbed
  return [folder for folder in folders if re.fullmatch(run, folder.name)]


def _others(experiment: Path) -> str:
  """Return the end of an error message that lists the newest runs."""
  names = [folder.name for folder in matching_runs(experiment, ANY_RUN)[:3]]
  return f"; the newest runs are {', '.join(names)}" if names else ""


def _iteration(path: Path) -> int:
  number = re.fullmatch(r"model_(\d+)\.pt", path.name)
  return int(number.group(1)) if number else -1
