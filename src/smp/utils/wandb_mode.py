"""Weights & Biases without a login."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlparse

WANDB_URL = "https://api.wandb.ai"


def has_wandb_login() -> bool:
  """Return whether W&B can log in without asking.

  That needs a key in the environment or in netrc.
  """
  if os.environ.get("WANDB_API_KEY"):
    return True
  host = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_URL)).hostname or ""
  path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
  try:
    return netrc.netrc(str(path)).authenticators(host) is not None
  except (OSError, netrc.NetrcParseError):
    return False


def choose_wandb_mode(log_dir: Path) -> None:
  """Select offline logging, with a message, if W&B would ask for a login.

  An explicit ``WANDB_MODE`` is left as it is.
  """
  os.environ.setdefault("WANDB_DIR", str(log_dir))
  if "WANDB_MODE" in os.environ or has_wandb_login():
    return
  os.environ["WANDB_MODE"] = "offline"
  folder = Path(os.environ["WANDB_DIR"]) / "wandb"
  print(
    "[INFO] W&B: no login found, logging offline. To upload later: "
    f"uv run wandb login && uv run wandb sync {folder}/offline-run-*"
  )
