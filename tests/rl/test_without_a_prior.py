"""A task without a motion prior: trained, saved, exported and resumed as any other."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from mjlab.envs import ManagerBasedRlEnvCfg
from mjlab.rl import RslRlVecEnvWrapper

from smp.cli import evaluate, train
from smp.errors import UserError
from smp.mdp.smp_term import SMP_TERM, SmpTerm, SmpTermCfg
from smp.rl.checkpoint import read_checkpoint
from smp.rl.learners import LEARNERS
from smp.rl.loading import PlayEnvCfg, build_env, load_policy
from smp.rl.off_policy import OffPolicyRunner
from smp.rl.policy_file import load_trained, save_policy
from smp.rl.runner import CheckpointedRunner, SmpRunner
from smp.sim.engine import make_env
from smp.tasks.base import play_env_cfg
from tests import toy_task
from tests.conftest import small_env_cfg

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"
ENVS = 4
SMALL: dict[str, dict[str, Any]] = {
  "ppo": {},
  "td3": {"replay_steps": 20, "learning_starts": 1},
}


def without_prior(learner: str = "ppo") -> Any:
  cfg = small_env_cfg(TASK, num_envs=ENVS)
  smp_term = cast(SmpTermCfg, cfg.commands[SMP_TERM])
  smp_term.prior, smp_term.reward_mode = None, "task_only"
  LEARNERS[learner].prepare(cfg)
  return cfg


def runner_of(learner: str, log_dir: Path | None) -> CheckpointedRunner:
  env = RslRlVecEnvWrapper(make_env(without_prior(learner), "native", "cpu", 1))
  agent = asdict(LEARNERS[learner].make_cfg("forward"))
  agent.update(logger="tensorboard", num_steps_per_env=4, **SMALL[learner])
  if learner == "ppo":
    agent["algorithm"].update(num_learning_epochs=1, num_mini_batches=1)
  else:
    agent["algorithm"].update(batch_size=4, updates_per_step=1, actor_delay=0)
  kind = {"ppo": SmpRunner, "td3": OffPolicyRunner}[learner]
  return kind(env, agent, None if log_dir is None else str(log_dir), "cpu")


def test_the_reward_is_the_tasks_alone_and_episodes_start_standing():
  env = make_env(without_prior(), "native", "cpu", 1)
  env.reset()
  term, robot = SmpTerm.of(env), cast(Any, env.scene["robot"])
  torch.testing.assert_close(robot.data.joint_pos, robot.data.default_joint_pos)
  assert torch.equal(robot.data.joint_vel, torch.zeros(ENVS, 29))
  _, reward, *_ = env.step(torch.zeros(ENVS, 29))
  assert torch.equal(term.r_smp(), torch.ones(ENVS))
  assert term.sds_loss().shape == (ENVS, 0)
  torch.testing.assert_close(reward, term.task_reward * env.step_dt)
  assert reward.sum() > 0.0
  env.close()


@pytest.mark.parametrize("learner", ["ppo", "td3"])
def test_a_policy_is_trained_saved_exported_and_resumed(learner, tmp_path, capsys):
  runner = runner_of(learner, tmp_path)
  runner.learn(2)
  path = tmp_path / "model_1.pt"
  assert "smp" not in read_checkpoint(path, "cpu")["infos"]
  assert (tmp_path / "policy.onnx").is_file()
  other = runner_of(learner, None)
  cast(Any, other).load(str(path))
  assert other.current_learning_iteration == 2
  save_policy(path, tmp_path / "forward.pt", TASK)
  for file in (path, tmp_path / "forward.pt"):
    trained = load_trained(file, TASK)
    assert trained.means is None
    assert trained.actor(torch.zeros(1, trained.actor.sizes[0])).isfinite().all()
  assert "not exported" not in capsys.readouterr().out


def height_without_prior(play: bool = False) -> ManagerBasedRlEnvCfg:
  """The environment of the toy task, whose reward and initial states need no prior."""
  cfg = toy_task.height_env_cfg()
  smp_term = cast(SmpTermCfg, cfg.commands[SMP_TERM])
  smp_term.prior, smp_term.reward_mode = None, "task_only"
  return play_env_cfg(cfg) if play else cfg


def test_a_task_of_ones_own_is_trained_played_and_evaluated(tmp_path, monkeypatch):
  monkeypatch.setattr(
    toy_task, "SPEC", replace(toy_task.SPEC, env_cfg=height_without_prior)
  )
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  task, policy = toy_task.SPEC.id, tmp_path / "height.pt"

  def call(main: Any, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    main()

  with toy_task.registered():
    call(
      train.main,
      *f"{task} --learner ppo --env.scene.num-envs 4 --threads 1".split(),
      *"--agent.max-iterations 1 --agent.num-steps-per-env 4".split(),
      *"--agent.algorithm.num-mini-batches 2 --agent.logger tensorboard".split(),
      *("--log-root", tmp_path),
    )
    (checkpoint,) = tmp_path.glob("toy_height_g1/*/model_0.pt")
    save_policy(checkpoint, policy, task)
    env = build_env(task, PlayEnvCfg(threads=1))
    env.step(load_policy(task, env, "trained", policy)(env.get_observations()))
    options = "--num-envs 7 --seconds 1 --no-frames --device cpu --threads 1".split()
    for file in (checkpoint, policy):
      output = "--output-dir", tmp_path / file.stem
      call(evaluate.main, task, "--checkpoint-file", file, *output, *options)
      result = json.loads((tmp_path / file.stem / "evaluation.json").read_text())
      metrics = result["policies"][0]["conditions"][0]["figures"]
      assert metrics["return"]["value"] > 0.0 and result["data"] is None
      assert metrics["r_smp"]["value"] is None is metrics["sds_loss"]["value"]
      assert (tmp_path / file.stem / "report.html").is_file()


def test_a_reward_that_needs_a_prior_is_refused_without_one():
  cfg = without_prior()
  cast(SmpTermCfg, cfg.commands[SMP_TERM]).reward_mode = "product"
  with pytest.raises(UserError, match="product needs a motion prior"):
    make_env(cfg, "native", "cpu", 1)


@pytest.mark.parametrize("name", ["sync_interval", "gsi_buffer_size"])
def test_sizes_of_zero_are_refused(name: str):
  cfg = without_prior()
  setattr(cfg.commands[SMP_TERM], name, 0)
  with pytest.raises(UserError, match=f"{name} is 0, expected 1 or more"):
    make_env(cfg, "native", "cpu", 1)


def test_goals_may_not_be_placed_before_the_state_is_written():
  cfg = without_prior()
  cfg.commands = {
    "command": cfg.commands["command"],
    SMP_TERM: cfg.commands[SMP_TERM],
  }
  with pytest.raises(UserError, match="'smp' must come first, not 'command'"):
    make_env(cfg, "native", "cpu", 1)
