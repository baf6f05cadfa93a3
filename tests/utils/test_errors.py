"""Errors for people: one line, whatever stands in a file of other people."""

from __future__ import annotations

import pytest

from smp.errors import UserError, run


@pytest.mark.parametrize(
  "name", ["two\nlines", "a\rb", "tab\tbed", "red\x1b[31m", "\ud800"]
)
def test_names_that_cannot_be_printed_stay_on_the_line(name, capsys):
  def main() -> None:
    raise UserError(f"file.pt: entry '{name}' is not a tensor")

  with pytest.raises(SystemExit) as ended:
    run(main)
  assert ended.value.code == 2
  printed = capsys.readouterr().err
  assert printed.endswith("' is not a tensor\n")
  line = printed.removesuffix("\n")
  assert line.isprintable() and line.startswith("error: file.pt: entry '")


def test_other_letters_are_kept():
  text = "größe.csv: Zeile 3: 'μ' is 'naïve 動'; write a number"
  assert str(UserError(text)) == text
