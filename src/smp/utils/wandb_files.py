"""Download and upload of policies and priors on Weights & Biases."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlparse

from smp.errors import UserError, one_line, shown
from smp.utils.files import work_folder
from smp.utils.wandb_mode import WANDB_URL, choose_wandb_mode, has_wandb_login

Kind = Literal["prior", "policy"]
PRIOR_DOWNLOADS = Path("logs") / "wandb_priors"
_CHECKPOINT = re.compile(r"model_(\d+)\.pt")
_DOWNLOAD = ".download."
"""Prefix of the names of unfinished downloads."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}
"""Errors of this machine's disk, not of W&B."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""Valid names of W&B artifacts."""
_TIMEOUT_S = 20
_PROBE_S = 3.0


def fetch_checkpoint(
  folder: Path, run_path: str, name: str | None = None
) -> tuple[Path, bool]:
  """Return a checkpoint of a run, downloaded if needed.

  It is stored in ``folder``/wandb_checkpoints/RUN, where mjlab looks, too.

  Args:
    folder: Folder of the runs of the task's experiment.
    run_path: ORG/PROJECT/RUN.
    name: Such as model_4000.pt; None: the newest.

  Returns:
    The file, and whether it was there already.

  Raises:
    UserError: no login, no network, no such run, or no such checkpoint in it.
  """
  option = f"--wandb-run-path {run_path}"
  _check_path(option, run_path, "ORG/PROJECT/RUN")
  with _explained(option, "ORG/PROJECT/RUN"):
    run = _api().run(run_path)
    files = {
      file.name: file
      for file in run.files(pattern="model_%.pt")
      if _CHECKPOINT.fullmatch(file.name)
    }
  if not files:
    raise UserError(
      f"{option}: this run has no checkpoint (model_N.pt); was it trained with "
      "--agent.upload-model False?"
    )
  if name is not None and name not in files:
    raise UserError(
      f"{option}: no checkpoint {name} in this run (the newest: {max(files, key=_number)})"
    )
  chosen = name or max(files, key=_number)
  path = folder / "wandb_checkpoints" / run_path.split("/")[-1] / chosen
  if path.exists():
    return path, True
  with _explained(option, "ORG/PROJECT/RUN"), _whole(path) as temporary:
    files[chosen].download(str(temporary), replace=True)
  return path, False


def fetch_prior(name: str, folder: Path = PRIOR_DOWNLOADS) -> Path:
  """Return the prior in an artifact, downloaded to ``folder``/ARTIFACT-VERSION.

  Args:
    name: ORG/PROJECT/ARTIFACT or ORG/PROJECT/ARTIFACT:VERSION; by default the newest
      version.
    folder: Where to download to.

  Raises:
    UserError: no login, no network, no such artifact, or not exactly one prior in it.
  """
  option, form = f"--wandb-prior {name}", "ORG/PROJECT/ARTIFACT[:VERSION]"
  _check_path(option, name, form)
  with _explained(option, form):
    artifact = _api().artifact(name if ":" in name else f"{name}:latest")
    files = [file for file in artifact.manifest.entries if _is_prior(file)]
  if len(files) != 1:
    raise UserError(
      f"{option}: the artifact holds {len(files)} priors (.safetensors), expected one"
    )
  version = f"{artifact.name.split(':')[0]}-{artifact.version}"
  path = folder / version / Path(files[0]).name
  if not path.exists():
    with _explained(option, form), _whole(path) as temporary:
      artifact.download(root=str(temporary), skip_cache=True)
      os.replace(temporary / files[0], temporary / path.name)
  return path


def check_names(path: Path, project: str) -> None:
  """Raise if W&B would reject the names at the end of a training.

  Raises:
    UserError: the file's name is no valid artifact name, or the project's name is
      invalid.
  """
  if not _NAME.fullmatch(path.stem):
    raise UserError(
      f"{path}: W&B takes names of at most 128 letters, digits, '-', '_' and '.' only; "
      "rename the file"
    )
  if re.search(r"[/\\#?%:]", project) or len(project) > 128:
    raise UserError(
      f"project {shown(project)}: W&B takes at most 128 characters, and none of "
      "/ \\ # ? % :"
    )


def upload(
  path: Path, kind: Kind, project: str, metadata: Mapping[str, Any], log_dir: Path
) -> str:
  """Upload a prior or a policy to W&B as an artifact named like the file.

  It is added to the run that is open, or to a new one. Offline it is kept in
  ``log_dir`` for ``wandb sync``.

  Returns:
    Name of the artifact.
  """
  import wandb

  if not path.is_file():
    raise UserError(f"{path}: no such file to upload")
  check_names(path, project)
  log_dir.mkdir(parents=True, exist_ok=True)
  choose_wandb_mode(log_dir)
  artifact = wandb.Artifact(path.stem, type=kind, metadata=dict(metadata))
  artifact.add_file(str(path))
  online = os.environ.get("WANDB_MODE") != "offline"
  with _explained(f"upload of {path}", "the project's name", online):
    if wandb.run is not None:
      wandb.run.log_artifact(artifact)
    else:
      # The client reads the environment only once, at its first use.
      mode = cast(Any, os.environ.get("WANDB_MODE"))
      with wandb.init(
        project=project, job_type=f"upload-{kind}", dir=str(log_dir), mode=mode
      ) as run:
        run.log_artifact(artifact)
  return path.stem


def _api() -> Any:
  if not has_wandb_login():
    raise UserError(
      "W&B: no login on this machine; run `uv run wandb login`, or set WANDB_API_KEY"
    )
  import wandb

  # The client prints where it found the login.
  with contextlib.redirect_stderr(io.StringIO()):
    return wandb.Api(timeout=int(os.environ.get("WANDB_HTTP_TIMEOUT", _TIMEOUT_S)))


def _check_path(option: str, path: str, form: str) -> None:
  if not re.fullmatch(r"[^/\s:]+/[^/\s:]+/[^/\s]+", path):
    raise UserError(f"{option}: expected {form}")


@contextmanager
def _explained(option: str, form: str, online: bool = True) -> Iterator[None]:
  """Turn any error of W&B's client into a one-line ``UserError``."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    if isinstance(error, OSError) and error.errno in _DISK:
      raise UserError(
        f"{option}: cannot write ({error.strerror}); free some space or choose another "
        "folder"
      ) from error
    detail = one_line(error)
    if not online:
      raise UserError(f"{option}: W&B's client failed ({detail})") from error
    url = os.environ.get("WANDB_BASE_URL", WANDB_URL)
    if not _reachable(url):
      raise UserError(f"{option}: no connection to {url}; check the network") from error
    raise UserError(
      f"{option}: W&B refused ({detail}); check {form} and your login "
      "(uv run wandb login)"
    ) from error


def _reachable(url: str) -> bool:
  """Return whether a server listens at ``url``; True if a proxy is configured."""
  if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY")):
    return True
  parts = urlparse(url)
  port = parts.port or (80 if parts.scheme == "http" else 443)
  try:
    socket.create_connection((parts.hostname or "", port), _PROBE_S).close()
  except OSError:
    return False
  return True


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
  """Yield a folder to download ``path`` into; the file is moved when complete."""
  with work_folder(path.parent, _DOWNLOAD) as folder:
    yield folder
    os.replace(folder / path.name, path)


def _number(name: str) -> int:
  found = _CHECKPOINT.fullmatch(name)
  return int(found.group(1)) if found else -1


def _is_prior(name: str) -> bool:
  return name.endswith(".safetensors")
