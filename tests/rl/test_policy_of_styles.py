"""One policy for several styles: trained, played, evaluated and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smp.cli import compare_simulators, evaluate, export, play, train
from smp.deploy.onnx_policy import OnnxPolicy
from smp.diffusion.reference import Reference
from smp.errors import UserError
from smp.evaluation.style_classifier import StyleClassifier
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.motion.features import g1_spec
from smp.paths import POLICIES
from smp.rl.actor_layout import ActorLayout, prior_of_styles
from tests.mdp.test_style_choice import make_walking_prior
from tests.rl.test_actor_layout import TASK, call, trains

pytestmark = pytest.mark.slow
SEEN = ("run", "walk", "crouch/run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Iterator[tuple[Path, Path]]:
  """A prior of three styles, and a policy of two of them."""
  folder = tmp_path_factory.mktemp("logs")
  prior = make_walking_prior()
  for style in prior.styles:
    prior.style_references[style] = Reference((0.01,) * 50, "samples", (), 8, 8, 4, 0)
  prior.save(folder / "p.safetensors")
  smp = f"--env.commands.smp.prior {folder / 'p.safetensors'}"
  smp += f" --env.commands.smp.styles {','.join(SEEN)}"
  smp += " --env.commands.smp.filter-init-states False"
  yield folder / "p.safetensors", trains(folder, *smp.split()) / "model_1.pt"


def test_its_log_has_no_folder_for_a_composition(trained: tuple[Path, Path]):
  log = EventAccumulator(str(trained[1].parent)).Reload().Tags()["scalars"]
  tags = [tag for tag in log if "crouch" in tag]
  assert any(tag.endswith("r_smp_crouch_over_run") for tag in tags)
  assert any(tag.endswith("mu_t22_crouch_over_run") for tag in tags)
  assert not [tag for tag in tags if "crouch/" in tag]


def test_a_checkpoint_knows_its_styles(trained: tuple[Path, Path]):
  layout = ActorLayout.read(trained[1])
  assert layout is not None and layout.styles == SEEN and layout.terms[-1] == "style"
  found = ActorLayout.read(trained[1], "crouch/run")
  assert found is not None and found.only == "crouch/run"
  with pytest.raises(UserError, match="--style wlk: .*did you mean walk"):
    ActorLayout.read(trained[1], "wlk")


@pytest.mark.parametrize("style", SEEN[1:])
def test_it_is_played_in_a_style(trained: tuple[Path, Path], monkeypatch, style: str):
  seen = []

  class Viewer:
    """Takes one step."""

    def __init__(self, env: Any, policy: Any, **_: Any) -> None:
      self.env, self.policy = env, policy

    def run(self) -> None:
      obs, *_ = self.env.step(self.policy(self.env.get_observations()))
      seen.append(obs["actor"][:, -3:])
      seen.append(SmpTerm.of(self.env.unwrapped).sds_loss())

  monkeypatch.setattr(play, "PlottingViewer", Viewer)
  file = "--prior", trained[0], "--checkpoint-file", trained[1]
  options = "--viewer viser --device cpu --threads 1 --num-envs 3"
  call(play.main, TASK, *file, *options.split(), "--style", style)
  assert torch.equal(seen[0].argmax(dim=1).cpu(), torch.tensor([SEEN.index(style)] * 3))
  assert seen[1].shape == (3, 3) and bool((seen[1] > 0.0).all())


@pytest.mark.parametrize("style", ["run", "crouch/run"])
def test_it_is_evaluated_in_a_style(
  trained: tuple[Path, Path], tmp_path: Path, monkeypatch, style: str
):
  monkeypatch.setattr(evaluate, "SAMPLES", 32)
  judge = tmp_path / "classifier.safetensors"
  StyleClassifier(("crouch", "run", "walk"), g1_spec(), hidden=4).save(judge)
  options = "--num-envs 15 --seconds 1 --no-frames --device cpu --threads 1".split()
  file = "--checkpoint-file", trained[1], "--output-dir", tmp_path
  call(
    evaluate.main,
    TASK,
    "--prior",
    trained[0],
    *file,
    *options,
    "--style",
    style,
    "--style-classifier",
    judge,
  )
  found = json.loads((tmp_path / "evaluation.json").read_text())
  parts = {"whole": "run"} if style == "run" else {"upper": "crouch", "lower": "run"}
  assert found["style"] == style and found["style_judge"]["asked"] == parts
  first = found["policies"][0]["conditions"][0]["figures"]
  assert {f"style_{part}" for part in parts} <= set(first)


def test_it_is_exported_without_its_prior(
  trained: tuple[Path, Path], tmp_path: Path, capsys
):
  file = tmp_path / "policy.onnx"
  call(export.main, TASK, "--checkpoint-file", trained[1], "--output", file)
  assert OnnxPolicy(file).spec.styles == SEEN
  assert (
    "which of run, walk, crouch/run" in (tmp_path / "policy.deploy.yaml").read_text()
  )
  options = "--speed 1 --seconds 0.2 --starts 1".split()
  call(compare_simulators.main, file, *options)
  assert "environment / plain MuJoCo" in capsys.readouterr().out


def test_the_shipped_one_is_judged_by_the_prior_it_was_trained_with(
  trained: tuple[Path, Path], monkeypatch
):
  shipped = POLICIES / "forward_styles.pt"
  assert prior_of_styles(shipped) == "styles"
  assert prior_of_styles(POLICIES / "forward.pt") is None
  # Of a prior that is not shipped no more than the name is known.
  assert prior_of_styles(trained[1]) is None

  args = play.PlayArgs(style="crouch")
  found = play.play_env_cfg("Smp-Forward-G1", args, shipped, render=False)
  assert found.prior == "styles" and found.actor is not None
  named = play.PlayArgs(style="crouch", prior="mine")
  named = play.play_env_cfg("Smp-Forward-G1", named, shipped, render=False)
  assert named.prior == "mine"

  seen = []

  def stop(task: str, args: evaluate.EvaluateArgs) -> None:
    seen.append(args.prior)
    raise UserError("far enough")

  monkeypatch.setattr(evaluate, "load_data", stop)
  for options in (
    evaluate.EvaluateArgs(checkpoint_file=shipped),
    evaluate.EvaluateArgs(checkpoint_file=shipped, prior="mine"),
    evaluate.EvaluateArgs(checkpoint_file=POLICIES / "forward.pt"),
  ):
    with pytest.raises(UserError, match="far enough"):
      evaluate.evaluate("Smp-Forward-G1", options)
  assert seen == ["styles", "mine", None]


def test_it_goes_on_with_its_own_styles_alone(trained: tuple[Path, Path]):
  """Others would take the place of those that its weights are for, unseen."""
  config = train.default_config(TASK, has_gpu=False)
  config = replace(config, log_root=str(trained[1].parents[2]))
  config.agent.resume = True
  smp_term = cast(SmpTermCfg, config.env.commands["smp"])
  smp_term.prior = str(trained[0])
  found = train.choose_checkpoint(config)
  assert ActorLayout.of(found.env).styles == SEEN
  smp_term.styles = "walk,run"
  with pytest.raises(UserError, match=r"walk,run: .*model_1.pt knows run,walk,crouch/"):
    train.choose_checkpoint(config)
