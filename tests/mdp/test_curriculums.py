"""What grows with success: the level, what it sets, and what a checkpoint keeps of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mjlab.managers.curriculum_manager import CurriculumManager, CurriculumTermCfg
from mjlab.tasks.registry import load_env_cfg

import smp.tasks  # noqa: F401
from smp.errors import UserError
from smp.mdp import robot_state
from smp.mdp.commands import LocationCommandCfg, SpeedCommand, SpeedCommandCfg
from smp.mdp.curriculums import (
  FIRST_LOWEST_START,
  SUCCESS,
  Success,
  add_curriculum,
  curriculum_state,
  load_curriculum_state,
)
from smp.mdp.smp_term import SmpTerm, SmpTermCfg
from smp.sim import make_env
from smp.tasks.base import play_env_cfg
from smp.tasks.velocity import velocity_env_cfg
from tests.conftest import small_env_cfg

NUM, LONGEST = 10, 100
TASKS = ("Forward", "Steering", "Location", "Getup")
EVERYONE = torch.arange(NUM)


class FakeEnv(SimpleNamespace):
  """As much of an environment as a curriculum reads: lengths, ends, what it sets."""

  episode_length_buf: Any
  reward_manager: Any = None

  def __init__(self) -> None:
    pushes = SimpleNamespace(params={"velocity_range": {"x": (-0.5, 0.5)}})
    ended = torch.ones(NUM, dtype=torch.bool)
    terms = {"stood_up": torch.zeros(NUM, dtype=torch.bool)}
    super().__init__(
      num_envs=NUM,
      device="cpu",
      common_step_counter=0,
      episode_length_buf=torch.zeros(NUM, dtype=torch.long),
      max_episode_length=LONGEST,
      termination_manager=SimpleNamespace(dones=ended, get_term=terms.__getitem__),
      event_manager=SimpleNamespace(get_term_cfg=lambda _: pushes),
      command=SimpleNamespace(
        cfg=SimpleNamespace(speed_range=(0.5, 5.0), distance_range=(1.0, 10.0))
      ),
      pushes=pushes,
      ended=ended,
      stood_up=terms["stood_up"],
    )
    self.command_manager = SimpleNamespace(get_term=lambda _: self.command)

  def begin(self, cfg: Any) -> None:
    """Take a task's curriculum, and reset everything."""
    self.curriculum_manager = CurriculumManager(cfg.curriculum, cast(Any, self))
    self.curriculum_manager.compute(EVERYONE)

  def episodes(self, length: int, env_ids: torch.Tensor = EVERYONE) -> None:
    """Everyone goes on for so many steps; then the episodes of ``env_ids`` end."""
    self.common_step_counter += length
    self.episode_length_buf += length
    self.ended.fill_(False)
    self.ended[env_ids] = True
    self.curriculum_manager.compute(env_ids)
    self.episode_length_buf[env_ids] = 0

  @property
  def success(self) -> Success:
    return self.curriculum_manager.get_term_cfg(SUCCESS).func


def env_of(task: str = "Smp-Forward-G1", **options: Any) -> FakeEnv:
  cfg = load_env_cfg(task)
  add_curriculum(cfg, **options)
  env = FakeEnv()
  env.begin(cfg)
  return env


def until_grown(env: FakeEnv) -> FakeEnv:
  for _ in range(12):
    env.episodes(LONGEST)
  assert env.success.level == 1.0
  return env


# The level.


def test_level_rises_with_long_episodes_and_falls_with_short_ones():
  env, levels = env_of(), []
  env.episodes(80)
  assert env.success.level == 0.0  # One good episode is no success yet.
  for length in [LONGEST] * 20 + [50] * 20 + [5] * 20:
    env.episodes(length)
    levels.append(env.success.level)
  assert levels[19] == 1.0 and max(levels) == 1.0
  assert levels[39] == 1.0  # Neither good nor bad.
  assert levels[59] == 0.0 and min(levels) == 0.0
  rises = torch.tensor(levels[:20]).diff()
  assert rises.min() >= 0.0 and rises.max() == pytest.approx(0.2)


def test_mean_is_of_whole_episodes_alone():
  env = env_of()
  env.episodes(80)
  mean = env.success.mean
  assert mean == pytest.approx(0.8 * (1.0 - 0.9**10))
  # rsl_rl sets counters at random to spread the time-outs.
  env.episode_length_buf[:] = torch.arange(NUM) + 1
  env.episodes(10)
  assert env.success.mean == mean
  # A call of env.reset ends episodes that had not ended.
  env.common_step_counter += 7
  env.episode_length_buf += 7
  env.ended.fill_(False)
  env.curriculum_manager.compute(EVERYONE)
  env.episode_length_buf.zero_()
  # And a second one, or the first of all, finds no episode at all.
  env.ended.fill_(True)
  env.curriculum_manager.compute(EVERYONE)
  assert env.success.mean == mean
  env.episodes(80)
  assert env.success.mean > mean


def test_one_episode_weighs_the_same_alone_or_among_others():
  together, apart = env_of(), env_of()
  together.episodes(90)
  for i in range(NUM):
    apart.common_step_counter, apart.episode_length_buf[i] = 90, 90
    apart.episodes(0, torch.tensor([i]))
  assert apart.success.mean == pytest.approx(together.success.mean)


def test_getting_up_is_the_success_of_getup():
  env = env_of("Smp-Getup-G1")
  for _ in range(12):
    env.episodes(LONGEST)  # Lying there until the time is over.
  assert env.success.level == 0.0
  env.stood_up.fill_(True)
  for _ in range(12):
    env.episodes(40)
  assert env.success.level == 1.0


# What it sets.


def test_the_level_follows_what_a_robot_can_rise_from_where_starts_are_spread():
  cfg = load_env_cfg("Smp-Getup-G1")
  starts = cast(SmpTermCfg, cfg.commands["smp"])
  starts.spread_init_heights = True
  with pytest.raises(UserError, match="max-init-head-height 0.6 leaves none.*give 1.4"):
    add_curriculum(cfg)
  starts.max_init_head_height = 1.4
  add_curriculum(cfg)
  del cfg.curriculum["lowest_start"]  # It needs an environment.
  env = FakeEnv()
  env.begin(cfg)
  for share, rises in ((8, True), (3, False)):
    env.success.level = env.success.mean = 0.5
    env.stood_up[:] = EVERYONE < share
    for _ in range(8):
      env.episodes(40)
    assert (env.success.level > 0.5) == rises != (env.success.level < 0.5)
    assert 0.0 < env.success.level < 1.0  # At a quarter of the usual pace.
  env.success.level = 0.8
  env.curriculum_manager.compute(EVERYONE)
  assert env.pushes.params["velocity_range"]["x"] == (0.0, 0.0)
  cfg.curriculum = {}
  add_curriculum(cfg, pushes_during=(0.0, 0.5))
  assert cfg.curriculum["pushes"].params["during"] == (0.0, 0.5)


def test_help_vanishes_with_success_and_pushes_come_last():
  cfg = load_env_cfg("Smp-Getup-G1")
  add_curriculum(cfg, help_share=0.6)
  env = FakeEnv()
  events = {"help_up": cfg.events["help_up"], "push_robot": env.pushes}
  env.event_manager = SimpleNamespace(get_term_cfg=events.__getitem__)
  env.begin(cfg)
  for level, most, push in ((0.0, 0.6, 0.0), (0.5, 0.3, 0.0), (1.0, 0.0, 0.5)):
    env.success.level = level
    env.curriculum_manager.compute(EVERYONE[:0])
    assert cfg.events["help_up"].params["most"] == pytest.approx(most)
    assert env.pushes.params["velocity_range"]["x"][1] == pytest.approx(push)
  for share, rises in ((6, True), (2, False)):
    env.success.level, env.success.mean = 0.5, 0.4
    env.stood_up[:] = EVERYONE < share
    for _ in range(8):
      env.episodes(40)
    assert (env.success.level > 0.5) == rises != (env.success.level < 0.5)
    assert 0.0 < env.success.level < 1.0  # At a quarter of the usual pace.
  assert "help_up" in cfg.observations["critic"].terms
  assert "help_up" not in cfg.observations["actor"].terms


@pytest.mark.parametrize("share", (-0.1, 1.0, float("nan")))
def test_help_is_a_share_of_the_weight(share):
  with pytest.raises(UserError, match="help is .*expected a share of the weight"):
    add_curriculum(load_env_cfg("Smp-Getup-G1"), help_share=share)


def test_without_help_nobody_is_helped():
  cfg = load_env_cfg("Smp-Getup-G1")
  add_curriculum(cfg)
  assert "help_up" not in cfg.events
  assert "help_up" not in cfg.observations["critic"].terms


def test_speed_and_pushes_grow_from_gentle_to_published():
  env = env_of()
  assert env.command.speed_range == (0.5, 3.0)
  assert env.pushes.params["velocity_range"]["x"] == (0.0, 0.0)
  env.success.level = 0.5
  env.episodes(50)
  assert env.command.speed_range == (0.5, 4.0)
  assert env.pushes.params["velocity_range"]["x"] == (-0.25, 0.25)
  until_grown(env)
  assert env.command.speed_range == env.command.cfg.speed_range
  assert env.pushes.params["velocity_range"]["x"] == (-0.5, 0.5)


def test_pushes_can_wait_for_the_speed():
  env = env_of(speed_during=(0.0, 0.5), pushes_during=(0.5, 1.0))
  env.success.level = 0.5
  env.episodes(50)
  assert env.command.speed_range == (0.5, 5.0)
  assert env.pushes.params["velocity_range"]["x"] == (0.0, 0.0)
  env.success.level = 0.75
  env.episodes(50)
  assert env.pushes.params["velocity_range"]["x"] == (-0.25, 0.25)


def velocity_env() -> FakeEnv:
  cfg = load_env_cfg("Smp-Velocity-G1")
  add_curriculum(cfg)
  env = FakeEnv()
  env.command = SimpleNamespace(cfg=cfg.commands["command"])
  env.reward_manager = SimpleNamespace(get_term_cfg=cfg.rewards.__getitem__)
  env.begin(cfg)
  return env


def test_costs_grow_from_a_tenth_and_rewards_stay():
  full = {name: term.weight for name, term in velocity_env_cfg().rewards.items()}
  env = velocity_env()

  def shares() -> dict[str, float]:
    get = env.reward_manager.get_term_cfg
    return {name: get(name).weight / weight for name, weight in full.items()}

  def expected(share: float) -> dict[str, Any]:
    return {n: pytest.approx(share if w < 0.0 else 1.0) for n, w in full.items()}

  assert min(full.values()) < 0.0 < max(full.values())
  assert shares() == expected(0.1)
  env.success.level = 0.5
  env.episodes(50)
  assert shares() == expected(0.55)
  until_grown(env)
  assert shares() == expected(1.0)


def test_a_steeper_climb_takes_fewer_episodes():
  slow, fast = env_of(), env_of(climb=1.0)
  while fast.success.level < 1.0:
    for env in (slow, fast):
      env.episodes(LONGEST)
  assert slow.success.level == pytest.approx(0.2)


def test_a_task_has_a_climb_of_its_own_unless_another_is_asked_for():
  def climb(task: str, **options: Any) -> float:
    cfg = load_env_cfg(task)
    add_curriculum(cfg, **options)
    return cfg.curriculum[SUCCESS].params["climb"]

  assert climb("Smp-Forward-G1") == 5.0 < climb("Smp-Velocity-G1") == 15.0
  assert climb("Smp-Velocity-G1", climb=3.0) == 3.0


def test_ranges_around_zero_grow_at_both_ends():
  env = velocity_env()

  def ranges() -> list[float]:
    command = env.command
    return [*command.vx_range, *command.vy_range, *command.yaw_rate_range]

  assert ranges() == [0.0, 2.0, -0.2, 0.2, -0.5, 0.5]
  env.success.level = 0.5
  env.episodes(50)
  assert ranges() == pytest.approx([-0.25, 2.5, -0.4, 0.4, -1.0, 1.0])
  until_grown(env)
  assert ranges() == pytest.approx([-0.5, 3.0, -0.6, 0.6, -1.5, 1.5])


def test_standing_and_slow_commands_are_few_until_robots_go():
  env = velocity_env()
  assert env.command.easy_share == pytest.approx(0.1)
  for level, share in ((0.1, 0.55), (0.2, 1.0), (0.9, 1.0)):
    env.success.level = level
    env.episodes(50)
    assert env.command.easy_share == pytest.approx(share, abs=0.03)
  # Forward has none of them, unless asked for.
  cfg = load_env_cfg("Smp-Forward-G1")
  add_curriculum(cfg)
  assert "easy_commands" not in cfg.curriculum
  for slow in (0.1, 1.0):  # A task of slow commands alone does not begin with others.
    cfg = load_env_cfg("Smp-Forward-G1")
    cast(Any, cfg.commands["command"]).rel_slow_envs = slow
    add_curriculum(cfg)
    assert ("easy_commands" in cfg.curriculum) is (slow < 1.0)


def test_a_range_begins_within_the_configured_one():
  cfg = load_env_cfg("Smp-Velocity-G1")
  command = cast(Any, cfg.commands["command"])
  command.vy_range, command.yaw_rate_range = (-0.1, 0.5), (0.0, 0.3)
  add_curriculum(cfg)
  env = FakeEnv()
  env.command = SimpleNamespace(cfg=command)
  env.reward_manager = SimpleNamespace(get_term_cfg=cfg.rewards.__getitem__)
  env.begin(cfg)
  assert env.command.vy_range == (-0.1, 0.2)
  assert "top_yaw_rate" not in cfg.curriculum  # All of it from the beginning.


def test_goals_move_away_where_asked():
  env = env_of("Smp-Location-G1", starts={"distance": 2.0})
  assert env.command.distance_range == (1.0, 2.0)
  assert until_grown(env).command.distance_range == (1.0, 10.0)
  assert "top_distance" not in env_of("Smp-Location-G1").curriculum_manager.active_terms


def test_what_grows_is_logged():
  env = env_of()
  env.episodes(50)
  log = env.curriculum_manager.reset(EVERYONE)
  assert set(log) == {
    "Curriculum/success/level",
    "Curriculum/success/mean",
    "Curriculum/top_speed",
    "Curriculum/pushes",
  }
  assert all(isinstance(value, float) for value in log.values())


# Which tasks.


@pytest.mark.parametrize("task", TASKS)
def test_published_tasks_have_none(task: str):
  task = f"Smp-{task}-G1"
  for play in (False, True):
    cfg = load_env_cfg(task, play=play)
    assert cfg.curriculum == {}
    assert cast(Any, cfg.commands["smp"]).init_speed_bandwidth is None
  cfg = load_env_cfg(task)
  add_curriculum(cfg)
  assert next(iter(cfg.curriculum)) == SUCCESS and len(cfg.curriculum) > 1
  assert load_env_cfg(task).curriculum == {}
  # The terms are all that it adds.
  cfg.curriculum = {}
  assert cfg.commands == load_env_cfg(task).commands
  assert cfg.events == load_env_cfg(task).events


def test_who_only_looks_sees_the_task_as_it_ends():
  cfg = load_env_cfg("Smp-Forward-G1")
  add_curriculum(cfg)
  cast(SmpTermCfg, cfg.commands["smp"]).init_speed_bandwidth = 0.3
  cast(SmpTermCfg, cfg.commands["smp"]).spread_init_heights = True
  play = play_env_cfg(cfg)
  assert play.curriculum == {}
  assert cast(SmpTermCfg, play.commands["smp"]).init_speed_bandwidth is None
  assert not cast(SmpTermCfg, play.commands["smp"]).spread_init_heights


def test_nothing_to_grow_is_said():
  cfg = load_env_cfg("Smp-Location-G1")
  del cfg.events["push_robot"]
  with pytest.raises(UserError, match="nothing that can grow"):
    add_curriculum(cfg)
  cfg = load_env_cfg("Smp-Forward-G1")
  cast(SpeedCommandCfg, cfg.commands["command"]).speed_range = (0.5, 2.0)
  add_curriculum(cfg)
  assert set(cfg.curriculum) == {SUCCESS, "pushes"}
  del cfg.events["push_robot"]
  with pytest.raises(UserError, match="nothing that can grow"):
    add_curriculum(cfg)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"starts": {"speed": 6.0}}, "start of the speed 6.0 m/s.*0.5 to 5.0"),
    ({"starts": {"speed": float("nan")}}, "start of the speed"),
    ({"pushes_during": (0.5, 0.5)}, "no part of the level"),
    ({"climb": 0.0}, "climb is 0.0"),
  ],
)
def test_senseless_options_are_refused(options: dict, message: str):
  with pytest.raises(UserError, match=message):
    add_curriculum(load_env_cfg("Smp-Forward-G1"), **options)


def test_a_goal_out_of_range_is_refused():
  cfg = load_env_cfg("Smp-Location-G1")
  assert isinstance(cfg.commands["command"], LocationCommandCfg)
  with pytest.raises(UserError, match="start of the distance 0.5 m"):
    add_curriculum(cfg, starts={"distance": 0.5})


# Checkpoints.


def test_a_checkpoint_brings_the_level_back_at_once():
  env = env_of()
  for _ in range(3):
    env.episodes(LONGEST)
  state = curriculum_state(cast(Any, env))
  assert 0.0 < state[SUCCESS]["level"] < 1.0
  fresh = env_of()
  load_curriculum_state(cast(Any, fresh), state)
  assert curriculum_state(cast(Any, fresh)) == state
  assert fresh.command.speed_range == env.command.speed_range
  assert fresh.pushes.params == env.pushes.params
  # The counter of steps comes from the checkpoint too: nobody has gone so far.
  fresh.common_step_counter = 10_000
  fresh.episodes(1)
  assert curriculum_state(cast(Any, fresh)) == state


def test_checkpoints_and_trainings_of_another_kind(capsys):
  env = env_of()
  load_curriculum_state(cast(Any, env), {})
  assert "it starts anew" in capsys.readouterr().out
  load_curriculum_state(cast(Any, env), {SUCCESS: {"level": 0.5, "mean": 0.5}, "x": {}})
  assert "'x'" in capsys.readouterr().out
  for bad in ({"level": 2.0, "mean": 0.5}, {"level": 0.5}, {"level": float("nan")}, 3):
    with pytest.raises(UserError, match=r"curriculum\.success\.(level|mean) is"):
      load_curriculum_state(cast(Any, env), {SUCCESS: bad})
  assert env.success.level == 0.5


# In an environment.


@pytest.mark.slow
def test_in_an_environment():
  cfg = small_env_cfg("Smp-Forward-G1", num_envs=4)
  cfg.episode_length_s = 0.2
  add_curriculum(cfg, starts={"speed": 1.0})
  cfg.curriculum[SUCCESS] = CurriculumTermCfg(
    func=Success, params={"memory": 0.25, "climb": 1.0}
  )
  cast(Any, cfg.commands["smp"]).init_speed_bandwidth = 0.1
  env = make_env(cfg, "native", "cpu", threads=1)
  command = cast(SpeedCommand, env.command_manager.get_term("command"))
  env.reset()
  assert command.speed.max() <= 1.0
  state = curriculum_state(env)
  assert state == {SUCCESS: {"level": 0.0, "mean": 0.0}}
  for _ in range(25):
    env.step(torch.zeros(4, 29))
  assert curriculum_state(env)[SUCCESS]["level"] > 0.0
  load_curriculum_state(env, {SUCCESS: {"level": 1.0, "mean": 1.0}})
  assert command.speed_range == (0.5, 5.0)
  pushes = env.event_manager.get_term_cfg("push_robot").params["velocity_range"]
  assert (
    pushes
    == load_env_cfg("Smp-Forward-G1").events["push_robot"].params["velocity_range"]
  )
  # What it was built from is as it was: the next one begins gently again.
  assert cast(SpeedCommandCfg, cfg.commands["command"]).speed_range == (0.5, 5.0)
  env.close()


@pytest.mark.slow
def test_episodes_start_at_the_speed_that_is_commanded():
  cfg = small_env_cfg("Smp-Forward-G1", num_envs=64)
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.gsi_buffer_size, smp_term.init_speed_bandwidth = 128, 0.1
  cast(SpeedCommandCfg, cfg.commands["command"]).speed_range = (0.0, 2.0)
  env = make_env(cfg, "native", "cpu", threads=1)
  command = cast(SpeedCommand, env.command_manager.get_term("command"))
  env.reset()
  gap = (env.sim.data.qvel[:, 0] - command.speed).abs().mean()
  torch.testing.assert_close(command.command[:, 2], command.speed)
  cast(Any, env.command_manager.get_term("smp")).cfg.init_speed_bandwidth = None
  env.reset()
  anyhow = (env.sim.data.qvel[:, 0] - command.speed).abs().mean()
  env.close()
  assert gap < 0.3 and gap < 0.5 * anyhow


@pytest.mark.slow
def test_starts_grow_downward_from_standing_where_they_are_spread():
  cfg = small_env_cfg("Smp-Getup-G1", num_envs=64)
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.gsi_buffer_size, smp_term.max_init_head_height = 128, None
  smp_term.spread_init_heights = True
  add_curriculum(cfg)
  env = make_env(cfg, "native", "cpu", threads=1)
  term = cast(SmpTerm, env.command_manager.get_term("smp"))

  def heads() -> torch.Tensor:
    env.reset()
    robot = env.scene["robot"]
    return robot_state.head_w(robot)[0][:, 2]

  def reach(level: float) -> torch.Tensor:
    load_curriculum_state(env, {SUCCESS: {"level": level, "mean": 0.5}})
    return heads()

  assert heads().min() > FIRST_LOWEST_START - 0.01
  assert int(term.init_mode.sum()) == 0
  lowest = reach(0.4)  # Half of the way down.
  assert FIRST_LOWEST_START / 2 - 0.01 < lowest.min() < FIRST_LOWEST_START
  assert int(term.init_mode.sum()) == 0
  assert reach(1.0).min() < 0.4
  assert 16 < int((term.init_mode > 0).sum()) < 48  # Half of them fell.
  env.close()


@pytest.mark.parametrize(
  "task, bandwidth, message",
  [
    ("Getup", 0.3, "commands no speed"),
    ("Location", 0.3, "commands no speed"),
    ("Forward", 0.0, "expected more than 0"),
    ("Forward", float("nan"), "expected more than 0"),
  ],
)
def test_start_speeds_that_nothing_fits(task: str, bandwidth: float, message: str):
  cfg = load_env_cfg(f"Smp-{task}-G1")
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.init_speed_bandwidth = bandwidth
  env = cast(Any, SimpleNamespace(num_envs=1, device="cpu", cfg=cfg))
  with pytest.raises(UserError, match=message):
    smp_term.build(env)


def test_starts_are_chosen_by_speed_or_by_height():
  cfg = load_env_cfg("Smp-Forward-G1")
  smp_term = cast(SmpTermCfg, cfg.commands["smp"])
  smp_term.init_speed_bandwidth, smp_term.spread_init_heights = 0.3, True
  env = cast(Any, SimpleNamespace(num_envs=1, device="cpu", cfg=cfg))
  with pytest.raises(UserError, match="chosen by one of them"):
    smp_term.build(env)
