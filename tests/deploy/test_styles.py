"""A policy that observes a style, away from its training."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from smp.cli.sim2sim import Sim2SimCfg, sim2sim
from smp.deploy.deploy_file import describe_deploy
from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import Robot
from smp.deploy.policy_spec import STYLE, Observation, PolicySpec
from smp.errors import UserError
from tests.deploy_fakes import g1_policy, write_policy

STYLES = ("walk", "run", "dance/run")


def styled() -> PolicySpec:
  spec = g1_policy()
  part = Observation(
    STYLE,
    STYLE,
    3,
    "1",
    "which of walk, run, dance/run",
    (1.0,),
    (0.0, 0.0),
    choices=STYLES,
  )
  return replace(spec, observations=(*spec.observations, part))


def test_metadata_names_the_styles():
  spec = PolicySpec.loads(styled().dumps())
  assert spec == styled() and spec.styles == STYLES
  assert PolicySpec.loads(g1_policy().dumps()).styles == ()
  term = describe_deploy(spec, "policy.onnx").observations["style"]
  assert term.size == 3 and "walk, run, dance/run" in str(asdict(term))


def test_styles_that_do_not_fit_are_refused():
  spec = styled()
  *others, part = spec.observations
  wrong = replace(spec, observations=(*others, replace(part, choices=("walk",))))
  with pytest.raises(UserError, match="'style' has 1 choices, not 3"):
    PolicySpec.loads(wrong.dumps())


def test_a_robot_is_told_its_style():
  spec = styled()
  robot = Robot(spec, Command(spec, {}))
  for place, name in enumerate(STYLES):
    assert (robot.style == name) == (place == 0)
    robot.style = name
    assert np.array_equal(robot.observe()[-3:], np.eye(3)[place])
    robot.style = STYLES[0]


def test_unknown_styles_are_one_line(tmp_path: Path):
  path = write_policy(tmp_path / "policy.onnx", styled())
  with pytest.raises(UserError, match="--style rum: policy.onnx .*did you mean run"):
    sim2sim(Sim2SimCfg(path, style="rum"))
  plain = write_policy(tmp_path / "plain.onnx", g1_policy())
  with pytest.raises(UserError, match="--style run: plain.onnx observes no style"):
    sim2sim(Sim2SimCfg(plain, style="run"))
