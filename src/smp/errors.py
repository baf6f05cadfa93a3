"""Errors for people: one line, and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
  """Bad input. The message is one line: what, where (file, row, field), what to do.

  Names come from files of other people: what cannot be printed in them, line breaks and
  a terminal's escapes included, becomes a space.
  """

  def __init__(self, message: str) -> None:
    super().__init__(printable(message))


def run(main: Callable[[], object]) -> NoReturn:
  """Run a script's ``main``, turning user errors into one line and exit code 2.

  Ctrl-C ends with exit code 130, as shells expect. Anything else is a defect of
  this project and keeps its traceback.
  """
  try:
    main()
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
  sys.exit(0)


def printable(text: str) -> str:
  """Return text on one line, with a space for all that cannot be printed."""
  return "".join(c if c.isprintable() else " " for c in text)


def shown(value: object) -> str:
  """Return a wrong value for a message, on one line and truncated."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(error: BaseException) -> str:
  """Return a library's error message, on one line of at most 200 characters."""
  return " ".join(str(error).split())[:200] or type(error).__name__
