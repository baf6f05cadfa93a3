"""The console that tables are printed on."""

from __future__ import annotations

import sys

from rich.console import Console


def table_console(width: int) -> Console:
  """Return the console for tables: the terminal, or text of a file or a pipe.

  Brackets and colons in the names of clips, runs and policies are printed, not read as
  styles and emoji.

  Args:
    width: Columns of the text, where there is no terminal to fit.
  """
  return Console(
    width=None if sys.stdout.isatty() else width, markup=False, emoji=False
  )
