"""Every documented command has options that its script takes."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from dataclasses import replace

import pytest
import tyro

from smp.paths import ROOT
from tests.deploy_fakes import SPEED, g1_policy, write_policy
from tests.project.run_commands import all_commands

pytestmark = pytest.mark.slow


class Parsed(Exception):
  """The options were taken; nothing more is to happen."""


COMMANDS = sorted(
  command
  for command in all_commands()
  if re.match(r"uv run scripts/\w+\.py", command) and "Smp-Backward-G1" not in command
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
  """A policy of Smp-Forward-G1: what it can be asked for are options of scripts."""
  path = tmp_path_factory.mktemp("policy") / "policy.onnx"
  return str(write_policy(path, g1_policy((replace(SPEED, along=""),))))


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_taken(command, policy, monkeypatch):
  cli = tyro.cli

  def only_parse(*args, **kwargs):
    cli(*args, **kwargs)
    raise Parsed

  monkeypatch.setattr(tyro, "cli", only_parse)
  monkeypatch.chdir(ROOT)
  words = [
    policy if word.endswith(".onnx") else word for word in shlex.split(command)[2:]
  ]
  monkeypatch.setattr(sys, "argv", words)
  with pytest.raises(Parsed):
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")
