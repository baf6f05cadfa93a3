"""The documentation: links that lead somewhere, limits that hold, snippets that run."""

from __future__ import annotations

import re
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from smp.cli.train import TrainArgs
from smp.diffusion.trainer import PretrainCfg
from smp.mdp.smp_term import SmpTermCfg
from smp.paths import ROOT
from smp.rl.off_policy import OffPolicyRunnerCfg
from smp.rl.td3 import Td3Cfg

PAGES = sorted(
  path
  for pattern in ("*.md", "docs/*.md", "datasets/*.md")
  for path in ROOT.glob(pattern)
)
SCRIPTS = sorted(ROOT.glob("scripts/*.py"))
PENDING: set[str] = set()
"""Files that README shows and that are still to come."""

README_LINES, PROSE_WIDTH = 150, 120


def without_code(text: str) -> str:
  """A page without its code blocks and inline code."""
  text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
  return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
  """The anchors of a page's headings, as GitHub makes them."""
  text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
  found = set()
  for title in re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE):
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower())
    found.add(kept.replace(" ", "-"))
  return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  broken = []
  for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
    if target.startswith(("http://", "https://", "mailto:")):
      continue
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
      if path.relative_to(ROOT).as_posix() not in PENDING:
        broken.append(target)
    elif anchor and anchor not in anchors(path.read_text()):
      broken.append(target)
  assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_are_named_exist(page):
  named = set(re.findall(r"\bscripts/([a-z0-9_]+\.(?:py|sh))\b", page.read_text()))
  assert not {name for name in named if not (ROOT / "scripts" / name).is_file()}


def test_readme_is_one_screen():
  lines = (ROOT / "README.md").read_text().splitlines()
  assert len(lines) <= README_LINES
  tables = ("|", "![")
  long = [
    line for line in lines if len(line) > PROSE_WIDTH and not line.startswith(tables)
  ]
  assert not long


def test_readme_leads_to_every_page():
  text = (ROOT / "README.md").read_text()
  pages = [path.name for path in ROOT.glob("docs/*.md")]
  assert not [name for name in pages if f"(docs/{name}" not in text]


def test_every_picture_is_shown():
  text = "\n".join(page.read_text() for page in PAGES)
  pictures = [p for p in ROOT.glob("docs/*") if p.suffix in (".png", ".jpg", ".gif")]
  shown = re.findall(r"!\[[^\]]*\]\((?:docs/)?([^)]+)\)", text)
  assert not [p.name for p in pictures if p.name not in shown]


@pytest.mark.parametrize(
  "kind, inherited",
  [
    (TrainArgs, TrainArgs.__mro__[1]),
    (SmpTermCfg, SmpTermCfg.__mro__[1]),
    (OffPolicyRunnerCfg, OffPolicyRunnerCfg.__mro__[1]),
    (Td3Cfg, None),
    (PretrainCfg, None),
  ],
  ids=lambda kind: getattr(kind, "__name__", ""),
)
def test_every_option_of_ours_is_in_the_configuration_page(kind, inherited):
  text = (ROOT / "docs" / "configuration.md").read_text()
  known = {field.name for field in fields(inherited)} if inherited else set()
  # What is no option: names that link a term to its place.
  known |= {"entity_name", "class_name", "algorithm"}
  words = set(re.findall(r"\w+(?:-\w+)*", text))
  names = {field.name for field in fields(kind)} - known
  assert not {n for n in names if not {n, n.replace("_", "-")} & words}, kind


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_shows_an_example(script, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", [f"scripts/{script.name}", "--help"])
  with pytest.raises(SystemExit) as end:
    runpy.run_path(str(script), run_name="__main__")
  out = " ".join(capsys.readouterr().out.split())
  assert end.value.code == 0
  assert f"Example: uv run scripts/{script.name}" in out


def snippets(page: Path) -> list[str]:
  """The Python blocks of a page."""
  return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.slow
def test_the_snippets_of_the_python_api_run(monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  names: dict[str, object] = {}
  run = 0
  for number, code in enumerate(snippets(ROOT / "docs" / "python-api.md"), 1):
    needed = re.findall(r'"(datasets/[^"]+)"', code)
    if not all(Path(file).is_file() for file in needed):
      continue
    exec(compile(code, f"python-api.md, snippet {number}", "exec"), names)
    run += 1
  assert run >= 5


def test_python_on_other_pages_compiles():
  for page in PAGES:
    for number, code in enumerate(snippets(page), 1):
      compile(code, f"{page.name}, snippet {number}", "exec")
