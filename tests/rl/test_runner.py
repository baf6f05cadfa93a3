"""Training from the command line, checkpoints, and going on from them."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import load_rl_cfg

from smp.errors import UserError
from smp.rl.checkpoint import read_checkpoint
from smp.rl.runner import SmpRunner
from tests.conftest import small_env_cfg, style_of

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"


def make_runner(log_dir: Path | None, num_envs: int = 8, seed: int = 0) -> SmpRunner:
  cfg = small_env_cfg(TASK, num_envs=num_envs)
  cfg.seed = seed
  agent = asdict(load_rl_cfg(TASK))
  agent.update(logger="tensorboard", num_steps_per_env=6, save_interval=1000)
  agent["algorithm"].update(num_learning_epochs=2, num_mini_batches=2)
  env = RslRlVecEnvWrapper(ManagerBasedRlEnv(cfg, "cpu"))
  return SmpRunner(env, agent, None if log_dir is None else str(log_dir), "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A runner after three iterations, and its log folder."""
  log_dir = tmp_path_factory.mktemp("run")
  runner = make_runner(log_dir)
  runner.learn(3)
  return runner, log_dir


def test_resuming_restores_all_that_the_reward_remembers(trained):
  runner, log_dir = trained
  other = make_runner(None, seed=1)
  other.load(str(log_dir / "model_2.pt"))
  old, new = runner._smp_term(), other._smp_term()
  assert torch.equal(style_of(new).normalizer.mean, style_of(old).normalizer.mean)
  assert torch.equal(style_of(new).normalizer.count, style_of(old).normalizer.count)
  assert style_of(new).normalizer.count.item() >= 3 * 6 * 8
  assert torch.equal(
    new.init_states.generated.joint_pos, old.init_states.generated.joint_pos
  )
  assert other.alg.learning_rate == runner.alg.learning_rate != 1e-3
  assert other.current_learning_iteration == 3
  env = other.env.unwrapped
  assert env.common_step_counter == runner.env.unwrapped.common_step_counter
  for a, b in zip(
    other.alg.get_policy().parameters(),
    runner.alg.get_policy().parameters(),
    strict=True,
  ):
    assert torch.equal(a, b)


def test_resumed_reward_does_not_jump(trained):
  """The same motion earns the same before and after: mean r_smp within its noise."""
  runner, log_dir = trained

  @torch.inference_mode()  # As in training.
  def mean_r_smp(r: SmpRunner) -> torch.Tensor:
    r.env.reset()
    smp_term, values = r._smp_term(), []
    for _ in range(12):
      r.env.step(torch.zeros(8, 29))
      values.append(smp_term.r_smp().mean())
    return torch.stack(values).mean()

  resumed, fresh = make_runner(None, seed=1), make_runner(None, seed=1)
  resumed.load(str(log_dir / "model_2.pt"))
  before, after = mean_r_smp(runner), mean_r_smp(resumed)
  assert abs(after - before) < 0.35 * before
  # Without the memory the scale starts from these few windows alone.
  assert (
    style_of(resumed._smp_term()).normalizer.count
    > style_of(fresh._smp_term()).normalizer.count
  )


def test_ctrl_c_saves_and_ends_cleanly(tmp_path, monkeypatch, capsys):
  runner = make_runner(tmp_path)
  steps, step = [], runner.env.step

  def interrupted(action):
    steps.append(1)
    if len(steps) == 9:
      raise KeyboardInterrupt
    return step(action)

  monkeypatch.setattr(runner.env, "step", interrupted)
  runner.learn(5)
  # Saved twice under one name: at iteration 0 and when interrupted in iteration 1.
  saved = read_checkpoint(tmp_path / "model_0.pt", "cpu")
  assert saved["infos"]["env_state"]["common_step_counter"] == 8
  assert "Continue with" in capsys.readouterr().out
  assert not list(tmp_path.glob(".model*"))


class Exploit:
  def __reduce__(self):
    return (Path.touch, (Path("exploited"),))


def test_checkpoints_run_no_code(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  bad = tmp_path / "model_1.pt"
  torch.save({"actor_state_dict": Exploit()}, bad)
  with pytest.raises(UserError, match="model_1.pt"):
    read_checkpoint(bad, "cpu")
  bad.write_bytes(pickle.dumps(Exploit()))
  with pytest.raises(UserError, match="model_1.pt"):
    read_checkpoint(bad, "cpu")
  assert not Path("exploited").exists()


@pytest.mark.parametrize(
  "content, message",
  [(b"", "not a readable"), (b"not a checkpoint", "not a readable")],
)
def test_damaged_checkpoints_are_named(tmp_path, content, message):
  bad = tmp_path / "model_7.pt"
  bad.write_bytes(content)
  with pytest.raises(UserError, match=message):
    read_checkpoint(bad, "cpu")
  with pytest.raises(UserError, match="no such checkpoint"):
    read_checkpoint(tmp_path / "missing.pt", "cpu")


def test_truncated_and_foreign_checkpoints(trained, tmp_path):
  _, log_dir = trained
  whole = (log_dir / "model_2.pt").read_bytes()
  cut = tmp_path / "model_2.pt"
  cut.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError, match="not a readable"):
    read_checkpoint(cut, "cpu")
  torch.save({"model": {}}, cut)
  with pytest.raises(UserError, match="missing"):
    read_checkpoint(cut, "cpu")
