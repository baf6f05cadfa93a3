"""Git commit of this program, stored with results."""

from __future__ import annotations

import subprocess

from smp import paths


def git_revision() -> str:
  """Return this program's commit, '+' if files differ from it; '' if unknown."""
  try:
    done = subprocess.run(
      ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
      cwd=paths.ROOT,
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return ""
  return done.stdout.strip()
