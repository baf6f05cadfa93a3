"""One policy for several styles: trained, played, evaluated and exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from smp.cli import compare_simulators, evaluate, export, play
from smp.deploy.onnx_policy import OnnxPolicy
from smp.diffusion.reference import Reference
from smp.errors import UserError
from smp.mdp.smp_term import SmpTerm
from smp.rl.actor_layout import ActorLayout
from tests.mdp.test_style_choice import make_walking_prior
from tests.rl.test_actor_layout import TASK, call, trains

pytestmark = pytest.mark.slow
SEEN = ("run", "walk")


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


def test_a_checkpoint_knows_its_styles(trained: tuple[Path, Path]):
  layout = ActorLayout.read(trained[1])
  assert layout is not None and layout.styles == SEEN and layout.terms[-1] == "style"
  with pytest.raises(UserError, match="--style wlk: .*did you mean walk"):
    ActorLayout.read(trained[1], "wlk")


def test_it_is_played_in_a_style(trained: tuple[Path, Path], monkeypatch):
  seen = []

  class Viewer:
    """Takes one step."""

    def __init__(self, env: Any, policy: Any, **_: Any) -> None:
      self.env, self.policy = env, policy

    def run(self) -> None:
      obs, *_ = self.env.step(self.policy(self.env.get_observations()))
      seen.append(obs["actor"][:, -2:])
      seen.append(SmpTerm.of(self.env.unwrapped).sds_loss())

  monkeypatch.setattr(play, "PlottingViewer", Viewer)
  file = "--prior", trained[0], "--checkpoint-file", trained[1]
  options = "--viewer viser --device cpu --threads 1 --num-envs 3 --style walk"
  call(play.main, TASK, *file, *options.split())
  assert torch.equal(seen[0].cpu(), torch.tensor([[0.0, 1.0]] * 3))
  assert seen[1].shape == (3, 3) and bool((seen[1] > 0.0).all())


def test_it_is_evaluated_in_a_style(trained: tuple[Path, Path], tmp_path, monkeypatch):
  monkeypatch.setattr(evaluate, "SAMPLES", 32)
  options = "--num-envs 15 --seconds 1 --no-frames --device cpu --threads 1".split()
  file = "--checkpoint-file", trained[1], "--output-dir", tmp_path
  call(evaluate.main, TASK, "--prior", trained[0], *file, *options, "--style", "run")
  assert '"style": "run"' in (tmp_path / "evaluation.json").read_text()


def test_it_is_exported_without_its_prior(
  trained: tuple[Path, Path], tmp_path: Path, capsys
):
  file = tmp_path / "policy.onnx"
  call(export.main, TASK, "--checkpoint-file", trained[1], "--output", file)
  assert OnnxPolicy(file).spec.styles == SEEN
  assert "which of run, walk" in (tmp_path / "policy.deploy.yaml").read_text()
  options = "--speed 1 --seconds 0.2 --starts 1".split()
  call(compare_simulators.main, file, *options)
  assert "environment / plain MuJoCo" in capsys.readouterr().out
