"""The off-policy runner: what it stores, learns from, saves and refuses."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import wandb
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg
from torch import Tensor

from smp.cli.compare_runs import SHOWN, steps_done
from smp.deploy.onnx_policy import OnnxPolicy
from smp.errors import UserError
from smp.evaluation.policy.curves import EPISODE, SDS_LOSS, read_curves
from smp.mdp.composition import compose
from smp.mdp.curriculums import add_curriculum
from smp.mdp.smp_term import SmpTerm
from smp.motion.features import decode
from smp.rl.checkpoint import read_checkpoint
from smp.rl.loading import load_policy
from smp.rl.off_policy import (
  REPLAY_FILE,
  OffPolicyRunner,
  action_bound,
  check_overlap,
  off_policy_cfg,
  prepare_env_cfg,
)
from smp.rl.policy_file import load_trained, save_policy
from smp.rl.runner import SmpRunner
from smp.rl.td3 import Td3Cfg
from smp.robots import g1
from smp.sim import make_env
from smp.tasks.registry import all_tasks
from smp.utils.tensor_files import load_tensors, save_tensors
from tests.conftest import small_env_cfg
from tests.wandb_server import kept_scalars, log_in

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"
TASKS = [spec.id for spec in all_tasks()]
ENVS = 8
ALGORITHM = Td3Cfg(
  hidden_dims=(32, 32), batch_size=16, updates_per_step=2, actor_delay=0
)


def make_env_of(task: str, seconds: float | None = None) -> RslRlVecEnvWrapper:
  cfg = small_env_cfg(task, ENVS)
  prepare_env_cfg(cfg)
  if seconds is not None:
    cfg.episode_length_s = seconds
  add_curriculum(cfg)
  return RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))


def make_runner(
  env: RslRlVecEnvWrapper, log_dir: Path | None = None, **options: Any
) -> OffPolicyRunner:
  cfg = replace(off_policy_cfg("toy"), algorithm=ALGORITHM, logger="tensorboard")
  cfg = replace(
    cfg, replay_steps=60, num_steps_per_env=5, learning_starts=2, refill_steps=7
  )
  agent = {**asdict(cfg), **options}
  kind: Any = OffPolicyRunner.for_task(TASK)
  return kind(env, agent, None if log_dir is None else str(log_dir), "cpu")


@pytest.fixture(scope="module")
def env() -> Iterator[RslRlVecEnvWrapper]:
  """Episodes of 6 steps: all end by time-out, few by a fall."""
  env = make_env_of(TASK, seconds=0.12)
  yield env
  env.close()


@pytest.fixture(scope="module")
def trained(env, tmp_path_factory) -> tuple[OffPolicyRunner, Path]:
  folder = tmp_path_factory.mktemp("off_policy")
  runner = make_runner(env, folder)
  runner.learn(4)
  return runner, folder


def updates(runner: OffPolicyRunner) -> list[tuple[str, torch.Tensor]]:
  """The losses of the updates that are due after a step, made now."""
  return runner._learn(runner._draw())[0]


def stored(runner: OffPolicyRunner) -> dict[str, torch.Tensor]:
  return runner.replay.state_dict()


# What is stored.


def test_the_last_observation_of_an_episode_is_the_true_one(env):
  """It holds the action just taken; after a reset that part is zero."""
  runner = make_runner(env)
  obs: Any = env.unwrapped.observation_manager.compute()
  env.unwrapped.reset()
  for _ in range(20):
    obs = runner._step(obs)
  names = env.unwrapped.observation_manager.active_terms["actor"]
  dims = env.unwrapped.observation_manager.group_obs_term_dim["actor"]
  begin = sum(dim[0] for dim in dims[: names.index("actions")])
  part = slice(begin, begin + 29)
  kept = stored(runner)
  assert kept["truncated"].sum() > ENVS
  torch.testing.assert_close(kept["next_obs"][..., part], kept["action"])
  # And the next episode begins with a new one.
  after = kept["obs"][1:][(kept["truncated"] | kept["terminated"])[:-1]]
  assert (after[:, part] == 0.0).all()
  going_on = ~(kept["truncated"] | kept["terminated"])[:-1]
  assert torch.equal(kept["obs"][1:][going_on], kept["next_obs"][:-1][going_on])


def test_the_stored_reward_is_the_environments(env, monkeypatch):
  """Composed from the replay with the mu of now, it is what mjlab's manager summed."""
  runner = make_runner(env)
  smp_term = runner._smp_term()
  rewards, step = [], env.unwrapped.step

  def noting(action):
    result = step(action)
    rewards.append(result[1].clone())
    return result

  monkeypatch.setattr(env.unwrapped, "step", noting)
  obs: Any = env.unwrapped.observation_manager.compute()
  for _ in range(12):
    obs = runner._step(obs)
  kept = stored(runner)
  scale, form = smp_term.style.scale(), smp_term.cfg.form()
  found = compose(kept["task"], kept["error"], kept["floor"], scale, form)
  expected = torch.stack(rewards) / env.unwrapped.step_dt
  torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
  assert (kept["extra"] == 0.0).all() and expected.max() > 0.01


def test_rewards_outside_of_the_composition_are_stored_beside_it():
  from mjlab.envs import mdp
  from mjlab.managers.reward_manager import RewardTermCfg

  cfg = small_env_cfg(TASK, ENVS)
  cfg.rewards["action_rate"] = RewardTermCfg(func=mdp.action_rate_l2, weight=-0.1)
  prepare_env_cfg(cfg)
  env = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  runner = make_runner(env)
  obs: Any = env.unwrapped.observation_manager.compute()
  actions = []
  for _ in range(3):
    obs = runner._step(obs)
    actions.append(stored(runner)["action"][-1])
  rate = (actions[1] - actions[0]).square().sum(-1)
  going_on = ~(stored(runner)["terminated"][0])
  found = stored(runner)["extra"][1]
  torch.testing.assert_close(
    found[going_on], -0.1 * rate[going_on], atol=1e-3, rtol=1e-2
  )
  env.close()


def test_nan_in_one_robot_enters_neither_buffer_nor_normalisers(env):
  runner = make_runner(env)
  obs: Any = env.unwrapped.observation_manager.compute()
  for step in range(8):
    if step in (2, 5):
      env.unwrapped.sim.data.qpos[3, 2] = math.nan
    obs = runner._step(obs)
    updates(runner)
  kept = stored(runner)
  assert kept["terminated"][[2, 5], 3].all()
  for name, value in kept.items():
    if isinstance(value, torch.Tensor):
      assert value.float().isfinite().all(), name
  for tensor in runner.alg.actor.state_dict().values():
    assert tensor.float().isfinite().all()
  assert runner.alg.critic_normalizer.mean.isfinite().all()


# Learning and going on.


def test_it_learns_and_saves(trained):
  runner, folder = trained
  assert runner.alg.updates == ALGORITHM.updates_per_step * (20 - 4)
  assert sorted(path.name for path in folder.glob("model_*.pt")) == [
    "model_0.pt",
    "model_3.pt",
  ]
  saved = read_checkpoint(folder / "model_3.pt", "cpu")
  assert saved["learner"] == "td3" and saved["infos"]["progress"]["total_steps"] == 160
  assert OnnxPolicy(folder / "policy.onnx").spec.task == TASK


def test_it_logs_what_is_compared_and_documented(trained):
  runner, folder = trained
  curves = read_curves(folder)
  steps = runner._smp_term().cfg.timesteps
  losses = ("Loss/value", "Loss/critic", "Loss/target")
  errors = [f"{SDS_LOSS}{step}" for step in steps]
  for name in (*SHOWN.values(), *losses, *errors, "Policy/mean_std"):
    # Episodes of 6 steps end, and learning begins, in the first two iterations of 5.
    assert set(curves[name].iteration) >= {1, 2, 3}, name
    assert np.isfinite(curves[name].value).all(), name
  assert steps_done(curves).value[-1] == pytest.approx(160, rel=0.1)
  done = curves["Perf/updates"].value
  assert list(np.diff(done)) == [10, 10, 10] and done[-1] == runner.alg.updates
  rate = curves["Perf/updates_per_second"].value
  spent = curves["Perf/learning_time"].value
  assert rate * spent == pytest.approx(np.diff(done, prepend=0.0))
  values = {name: curve.value for name, curve in curves.items()}
  assert ((values["Smp/r_smp"] > 0.0) & (values["Smp/r_smp"] <= 1.0)).all()
  assert (values["Smp/task_reward"] >= 0.0).all()
  level = values["Curriculum/success/level"]
  assert 0.0 <= level.min() <= level.max() <= 1.0
  with_noise, without = curves[EPISODE], curves[f"{EPISODE}_no_noise"]
  assert 1.0 <= with_noise.value.max() <= 6.0
  assert {2, 3} <= set(without.iteration) and 1.0 <= without.value.max() <= 6.0


def test_learning_beside_the_robots_is_the_same_each_time(tmp_path):
  """Threads decide nothing: two trainings agree to the last bit."""
  actors, done = [], []
  for _ in range(2):
    torch.manual_seed(5)
    env = make_env_of(TASK, seconds=0.12)
    env.unwrapped.reset(seed=5)
    runner = make_runner(env, overlap=True)
    torch.manual_seed(5)
    runner.learn(4)
    actors.append([p.clone() for p in runner.alg.actor.parameters()])
    done.append(runner.alg.updates)
    env.close()
  assert all(torch.equal(a, b) for a, b in zip(*actors, strict=True))
  # One step later than where each waits for the other.
  assert done == 2 * [ALGORITHM.updates_per_step * (20 - 5)]


def test_ctrl_c_beside_the_robots_waits_for_the_update(env, monkeypatch):
  runner = make_runner(env, overlap=True)
  obs: Any = env.unwrapped.observation_manager.compute()
  for _ in range(6):
    obs = runner._step(obs)
  update, started, steps = runner.alg.update, threading.Event(), []

  def slow(*drawn):
    started.set()
    found = update(*drawn)
    steps.append(runner.alg.updates)
    return found

  def interrupted(*_):
    assert started.wait(timeout=60.0)
    raise KeyboardInterrupt

  monkeypatch.setattr(runner.alg, "update", slow)
  monkeypatch.setattr(runner, "_advance", interrupted)
  with pytest.raises(KeyboardInterrupt):
    runner._iterate(obs, 0, 0, 1)
  assert steps == list(range(1, ALGORITHM.updates_per_step + 1))


def test_a_checkpoint_waits_for_the_update_that_ctrl_c_left_at_work(env):
  """What is written while it changes fails its own checksum."""
  runner = make_runner(env, overlap=True)
  obs: Any = env.unwrapped.observation_manager.compute()
  for _ in range(6):
    obs = runner._step(obs)
  drawn, worker = runner._draw(), cast(ThreadPoolExecutor, runner._worker)
  at_work = worker.submit(lambda: [runner._learn(drawn) for _ in range(20)])
  saved = runner.learner_state()
  assert at_work.done()
  assert saved["updates"] == runner.alg.updates == 20 * ALGORITHM.updates_per_step


def test_learning_beside_the_robots_is_for_a_processor(env):
  with pytest.raises(UserError, match="--agent.overlap True: is for a processor"):
    check_overlap(True, "cuda:0")
  check_overlap(True, "cpu")
  check_overlap(None, "cuda:0")
  # In the precision of the robots' step, which is the processor's for all threads.
  assert make_runner(env).alg.cfg.bfloat16
  assert not make_runner(env, overlap=True).alg.cfg.bfloat16


def test_no_episode_without_noise_has_no_length(env, tmp_path, monkeypatch):
  runner = make_runner(env, tmp_path, num_steps_per_env=2)
  monkeypatch.setattr(runner, "_note_episodes", lambda _: None)
  runner.learn(1)
  names = read_curves(tmp_path).keys()
  assert "Perf/updates" in names and f"{EPISODE}_no_noise" not in names


def test_wandb_gets_what_tensorboard_gets(env, tmp_path, monkeypatch):
  log_in(monkeypatch, tmp_path / "client")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  monkeypatch.setenv("WANDB_DIR", str(tmp_path))
  wandb.teardown()  # It keeps what it once saw of the environment.
  make_runner(env, tmp_path, logger="wandb", upload_model=False).learn(3)
  kept, curves = kept_scalars(tmp_path), read_curves(tmp_path)
  assert kept.keys() == curves.keys() > set(SHOWN.values())
  for name, curve in curves.items():
    assert list(kept[name]) == list(curve.iteration), name
    assert list(kept[name].values()) == pytest.approx(list(curve.value)), name


def test_the_policy_is_the_same_in_every_form(trained, env, tmp_path):
  runner, folder = trained
  path = folder / "model_3.pt"
  save_policy(path, tmp_path / "forward.pt", TASK)
  obs: Any = env.unwrapped.observation_manager.compute()
  expected = runner.alg.actor(obs["actor"])
  onnx = OnnxPolicy(folder / "policy.onnx")
  for file in (path, tmp_path / "forward.pt"):
    policy = load_policy(TASK, env, "trained", file)
    with torch.inference_mode():
      torch.testing.assert_close(policy(obs), expected)
  for row, want in zip(obs["actor"], expected, strict=True):
    got = torch.from_numpy(onnx(row.numpy()))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
  card = load_trained(tmp_path / "forward.pt").card
  assert card["learner"] == "td3" and card["updates"] == runner.alg.updates


def test_resuming_goes_on_without_a_jump(trained, env):
  runner, folder = trained
  other = make_runner(env)
  other.load(str(folder / "model_3.pt"))
  assert other.current_learning_iteration == 4
  assert other.alg.updates == runner.alg.updates
  assert other.logger.tot_timesteps == 160
  pairs = zip(
    (*other.alg.target_critic.parameters(), *other.alg.target_mlp.parameters()),
    (*runner.alg.target_critic.parameters(), *runner.alg.target_mlp.parameters()),
    strict=True,
  )
  assert all(torch.equal(a, b) for a, b in pairs)
  old, new = runner.alg.critic_optimizer, other.alg.critic_optimizer
  for a, b in zip(old.state.values(), new.state.values(), strict=True):
    assert torch.equal(a["exp_avg"], b["exp_avg"]) and a["step"] == b["step"]
  # Without the buffer, learning waits for a new one.
  obs: Any = env.unwrapped.observation_manager.compute()
  for _ in range(6):
    obs = other._step(obs)
    assert updates(other) == []
  other._step(obs)
  assert updates(other) != []


def test_a_saved_buffer_comes_back_and_one_of_another_size_does_not(env, tmp_path):
  runner = make_runner(env, tmp_path, save_replay=True)
  runner.learn(2)
  assert (tmp_path / REPLAY_FILE).is_file()
  other = make_runner(env, save_replay=True)
  other.load(str(tmp_path / "model_1.pt"))
  assert torch.equal(stored(other)["obs"], stored(runner)["obs"])
  assert updates(other) != []
  another = make_runner(env, save_replay=True, replay_steps=30)
  with pytest.raises(UserError, match=r"replay.pt: does not fit \(it holds up to 60"):
    another.load(str(tmp_path / "model_1.pt"))


def test_the_curriculum_goes_on_too(env, tmp_path):
  runner = make_runner(env, tmp_path)
  manager = env.unwrapped.curriculum_manager
  success = manager.get_term_cfg("success").func
  success.level, success.mean = 0.625, 0.5
  runner.save(str(tmp_path / "model_0.pt"))
  success.level, success.mean = 0.0, 0.0
  make_runner(env).load(str(tmp_path / "model_0.pt"))
  assert (success.level, success.mean) == (0.625, 0.5)
  success.level, success.mean = 0.0, 0.0


@pytest.mark.parametrize("save_replay", [False, True])
def test_ctrl_c_saves_and_ends_cleanly(env, tmp_path, monkeypatch, capsys, save_replay):
  runner = make_runner(env, tmp_path, save_replay=save_replay)
  steps, step = [], env.unwrapped.step

  def interrupted(action):
    steps.append(1)
    if len(steps) == 8:
      raise KeyboardInterrupt
    return step(action)

  monkeypatch.setattr(env.unwrapped, "step", interrupted)
  runner.learn(5)
  assert read_checkpoint(tmp_path / "model_0.pt", "cpu")["learner"] == "td3"
  assert "Continue with" in capsys.readouterr().out
  assert (tmp_path / REPLAY_FILE).is_file() == save_replay
  if save_replay:
    other = make_runner(env, save_replay=True)
    other.load(str(tmp_path / "model_0.pt"))
    assert other.replay.size == 7
    assert torch.equal(stored(other)["obs"], stored(runner)["obs"])
    capsys.readouterr()
    make_runner(env).load(str(tmp_path / "model_0.pt"))
    assert re.search(
      rf"{REPLAY_FILE}: not read; .*--agent.save-replay True", capsys.readouterr().out
    )


@pytest.mark.parametrize("task", TASKS[1:])
def test_every_task_is_learned_mirrored_and_saved(task, tmp_path):
  env = make_env_of(task)
  runner = make_runner(env, tmp_path)
  runner.learn(2)
  assert runner.alg.updates > 0 and runner.alg.mirrors is not None
  assert (tmp_path / "model_1.pt").is_file()
  env.close()


# What is refused.


def test_a_checkpoint_of_the_other_learner_is_refused(trained, env):
  _, folder = trained
  agent = asdict(load_rl_cfg(TASK))
  agent.update(logger="tensorboard")
  ppo = SmpRunner(env, agent, None, "cpu")
  with pytest.raises(UserError, match="by the learner td3, not ppo.*--learner td3"):
    ppo.load(str(folder / "model_3.pt"))


def test_a_checkpoint_of_another_network_is_refused(trained, env):
  _, folder = trained
  small = {**asdict(ALGORITHM), "hidden_dims": (16,)}
  with pytest.raises(UserError, match="model_3.pt: checkpoint of another task or net"):
    make_runner(env, algorithm=small).load(str(folder / "model_3.pt"))


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("batch_size", 1, "--agent.algorithm.batch-size 1"),
    ("n_step", 0, "--agent.algorithm.n-step 0"),
    ("gamma", 1.0, "--agent.algorithm.gamma 1.0"),
    ("teacher_weight", -1.0, "--agent.algorithm.teacher-weight -1.0"),
    ("teacher_half_life", 0, "--agent.algorithm.teacher-half-life 0"),
    ("teacher_floor", -1.0, "--agent.algorithm.teacher-floor -1.0"),
    ("exploration_noise", (0.4, 0.1), "--agent.algorithm.exploration-noise"),
    ("value_range", (1.0, 1.0), "--agent.algorithm.value-range"),
    ("actor_interval", 0, "--agent.algorithm.actor-interval 0"),
    ("num_atoms", 1, "--agent.algorithm.num-atoms 1"),
    ("learning_rate", math.nan, "--agent.algorithm.learning-rate nan"),
    ("noise_free_envs", -1, "--agent.algorithm.noise-free-envs -1"),
    ("action_bound", 0.0, "--agent.algorithm.action-bound 0.0"),
    ("tau", 0.0, "--agent.algorithm.tau 0.0"),
  ],
)
def test_settings_that_cannot_work_are_refused(env, name, value, message):
  with pytest.raises(UserError, match=message):
    make_runner(env, algorithm={**asdict(ALGORITHM), name: value})


def test_a_buffer_shorter_than_a_return_is_refused(env):
  with pytest.raises(UserError, match="--agent.replay-steps 2: .*, 3 "):
    make_runner(env, replay_steps=2)


def test_weights_that_leave_nothing_to_learn_are_refused(env, monkeypatch):
  manager = env.unwrapped.reward_manager
  for name in manager.active_terms:
    if name != "prior":
      monkeypatch.setattr(manager.get_term_cfg(name), "weight", 0.0)
  with pytest.raises(UserError, match="nothing to learn.*--env.rewards.NAME.weight"):
    make_runner(env)
  monkeypatch.setattr(manager.get_term_cfg("prior"), "weight", 0.5)
  with pytest.raises(UserError, match="--env.rewards.prior.weight 0.5: td3 composes"):
    make_runner(env)


def test_the_range_of_values_holds_what_fallen_starts_may_earn(env, monkeypatch):
  low = make_runner(env).alg.value_range[1]
  cfg = SmpTerm.of(env.unwrapped).cfg
  monkeypatch.setattr(cfg, "min_smp_reward_fallen", 0.8)
  assert math.isclose(make_runner(env).alg.value_range[1], 0.8 + 0.2 * low)


def test_steps_go_through_the_wrapper_of_the_environment(env, monkeypatch):
  class Recorder:
    """What mjlab puts around an environment to record videos."""

    def __init__(self, inner: Any) -> None:
      self.inner, self.actions = inner, []

    def step(self, action: Tensor) -> Any:
      self.actions.append(action)
      return self.inner.step(action)

    def __getattr__(self, name: str) -> Any:
      return getattr(self.inner, name)

  runner = make_runner(env)
  recorder = Recorder(env.env)
  monkeypatch.setattr(env, "env", recorder)
  monkeypatch.setattr(env, "clip_actions", 0.01)
  obs: Any = env.unwrapped.observation_manager.compute()
  runner._advance(obs, torch.ones(env.num_envs, env.num_actions))
  (action,) = recorder.actions
  assert float(action.abs().max()) == float(torch.tensor(0.01))
  assert torch.equal(stored(runner)["action"][0], action)
  # Where the horizon is finite nothing comes after a time-out.
  monkeypatch.setattr(env.unwrapped.cfg, "is_finite_horizon", True)
  env.episode_length_buf = torch.full_like(env.episode_length_buf, 10**6)
  runner._advance(obs, torch.zeros(env.num_envs, env.num_actions))
  last = stored(runner)
  assert last["terminated"][1].all() and not last["truncated"][1].any()


def test_what_a_resume_contradicts_is_said(trained, env, capsys):
  _, folder = trained
  path = folder / "model_3.pt"
  saved = read_checkpoint(path, "cpu")
  make_runner(env).load_learner(saved, None)
  assert "[WARN]" not in capsys.readouterr().out
  other = {**asdict(ALGORITHM), "value_range": (-0.5, 2.0)}
  make_runner(env, algorithm=other).load_learner(saved, None)
  assert "are now read from -0.5 to 2" in capsys.readouterr().out
  wide = make_runner(env, algorithm={**asdict(ALGORITHM), "action_bound": 5.0})
  wide.load_learner(saved, None)
  assert "the policy keeps the bounds of its actions" in capsys.readouterr().out
  assert float(wide.alg.actor.action_bound.max()) == ALGORITHM.action_bound
  late = make_runner(env)
  late.alg.teacher = lambda obs, critic_obs: torch.zeros(len(obs), env.num_actions)
  late.load_learner({**saved, "updates": 10**6}, None)
  assert "the pull to it has faded to" in capsys.readouterr().out


def test_a_resume_under_another_prior_keeps_fresh_starts(
  trained, env, tmp_path, monkeypatch, capsys
):
  _, folder = trained
  saved = read_checkpoint(folder / "model_3.pt", "cpu")
  saved["infos"]["origin"]["prior"] = "another"
  path = tmp_path / "model_3.pt"
  save_tensors(path, saved)
  loaded: list[Any] = []
  monkeypatch.setattr(SmpTerm, "load_state_dict", lambda _, state: loaded.append(state))
  make_runner(env).load(str(path))
  assert not loaded and "trained under the prior another" in capsys.readouterr().out
  make_runner(env).load(str(folder / "model_3.pt"))
  assert len(loaded) == 1


def test_a_resume_without_the_teacher_says_so(trained, env, capsys):
  runner, folder = trained
  saved = read_checkpoint(folder / "model_3.pt", "cpu")
  assert saved["pull"] == 0.0
  for pull, said in ((5.0, True), (0.01, False)):
    make_runner(env).load_learner({**saved, "pull": pull}, None)
    assert ("--agent.teacher" in capsys.readouterr().out) == said


def test_a_training_begins_with_a_policy_file_as_its_own_teacher(
  trained, env, tmp_path
):
  _, folder = trained
  path = tmp_path / "policy.pt"
  save_policy(folder / "model_3.pt", path, TASK)
  obs: Any = env.unwrapped.observation_manager.compute()
  expected = load_trained(path).actor(obs["actor"])
  begun = make_runner(env, init_policy=str(path)).alg
  assert begun.updates == 0
  torch.testing.assert_close(begun.actor(obs["actor"]), expected)
  taught = cast(Any, begun.teacher)(obs["actor"], obs["critic"])
  torch.testing.assert_close(taught, expected)
  # Another teacher takes the place of the policy itself.
  other = make_runner(env)
  cast(Any, other.alg.actor.mlp[-1]).bias.data += 1.0
  other.logger.log_dir = None
  other_path = tmp_path / "other.pt"
  other.save(str(tmp_path / "model_0.pt"))
  save_policy(tmp_path / "model_0.pt", other_path, TASK)
  begun = make_runner(env, init_policy=str(path), teacher=str(other_path)).alg
  torch.testing.assert_close(begun.actor(obs["actor"]), expected)
  taught = cast(Any, begun.teacher)(obs["actor"], obs["critic"])
  torch.testing.assert_close(taught, other.alg.actor(obs["actor"]))


def test_a_policy_that_a_training_cannot_begin_with_is_refused(trained, env, tmp_path):
  _, folder = trained
  path = tmp_path / "policy.pt"
  save_policy(folder / "model_3.pt", path, TASK)
  small = {**asdict(ALGORITHM), "hidden_dims": (16,)}
  with pytest.raises(
    UserError, match="policy.pt: another network .*--agent.algorithm."
  ):
    make_runner(env, algorithm=small, init_policy=str(path))
  other = load_trained(path).actor
  other.spec = replace(other.spec, activation="elu")
  with pytest.raises(UserError, match="another network .*another learner can only tea"):
    make_runner(env)._begin_with(other, "policy.pt")
  saved = load_tensors(path, "policy", "cpu")
  layout = {"terms": ["joint_pos", "command"], "history": 5}
  save_tensors(path, {**saved, "card": {**saved["card"], "actor": layout}})
  with pytest.raises(UserError, match="observes joint_pos, command of 5 frames, here"):
    make_runner(env, init_policy=str(path))
  save_tensors(path, {**saved, "card": {**saved["card"], "task": "Smp-Getup-G1"}})
  with pytest.raises(
    UserError, match="a policy of Smp-Getup-G1, not of Smp-Forward-G1"
  ):
    make_runner(env, init_policy=str(path))


def test_tasks_without_a_prior_are_refused():
  import mjlab.tasks  # noqa: F401

  cfg = load_env_cfg("Mjlab-Velocity-Flat-Unitree-G1")
  with pytest.raises(UserError, match="--learner td3: this task has no motion prior"):
    prepare_env_cfg(cfg)


def test_bounds_by_joint_limits_reach_every_limit(env):
  runner = make_runner(
    env, algorithm={**asdict(ALGORITHM), "action_reach": "joint_limits"}
  )
  bound = runner.alg.actor.action_bound
  term = cast(Any, env.unwrapped.action_manager.get_term("joint_pos"))
  robot = cast(Any, env.unwrapped.scene["robot"])
  limits = robot.data.joint_pos_limits[0]
  high = term.offset[0] + bound * term.scale[0]
  low = term.offset[0] - bound * term.scale[0]
  assert (high >= limits[:, 1] - 1e-4).all() and (low <= limits[:, 0] + 1e-4).all()
  touching = ((high - limits[:, 1]).abs() < 1e-4) | ((low - limits[:, 0]).abs() < 1e-4)
  # No joint gets less than it has without, such as an ankle that pushes.
  usual = ALGORITHM.action_bound
  assert (touching | (bound == usual)).all() and (bound >= usual).all()
  assert touching.any() and (bound == usual).any()


def test_bounds_by_the_prior_reach_its_poses_and_no_further(env, monkeypatch):
  def bound(reach: str) -> Tensor:
    settings: Any = {"action_reach": reach}
    return action_bound(env.unwrapped, replace(ALGORITHM, **settings))

  prior = SmpTerm.of(env.unwrapped).prior
  assert prior is not None
  torch.manual_seed(3)
  term = cast(Any, env.unwrapped.action_manager.get_term("joint_pos"))
  poses = decode(prior.sample(128)).joint_pos.flatten(0, 1)
  asked = ((poses - term.offset[0]) / term.scale[0]).abs()
  usual, reached = bound("none"), bound("prior")
  inside = (asked <= reached).float().mean(dim=0)
  assert inside.min() > 0.97
  assert (asked > usual).float().mean(dim=0).max() > 0.1  # Else it would be no test.
  assert (reached >= usual).all() and (reached <= bound("joint_limits") + 1e-4).all()
  knees = [i for i, name in enumerate(g1.JOINT_NAMES) if "knee" in name]
  assert (reached[knees] > usual[knees]).all()
  assert (reached[knees] < bound("joint_limits")[knees]).all()
  torch.testing.assert_close(bound("prior"), reached)
  # Samples beyond the limits of joints ask for no more than these.
  wild = torch.tensor((-9.0, 9.0)).expand(len(reached), 2)
  monkeypatch.setattr("smp.rl.off_policy._joint_range", lambda prior: wild)
  torch.testing.assert_close(bound("prior"), bound("joint_limits"))


def test_without_a_prior_there_are_no_poses_to_reach(env, monkeypatch):
  monkeypatch.setattr(SmpTerm.of(env.unwrapped), "prior", None)
  with pytest.raises(UserError, match="--agent.algorithm.action-reach prior: the env"):
    action_bound(env.unwrapped, replace(ALGORITHM, action_reach="prior"))
