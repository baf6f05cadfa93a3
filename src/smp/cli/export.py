"""Write the policy of a checkpoint as ONNX."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import mjlab
import tyro
from mjlab.tasks.registry import load_rl_cfg, load_runner_cls

from smp.cli.play import PlayArgs, build_env
from smp.cli.tasks import task_from_argv
from smp.deploy.export import FILE_NAME, export_policy
from smp.deploy.spec import PolicySpec
from smp.errors import UserError
from smp.tasks.policy_file import load_actor
from smp.tasks.runner import SmpRunner
from smp.tensor_files import load_tensors


@dataclass(frozen=True)
class ExportArgs:
  """Which policy, and where to write it."""

  checkpoint_file: Path
  """A checkpoint of the task (logs/rsl_rl/.../model_N.pt), or a shipped policy."""

  output: Path | None = None
  """Default: policy.onnx beside the checkpoint."""


def main() -> None:
  """``export TASK --checkpoint-file FILE [OPTIONS]``."""
  task, arguments = task_from_argv("export")
  args = tyro.cli(
    ExportArgs, args=arguments, prog=f"{sys.argv[0]} {task}", config=mjlab.TYRO_FLAGS
  )
  output = args.output or args.checkpoint_file.with_name(FILE_NAME)
  spec = export_checkpoint(task, args.checkpoint_file, output)
  print(f"wrote {output} ({spec.task}, prior {spec.prior}, iteration {spec.iteration})")


def export_checkpoint(task: str, checkpoint: Path, output: Path) -> PolicySpec:
  """Write the policy of ``checkpoint`` to ``output``.

  Raises:
    UserError: not a checkpoint of this task, or ``output`` cannot be written.
  """
  if output.suffix != ".onnx":
    raise UserError(f"--output {output}: end the name in .onnx")
  runner_cls = load_runner_cls(task)
  if runner_cls is None or not issubclass(runner_cls, SmpRunner):
    raise UserError(f"{task}: not a task of this project; its policies are mjlab's")
  # Before the environment is built, which takes much longer.
  load_tensors(checkpoint, "policy", "cpu")
  args = PlayArgs(num_envs=1, engine="native", device="cpu", threads=1)
  # What the managers print of themselves would bury the last line.
  with contextlib.redirect_stdout(io.StringIO()):
    env = build_env(task, args, render=False)
    try:
      runner = runner_cls(env, asdict(load_rl_cfg(task)), device="cpu")
      card = load_actor(runner, checkpoint, task)
      runner.current_learning_iteration = int(card["iteration"])
      prior = card.get("prior")
      return export_policy(runner, output, checkpoint.parent.name, prior)
    finally:
      env.close()
