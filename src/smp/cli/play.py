"""Viewer of a policy: in the browser, in a window, or as a video file."""

from __future__ import annotations

import os
import sys
import time
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import mjlab
import torch
from mjlab.rl import RslRlVecEnvWrapper
from mjlab.viewer import NativeMujocoViewer, ViserPlayViewer
from mjlab.viewer.base import PolicyProtocol
from mjlab.viewer.viser.viewer import CheckpointManager, format_time_ago

from smp.cli.options import parse
from smp.cli.task_argument import task_from_argv
from smp.cli.wandb_run import WandbRunArgs, run_checkpoint
from smp.errors import UserError
from smp.paths import POLICIES
from smp.rl.actor_layout import ActorLayout, prior_of_styles
from smp.rl.loading import Agent, PlayEnvCfg, build_env, is_smp_task, load_policy
from smp.rl.policy_file import load_trained
from smp.tasks.registry import policy_path
from smp.utils.limits import Count, Seed, VideoFile
from smp.utils.wandb_files import fetch_prior


@dataclass(frozen=True)
class PlayArgs(WandbRunArgs):
  """Show a policy: in the browser, in a window, or as a video.

  Example: uv run scripts/play.py Smp-Forward-G1 --video True
  """

  agent: Agent = "trained"
  """``zero`` and ``random`` need no checkpoint."""

  checkpoint_file: str | None = None
  """A policy on this machine (logs/rsl_rl/.../model_N.pt, or one by package_policy.py).
  Default: the shipped policy of the task."""

  wandb_prior: str | None = None
  """Show the SDS loss under the prior in this artifact: ORG/PROJECT/ARTIFACT[:VERSION].
  The newest version unless one is named. Default: the prior of the task."""

  prior: str | None = None
  """Another prior than the task's, by name or path, if the policy was trained with
  one. A policy of several styles needs its own."""

  style: str | None = None
  """Style, of a policy that observes one. Default: another in each episode."""

  num_envs: Count = 1

  device: str | None = None
  """Default: the GPU where there is one."""

  engine: str = "auto"
  """``native`` (MuJoCo's own, on the CPU), ``warp`` (MuJoCo Warp), or ``auto``: warp on
  a GPU and native on a CPU."""

  threads: int | None = None
  """Threads of the native engine. Default: one per core."""

  viewer: Literal["auto", "native", "viser"] = "auto"
  """``viser`` is in the browser; ``auto`` takes a window where there is a display."""

  no_terminations: bool = False

  video: bool = False
  """Write a video instead of opening a viewer; needs no display."""

  video_file: VideoFile | None = None
  """Default: play.mp4 beside the checkpoint, or in the current folder."""

  video_length: Count = 500
  """Frames of the video, at 50 per second."""

  video_height: Count = 480
  video_width: Count = 640

  seed: Seed = 42


def main() -> None:
  """Run ``play TASK [OPTIONS]``."""
  task, arguments = task_from_argv("play", PlayArgs.__doc__)
  args = parse(
    PlayArgs,
    args=arguments,
    prog=f"{sys.argv[0]} {task}",
    config=mjlab.TYRO_FLAGS,
  )
  checkpoint = find_checkpoint(task, args)
  if checkpoint is None and args.agent == "trained":
    print(
      f"[INFO] No policy of {task} is shipped: showing initial states. Train one with "
      f"uv run scripts/train.py {task}, then give --checkpoint-file FILE"
    )
    args = replace(args, agent="zero")
  if args.video:
    print(f"[INFO] Wrote {record(task, args, checkpoint)}")
    return
  watch(task, args, checkpoint)


def find_checkpoint(task: str, args: PlayArgs) -> Path | None:
  """Return the file of the policy to show; None if there is none, or none is needed.

  Raises:
    UserError: Two were named, the file is missing, or W&B has no such run.
  """
  if args.agent != "trained":
    return None
  downloaded = run_checkpoint(task, args, args.checkpoint_file)
  if downloaded is not None:
    return downloaded
  if args.checkpoint_file is not None:
    path = Path(args.checkpoint_file).expanduser()
    if not path.is_file():
      raise UserError(f"{path}: no such checkpoint file (--checkpoint-file)")
    return path
  shipped = policy_path(task)
  return shipped if shipped.is_file() else None


def watch(task: str, args: PlayArgs, checkpoint: Path | None) -> None:
  """Show a policy until the viewer is closed."""
  window = args.viewer == "native" or (args.viewer == "auto" and has_display())
  env = build_env(task, play_env_cfg(task, args, checkpoint, render=False))
  policy = cast(PolicyProtocol, load_policy(task, env, args.agent, checkpoint))
  if window:
    NativeMujocoViewer(env, policy).run()
  else:
    PlottingViewer(
      env, policy, checkpoint_manager=_local(task, env, args, checkpoint)
    ).run()
  env.close()


def has_display() -> bool:
  """Return whether a window can be opened: a display is named, and it answers."""
  name = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
  if not name:
    return False
  import glfw

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    works = bool(glfw.init())
    glfw.terminate()
  if not works:
    print(
      f"[INFO] The display {name} does not answer: opening the viewer in the browser"
    )
  return works


class PlottingViewer(ViserPlayViewer):
  """mjlab's browser viewer with all metrics plotted from the beginning.

  These are r_smp, the SDS losses, and the task's own.
  """

  def setup(self) -> None:
    """Set up the viewer and tick all metrics."""
    super().setup()
    plotter = self._term_overlays.metrics_plotter if self._term_overlays else None
    for box in plotter._checkboxes.values() if plotter else ():
      box.value = True  # As if ticked by hand.


def _local(
  task: str, env: RslRlVecEnvWrapper, args: PlayArgs, checkpoint: Path | None
) -> CheckpointManager | None:
  """Return a manager that lets the browser viewer change to checkpoints of this folder."""
  if checkpoint is None or not checkpoint.name.startswith("model_"):
    return None
  folder = checkpoint.parent

  def available() -> list[tuple[str, str]]:
    files = sorted(folder.glob("model_*.pt"), key=lambda file: file.stat().st_mtime)
    ages = [int(time.time() - file.stat().st_mtime) for file in files]
    return [
      (file.name, format_time_ago(age)) for file, age in zip(files, ages, strict=True)
    ]

  return CheckpointManager(
    current_name=checkpoint.name,
    fetch_available=available,
    load_checkpoint=lambda name: cast(
      PolicyProtocol, load_policy(task, env, args.agent, folder / name)
    ),
  )


def record(task: str, args: PlayArgs, checkpoint: Path | None) -> Path:
  """Run a policy without a display and write a video of it.

  Returns:
    The file written.
  """
  from rich.progress import track

  from smp.viz.offscreen import open_video

  shipped = checkpoint is not None and checkpoint.parent == POLICIES
  folder = Path(".") if checkpoint is None or shipped else checkpoint.parent
  output = Path(args.video_file or folder / "play.mp4")
  frames = []
  # A renderer that nobody closes complains when Python ends.
  with closing(
    build_env(task, play_env_cfg(task, args, checkpoint, render=True))
  ) as env:
    policy = load_policy(task, env, args.agent, checkpoint)
    fps = 1.0 / env.unwrapped.step_dt
    observations = env.get_observations()
    for _ in track(range(args.video_length), description="rendering"):
      with torch.inference_mode():
        observations, _, _, _ = env.step(policy(observations))
      frame = env.unwrapped.render()
      assert frame is not None
      frames.append(frame)
  with open_video(output, frames[0].shape[:2], fps) as writer:
    for frame in frames:
      writer.add_image(frame)
  return output


def play_env_cfg(
  task: str, args: PlayArgs, checkpoint: Path | None, render: bool
) -> PlayEnvCfg:
  """Return the configuration of the environment to watch.

  Raises:
    UserError: W&B has no such prior, or the checkpoint cannot be read or is of another
      task.
  """
  layout, prior = None, args.prior
  if checkpoint is not None and is_smp_task(task):
    # Read the policy before building the environment, which takes much longer.
    load_trained(checkpoint, task)
    layout = ActorLayout.read(checkpoint, args.style)
    prior = prior or prior_of_styles(checkpoint)
  if args.wandb_prior is not None:
    prior = str(fetch_prior(args.wandb_prior))
  return PlayEnvCfg(
    num_envs=args.num_envs,
    device=args.device,
    engine=args.engine,
    threads=args.threads,
    seed=args.seed,
    prior=prior,
    actor=layout,
    terminations=not args.no_terminations,
    video_size=(args.video_height, args.video_width) if render else None,
  )
