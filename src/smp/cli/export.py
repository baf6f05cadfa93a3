"""Export of a checkpoint's policy as ONNX."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import mjlab

from smp.cli.options import parse
from smp.cli.task_argument import task_from_argv
from smp.deploy.deploy_file import deploy_path
from smp.deploy.onnx_export import FILE_NAME, export_policy
from smp.deploy.policy_spec import PolicySpec
from smp.errors import UserError
from smp.rl.actor_layout import ActorLayout
from smp.rl.loading import PlayEnvCfg, build_env, check_fit, is_smp_task
from smp.rl.policy_file import load_trained
from smp.tasks.registry import policy_path
from smp.utils.quiet import quiet


@dataclass(frozen=True)
class ExportArgs:
  """Write the policy of a checkpoint as ONNX, with all that is needed to run it.

  Beside NAME.onnx lies NAME.deploy.yaml, for a robot's controller.

  Example: uv run scripts/export.py Smp-Forward-G1 --checkpoint-file FILE
  """

  checkpoint_file: Path | None = None
  """A checkpoint of the task (logs/rsl_rl/.../model_N.pt), or a policy file. Default:
  the shipped policy of the task."""

  output: Path | None = None
  """Default: policy.onnx beside the checkpoint; for a shipped policy, in this folder.
  """


def main() -> None:
  """Run ``export TASK --checkpoint-file FILE [OPTIONS]``."""
  task, arguments = task_from_argv("export", ExportArgs.__doc__)
  args = parse(
    ExportArgs, args=arguments, prog=f"{sys.argv[0]} {task}", config=mjlab.TYRO_FLAGS
  )
  checkpoint = args.checkpoint_file or shipped_policy(task)
  folder = Path(".") if args.checkpoint_file is None else checkpoint.parent
  output = args.output or folder / FILE_NAME
  spec = export_checkpoint(task, checkpoint, output)
  print(f"wrote {output} ({spec.task}, prior {spec.prior}, iteration {spec.iteration})")
  print(f"wrote {deploy_path(output)}, for a robot's controller")


def shipped_policy(task: str) -> Path:
  """Return the file of the shipped policy of a task.

  Raises:
    UserError: There is none.
  """
  path = policy_path(task)
  if not path.is_file():
    raise UserError(f"no policy of {task} is shipped; give --checkpoint-file FILE")
  return path


def export_checkpoint(task: str, checkpoint: Path, output: Path) -> PolicySpec:
  """Write the policy of ``checkpoint`` to ``output``.

  Raises:
    UserError: Not a checkpoint of this task, or ``output`` cannot be written.
  """
  if output.suffix != ".onnx":
    raise UserError(f"--output {output}: end the name in .onnx")
  if not is_smp_task(task):
    raise UserError(f"{task}: not a task of this project; use mjlab's own export")
  # Read the policy before building the environment, which takes much longer.
  trained = load_trained(checkpoint, task)
  with quiet():
    layout = ActorLayout.read(checkpoint)
    play = PlayEnvCfg(
      engine="native", device="cpu", threads=1, actor=layout, observations_alone=True
    )
    env = build_env(task, play)
    try:
      check_fit(trained.actor.sizes, env, checkpoint)
      env.clip_actions = trained.actor.output_clip
      return export_policy(
        env,
        trained.actor,
        output,
        task,
        int(trained.card["iteration"]),
        checkpoint.parent.name,
        trained.card.get("prior"),
      )
    finally:
      env.close()
