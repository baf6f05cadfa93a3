"""Suppression of the tables that mjlab's managers print."""

from __future__ import annotations

import contextlib
import io


def quiet() -> contextlib.redirect_stdout[io.StringIO]:
  """Return a context that drops what is printed; warnings on stderr still show."""
  return contextlib.redirect_stdout(io.StringIO())
