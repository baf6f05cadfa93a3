"""What people type: train and play."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from mjlab.rl import RslRlOnPolicyRunnerCfg

from smp import paths
from smp.cli import check_init_states, evaluate, play, train
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError, run
from smp.mdp.events import HELP
from smp.mdp.observations import STYLE
from smp.paths import resolve_prior
from smp.rl.actor_layout import ActorLayout
from smp.rl.learners import LEARNERS, check_options
from smp.rl.loading import PlayEnvCfg, build_env, load_policy
from smp.rl.off_policy import OffPolicyRunnerCfg
from smp.rl.runner import CheckpointedRunner
from smp.rl.td3 import Td3Cfg
from smp.utils import cpu as cores
from smp.utils import wandb_mode
from tests import toy_training

pytestmark = pytest.mark.slow
TASK = "Smp-Forward-G1"
MJLAB_TASK = "Mjlab-Velocity-Flat-Unitree-G1"


def type_in(monkeypatch, *words: str) -> None:
  monkeypatch.setattr(sys, "argv", list(words))


def exit_line(capsys, main) -> str:
  """Run a script's main as the script does; its error line."""
  with pytest.raises(SystemExit) as end:
    run(main)
  assert end.value.code == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1
  return lines[0]


def test_train_runs_on_the_cpu_and_saves(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  words = f"""train {TASK} --learner ppo --env.scene.num-envs 4
    --agent.max-iterations 2 --agent.num-steps-per-env 4
    --agent.algorithm.num-mini-batches 2 --env.commands.smp.gsi-buffer-size 16
    --agent.logger tensorboard --log-root {tmp_path}"""
  type_in(monkeypatch, *words.split())
  train.main()
  out = capsys.readouterr().out
  assert "No CUDA GPU found: training on the CPU with 4 environments" in out
  checkpoints = sorted(tmp_path.glob("smp_forward_g1/*/model_*.pt"))
  assert [path.name for path in checkpoints] == ["model_0.pt", "model_1.pt"]
  assert (checkpoints[0].parent / "params" / "env.yaml").is_file()


def test_defaults_fit_the_machine():
  cpu, gpu = train.default_config(TASK, False), train.default_config(TASK, True)
  assert cpu.env.scene.num_envs >= 128 and cpu.gpu_ids is None
  assert gpu.env.scene.num_envs == 4096 and gpu.gpu_ids == [0]
  assert isinstance(cpu.agent, OffPolicyRunnerCfg)
  assert isinstance(gpu.agent, RslRlOnPolicyRunnerCfg)
  for config in (cpu, train.default_config(TASK, True, "td3")):
    agent = config.agent
    assert isinstance(agent, OffPolicyRunnerCfg)
    # What the buffer holds fits a common machine: 2 KB for each transition.
    assert agent.replay_steps * config.env.scene.num_envs < 2.5e6
  # mjlab's own tasks have no prior to learn under.
  config = train.default_config(MJLAB_TASK, False)
  assert isinstance(config.agent, RslRlOnPolicyRunnerCfg) and config.env.auto_reset


def test_tasks_that_pay_late_look_further_ahead():
  def gamma(task: str, **changes) -> float:
    agent = train.default_config(task, False, **changes).agent
    assert isinstance(agent, OffPolicyRunnerCfg)
    return agent.algorithm.gamma

  assert gamma("Smp-Location-G1") > gamma("Smp-Forward-G1") == Td3Cfg().gamma


def test_the_off_policy_learner_trains_stops_in_time_and_goes_on(
  monkeypatch, tmp_path, capsys
):
  monkeypatch.setattr(CheckpointedRunner, "minutes", None)  # And so again after it.
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  words = f"""train {TASK} --env.scene.num-envs 4 --agent.max-iterations 100000
    --minutes 0.05 --agent.num-steps-per-env 4 --agent.algorithm.batch-size 16
    --env.commands.smp.gsi-buffer-size 16 --agent.logger tensorboard --agent.replay-steps 50
    --agent.save-interval 1000000 --log-root {tmp_path}"""
  type_in(monkeypatch, *words.split())
  train.main()
  out = capsys.readouterr().out
  assert "Learner: td3" in out and "Interrupted. Saved" in out
  first = set(tmp_path.glob("smp_forward_g1/*/model_*.pt"))
  words = words.replace("--minutes 0.05", "--agent.resume True")
  words = words.replace("100000", "1")
  type_in(monkeypatch, *words.split())
  train.main()
  (second,) = set(tmp_path.glob("smp_forward_g1/*/model_*.pt")) - first
  assert int(second.stem.split("_")[1]) > max(int(p.stem.split("_")[1]) for p in first)


def test_tasks_of_mjlab_are_trained_resumed_and_played(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  words = f"""train {MJLAB_TASK} --env.scene.num-envs 4 --agent.max-iterations 1
    --agent.num-steps-per-env 4 --agent.algorithm.num-mini-batches 1
    --agent.logger tensorboard --log-root {tmp_path}"""
  type_in(monkeypatch, *words.split())
  train.main()
  type_in(monkeypatch, *words.split(), "--agent.resume", "True")
  train.main()
  files = sorted(tmp_path.glob("*/*/model_*.pt"), key=lambda file: file.stat().st_mtime)
  assert len(files) >= 2
  env = build_env(MJLAB_TASK, PlayEnvCfg(engine="native", device="cpu", threads=1))
  policy = load_policy(MJLAB_TASK, env, "trained", files[-1])
  with torch.inference_mode():
    assert policy(env.get_observations()).shape == (1, env.num_actions)
  toy_training.make_runner(None).save(str(tmp_path / "model_7.pt"))
  with pytest.raises(UserError, match="model_7.pt: checkpoint of another task or net"):
    load_policy(MJLAB_TASK, env, "trained", tmp_path / "model_7.pt")
  env.close()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (
      f"{TASK} --learner sac",
      "--learner sac: no such learner; choose one of auto, ppo",
    ),
    (f"{TASK} --learner=sac", "--learner sac: no such learner"),
    (f"{MJLAB_TASK} --learner td3", "--learner td3: this task has no motion prior"),
    (f"{TASK} --minutes 0", "--minutes 0.0: give a number of minutes"),
    (f"{MJLAB_TASK} --minutes 3", "is mjlab's; use --agent.max-iterations"),
    (f"{TASK} --minutes nan", "--minutes nan: give a number of minutes"),
    (f"{TASK} --agent.save-interval 0", "--agent.save-interval 0: give 1 or more"),
    (f"{TASK} --env.scene.num-envs 0", "--env.scene.num-envs 0: must be above 0"),
    (
      f"{TASK} --env.episode-length-s 0",
      "--env.episode-length-s 0.0: must be above 0",
    ),
    (
      f"{TASK} --env.rewards.track-velocity.params.scale nan",
      "--env.rewards.track-velocity.params.scale nan: must be a finite number",
    ),
    (
      f"{MJLAB_TASK} --env.commands.twist.ranges.lin-vel-x (1.0,-1.0)",
      "--env.commands.twist.ranges.lin-vel-x (1.0,-1.0): give the lower end first",
    ),
    (f"{TASK} --agent.seed -1", "--agent.seed -1: give 0 to 4294967295"),
    (f"{TASK} --agent.seed {2**32}", "--agent.seed 4294967296: give 0 to"),
    (
      f"{TASK} --agent.algorithm.learning-rate inf",
      "--agent.algorithm.learning-rate inf: must be a finite number",
    ),
    (f"{TASK} --agent.load-run x", "--agent.load-run x: add --agent.resume True"),
    (
      f"{TASK} --agent.load-checkpoint model_5.pt",
      "--agent.load-checkpoint model_5.pt: add --agent.resume True",
    ),
  ],
)
def test_bad_choices_of_a_learner_are_named(
  monkeypatch, capsys, tmp_path, words, message
):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  type_in(monkeypatch, "train", *words.split(), "--log-root", str(tmp_path))
  assert message in exit_line(capsys, train.main)


@pytest.mark.parametrize(
  ("threads", "bfloat16", "gpu_ids", "given", "beside"),
  [
    (2, False, None, None, True),
    (1, False, None, None, False),
    (2, True, None, None, False),
    (2, False, [0], None, False),
    (1, True, None, True, True),
    (2, False, None, False, False),
  ],
)
def test_learning_goes_on_beside_the_robots_where_that_pays_or_is_asked_for(
  monkeypatch, threads, bfloat16, gpu_ids, given, beside
):
  monkeypatch.setattr(train, "has_bfloat16", lambda: bfloat16)
  config = replace(train.default_config(TASK, False, "td3"), gpu_ids=gpu_ids)
  agent = cast(OffPolicyRunnerCfg, config.agent)
  agent.overlap = given
  train._choose_overlap(config, threads)
  assert agent.overlap is beside


def test_a_curriculum_is_asked_for_taken_by_default_or_refused():
  """td3 takes one where the task has something that can grow, ppo when asked."""
  ppo, td3 = (train.default_config(TASK, False, name) for name in ("ppo", "td3"))
  train._begin_gently(ppo, off_policy=False)
  assert not ppo.env.curriculum
  train._begin_gently(replace(ppo, curriculum=True), off_policy=False)
  assert ppo.env.curriculum
  train._begin_gently(replace(td3, curriculum=False), off_policy=True)
  assert not td3.env.curriculum
  td3.env.events, td3.env.commands = {}, {}
  train._begin_gently(td3, off_policy=True)
  assert not td3.env.curriculum
  with pytest.raises(UserError, match="--curriculum True: .*nothing that can grow"):
    train._begin_gently(replace(td3, curriculum=True), off_policy=True)
  # What cannot be is never passed over: a training would go on without it.
  for wrong in ({"curriculum_help": 2.0}, {"curriculum_climb": -1.0}):
    getup = replace(train.default_config("Smp-Getup-G1", False, "td3"), **wrong)
    with pytest.raises(UserError, match="expected a "):
      train._begin_gently(getup, off_policy=True)
  helped = replace(ppo, curriculum=None, curriculum_help=0.7)
  for config, off_policy in (
    (helped, False),
    (replace(helped, curriculum=False), True),
  ):
    with pytest.raises(UserError, match="--curriculum-help: .*add --curriculum True"):
      train._begin_gently(config, off_policy)
  slow = replace(ppo, curriculum=None, curriculum_climb=20.0)
  with pytest.raises(UserError, match="--curriculum-climb: add --curriculum True"):
    train._begin_gently(slow, off_policy=False)


def test_a_resume_keeps_the_order_of_what_the_critic_observes(monkeypatch, tmp_path):
  """Its widths are the same in any order, so a checkpoint would load into another."""
  seen: list[list[str]] = []

  def launch(task: str, config: train.TrainArgs) -> None:
    del task
    seen.append(list(config.env.observations["critic"].terms))

  def choose(config: train.TrainArgs) -> train.TrainArgs:
    layout = ActorLayout.of(config.env)
    terms = (*layout.terms, STYLE)
    replace(layout, terms=terms, styles=("walk", "run")).apply(config.env)
    return config

  monkeypatch.setattr(train, "launch_training", launch)
  words = (
    f"train Smp-Getup-G1 --learner td3 --curriculum-help 0.5 --log-root {tmp_path}"
  )
  words += " --env.commands.smp.prior styles"
  type_in(monkeypatch, *words.split(), "--env.commands.smp.styles", "walk,run")
  train.main()
  # The styles of a resumed one are those of its checkpoint.
  monkeypatch.setattr(train, "choose_checkpoint", choose)
  type_in(monkeypatch, *words.split())
  train.main()
  assert seen[0] == seen[1] and seen[0][-2:] == [STYLE, HELP]


def test_several_gpus_are_refused_for_the_learner_of_one(monkeypatch, capsys, tmp_path):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
  words = f"train {TASK} --learner td3 --gpu-ids [0,1] --log-root {tmp_path}"
  type_in(monkeypatch, *words.split())
  assert "td3 trains on one GPU; give --gpu-ids [0]" in exit_line(capsys, train.main)
  words = f"train {TASK} --gpu-ids [0,1] --minutes 3 --log-root {tmp_path}"
  type_in(monkeypatch, *words.split())
  assert "--minutes 3.0: with several GPUs give" in exit_line(capsys, train.main)


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ("--gpu-ids 0 1", '--gpu-ids "[0,1]"'),
    (
      "--agent.seed 3 --env.commands.command.speed-range 0.5 3.0",
      '--env.commands.command.speed-range "(0.5,3.0)"',
    ),
  ],
)
def test_several_words_after_an_option_are_refused_with_the_form(
  monkeypatch, capsys, words, message
):
  type_in(monkeypatch, "train", TASK, *words.split())
  assert message in exit_line(capsys, train.main)


def test_a_display_that_does_not_answer_is_none(monkeypatch, capsys):
  monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
  monkeypatch.delenv("DISPLAY", raising=False)
  assert not play.has_display() and capsys.readouterr().out == ""
  monkeypatch.setenv("DISPLAY", "localhost:777")
  assert not play.has_display()
  assert (
    "localhost:777 does not answer: opening the viewer in" in capsys.readouterr().out
  )


@pytest.mark.parametrize(
  ("words", "option", "other", "here"),
  [
    ("--learner td3 --agent.algorithm.clip-param 0.1", "clip-param", "ppo", "td3"),
    ("--learner ppo --agent.algorithm.tau=0.1", "tau", "td3", "ppo"),
    # Without a GPU the learner is td3 by itself.
    ("--agent.algorithm.clip_param 0.1", "clip_param", "ppo", "td3"),
    ("--learner td3 --agent.actor.activation elu", "actor.activation", "ppo", "td3"),
  ],
)
def test_an_option_of_the_other_learner_is_one_line(
  monkeypatch, capsys, words, option, other, here
):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  type_in(monkeypatch, "train", TASK, *words.split())
  line = exit_line(capsys, train.main)
  assert f"{option}: an option of --learner {other}; the learner here is {here}" in line


@pytest.mark.parametrize("learner", LEARNERS)
def test_an_option_of_no_learner_is_tyros_to_refuse(monkeypatch, capsys, learner):
  words = f"train {TASK} --learner {learner} --agent.algorithm.no-such-thing 0.1"
  type_in(monkeypatch, *words.split())
  with pytest.raises(SystemExit) as end:
    train.main()
  assert end.value.code == 2
  message = " ".join(capsys.readouterr().err.split())
  assert "Unrecognized options: --agent.algorithm.no-such-thing" in message


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_setting_of_a_learner_is_an_option_of_its_own(learner):
  cfg = LEARNERS[learner].make_cfg("toy")
  assert is_dataclass(cfg)
  words = [f"--agent.{each.name.replace('_', '-')}=1" for each in fields(cfg)]
  check_options(words, learner)


def test_asking_for_a_gpu_that_is_not_there(monkeypatch, capsys):
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  type_in(monkeypatch, "train", TASK, "--gpu-ids", "[0]")
  assert "no CUDA GPU" in exit_line(capsys, train.main)


@pytest.mark.parametrize("main", [train.main, play.main])
def test_unknown_task_is_named_with_a_suggestion(monkeypatch, capsys, main):
  type_in(monkeypatch, "script", "Smp-Foward-G1")
  assert "did you mean Smp-Forward-G1" in exit_line(capsys, main)


@pytest.mark.parametrize("main", [train.main, play.main])
def test_help_names_the_tasks(monkeypatch, capsys, main):
  type_in(monkeypatch, "script", "--help")
  with pytest.raises(SystemExit) as end:
    main()
  assert end.value.code == 0
  assert TASK in capsys.readouterr().out


def test_missing_prior_is_one_line(monkeypatch, capsys):
  words = f"train {TASK} --env.commands.smp.prior nowhere.safetensors".split()
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  type_in(monkeypatch, *words, "--log-root", "unused")
  assert "nowhere.safetensors" in exit_line(capsys, train.main)


@pytest.mark.parametrize(
  "field, other",
  [
    ("window", 8),
    ("fps", 30.0),
    ("joint_names", None),
    ("feature_dims", (3, 6, 28, 15, 3, 3)),
  ],
)
def test_a_prior_that_does_not_fit_is_refused(
  monkeypatch, capsys, tmp_path, field, other
):
  good = MotionPrior.load(resolve_prior("loco"))
  names = good.spec.joint_names
  value = (*names[1:], names[0]) if other is None else other
  size = 8 if field == "window" else 10
  dim = 58 if field == "feature_dims" else 59
  denoiser = Denoiser(feature_dim=dim, window=size, d_model=16, nhead=2, num_layers=1)
  spec = replace(good.spec, **{field: value})
  path = tmp_path / "other.safetensors"
  MotionPrior(denoiser, good.q_low[:dim], good.q_high[:dim], spec, 50).save(path)
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  monkeypatch.setenv("WANDB_MODE", "disabled")
  words = f"train {TASK} --env.scene.num-envs 1 --env.commands.smp.prior {path}"
  type_in(monkeypatch, *words.split(), "--log-root", str(tmp_path))
  line = exit_line(capsys, train.main)
  assert "other.safetensors" in line and f"'{field}'" in line


def test_start_states_are_reported_with_and_without_repair(monkeypatch, capsys):
  words = ["--num-envs", "4", "--seconds", "0.04", "--prior", "loco"]
  type_in(monkeypatch, "check_init_states", TASK, *words)
  check_init_states.main()
  out = capsys.readouterr().out
  assert "as generated" in out and "repaired" in out and "windows sampled" in out


def test_check_starts_refuses_what_it_cannot_do(monkeypatch, capsys):
  type_in(monkeypatch, "check_init_states", TASK, "--num-envs", "0")
  assert "--num-envs 0: must be at least 1" in exit_line(capsys, check_init_states.main)
  type_in(monkeypatch, "check_init_states", "Smp-Foward-G1")
  assert "did you mean" in exit_line(capsys, check_init_states.main)
  type_in(monkeypatch, "check_init_states")
  assert "no task" in exit_line(capsys, check_init_states.main)


def test_play_shows_the_shipped_policy_else_start_states(monkeypatch, capsys, tmp_path):
  shown = []
  monkeypatch.setattr(play, "watch", lambda _, args, file: shown.append((args, file)))
  type_in(monkeypatch, "play", TASK)
  shipped = tmp_path / "forward.pt"
  shipped.touch()
  monkeypatch.setattr(play, "policy_path", lambda _: shipped)
  play.main()
  assert not capsys.readouterr().out
  shipped.unlink()
  play.main()
  assert "--checkpoint-file" in capsys.readouterr().out
  agents = [(args.agent, file) for args, file in shown]
  assert agents == [("trained", shipped), ("zero", None)]


def test_play_names_a_file_that_is_not_there(monkeypatch, capsys):
  type_in(monkeypatch, "play", TASK, "--checkpoint-file", "gone/model_1.pt")
  assert "gone/model_1.pt" in exit_line(capsys, play.main)


def test_play_shows_a_run_of_wandb(monkeypatch, capsys, tmp_path):
  """The real client, and a stand-in for its server."""
  from tests.wandb_server import Store, serve

  monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
  monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "4")
  words = f"--log-root {tmp_path} --wandb-run-path"
  with serve(Store(runs={"org/proj/run1": {"model_3.pt": b"not weights"}})) as url:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    args = play.PlayArgs(wandb_run_path="org/proj/run1", log_root=str(tmp_path))
    path = play.find_checkpoint(TASK, args)
    assert path is not None and path.read_bytes() == b"not weights"
    type_in(monkeypatch, "play", TASK, *words.split(), "org/proj/gone")
    assert "org/proj/gone" in exit_line(capsys, play.main)
  type_in(monkeypatch, "play", TASK, *words.split(), "org/proj/run1")
  assert "no connection" in exit_line(capsys, play.main)


def test_play_without_more_words_shows_the_shipped_policy(
  monkeypatch, capsys, tmp_path
):
  monkeypatch.setattr(paths, "POLICIES", tmp_path)
  shown = []
  monkeypatch.setattr(
    play, "watch", lambda task, args, file: shown.append((args.agent, file))
  )
  type_in(monkeypatch, "play", TASK)
  play.main()
  assert shown == [("zero", None)]
  assert "scripts/train.py Smp-Forward-G1" in capsys.readouterr().out
  shipped = tmp_path / "forward.pt"
  shipped.touch()
  assert play.find_checkpoint(TASK, play.PlayArgs()) == shipped


def test_training_stops_before_it_starts_without_a_prior_or_a_folder(
  monkeypatch, capsys, tmp_path
):
  """A prior deleted between start and resume, and a folder that cannot be made."""
  monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
  run_folder = tmp_path / "smp_forward_g1" / "2026-01-01_00-00-00"
  run_folder.mkdir(parents=True)
  toy_training.make_runner(None).save(str(run_folder / "model_4.pt"))
  before = (run_folder / "model_4.pt").read_bytes()
  words = f"train {TASK} --env.scene.num-envs 1 --agent.resume True --agent.logger "
  words += f"tensorboard --env.commands.smp.prior {tmp_path / 'gone.safetensors'}"
  type_in(monkeypatch, *words.split(), "--log-root", str(tmp_path))
  assert "gone.safetensors" in exit_line(capsys, train.main)
  assert (run_folder / "model_4.pt").read_bytes() == before
  assert [path.name for path in run_folder.parent.iterdir()] == [run_folder.name]
  type_in(monkeypatch, *words.split(), "--log-root", str(tmp_path / "elsewhere"))
  assert "no checkpoint to resume from" in exit_line(capsys, train.main)
  (tmp_path / "file").touch()
  type_in(monkeypatch, "train", TASK, "--log-root", str(tmp_path / "file"))
  assert "cannot write here" in exit_line(capsys, train.main)


def can_render() -> bool:
  try:
    import mujoco

    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    mujoco.Renderer(model, 8, 8).close()
    return True
  except Exception:
    return False


def test_video_is_written_headless(tmp_path):
  if not can_render():
    pytest.skip("no OpenGL library to render with")
  file = tmp_path / "out.mp4"
  args = play.PlayArgs(
    agent="zero",
    video=True,
    video_file=file,
    video_length=4,
    video_height=64,
    video_width=64,
  )
  assert play.record(TASK, args, None) == file
  assert file.stat().st_size > 500
  assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_refused_policy_leaves_no_renderer_open(monkeypatch, tmp_path):
  closed = []
  env = SimpleNamespace(close=lambda: closed.append(True))

  def refuse(*_: object) -> None:
    raise UserError("not this one")

  monkeypatch.setattr(play, "build_env", lambda *_: env)
  monkeypatch.setattr(play, "load_policy", refuse)
  args = play.PlayArgs(agent="zero", video=True, video_file=tmp_path / "out.mp4")
  with pytest.raises(UserError, match="not this one"):
    play.record(TASK, args, None)
  assert closed and not list(tmp_path.iterdir())


def test_wandb_stays_offline_without_a_login(monkeypatch, tmp_path, capsys):
  for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
  monkeypatch.setenv("NETRC", str(tmp_path / "none"))
  wandb_mode.choose_wandb_mode(tmp_path)
  import os

  assert os.environ["WANDB_MODE"] == "offline"
  assert "wandb sync" in capsys.readouterr().out
  monkeypatch.delenv("WANDB_MODE")
  monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
  wandb_mode.choose_wandb_mode(tmp_path)
  assert "WANDB_MODE" not in os.environ


def test_wandb_login_is_found_in_netrc(monkeypatch, tmp_path):
  monkeypatch.delenv("WANDB_API_KEY", raising=False)
  netrc = tmp_path / "netrc"
  monkeypatch.setenv("NETRC", str(netrc))
  assert not wandb_mode.has_wandb_login()
  netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
  netrc.chmod(0o600)
  assert wandb_mode.has_wandb_login()


def test_local_checkpoint_is_found(tmp_path):
  file = tmp_path / "model_3.pt"
  file.write_bytes(b"x")
  args = play.PlayArgs(checkpoint_file=str(file))
  assert play.find_checkpoint(TASK, args) == Path(file)
  assert play.find_checkpoint(TASK, play.PlayArgs(agent="zero")) is None


def test_environments_go_by_the_cores():
  assert [train.cpu_envs(n) for n in (1, 2, 8, 1000)] == [128, 256, 1024, 4096]
  config = train.default_config(TASK, has_gpu=False, learner="ppo")
  assert config.env.scene.num_envs == train.cpu_envs(cores.core_count())
  assert train.default_config(TASK, has_gpu=True).env.scene.num_envs == 4096


def test_the_outlook_is_plain_arithmetic(monkeypatch):
  monkeypatch.setattr(train, "CPU_STEPS_PER_CORE", 500.0)
  monkeypatch.setattr(train, "USEFUL_STEPS", 86.4e6)
  # 86.4 million at 2 x 500 a second: 86,400 s.
  assert "1,000 steps per second" in train.cpu_outlook(TASK, 2)
  assert "86 million: 1 days here" in train.cpu_outlook(TASK, 2)


def test_minutes_until_it_walks_are_promised_where_they_were_measured(monkeypatch):
  monkeypatch.setattr(train, "CPU_OFF_POLICY_STEPS", (250.0, 500.0))
  # Half a million at 250 a second: 2,000 s. Beyond two threads nothing is promised.
  for threads, minutes in ((1, 33), (2, 17), (16, 17)):
    outlook = train.cpu_outlook("Smp-Forward-G1", threads, True)
    assert f"walks after {minutes} minutes" in outlook
  for task in ("Smp-Location-G1", "Smp-Getup-G1"):
    outlook = train.cpu_outlook(task, 2, True)
    assert "500 steps per second and hours" in outlook and "walks" not in outlook


def test_lists_of_several_words_where_no_option_is_mjlabs(monkeypatch, capsys):
  type_in(monkeypatch, "evaluate", TASK, "--agent", "zero", "--seeds", "0", "1", "2")
  seen = []
  monkeypatch.setattr(evaluate, "evaluate", lambda task, args: seen.append(args.seeds))
  evaluate.main()
  assert seen == [(0, 1, 2)]
