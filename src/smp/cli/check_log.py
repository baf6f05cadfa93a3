"""Check of a controller's log against its policy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from smp.cli.options import parse
from smp.deploy.controller import refuse_unmeasured
from smp.deploy.deploy_file import (
  check_against,
  deploy_path,
  describe_deploy,
  read_deploy,
)
from smp.deploy.log_check import TOLERANCE, Check, check_log
from smp.deploy.onnx_policy import OnnxPolicy
from smp.deploy.robot_log import read_log
from smp.utils.limits import Positive, check_limits


@dataclass(frozen=True)
class CheckLogCfg:
  """Find out why a controller's log is not what its policy would have done.

  Example: uv run scripts/check_log.py policy.onnx log.npz

  Observations and actions are computed anew from the log's raw signals. Where they part,
  known mistakes are tried: joint order, signs, units, frames, delays and more.
  """

  policy: Annotated[Path, tyro.conf.Positional]
  """The ONNX file."""

  log: Annotated[Path, tyro.conf.Positional]
  """The log (.npz), as sim2sim.py --log writes it; docs/deploy.md lists its arrays."""

  deploy: Path | None = None
  """The controller's deploy file, to be compared with the policy. Default: the one beside
  the policy, if it is there."""

  tolerance: Positive = TOLERANCE
  """Largest difference of an action that counts as none."""

  json: bool = False
  """Print the result as JSON."""


def main() -> None:
  """Run ``check_log POLICY.onnx LOG.npz``; exit code 1 where they part."""
  cfg = parse(CheckLogCfg)
  found = check(cfg)
  print(json.dumps(asdict(found)) if cfg.json else "\n".join(lines(found)))
  if not found.agrees:
    raise SystemExit(1)


def check(cfg: CheckLogCfg) -> Check:
  """Check a log, and the deploy file before it.

  Raises:
    UserError: A file cannot be read, or the policy cannot be checked from a log.
  """
  check_limits(cfg)
  policy = OnnxPolicy(cfg.policy)
  path = cfg.deploy or deploy_path(cfg.policy)
  if cfg.deploy is not None or path.is_file():
    check_against(read_deploy(path), policy.spec, path)
  deploy = describe_deploy(policy.spec, cfg.policy.name)
  refuse_unmeasured(deploy, "check_log")
  return check_log(policy, read_log(cfg.log, deploy), cfg.tolerance)


def lines(found: Check) -> list[str]:
  """Return a result in words."""
  text = [
    f"{found.steps} steps compared, largest difference of an action {found.largest:.2g}"
  ]
  if found.where:
    text.append(f"differs {found.where}")
  for each in found.findings:
    share = f" (explains {1.0 - each.left:.0%})" if each.left else ""
    text.append(f"{each.kind}: {each.text}{share}")
  if found.unexplained:
    text.append("a difference is left that no mistake known to this tool explains")
  text += [f"note: {note}" for note in found.notes]
  if found.agrees:
    text.append("the log is what the policy would have done")
  return text
