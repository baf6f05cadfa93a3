"""The console that tables are printed on."""

from __future__ import annotations

import sys

from rich.console import Console


def plain_console(width: int | None = None) -> Console:
  """Return a console that prints names as they are: no styles in brackets, no emoji.

  Args:
    width: Columns; None: those of the terminal.
  """
  return Console(width=width, markup=False, emoji=False)


def table_console(width: int) -> Console:
  """Return the console for tables: the terminal, or text of a file or a pipe.

  Args:
    width: Columns of the text, where there is no terminal to fit.
  """
  return plain_console(None if sys.stdout.isatty() else width)
