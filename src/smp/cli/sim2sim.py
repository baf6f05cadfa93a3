"""Run of an exported policy in plain MuJoCo, without mjlab and torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from smp.cli.command_options import given_values, parse_options
from smp.deploy.deploy_file import describe_deploy
from smp.deploy.disturbances import Disturbances, Pusher, check_bounds, disturb
from smp.deploy.fixed_command import Command, outside_training
from smp.deploy.mujoco_robot import Robot, State
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.report import SETTLED_S, UNITS, report
from smp.deploy.robot_log import write_log
from smp.deploy.rollout import Log, Rollout, figures, run, start_state
from smp.deploy.safety import Safety
from smp.errors import UserError
from smp.utils.limits import (
  ArrayFile,
  NotNegative,
  Port,
  Positive,
  Seed,
  VideoFile,
  check_limits,
)
from smp.utils.names import check_style

SECONDS = 20.0
"""Default length of a run, s of simulated time."""
Values = dict[str, tuple[float, ...]]
Changes = list[tuple[float, Values]]


@dataclass(frozen=True)
class Sim2SimCfg(Disturbances):
  """Run an exported policy in plain MuJoCo, without mjlab and torch.

  Example: uv run scripts/sim2sim.py policy.onnx --speed 1.5 --video walk.mp4

  Without a display, in a window, or in the browser.
  """

  policy: Annotated[Path, tyro.conf.Positional]
  """The ONNX file."""

  command: tuple[str, ...] = ()
  """Command, such as speed=1.5 or goal=2,3. Each component of the policy's command is
  an option of its own too: name the policy before --help to see them."""

  changes: tuple[str, ...] = ()
  """Changes of the command on the way: SECONDS:NAME=VALUE, as in 3:vx=1 6:vx=0."""

  style: str | None = None
  """Style, of a policy that observes one; default: the first it was trained with."""

  seconds: Positive | None = None
  """Simulated time, s. Default: 20; a viewer runs until closed."""

  start: Path | None = None
  """Initial state: `prone`, `supine`, `left` or `right`, lying so after a fall; or a
  .npz with `qpos` (36,) and `qvel` (35,), or a log, of which the first row is used.
  Default: the robot's default pose."""

  viewer: Literal["none", "native", "viser"] = "none"
  """`native`: MuJoCo's own window; `viser`: in the browser, with sliders."""

  host: str = "localhost"
  """Address of the page; 0.0.0.0 lets other machines see it."""

  port: Port = 8080
  """Port of the page, or the next free one if it is taken."""

  video: VideoFile | None = None
  """Write a video (.mp4, .gif); needs no display. With a viewer: of what you steered,
  since the last reset, once the viewer is closed."""

  log: ArrayFile | None = None
  """Write what a controller logs, and qpos, qvel and obs, of each step (.npz). With a
  viewer: as --video."""

  report: bool = False
  """Print the figures that decide about a robot: errors, drift, stopping, falls, slip.
  If the command changes, once, errors are those before that."""

  safety: bool = False
  """Put the safety layer between policy and motors: a soft start on a stand, hand-over,
  limits, and stops."""

  keys: bool = False
  """Steer by keys of this terminal while a viewer runs."""

  gamepad: bool = False
  """Steer by the first gamepad while a viewer runs."""

  noise: NotNegative = 0.0
  """Observation noise, as a multiple of that in training."""

  seed: Seed = 0
  """Seed of the noise, of the pushes and of a fall."""


def main() -> None:
  """Run ``sim2sim POLICY.onnx [OPTIONS]``."""
  sim2sim(parse_options(Sim2SimCfg))


def sim2sim(cfg: Sim2SimCfg) -> None:
  """Run a policy, and show it, or write and print the results.

  Raises:
    UserError: An option does not fit, or a file cannot be read or written.
  """
  _check(cfg)
  policy = OnnxPolicy(cfg.policy)
  spec = policy.spec
  command = Command(spec, given_values(cfg.command))
  changes = read_changes(cfg.changes, command)
  if cfg.report:
    _check_reported(changes)
  robot = Robot(spec, command, visual=cfg.viewer != "none")
  if cfg.style is not None:
    check_style(cfg.style, spec.styles, cfg.policy.name)
    robot.style = cfg.style
  disturb(robot, cfg)
  start = start_state(cfg.start, robot, cfg.seed) if cfg.start else None
  safety = Safety(describe_deploy(spec, cfg.policy.name)) if cfg.safety else None
  pusher = Pusher(cfg, cfg.seed)
  rollout = Rollout(policy, robot, cfg.noise, cfg.seed, pusher, safety)
  note = outside_training(spec, command)
  if note:
    print(f"note: {note}")
  if cfg.viewer == "none":
    _run(cfg, rollout, start, changes)
  else:
    _watch(cfg, rollout, start)


def _check(cfg: Sim2SimCfg) -> None:
  """Raise an error for options that exclude each other, before anything takes time."""
  check_bounds(cfg)
  if cfg.push_every != Disturbances.push_every and not cfg.push:
    raise UserError("--push-every: add --push, the speed of each push, m/s")
  if cfg.changes and cfg.viewer != "none":
    raise UserError(
      f"--changes: leave out --viewer {cfg.viewer}, which takes the command from you"
    )
  if cfg.viewer != "none" and (cfg.report or cfg.seconds is not None):
    raise UserError(
      f"--viewer {cfg.viewer} runs until it is closed; leave out --report and "
      "--seconds, or the viewer"
    )
  if cfg.viewer == "none" and (cfg.keys or cfg.gamepad):
    raise UserError("--keys and --gamepad: add --viewer viser, or --viewer native")
  check_limits(cfg)


def _check_reported(changes: Changes) -> None:
  """Raise an error for changes of the command that a report cannot take."""
  moments = sorted({at for at, _ in changes})
  if len(moments) > 1:
    told = ", ".join(f"{at:g}" for at in moments)
    raise UserError(
      f"--changes: at {told} s; with --report let the command change once, as its "
      "figures are of the time before that"
    )
  if moments and moments[0] <= SETTLED_S:
    raise UserError(
      f"--changes {moments[0]:g}:...: with --report give more than {SETTLED_S:g} s, "
      "which do not count"
    )


def _watch(cfg: Sim2SimCfg, rollout: Rollout, start: State | None) -> None:
  from smp.viz.hand_control import steered
  from smp.viz.policy_viewer import Session, serve, show_window

  session = Session(rollout, start, record=bool(cfg.log or cfg.video))
  with steered(rollout.robot.command, cfg.keys, cfg.gamepad):
    if cfg.viewer == "native":
      show_window(session)
    else:
      serve(session, rollout.robot.spec.task, cfg.host, cfg.port)
  if session.values:
    _write(cfg, rollout, rollout.log(), session.values)
  elif cfg.log or cfg.video:
    print("note: nothing was written, as nothing happened since the last reset")


def read_changes(words: Sequence[str], command: Command) -> Changes:
  """Return times, s, in order, with the values by component that hold from then on.

  Args:
    words: SECONDS:NAME=VALUE each.
    command: The command at the beginning.

  Raises:
    UserError: A word has another form, or the task takes no such command.
  """
  found: Changes = []
  for word in words:
    seconds, _, given = word.partition(":")
    try:
      at = float(seconds)
    except ValueError:
      at = math.nan
    if not 0.0 <= at < math.inf:
      raise UserError(f"--changes {word}: write SECONDS:NAME=VALUE, as in 3:vx=1")
    found.append((at, given_values([given])))
    command.changed(found[-1][1])
  return sorted(found, key=lambda change: change[0])


def _run(
  cfg: Sim2SimCfg, rollout: Rollout, start: State | None, changes: Changes
) -> None:
  """Run without a display, as fast as possible."""
  from rich.progress import Progress

  command, step_s, left = rollout.robot.command, rollout.robot.step_s, list(changes)
  values: list[Values] = []

  def before_step() -> None:
    while left and left[0][0] <= len(values) * step_s + 1e-9:
      command.values = command.changed(left.pop(0)[1])
    values.append(command.values)

  seconds = SECONDS if cfg.seconds is None else cfg.seconds
  rollout.reset(start)
  rollout.step()  # Warm up by a first step.
  with Progress(transient=True) as progress:
    bar = progress.add_task("running", total=round(seconds / rollout.robot.step_s))
    begin = time.perf_counter()
    log = run(rollout, seconds, start, lambda: progress.advance(bar), before_step)
    took = time.perf_counter() - begin
  _write(cfg, rollout, log, values)
  for line in summary(rollout, log, took):
    if not (changes and "error" in line):  # Errors are to the last command alone.
      print(line)
  if left:
    print(f"note: the run ends before the command changes, at {left[0][0]:g} s")
  if cfg.report:
    print_report(report(log, rollout.robot, values))


def _write(
  cfg: Sim2SimCfg, rollout: Rollout, log: Log, values: Sequence[Values]
) -> None:
  """Write the log and the video that are asked for."""
  if cfg.log is not None:
    write_log(cfg.log, log, rollout.robot)
    print(f"wrote {cfg.log}")
  if cfg.video is not None:
    from smp.viz.policy_viewer import write_video

    robot = rollout.robot
    write_video(robot.spec, robot.command, log, cfg.video, values)
    print(f"wrote {cfg.video}")


def print_report(found: dict[str, float]) -> None:
  """Print figures as a table, and as one line of JSON."""
  from rich import box
  from rich.console import Console
  from rich.table import Table

  table = Table(box=box.SIMPLE_HEAD)
  table.add_column("figure")
  table.add_column("value", justify="right")
  table.add_column("unit and meaning")
  for name, value in found.items():
    table.add_row(name.replace("_", " "), f"{value:.3f}", UNITS[name])
  Console().print(table)
  print(json.dumps({name: round(value, 6) for name, value in found.items()}))


def summary(rollout: Rollout, log: Log, took: float) -> list[str]:
  """Return lines of text on the speed of the run and the metrics of the robot.

  Args:
    rollout: The rollout after the run.
    log: The recording of the run.
    took: Duration of the run, s.
  """
  robot, parts = rollout.robot, rollout.robot.spec.command
  spec, seconds = robot.spec, len(log.time) * robot.step_s
  found = figures(log.qpos, log.qvel, robot.command, spec.fallen_below)
  fall = found.pop("fall_step")
  lines = [
    f"{spec.task}, prior {spec.prior}, iteration {spec.iteration}",
    f"{seconds:.2f} s in {took:.2f} s: {seconds / took:.1f} times real time",
  ]
  units = {
    "speed": "m/s mean speed",
    "root_height": "m mean height of the pelvis",
    "velocity_error": "m/s mean velocity error",
  }
  units |= {f"{part.name}_error": f"degrees mean {part.name} error" for part in parts}
  units |= {
    f"{part.name}_distance": f"m from the {part.name} at the end" for part in parts
  }
  lines += [
    f"{found[name]:.3f} {unit}" for name, unit in units.items() if name in found
  ]
  if rollout.safety is not None and rollout.safety.reason:
    lines.append(f"the safety layer stopped the robot: {rollout.safety.reason}")
  if rollout.diverged:
    lines.append(f"the physics diverged at {seconds:.2f} s")
  elif spec.fallen_below is None:
    lines.append("no height of this task counts as a fall")
  elif fall >= 0:
    lines.append(
      f"fell at {log.time[int(fall)]:.2f} s (pelvis below {spec.fallen_below:g} m); "
      "metrics up to then"
    )
  else:
    lines.append("did not fall")
  return lines
