"""Teachers: trained policies that an actor imitates at first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mjlab.rl import RslRlVecEnvWrapper

from smp.errors import UserError
from smp.mdp.observations import observe_styles
from smp.mdp.smp_term import SmpTermCfg
from smp.rl import command_translation
from smp.rl.actor import Actor, ActorSpec
from smp.rl.actor_layout import ActorLayout, leave_out_prior
from smp.rl.command_translation import goal_of_velocity, travel_of_goal
from smp.rl.off_policy import prepare_env_cfg
from smp.rl.policy_file import FORMAT
from smp.rl.teacher import critic_columns, load_teacher, load_teachers
from smp.sim import make_env
from smp.utils.tensor_files import save_tensors
from tests.conftest import small_env_cfg

ACTIONS = 29


@pytest.fixture(scope="module")
def env() -> Iterator[RslRlVecEnvWrapper]:
  """Smp-Velocity-G1 without noise on what the actor observes."""
  cfg = small_env_cfg("Smp-Velocity-G1", 4)
  prepare_env_cfg(cfg)
  cfg.observations["actor"].enable_corruption = False
  env = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  yield env
  env.close()


def write_policy(
  path: Path, task: str, width: int, layout: ActorLayout | None = None, seed: int = 0
) -> Actor:
  """Write a policy file of random weights; return its actor."""
  torch.manual_seed(seed)
  spec = ActorSpec("silu", layer_norm=True, squash=True, obs_clip=10.0)
  actor = Actor((width, 8, ACTIONS), spec)
  card: dict[str, Any] = {"task": task, "iteration": 0}
  card |= {} if layout is None else {"actor": layout.to_dict()}
  policy = {
    "format": FORMAT,
    "actor_state_dict": actor.state_dict(),
    "actor_spec": spec.to_dict(),
    "mean": torch.zeros(0),
    "count": torch.zeros(1),
    "card": card,
  }
  save_tensors(path, policy)
  return actor.eval()


PRIVILEGED = (
  "base_lin_vel base_ang_vel projected_gravity joint_pos joint_vel actions command"
)


@pytest.mark.slow
@torch.no_grad()
def test_a_teacher_reads_the_terms_that_it_was_trained_on(env, tmp_path):
  obs, manager = env.get_observations(), env.unwrapped.observation_manager
  terms = manager.active_terms["critic"]
  dims = [dim[0] for dim in manager.group_obs_term_dim["critic"]]
  parts = dict(zip(terms, obs["critic"].split(dims, dim=-1), strict=True))
  layout = ActorLayout(tuple(PRIVILEGED.split()), 1)
  seen = [parts[name] for name in layout.terms]

  path = tmp_path / "own.pt"
  width = sum(part.shape[1] for part in seen)
  actor = write_policy(path, "Smp-Velocity-G1", width, layout)
  found = load_teacher(path, env.unwrapped)(obs["actor"], obs["critic"])
  torch.testing.assert_close(found, actor(torch.cat(seen, -1)))

  path = tmp_path / "location.pt"
  actor = write_policy(path, "Smp-Location-G1", width - 1)
  seen[-1] = goal_of_velocity(parts["command"])
  found = load_teacher(path, env.unwrapped)(obs["actor"], obs["critic"])
  torch.testing.assert_close(found, actor(torch.cat(seen, -1)))
  assert sum(b - a for a, b in critic_columns(env.unwrapped).values()) == sum(dims)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("task", "width", "layout", "message"),
  [
    ("Smp-Getup-G1", 96, None, "observes no command, as a teacher does"),
    ("Smp-Location-G1", 90, None, "has 90 observations and 29 actions, expected 98"),
    ("Smp-Location-G1", 98, ActorLayout(("joint_pos", "command"), 5), "5 frames"),
    ("Smp-Velocity-G1", 98, ActorLayout(("joint_pos", "command"), 5), "5 frames"),
    ("Smp-Location-G1", 98, ActorLayout(("style", "command"), 1), "observes 'style'"),
    ("Smp-Old-G1", 98, None, "teacher.pt: a policy of Smp-Old-G1, which is no task"),
  ],
)
def test_what_cannot_teach_is_refused(env, tmp_path, task, width, layout, message):
  path = tmp_path / "teacher.pt"
  write_policy(path, task, width, layout)
  with pytest.raises(UserError, match=message):
    load_teacher(path, env.unwrapped)


@pytest.mark.slow
@torch.no_grad()
def test_the_first_teacher_that_can_follow_a_command_acts(env, tmp_path):
  ahead, other = tmp_path / "location.pt", tmp_path / "steering.pt"
  write_policy(ahead, "Smp-Location-G1", 98)
  write_policy(other, "Smp-Steering-G1", 101)
  obs = env.get_observations()
  actor_obs, critic = obs["actor"], obs["critic"]
  command = slice(*critic_columns(env.unwrapped)["command"])
  critic[:, command] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0, 0, 1.0]])
  first, second = (
    load_teacher(path, env.unwrapped)(actor_obs, critic) for path in (ahead, other)
  )
  assert not torch.allclose(first, second)
  both = load_teachers(f"{ahead}, {other}", env.unwrapped)(actor_obs, critic)
  expected = torch.stack((first[0], second[1], first[2], second[3]))
  torch.testing.assert_close(both, expected)
  # Of two that can, the first.
  straight = tmp_path / "forward.pt"
  write_policy(straight, "Smp-Forward-G1", 99)
  third = load_teacher(straight, env.unwrapped)(actor_obs, critic)
  for order, chosen in (((straight, ahead), third), ((ahead, straight), first)):
    found = load_teachers(",".join(map(str, (*order, other))), env.unwrapped)(
      actor_obs, critic
    )
    torch.testing.assert_close(found[0], chosen[0])
  # The last one acts wherever no other does.
  alone = load_teachers(str(ahead), env.unwrapped)(actor_obs, critic)
  torch.testing.assert_close(alone, first)
  with pytest.raises(UserError, match="a file's name is missing"):
    load_teachers(f"{ahead},", env.unwrapped)


@pytest.mark.slow
@torch.no_grad()
def test_a_teacher_may_be_asked_for_some_kinds_of_command_only(env, tmp_path):
  layout = ActorLayout.of(env.unwrapped.cfg)
  obs = env.get_observations()
  actor_obs, critic = obs["actor"], obs["critic"]
  one, two = tmp_path / "one.pt", tmp_path / "at@home.pt"
  for seed, path in enumerate((one, two)):
    write_policy(path, "Smp-Velocity-G1", actor_obs.shape[1], layout, seed)
  command = slice(*critic_columns(env.unwrapped)["command"])
  critic[:, command] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0, 0, 1.0]])
  first, second = (
    load_teachers(str(path), env.unwrapped)(actor_obs, critic) for path in (one, two)
  )
  both = load_teachers(f"{one}@aside + turn,{two}", env.unwrapped)(actor_obs, critic)
  torch.testing.assert_close(
    both, torch.stack([second[0], first[1], second[2], first[3]])
  )
  # A file may have the sign in its name, and be limited all the same.
  both = load_teachers(f"{two}@stand,{one}", env.unwrapped)(actor_obs, critic)
  torch.testing.assert_close(both, torch.stack([*first[:2], second[2], first[3]]))
  # A limit adds nothing that a teacher cannot follow.
  location = tmp_path / "location.pt"
  write_policy(location, "Smp-Location-G1", 98)
  ahead = load_teachers(str(location), env.unwrapped)(actor_obs, critic)
  both = load_teachers(f"{location}@straight+aside,{one}", env.unwrapped)
  torch.testing.assert_close(
    both(actor_obs, critic), torch.stack([ahead[0], *first[1:]])
  )
  for paths, message in (
    (f"{one}@sideways,{two}", "unknown kind 'sideways'.*stand, turn, aside"),
    (f"{one}@,{two}", "unknown kind ''"),
    (f"{one},{two}@aside", "the last file is asked for every command"),
    (f"@aside,{one}", "a file's name is missing"),
  ):
    with pytest.raises(UserError, match=message):
      load_teachers(paths, env.unwrapped)


@pytest.mark.slow
@torch.no_grad()
def test_a_former_policy_of_several_frames_reads_what_its_pupil_does(env, tmp_path):
  """It follows every command, so it is the last of several."""
  path, straight = tmp_path / "velocity.pt", tmp_path / "forward.pt"
  layout = ActorLayout.of(env.unwrapped.cfg)
  assert layout.history > 1
  obs = env.get_observations()
  critic = obs["critic"]
  actor = write_policy(path, "Smp-Velocity-G1", obs["actor"].shape[1], layout)
  expected = actor(obs["actor"])
  found = load_teacher(path, env.unwrapped)(obs["actor"], critic)
  torch.testing.assert_close(found, expected)
  write_policy(straight, "Smp-Forward-G1", 99)
  command = slice(*critic_columns(env.unwrapped)["command"])
  critic[:, command] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0], [0, 0, 1.0]])
  ahead = load_teacher(straight, env.unwrapped)(obs["actor"], critic)
  both = load_teachers(f"{straight},{path}", env.unwrapped)(obs["actor"], critic)
  torch.testing.assert_close(both, torch.cat((ahead[:1], expected[1:])))
  write_policy(path, "Smp-Velocity-G1", 90, layout)
  with pytest.raises(UserError, match="has 90 observations and 29 actions, expected "):
    load_teacher(path, env.unwrapped)


@pytest.mark.slow
@torch.no_grad()
def test_a_teacher_of_styles_is_told_them_in_its_own_order(tmp_path):
  cfg = small_env_cfg("Smp-Location-G1", 4)
  prepare_env_cfg(cfg)
  smp_term = cfg.commands["smp"]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.styles = "walk,run"
  observe_styles(cfg)
  leave_out_prior(cfg)
  env = RslRlVecEnvWrapper(make_env(cfg, "native", "cpu", threads=1))
  obs, path = env.get_observations(), tmp_path / "teacher.pt"
  critic = obs["critic"]
  spans = critic_columns(env.unwrapped)
  label = slice(*spans["style"])
  critic[:, label] = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2, 1)
  critic[:, slice(*spans["command"])] = torch.tensor([[5.0, 1.0]])
  terms = (*PRIVILEGED.split(), "style")
  layout = ActorLayout(terms, 1, ("run", "walk"))
  actor = write_policy(path, "Smp-Forward-G1", 101, layout)
  own = torch.cat([critic[:, slice(*spans[name])] for name in terms[:-2]], dim=-1)
  command = travel_of_goal(critic[:, slice(*spans["command"])])
  expected = actor(torch.cat((own, command, critic[:, label].flip(-1)), dim=-1))
  found = load_teacher(path, env.unwrapped)(obs["actor"], critic)
  torch.testing.assert_close(found, expected)
  assert not torch.allclose(found[0], found[1])
  write_policy(path, "Smp-Forward-G1", 101, replace(layout, styles=("run", "crouch")))
  with pytest.raises(UserError, match="styles run,crouch; give .* these, not walk,run"):
    load_teacher(path, env.unwrapped)
  env.close()


@pytest.mark.slow
def test_a_command_that_cannot_be_translated_is_refused(env, tmp_path, monkeypatch):
  path = tmp_path / "teacher.pt"
  write_policy(path, "Smp-Location-G1", 98)
  monkeypatch.setattr(command_translation, "_TRANSLATIONS", {})
  with pytest.raises(UserError, match="whose command cannot be made of this task's"):
    load_teacher(path, env.unwrapped)
