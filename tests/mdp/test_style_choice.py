"""The style of a training: in the reward, the initial states and the checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.diffusion.styles import BlendedDenoiser, StyleCfg
from smp.errors import UserError
from smp.mdp.smp_term import SmpTerm, SmpTermCfg, _choose_style
from smp.paths import resolve_prior
from smp.rl.runner import CheckpointedRunner
from tests.conftest import small_env_cfg, style_of
from tests.diffusion.test_styles import STYLES, make_prior


def make_cfg(prior: str, **options: Any) -> SmpTermCfg:
  return SmpTermCfg(prior=prior, **options)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"style": "rum"}, "p.safetensors: style 'rum': .*did you mean 'run'"),
    (
      {"style": "run", "style_upper": "xyz"},
      "upper style 'xyz': no style of this prior",
    ),
    ({"style_lower": "wlk"}, "lower style 'wlk': .*did you mean 'walk'"),
  ],
)
def test_unknown_styles_name_the_file(tmp_path: Path, options, message):
  path = tmp_path / "p.safetensors"
  prior = make_prior()
  prior.save(path)
  with pytest.raises(UserError, match=message) as caught:
    _choose_style(make_cfg(str(path), **options), prior)
  assert "\n" not in str(caught.value)


def test_a_style_needs_a_prior_that_has_some():
  prior = MotionPrior.load(resolve_prior("loco"))
  with pytest.raises(UserError, match="loco.*style 'run': this prior has no styles"):
    _choose_style(make_cfg("loco", style="run"), prior)
  with pytest.raises(UserError, match="style 'run': there is no prior"):
    _choose_style(SmpTermCfg(prior=None, style="run"), None)
  assert _choose_style(make_cfg("loco"), prior) is prior


def runner_under(**options: Any) -> CheckpointedRunner:
  runner = cast(Any, object.__new__(CheckpointedRunner))
  runner._smp_term = lambda: SimpleNamespace(cfg=make_cfg("p", **options))
  return runner


def test_checkpoints_remember_the_style(capsys):
  runner = runner_under(style="run", style_upper="walk", style_weight=2.0)
  origin = runner._style()
  assert origin == {"style": "walk over run x 2"}
  assert runner._compare_origin("model_1.pt", {"origin": origin})
  assert not capsys.readouterr().out
  assert not runner._compare_origin("model_1.pt", {"origin": {"prior": "p"}})
  assert "trained under no style, goes on under style 'walk" in capsys.readouterr().out
  plain = runner_under()
  assert plain._style() == {}
  assert plain._compare_origin("model_1.pt", {})
  assert not capsys.readouterr().out
  assert not plain._compare_origin("model_1.pt", {"origin": origin})
  assert "goes on under no style" in capsys.readouterr().out
  assert not plain._compare_origin("model_1.pt", {"origin": {"prior": "other"}})
  assert "under the prior other, goes on under p" in capsys.readouterr().out


def make_walking_prior() -> MotionPrior:
  """Return the loco prior with three labels that change little of it."""
  loco = MotionPrior.load(resolve_prior("loco"))
  denoiser = Denoiser(59, 10, num_styles=len(STYLES))
  denoiser.load_state_dict(loco.denoiser.state_dict(), strict=False)
  with torch.no_grad():
    denoiser.label_embedding.weight.normal_(std=0.05)
  return MotionPrior(denoiser, loco.q_low, loco.q_high, loco.spec, 50, styles=STYLES)


@pytest.mark.slow
def test_reward_and_initial_states_are_those_of_the_style(tmp_path: Path):
  path = tmp_path / "p.safetensors"
  make_walking_prior().save(path)
  cfg = small_env_cfg("Smp-Forward-G1", num_envs=2)
  options = cast(SmpTermCfg, cfg.commands["smp"])
  options.prior, options.style, options.style_upper = str(path), "run", "walk"
  options.filter_init_states = False
  env = ManagerBasedRlEnv(cfg, "cpu")
  try:
    env.reset()
    term = SmpTerm.of(env)
    assert term.prior is not None
    assert isinstance(term.prior.denoiser, BlendedDenoiser)
    env.step(torch.zeros(2, 29))
    reward = style_of(term)
    features = term.window.features()
    mixed = MotionPrior.load(path).with_style(StyleCfg("run", upper="walk"))
    steps = torch.tensor(options.timesteps)
    expected = mixed.denoising_error(features, steps, reward.noise)
    plain = MotionPrior.load(path).denoising_error(features, steps, reward.noise)
    assert not torch.allclose(plain, expected, rtol=1e-2)
    torch.testing.assert_close(reward.losses, expected, rtol=1e-3, atol=1e-5)
  finally:
    env.close()
