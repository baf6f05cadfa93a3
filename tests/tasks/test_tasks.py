"""Every registered task of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import mjlab
import pytest
import torch
import tyro
import viser
import yaml
from mjlab.envs import ManagerBasedRlEnv
from mjlab.scripts.train import TrainConfig
from mjlab.tasks.registry import list_tasks, load_env_cfg, load_rl_cfg
from mjlab.viewer import ViserPlayViewer
from mjlab.viewer.viser import ViserTermPlotter

from smp.cli.play import PlottingViewer
from smp.diffusion.prior import MotionPrior
from smp.episodes.metric import FAILURES
from smp.mdp.commands import ComponentCommand
from smp.mdp.rewards import TaskReward
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.paths import resolve_prior
from smp.tasks.registry import all_tasks, policy_path, protocol_of
from smp.tasks.spec import TaskSpec
from tests.conftest import small_env_cfg

TASKS = [spec.id for spec in all_tasks()]
NAMES = ("Forward", "Steering", "Location", "Getup", "Velocity")
pytestmark = pytest.mark.slow


def test_all_tasks_are_registered():
  assert TASKS == [f"Smp-{name}-G1" for name in NAMES]
  assert set(TASKS) <= set(list_tasks())


@pytest.mark.parametrize("spec", all_tasks(), ids=lambda spec: spec.id)
def test_what_ends_episodes_is_counted_if_it_is_there(spec: TaskSpec):
  terminations = spec.env_cfg().terminations
  for name in {metric.key for metric in FAILURES} & {"root_too_low", "self_collision"}:
    judged = name in {metric.key for metric in spec.metrics}
    assert judged <= (name in terminations), name


@pytest.mark.parametrize("spec", all_tasks(), ids=lambda spec: spec.id)
def test_a_task_says_how_it_is_judged(spec: TaskSpec):
  keys = [metric.key for metric in spec.metrics]
  assert spec.success in keys and len(set(keys)) == len(keys)
  assert spec.policy == policy_path(spec.id).stem
  assert load_rl_cfg(spec.id).experiment_name == spec.experiment
  sweeps = {condition.sweep for condition in spec.protocol.conditions}
  assert sweeps == set(spec.protocol.axes)
  with pytest.raises(ValueError, match="'luck' is none of its metrics"):
    replace(spec, success="luck")


def command_dim(env: ManagerBasedRlEnv) -> int:
  """Numbers of the command that the policy sees."""
  if "command" not in env.command_manager.active_terms:
    return 0
  term = cast(ComponentCommand, env.command_manager.get_term("command"))
  return sum(part.size for part in term.components())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("play", [False, True])
def test_task_runs(task: str, play: bool):
  env = ManagerBasedRlEnv(small_env_cfg(task, num_envs=2, play=play), "cpu")
  obs, _ = env.reset()
  # Velocity sees 5 frames without its own velocity; its critic sees two feet more.
  velocity = task == "Smp-Velocity-G1"
  critic = 3 + 3 + 3 + 29 + 29 + 29 + command_dim(env)
  actor = 5 * (critic - 3) if velocity else critic
  critic += 2 if velocity else 0
  generator = torch.Generator().manual_seed(0)
  for _ in range(50):
    action = 2 * torch.rand(2, 29, generator=generator) - 1
    obs, reward, *_ = env.step(action)
    seen = cast(dict[str, torch.Tensor], obs)
    assert seen["actor"].shape == (2, actor)
    assert seen["critic"].shape == (2, 10 * critic)
    assert all(torch.isfinite(value).all() for value in (*seen.values(), reward))
  if play:
    shown = dict(env.metrics_manager.get_active_iterable_terms(1))
    style = SmpTerm.of(env).style
    assert shown["r_smp"] == [style.reward[1].item()]
    errors = [shown[f"sds_loss_t{timestep}"] for timestep in (8, 15, 22)]
    assert errors == [[error] for error in style.losses[1].tolist()]
    assert len(shown) > 4  # The task's own.
  env.close()


def test_the_browser_viewer_plots_every_metric(monkeypatch):
  server = viser.ViserServer(port=0, verbose=False)
  try:
    plotter = ViserTermPlotter(server, ["r_smp", "velocity_error"], name="Metric")
    viewer = object.__new__(PlottingViewer)
    viewer._term_overlays = cast(Any, SimpleNamespace(metrics_plotter=plotter))
    monkeypatch.setattr(ViserPlayViewer, "setup", lambda self: None)
    viewer.setup()
    assert [state.plot is not None for state in plotter._terms.values()] == [True, True]
  finally:
    server.stop()


@pytest.mark.parametrize("task", TASKS)
def test_play_shows_the_task_as_it_is(task: str):
  cfg = load_env_cfg(task, play=True)
  assert not any(group.enable_corruption for group in cfg.observations.values())
  assert not cfg.events
  assert cfg.episode_length_s >= 1e8
  smp_term = cfg.commands["smp"]
  assert isinstance(smp_term, SmpTermCfg)
  assert not smp_term.update_statistics
  assert smp_term.gsi_refresh_interval == 0
  assert smp_term.gsi_buffer_size == 1024


@pytest.mark.parametrize("task", TASKS)
def test_a_task_acts_at_the_rate_of_its_prior(task: str):
  cfg = load_env_cfg(task)
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  assert smp_term.prior is not None
  prior = MotionPrior.load(resolve_prior(smp_term.prior))
  step = cfg.sim.mujoco.timestep * cfg.decimation
  assert step * prior.spec.fps == pytest.approx(1.0)
  assert max(smp_term.timesteps) < prior.schedule.num_timesteps
  assert next(iter(cfg.commands)) == "smp"


@pytest.mark.parametrize("task", TASKS)
def test_the_critic_sees_without_noise_what_the_actor_sees(task: str):
  groups = load_env_cfg(task).observations
  actor, critic = groups["actor"].terms, groups["critic"].terms
  assert actor.keys() <= critic.keys()
  assert all(term.noise is None for term in critic.values())
  noisy = {name for name, term in actor.items() if term.noise is not None}
  # What the robot's sensors say, and no more: it knows its own command and action.
  assert noisy == actor.keys() - {"command", "actions"}
  assert groups["actor"].enable_corruption and not groups["critic"].enable_corruption


@pytest.mark.parametrize("task", TASKS)
def test_the_best_task_reward_of_a_step_is_one(task: str):
  rewards = load_env_cfg(task).rewards
  weights = [term.weight for term in rewards.values() if term.func is TaskReward]
  assert sum(weights) == pytest.approx(1.0) and min(weights) > 0.0


@pytest.mark.parametrize("task", TASKS)
def test_a_policy_is_judged_by_episodes_of_its_own_length(task: str):
  cfg, protocol = load_env_cfg(task), protocol_of(task)
  assert protocol.seconds == cfg.episode_length_s or "stood_up" in cfg.terminations


@pytest.mark.parametrize("task", TASKS)
def test_command_line_reaches_everything(task: str):
  config = tyro.cli(
    TrainConfig,
    args=[
      "--env.scene.num-envs",
      "7",
      "--env.commands.smp.reward-mode",
      "weighted_sum",
      "--env.commands.smp.prior",
      "elsewhere.safetensors",
      "--env.commands.smp.sds-scale",
      "3.5",
      "--agent.max-iterations",
      "11",
      "--gpu-ids",
      "None",
    ],
    default=TrainConfig.from_task(task),
    config=mjlab.TYRO_FLAGS,
  )
  smp_term = config.env.commands["smp"]
  assert isinstance(smp_term, SmpTermCfg)
  assert config.env.scene.num_envs == 7 and config.gpu_ids is None
  assert smp_term.reward_mode == "weighted_sum" and smp_term.sds_scale == 3.5
  assert smp_term.prior == "elsewhere.safetensors"
  assert config.agent.max_iterations == 11


@pytest.mark.parametrize("task", TASKS)
def test_configuration_survives_yaml(task: str):
  before = asdict(load_env_cfg(task))
  # Lambdas and nested enums of mjlab's own, which PyYAML cannot name.
  del before["viewer"], before["scene"]
  # The file a run writes names Python functions, hence the unsafe loader, on our own
  # text only.
  after = yaml.unsafe_load(yaml.dump(before))
  assert after == before


FIRST = (
  "mjlab",
  "smp.tasks.forward",
  "smp.mdp.rewards",
  "smp.mdp",
  "smp.rl.td3",
  "smp.evaluation.policy.summary",
)
IN_EVERY_ORDER = """
import os, sys
import mujoco_warp, rsl_rl.runners, tensordict, torch, viser, wandb  # Once for all.

assert not [name for name in sys.modules if name.split(".")[0] in ("mjlab", "smp")]
for first in sys.argv[1:]:
  if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0, first
    continue
  __import__(first)
  import mjlab.tasks, smp.tasks, smp.mdp
  from mjlab.tasks.registry import list_tasks

  print(first, "Smp-Forward-G1" in list_tasks(), flush=True)
  os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_import_order_does_not_matter():
  result = subprocess.run(
    [sys.executable, "-W", "error::UserWarning:smp", "-c", IN_EVERY_ORDER, *FIRST],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert [line for line in result.stdout.splitlines() if line.startswith(FIRST)] == [
    f"{first} True" for first in FIRST
  ]
  assert "WARN" not in result.stdout + result.stderr
