"""The prior in the environment."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from mjlab.envs import ManagerBasedRlEnv

from smp.diffusion.prior import MotionPrior
from smp.errors import UserError
from smp.mdp.sds_normalizer import REFERENCE_MULTIPLE, SdsNormalizer
from smp.mdp.smp_term import SmpTerm, SmpTermCfg, _make_normalizer
from smp.motion.features import (
  SLICES,
  WINDOW,
  MotionState,
  encode,
  window_velocities,
)
from smp.motion.kinematics import mj_ee_positions
from smp.paths import resolve_prior
from smp.robots import g1
from tests.conftest import small_env_cfg, style_of

pytestmark = pytest.mark.slow


def smp_term_of(env: ManagerBasedRlEnv) -> SmpTerm:
  term = env.command_manager.get_term("smp")
  assert isinstance(term, SmpTerm)
  return term


@pytest.fixture
def fresh_env(forward_env):
  forward_env.reset()
  return forward_env


def roll_out(env: ManagerBasedRlEnv, steps: int):
  """Random actions; returns qpos and qvel after each step, and who was reset."""
  generator = torch.Generator().manual_seed(1)
  qpos, qvel, resets, seen = [], [], [], []
  for _ in range(steps):
    action = 0.3 * torch.randn(env.num_envs, 29, generator=generator)
    env.step(action)
    qpos.append(env.sim.data.qpos[:].clone())
    qvel.append(env.sim.data.qvel[:].clone())
    resets.append(env.reset_buf.clone())
    seen.append(encode(smp_term_of(env).window.buffer.window()).clone())
  return (torch.stack(part) for part in (qpos, qvel, resets, seen))


def offline_features(qpos: torch.Tensor) -> torch.Tensor:
  """Features of recorded frames (W, 36), the way clips are converted."""
  quat = qpos[:, 3:7]
  ee = mj_ee_positions(g1.load_model(), qpos.double().numpy())
  lin, ang = window_velocities(qpos[:, :3], quat, 50)
  state = MotionState(
    qpos[:, :3], quat, lin, ang, qpos[:, 7:], torch.from_numpy(ee).float()
  )
  return encode(state)


def test_the_term_sees_what_offline_conversion_sees(fresh_env):
  """The sharp one: recorded states, converted offline, equal the scored windows."""
  qpos, qvel, resets, seen = roll_out(fresh_env, 24)
  compared = 0
  velocity_gap = []
  for env_id in range(fresh_env.num_envs):
    for t in range(WINDOW - 1, 24):
      frames = slice(t - WINDOW + 1, t + 1)
      if resets[frames, env_id].any():
        continue
      features = offline_features(qpos[frames, env_id])
      gap = (features - seen[t, env_id]).abs()
      for name in ("root_pos", "root_rot", "joint_pos"):
        assert gap[:, SLICES[name]].max() < 1e-5, name
      assert gap[:, SLICES["ee_pos"]].max() < 1e-3
      assert gap[:, SLICES["root_lin_vel"]].max() < 1e-3
      assert gap[:, SLICES["root_ang_vel"]].max() < 1e-3
      compared += 1
      lin, _ = window_velocities(
        qpos[frames, env_id, :3], qpos[frames, env_id, 3:7], 50
      )
      velocity_gap.append((lin[1:-1] - qvel[frames, env_id, :3][1:-1]).norm(dim=-1))
  assert compared > 20
  # Differences of poses and the simulator's own velocity are the same thing, up to
  # what the pelvis accelerates within a step.
  assert torch.cat(velocity_gap).median() < 0.1


def test_body_poses_of_mjlab_do_lag(fresh_env):
  """Why kinematics are computed from qpos: at reward time mjlab's poses are older."""
  lag = []

  def probe(env):
    robot = env.scene["robot"]
    lag.append((robot.data.root_link_pos_w - env.sim.data.qpos[:, :3]).abs().max())
    return torch.zeros(env.num_envs)

  reward_cfg = fresh_env.reward_manager.get_term_cfg("prior")
  original, reward_cfg.func = reward_cfg.func, probe
  try:
    fresh_env.step(torch.zeros(fresh_env.num_envs, 29))
  finally:
    reward_cfg.func = original
  assert lag[0] > 1e-4


def test_one_score_per_step_however_many_ask(fresh_env, monkeypatch):
  term, calls = smp_term_of(fresh_env), []
  push = term.window.buffer.push
  monkeypatch.setattr(
    term.window.buffer, "push", lambda *a: (calls.append(1), push(*a))
  )
  for _ in range(3):
    fresh_env.step(torch.zeros(fresh_env.num_envs, 29))
    first = term.r_smp().clone()
    assert torch.equal(term.r_smp(), first)
    term.sds_loss()
  assert len(calls) == 3


def test_episodes_start_on_a_pool_window(fresh_env):
  term = smp_term_of(fresh_env)
  window = term.window.buffer.window()
  qpos = fresh_env.sim.data.qpos[:]
  origins = fresh_env.scene.env_origins
  torch.testing.assert_close(window.root_pos_w[:, -1] + origins, qpos[:, :3])
  torch.testing.assert_close(window.joint_pos[:, -1], qpos[:, 7:])
  assert torch.allclose(window.root_pos_w[:, -1, :2], torch.zeros(8, 2), atol=1e-4)
  for i in range(fresh_env.num_envs):
    distance = (
      (term.init_states.generated.joint_pos - window.joint_pos[i])
      .abs()
      .amax(dim=(1, 2))
    )
    assert distance.min() == 0.0


def test_score_is_meaningful_from_the_first_step_and_anywhere(fresh_env):
  """The same window in every environment gives the same score at every origin."""
  term = smp_term_of(fresh_env)
  start, _ = term.init_states.draw(1)
  same = MotionState(*(part.expand(8, *part.shape[1:]) for part in start))
  term.window.buffer.fill(torch.arange(8), same)
  noise = torch.randn(style_of(term).noise[:, :1].shape).expand_as(style_of(term).noise)
  error = style_of(term).sds_loss_fn(encode(term.window.buffer.window()), noise)
  torch.testing.assert_close(error, error[:1].expand_as(error), rtol=1e-3, atol=1e-5)
  assert fresh_env.scene.env_origins[:, :2].std() > 0.5


@pytest.mark.parametrize(
  "composition, task, prior",
  [
    ("product", 0.5 * 0.25, 0.0),
    ("weighted_sum", 0.5 * 0.7, 0.25 * 0.2),
    ("task_only", 0.5, 0.0),
    ("prior_only", 0.0, 0.25),
  ],
)
def test_compositions(fresh_env, monkeypatch, composition, task, prior):
  term = smp_term_of(fresh_env)
  monkeypatch.setattr(term.cfg, "reward_mode", composition)
  monkeypatch.setattr(term.cfg, "task_reward_weight", 0.7)
  monkeypatch.setattr(term.cfg, "smp_reward_weight", 0.2)
  term.r_smp()
  term.style.reward.fill_(0.25)
  value = term.compose_task(torch.full((8,), 0.5), weight=1.0)
  torch.testing.assert_close(value, torch.full((8,), task))
  torch.testing.assert_close(term.compose_prior(), torch.full((8,), prior))


def test_floor_under_the_prior_where_episodes_start_fallen(fresh_env, monkeypatch):
  term = smp_term_of(fresh_env)
  monkeypatch.setattr(term.cfg, "min_smp_reward_fallen", 0.4)
  kinds = torch.tensor([0, 1, 4, 0])
  draw = term.init_states.draw
  monkeypatch.setattr(
    term.init_states, "draw", lambda n, *rest: (draw(n, *rest)[0], kinds)
  )
  term._resample_command(torch.arange(4))
  term.r_smp()
  term.style.reward.fill_(0.25)
  value = term.compose_task(torch.full((8,), 0.5), weight=1.0)
  fallen, other = 0.5 * (0.4 + 0.6 * 0.25), 0.5 * 0.25
  expected = torch.tensor([other, fallen, fallen, other] + 4 * [other])
  torch.testing.assert_close(value, expected)
  assert term.init_mode[:4].tolist() == [0, 1, 4, 0]
  term.floor.zero_()  # As it was, for the tests that share this environment.


def test_reward_is_the_product(fresh_env):
  """The environment's reward equals task * r_smp * dt, from logged parts."""
  term = smp_term_of(fresh_env)
  _, reward, *_ = fresh_env.step(torch.zeros(8, 29))
  expected = term.task_reward * term.r_smp() * fresh_env.step_dt
  torch.testing.assert_close(reward, expected)
  assert reward.max() > 0.0


def test_r_smp_follows_its_formula(fresh_env):
  term = smp_term_of(fresh_env)
  fresh_env.step(torch.zeros(8, 29))
  relative = term.sds_loss() / style_of(term).normalizer.mean.float()
  torch.testing.assert_close(term.r_smp(), torch.exp(-6.0 * relative.mean(dim=1)))


def reference_cfg(prior: str = "loco") -> SmpTermCfg:
  return SmpTermCfg(prior=prior, sds_normalizer="reference")


def test_a_reference_scale_is_the_priors():
  prior = MotionPrior.load(resolve_prior("loco"))
  assert prior.reference is not None
  found = _make_normalizer(reference_cfg(), prior)
  expected = REFERENCE_MULTIPLE * torch.tensor(prior.reference.at((8, 15, 22)))
  torch.testing.assert_close(found.scale(), expected)
  assert type(_make_normalizer(SmpTermCfg(prior="loco"), prior)) is SdsNormalizer


def test_a_reference_scale_needs_a_reference(tmp_path):
  prior = MotionPrior.load(resolve_prior("loco"))
  prior.reference = None
  prior.save(tmp_path / "old.safetensors")
  with pytest.raises(UserError, match="old.safetensors.*scripts/measure_reference.py"):
    _make_normalizer(reference_cfg(str(tmp_path / "old.safetensors")), prior)


def test_in_training_a_reference_scale_stays(capsys):
  cfg = small_env_cfg("Smp-Forward-G1", num_envs=4)
  smp_term = cfg.commands["smp"]
  assert isinstance(smp_term, SmpTermCfg)
  smp_term.sds_normalizer = "reference"
  env = ManagerBasedRlEnv(cfg, "cpu")
  try:
    term = smp_term_of(env)
    assert "held-out clips (loco)" in capsys.readouterr().out
    scale = term.style.scale()
    env.reset()
    for _ in range(3):
      env.step(torch.randn(4, 29))
    assert torch.equal(term.style.scale(), scale)
    relative = (term.sds_loss() / scale).mean(dim=1)
    torch.testing.assert_close(term.r_smp(), torch.exp(-6.0 * relative))
    saved = term.state_dict()
    term.load_state_dict(saved)
    assert "[WARN]" not in capsys.readouterr().out
    # Of a run on the running scale.
    term.load_means({"mean": 3.0 * saved["mean"], "count": saved["count"]})
    assert "another scale of the errors" in capsys.readouterr().out
    assert torch.equal(term.style.scale(), scale)
    assert term.load_means({**saved, "timesteps": [2, 8, 15]})
    assert torch.equal(term.style.scale(), scale)
  finally:
    env.close()


def test_a_running_mean_says_that_it_leaves_a_reference_scale(fresh_env, capsys):
  term = smp_term_of(fresh_env)
  before = {
    "mean": style_of(term).normalizer.mean.clone(),
    "count": style_of(term).normalizer.count.clone(),
  }
  term.load_means({**before, "sds_normalizer": "reference"})
  assert "--env.commands.smp.sds-normalizer reference" in capsys.readouterr().out
  term.load_means({**before, "sds_normalizer": "running"})
  assert not capsys.readouterr().out


def test_a_mean_of_other_timesteps_is_not_taken_for_one_of_these(fresh_env, capsys):
  """Three timesteps are not these three: mu of a small one is much larger."""
  term = smp_term_of(fresh_env)
  before = style_of(term).normalizer.mean.clone()
  other = {"mean": before + 1.0, "count": torch.tensor([1e6], dtype=torch.float64)}
  assert not term.load_means({**other, "timesteps": [2, 8, 15]})
  assert torch.equal(style_of(term).normalizer.mean, before)
  assert "other timesteps" in capsys.readouterr().out
  assert term.load_means({**other, "timesteps": [8, 15, 22]})
  torch.testing.assert_close(style_of(term).normalizer.mean, before + 1.0)
  # On the prior's own scale: that of the timesteps here.
  other["count"] = torch.ones(1, dtype=torch.float64)
  assert term.load_means({**other, "timesteps": [2, 8, 15]})
  prior = term.prior
  assert prior is not None and prior.reference is not None
  expected = REFERENCE_MULTIPLE * torch.tensor(prior.reference.at((8, 15, 22))).double()
  torch.testing.assert_close(style_of(term).normalizer.mean, expected)


def test_log_has_what_every_iteration_needs(fresh_env):
  _, _, _, _, extras = fresh_env.step(torch.zeros(8, 29))
  names = {"r_smp", "task_reward"}
  names |= {f"{kind}_t{t}" for kind in ("sds_loss", "mu") for t in (8, 15, 22)}
  names |= {f"amplitude_{limb}" for limb in g1.LIMBS}
  assert {f"Smp/{name}" for name in names} <= set(extras["log"])
  assert all(torch.isfinite(extras["log"][f"Smp/{name}"]) for name in names)


def test_pool_replaces_its_oldest(fresh_env):
  pool = smp_term_of(fresh_env).init_states.generated
  before = pool.root_pos.clone()
  pool.refresh(20)
  changed = (pool.root_pos != before).any(dim=(1, 2)) if pool.size else None
  assert changed is not None and changed.sum() == 20
  again = pool.root_pos.clone()
  pool.refresh(20)  # Wraps around the end of the 32.
  changed_later = (pool.root_pos != again).any(dim=(1, 2))
  assert changed_later.sum() == 20
  assert (changed | changed_later).all()


def test_pool_end_effectors_are_those_of_its_joints(fresh_env):
  pool = smp_term_of(fresh_env).init_states.generated
  model = g1.load_model()
  data = mujoco.MjData(model)
  qpos = torch.cat((pool.root_pos[3], pool.root_quat[3], pool.joint_pos[3]), dim=-1)
  for t in range(WINDOW):
    data.qpos[:] = qpos[t].double().numpy()
    mujoco.mj_kinematics(model, data)
    want = np.stack([data.body(name).xpos for name in g1.EE_BODY_NAMES])
    assert np.abs(pool.ee_pos[3, t].numpy() - want).max() < 1e-4


def test_checkpoint_restores_the_rewards_memory(fresh_env):
  term = smp_term_of(fresh_env)
  fresh_env.step(torch.zeros(8, 29))
  saved = {
    "mean": style_of(term).normalizer.mean.clone(),
    "count": style_of(term).normalizer.count.clone(),
    "init_states": {
      k: v.clone() if torch.is_tensor(v) else v
      for k, v in term.init_states.generated.state_dict().items()
    },
  }
  poses, ee = (
    term.init_states.generated.root_pos.clone(),
    term.init_states.generated.ee_pos.clone(),
  )
  style_of(term).normalizer.mean.fill_(7.0)
  term.init_states.generated.refresh(32)
  term.load_state_dict(saved)
  assert torch.equal(style_of(term).normalizer.mean, saved["mean"])
  assert torch.equal(term.init_states.generated.root_pos, poses)
  torch.testing.assert_close(term.init_states.generated.ee_pos, ee)


def test_frozen_memory_does_not_move(fresh_env, monkeypatch):
  term = smp_term_of(fresh_env)
  monkeypatch.setattr(term.style, "_update", False)
  mean, count = (
    style_of(term).normalizer.mean.clone(),
    style_of(term).normalizer.count.clone(),
  )
  fresh_env.step(torch.zeros(8, 29))
  assert torch.equal(style_of(term).normalizer.mean, mean)
  assert torch.equal(style_of(term).normalizer.count, count)


def test_a_diverged_environment_harms_only_itself(fresh_env):
  term = smp_term_of(fresh_env)
  fresh_env.step(torch.zeros(8, 29))
  fresh_env.sim.data.qpos[2, 7:] = float("nan")
  term._scored_step = -1
  count = style_of(term).normalizer.count.item()
  r_smp = term.r_smp()
  assert r_smp[2] == 0.0
  assert torch.isfinite(r_smp[[0, 1, 3, 4, 5, 6, 7]]).all()
  assert torch.isfinite(style_of(term).normalizer.mean).all()
  assert style_of(term).normalizer.count.item() == count + 7
