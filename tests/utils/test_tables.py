"""Tables are printed as they are, whatever the names in them."""

from __future__ import annotations

from rich.table import Table

from smp.utils.tables import table_console


def test_brackets_in_names_are_printed(capsys) -> None:
  table = Table("name", title="of [red]")
  for name in ("walk[/]", "[bold]run", "[1, 2]", "a:cat:b"):
    table.add_row(name)
  table_console(60).print(table)
  out = capsys.readouterr().out
  assert all(
    name in out for name in ("of [red]", "walk[/]", "[bold]run", "[1, 2]", ":cat:")
  )


def test_a_file_gets_as_many_columns_as_asked(capsys) -> None:
  table_console(300).print("word " * 50)
  assert len(capsys.readouterr().out.splitlines()) == 1
