"""Evaluation of a policy by the fixed protocol of its task."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from smp import paths
from smp.cli.options import parse
from smp.cli.task_argument import task_from_argv
from smp.cli.wandb_run import WandbRunArgs, run_checkpoint
from smp.diffusion.styles import OVER, StyleCfg, parse_style
from smp.episodes import protocol
from smp.episodes.protocol import COMMAND, EvalProtocol
from smp.episodes.trajectory import Trajectory, join
from smp.errors import UserError
from smp.evaluation.policy import motion_similarity, summary
from smp.evaluation.policy.episode_plots import render_strip, strip_frames, typical
from smp.evaluation.policy.html_report import in_words, render_report
from smp.evaluation.policy.motion_similarity import Data
from smp.evaluation.policy.style_accuracy import StyleJudge, style_judge
from smp.robots.variation import RobotVariation
from smp.tasks.registry import find_task, policy_path, protocol_of
from smp.utils.files import atomic_path, check_folder
from smp.utils.limits import Count, Positive, Seed
from smp.utils.tables import table_console

if TYPE_CHECKING:
  from smp.rl.actor_layout import ActorLayout

Agent = Literal["trained", "zero", "random"]
SAMPLES = 512
"""Windows sampled from the prior where no windows of clips are given."""
PIPE_WIDTH = 400
"""Columns of text for the tables in a file or a pipe; more than the widest one has."""


@dataclass(frozen=True)
class EvaluateArgs(WandbRunArgs, RobotVariation):
  """Evaluate a policy by the fixed protocol of its task.

  Example: uv run scripts/evaluate.py Smp-Forward-G1 --checkpoint-file FILE --seeds 0 1 2

  Prints a table, and writes metrics with 95 % intervals as JSON and as one HTML report.
  """

  checkpoint_file: Path | None = None
  """The policy: a checkpoint (logs/rsl_rl/.../model_N.pt) or a policy file. One of a
  run on W&B is named by the options --wandb-run-path and --wandb-checkpoint-name.
  Default: the shipped policy of the task."""

  agent: Agent = "trained"
  """``zero`` and ``random`` need no checkpoint; with one, its means normalise r_smp."""

  compare: str | None = None
  """A second policy to show beside the first: a checkpoint, or ``zero`` or ``random``.
  """

  num_envs: Count = 600
  """Episodes for each seed, divided evenly among the conditions."""

  seed: Seed = 0

  seeds: tuple[Seed, ...] = ()
  """Several seeds, in the place of --seed."""

  seconds: Positive | None = None
  """Another episode length than the protocol's, s. The result says so."""

  windows: tuple[Path, ...] = ()
  """NPZ files of windows, or folders of them, to compare the motion with. Default:
  samples of the prior."""

  prior: str | None = None
  """Another prior than the task's, if the policy was trained with one. Default: the
  task's, or the shipped one that a policy of several styles was trained with."""

  style: str | None = None
  """Style of policies that observe one (default: drawn for each episode), and the style
  that --style-classifier judges by. guarded/run is guarded above and run below."""

  style_classifier: Path | None = None
  """A classifier of windows (scripts/train_style_classifier.py) that says whether the
  motion is in the style of --style."""

  style_upper: str | None = None
  """Style of the upper body (waist, arms, torso), if another than --style. The upper and
  the lower body are then judged each by itself."""

  style_lower: str | None = None
  """Style of the lower body (legs, root), if another than --style."""

  output_dir: Path | None = None
  """Folder for evaluation.json and report.html. Default: a folder beside the
  checkpoint."""

  frames: bool = True
  """Render a strip of frames for every condition."""

  device: str | None = None
  """Default: the GPU where there is one."""

  engine: str = "auto"
  """``native`` (MuJoCo's own, on the CPU), ``warp`` (MuJoCo Warp), or ``auto``."""

  threads: int | None = None
  """Threads of the native engine. Default: one per core."""

  def asked_style(self) -> StyleCfg:
    """Return the style that the policy should show.

    Raises:
      UserError: A part of the body has a style and no judge, or two of them, or the style
        is malformed.
    """
    parts = {"--style-upper": self.style_upper, "--style-lower": self.style_lower}
    option = next((option for option, part in parts.items() if part), None)
    if option is None:
      return StyleCfg() if self.style is None else parse_style(self.style, "--style")
    if self.style_classifier is None:
      raise UserError(f"{option}: needs a judge, --style-classifier FILE")
    if OVER in (self.style or ""):
      raise UserError(
        f"--style {self.style} and {option}: give both parts of the body in one of them"
      )
    return StyleCfg(self.style, self.style_upper, self.style_lower)

  def all_seeds(self) -> tuple[int, ...]:
    """Return the seeds to run."""
    return self.seeds or (self.seed,)


@dataclass
class Policy:
  """One of the policies evaluated."""

  name: str
  agent: Agent
  file: Path | None
  means: dict[str, Any] = field(default_factory=dict)
  """Means of the SDS losses, and the iteration they are from; empty without a file."""
  weights: str | None = None
  """Digest of the actor (`smp.rl.actor.Actor.digest`); None without one."""

  def about(self) -> dict[str, Any]:
    """Describe the policy in plain JSON types."""
    digest = None
    if self.file is not None:
      digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
    return {
      "name": self.name,
      "agent": self.agent,
      "file": None if self.file is None else str(self.file),
      "sha256": digest,
      "weights": self.weights,
      "iteration": self.means.get("iteration"),
    }

  def statistics(self) -> dict[str, Any] | None:
    """Return the running means of the SDS losses; None without a file."""
    return None if self.means.get("mean") is None else self.means


def main() -> None:
  """Run ``evaluate TASK [OPTIONS]``."""
  task, arguments = task_from_argv(
    "evaluate", EvaluateArgs.__doc__, lists_in_one_word=False
  )
  args = parse(
    EvaluateArgs,
    args=arguments,
    prog=f"{sys.argv[0]} {task}",
    description=EvaluateArgs.__doc__,
  )
  os.environ.setdefault("MJLAB_WARP_QUIET", "1")
  evaluate(task, args)


def evaluate(task: str, args: EvaluateArgs) -> dict[str, Any]:
  """Run the evaluation, print its tables and write its files.

  Returns:
    The contents of the JSON.

  Raises:
    UserError: A bad option, run, checkpoint, prior, file of windows or output folder.
  """
  steps = protocol_of(task, args.seconds).on(args)
  for seed in args.all_seeds():
    protocol.assign(steps, args.num_envs, seed)  # Raise errors before the work begins.
  if len(set(args.all_seeds())) < len(args.all_seeds()):
    raise UserError("--seeds: one is given twice; its episodes would count twice")
  judge = style_judge(args.style_classifier, args.asked_style())
  file = run_checkpoint(task, args, args.checkpoint_file)
  if file is None and args.agent == "trained" and args.checkpoint_file is None:
    shipped = policy_path(task)
    file = shipped if shipped.is_file() else None
  args = args if file is None else replace(args, checkpoint_file=file)
  policies = find_policies(task, args)
  if args.prior is None:
    args = replace(args, prior=_shared_prior(policies))
  output = output_dir(task, args)
  check_writable(output)
  data = load_data(task, args)
  with Progress(console=Console(stderr=True), transient=True) as progress:
    runs = [run_policy(task, steps, policy, args, progress) for policy in policies]
  rows = [summarise_run(run, steps, data, judge) for run in runs]
  strips, note = make_strips(runs, steps, args)
  result = collect(task, args, steps, policies, rows, data, note, judge)
  print_tables(result)
  write(output, result, strips)
  return result


# The policies and the data.


def find_policies(task: str, args: EvaluateArgs) -> list[Policy]:
  """Return the policy, and the one to compare it with.

  Raises:
    UserError: No policy was named, or a checkpoint cannot be read or is of another task.
  """
  if args.agent == "trained" and args.checkpoint_file is None:
    raise UserError(
      "no policy of this task is shipped; give --checkpoint-file FILE or "
      "--wandb-run-path ORG/PROJECT/RUN, "
      "or --agent zero or --agent random"
    )
  policies = [_policy(task, args.agent, args.checkpoint_file)]
  if args.compare is not None:
    other = args.compare
    baseline = other in get_args(Agent) and other != "trained"
    # Both use the same means, so that r_smp can be compared.
    file = args.checkpoint_file if baseline else Path(other)
    agent = cast(Agent, other) if baseline else "trained"
    policies.append(_policy(task, agent, file))
  if len(policies) == 2 and policies[0].name == policies[1].name:
    policies[0].name += " (A)"
    policies[1].name += " (B)"
  return policies


def _shared_prior(policies: list[Policy]) -> str | None:
  """Return the prior that judges the policies; None: the task's.

  Raises:
    UserError: They were trained under different ones, which measure differently.
  """
  from smp.rl.actor_layout import prior_of_styles

  files = [policy.file for policy in policies]
  priors = [None if file is None else prior_of_styles(file) for file in files]
  if len(set(priors)) > 1:
    shown = [f"'{prior}'" if prior else "the task's" for prior in priors]
    names = ", ".join(
      f"{each.name} under {prior}" for each, prior in zip(policies, shown, strict=True)
    )
    raise UserError(
      f"--compare: the policies were trained under different priors ({names}), whose "
      "errors cannot be compared; evaluate each by itself, or choose one with --prior"
    )
  return priors[0]


def _policy(task: str, agent: Agent, file: Path | None) -> Policy:
  from smp.rl.policy_file import load_trained, read_means

  if file is None:
    return Policy(agent, agent, None)
  file = file.expanduser()
  means = read_means(file)
  if agent != "trained":
    return Policy(agent, agent, file, means)
  # Errors are raised before the environment is built.
  weights = load_trained(file, task).actor.digest()
  name = file.stem if not file.parent.name else f"{file.parent.name}/{file.stem}"
  return Policy(name, agent, file, means, weights)


def output_dir(task: str, args: EvaluateArgs) -> Path:
  """Return the folder of the results."""
  if args.output_dir is not None:
    return args.output_dir.expanduser()
  if args.agent == "trained" and args.checkpoint_file is not None:
    file = args.checkpoint_file.expanduser()
    shipped = file.absolute().parent == paths.POLICIES
    folder = Path("outputs") if shipped else file.parent
    return folder / f"evaluation_{file.stem}"
  return Path("outputs") / f"evaluation_{task}_{args.agent}"


def check_writable(folder: Path) -> None:
  """Raise an error for a folder that cannot be written, before an hour of work.

  Raises:
    UserError: The message names the folder, or the one it would be created in.
  """
  existing = folder.absolute()
  while not existing.exists():
    existing = existing.parent
  check_folder(existing)


def load_data(task: str, args: EvaluateArgs) -> Data | None:
  """Load the windows that the policy's motion is compared with."""
  import torch
  from mjlab.tasks.registry import load_env_cfg

  from smp.diffusion.prior import MotionPrior
  from smp.mdp.smp_term import SMP_TERM, SmpTermCfg
  from smp.motion.dataset import load_stats, load_windows

  stats = load_stats(paths.NORM_STATS)
  if args.windows:
    found = load_windows(args.windows)
    what = f"{len(found.windows)} windows of {', '.join(map(str, args.windows))}"
    return motion_similarity.data_of(
      torch.from_numpy(found.windows), found.spec, stats, what
    )
  name = args.prior
  if name is None:
    name = cast(SmpTermCfg, load_env_cfg(task).commands[SMP_TERM]).prior
  if name is None:
    return None
  prior = MotionPrior.load(paths.resolve_prior(name))
  windows = prior.sample(SAMPLES, torch.Generator().manual_seed(0))
  what = f"{SAMPLES} samples of the prior '{Path(name).stem}'"
  return motion_similarity.data_of(windows, prior.spec, stats, what)


# Running the policies.


@dataclass
class Run:
  """All episodes of one policy, the seeds side by side."""

  trajectory: Trajectory
  condition: np.ndarray
  seed: np.ndarray


def run_policy(
  task: str, steps: EvalProtocol, policy: Policy, args: EvaluateArgs, progress: Progress
) -> Run:
  """Run one policy with every seed."""
  from smp.evaluation.policy.recording import Machine, rollout
  from smp.rl.loading import load_policy

  machine = Machine(args.engine, args.device, args.threads)
  parts, conditions, seeds = [], [], []
  for seed in args.all_seeds():
    assignment = protocol.assign(steps, args.num_envs, seed)
    bar = progress.add_task(f"{policy.name}, seed {seed}", total=steps.steps(50.0))

    def show(done: int, bar=bar) -> None:
      progress.update(bar, completed=done)

    parts.append(
      rollout(
        steps,
        assignment,
        seed,
        lambda env: load_policy(task, env, policy.agent, policy.file),
        policy.statistics(),
        machine,
        args.prior,
        actor_layout(policy, args),
        show,
      )
    )
    conditions.append(assignment.condition)
    seeds.append(np.full(args.num_envs, seed))
  return Run(join(parts), np.concatenate(conditions), np.concatenate(seeds))


def actor_layout(policy: Policy, args: EvaluateArgs) -> ActorLayout | None:
  """Return what a policy observes; None without a file, or if that says nothing.

  Raises:
    UserError: The policy does not know the style asked of it. One that observes no style
      may have been trained in one, which is then for the judge alone.
  """
  from smp.rl.actor_layout import ActorLayout

  if policy.file is None:
    return None
  layout = ActorLayout.read(policy.file)
  observes = layout is not None and layout.styles
  if args.style_classifier is not None and not observes:
    return layout
  return ActorLayout.read(policy.file, args.style)


def summarise_run(
  run: Run, steps: EvalProtocol, data: Data | None, judge: StyleJudge | None = None
) -> list[dict[str, Any]]:
  """Compute the metrics of one policy by condition."""
  return summary.summarise(run.trajectory, run.condition, run.seed, steps, data, judge)


def make_strips(
  runs: list[Run], steps: EvalProtocol, args: EvaluateArgs
) -> tuple[dict[tuple[int, str], bytes], str]:
  """Render a typical episode of every policy and condition; return a note on them too."""
  from smp.episodes.episode_metrics import normalised_return
  from smp.viz.offscreen import OffscreenRenderer

  if not args.frames:
    return {}, "Not rendered (--no-frames)."
  strips = {}
  try:
    with OffscreenRenderer() as studio:
      for i, run in enumerate(runs):
        t = run.trajectory
        returns = normalised_return(t.task_reward, t.valid(), t.max_reward).numpy()
        for c, condition in enumerate(steps.conditions):
          env = typical(returns, run.condition == c)
          frames = strip_frames(t, env, condition, steps)
          strips[i, condition.label] = render_strip(studio, frames)
  except UserError as error:
    return {}, f"No frames: {error}"
  note = "The episode with the median task return of each condition"
  return (
    strips,
    f"{note}; from its beginning where nothing ends an episode, else after settling.",
  )


METHOD = """Each condition has its own environments, one episode each, all side by side.
There is no noise on observations, no randomised robot, and no push or change of the
command but those named. Nothing after a failure counts, except that the task return
continues at zero; in a task without failures nothing ends an episode. Errors of speed and
facing count after the first seconds. Torques, power and jerk are at 50 Hz, so a peak
between two steps is not seen. A foot is in contact when the floor pushes it with more than
1 N. Intervals take episodes as independent of each other, over all seeds together; metrics
of each seed are in the JSON."""


def collect(
  task: str,
  args: EvaluateArgs,
  steps: EvalProtocol,
  policies: list[Policy],
  rows: list[list[dict[str, Any]]],
  data: Data | None,
  note: str,
  judge: StyleJudge | None = None,
) -> dict[str, Any]:
  """Collect the results and their description in plain JSON types."""
  return {
    "command": shlex.join(["evaluate.py", task, *sys.argv[2:]]),
    "protocol": {
      "task": task,
      "version": protocol.VERSION,
      "standard": not steps.notes,
      "notes": list(steps.notes),
      "seconds": steps.seconds,
      "settle": steps.settle,
      "robot": steps.robot.differences(),
      "push_times": list(steps.push_times),
      "change_at": steps.change_at,
      "axes": steps.axes,
      "conditions": [asdict(condition) for condition in steps.conditions],
    },
    "method": " ".join(METHOD.split()),
    "seeds": list(args.all_seeds()),
    "num_envs": args.num_envs,
    "prior": args.prior,
    "style": args.style,
    "data": None if data is None else data.about(),
    "style_judge": None if judge is None else judge.about(),
    "strips": note,
    "figures": {
      figure.key: {
        "label": figure.label,
        "unit": "share" if figure.kind == "rate" else figure.unit,
        "group": figure.group,
        "better": figure.better,
      }
      for figure in summary.metrics_of(task, () if judge is None else (*judge.asked,))
    },
    "policies": [
      {**policy.about(), "conditions": row}
      for policy, row in zip(policies, rows, strict=True)
    ],
  }


# Output.


def print_tables(result: dict[str, Any]) -> None:
  """Print the main metrics on the terminal: a row for each condition."""
  # A file or a pipe has no width to fit, so no column is cut.
  console = table_console(PIPE_WIDTH)
  metrics = [f for f in summary.metrics_in(result) if f.short]
  for group in ("task", "naturalness"):
    shown = [f for f in metrics if (f.group == "task") == (group == "task")]
    for policy in result["policies"]:
      table = Table(title=f"{policy['name']}: {_TITLES[group]}")
      table.add_column("condition")
      table.add_column("n", justify="right")
      for figure in shown:
        table.add_column(figure.short, justify="right")
      last = COMMAND
      for row in _ordered(policy["conditions"]):
        if row["sweep"] != last:
          table.add_section()
          last = row["sweep"]
        cells = [" ".join(in_words(f, row["figures"][f.key])) for f in shown]
        table.add_row(row["label"], str(row["episodes"]), *cells)
      console.print(table)
  success = find_task(result["protocol"]["task"]).success
  (metric,) = (f for f in metrics if f.key == success)
  for policy in result["policies"]:
    (row,) = (r for r in policy["conditions"] if r["label"] == summary.ALL)
    words = " ".join(in_words(metric, row["figures"][success]))
    unit = "%" if metric.kind == "rate" else metric.unit
    console.print(f"{policy['name']}: {metric.label} {words} {unit}")
  if result["protocol"]["notes"]:
    notes = "; ".join(result["protocol"]["notes"])
    console.print(f"Not the standard protocol: {notes}.")


_TITLES = {"task": "task", "naturalness": "naturalness and effort"}


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Return the rows of commands, then of all commands together, then of pushes."""
  return sorted(rows, key=lambda row: row["sweep"] != COMMAND)


def write(
  folder: Path, result: dict[str, Any], strips: dict[tuple[int, str], bytes]
) -> None:
  """Write evaluation.json and report.html, once both are complete."""
  text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
  page = render_report(result, strips)
  for name, content in (("evaluation.json", text), ("report.html", page)):
    with atomic_path(folder / name) as temporary:
      temporary.write_text(content, encoding="utf-8")
    print(f"[INFO] Wrote {folder / name}")
