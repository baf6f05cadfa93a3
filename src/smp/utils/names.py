"""Names that users give, checked against those there are."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from smp.errors import UserError


def check_style(style: str, known: Sequence[str], where: str) -> None:
  """Raise an error unless a policy observes a style, and offer the nearest.

  Args:
    style: The style asked for.
    known: Those that the policy tells apart.
    where: The policy, for the message.

  Raises:
    UserError: The policy tells no styles apart, or not this one.
  """
  if not known:
    raise UserError(
      f"--style {style}: {where} observes no style; leave the option out, or take a "
      "policy trained with --env.commands.smp.styles"
    )
  if style not in known:
    close = difflib.get_close_matches(style, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"--style {style}: {where} knows {', '.join(known)}{hint}")


_UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, halves of a character, line separators."""


def check_clip_name(name: str, path: Path) -> None:
  """Raise an error for a name that cannot stand in a table or a file of text.

  Args:
    name: Name of a clip, from that of its file and folders.
    path: The file.

  Raises:
    UserError: The name is not UTF-8, or holds a line break or another control character.
  """
  if any(unicodedata.category(character) in _UNFIT for character in name):
    raise UserError(
      f"{path}: its name is not UTF-8, or holds a line break or control character; "
      "rename it"
    )
