"""Pictures of what a prior generates."""

from __future__ import annotations

import sys

import pytest

from smp.cli import generate
from smp.errors import UserError
from tests.test_cli import can_render


def test_film_strip_of_the_shipped_prior(tmp_path, monkeypatch, capsys):
  if not can_render():
    pytest.skip("no OpenGL library to render with")
  out = tmp_path / "strip.png"
  words = [
    "generate",
    "loco",
    "--output",
    str(out),
    "--samples",
    "4",
    "--pictures",
    "2",
  ]
  monkeypatch.setattr(sys, "argv", words)
  generate.main()
  assert out.stat().st_size > 5000
  assert "2 of 4 windows" in capsys.readouterr().out
  assert [p.name for p in tmp_path.iterdir()] == ["strip.png"]


def test_unknown_prior_is_named(tmp_path):
  cfg = generate.GenerateCfg(prior="nobody", output=tmp_path / "x.png")
  with pytest.raises(UserError, match="prior 'nobody'.*shipped: .*loco"):
    generate.generate(cfg)
