"""Run every command of README and docs/ in a fresh clone, at a small size.

    uv run python -m tests.project.run_commands [WORD ...]

With words, only commands that hold one of them run. A command that opens a viewer counts
as working when it serves its page. What needs something that is not there (clips, a
login, a display, a file of somebody else's) is left out, with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smp.paths import ROOT

PAGES = ("README.md", "docs/*.md", "datasets/README.md")
FIRST = ("README.md", "docs/pipeline.md", "docs/getting-started.md", "docs/deploy.md")
"""Pages in the order in which a person would follow them; then the others."""

SMALL = {
  "train": "--env.scene.num-envs 8 --agent.max-iterations 2 --agent.save-interval 1 "
  "--env.commands.smp.gsi-buffer-size 16",
  "evaluate": "--num-envs 40 --seconds 1",
  "pretrain": "--steps 3 --eval-interval 3 --overwrite",
  "benchmark": "--seconds 0.02 --envs 8 --step-envs 8",
  "benchmark_engine": "--seconds 0.02 --robots 8 --warp-robots 8",
  "check_init_states": "--num-envs 8 --seconds 0.04",
  "measure_checks": "--draws 1",
  "train_style_classifier": "--steps 5",
  "compare_simulators": "--seconds 1 --starts 1",
  "sim2sim": "--seconds 1",
}
"""What makes the commands of a script short. The last of two equal options wins."""

MISSING = (
  (r"wandb|upload\.py", "needs a login at W&B"),
  (r"--viewer native", "needs a display"),
  (r"--keys", "needs a terminal"),
  (
    r"PUBLISHED|published|pretrained_|TWIN",
    "needs a file of the published reproduction",
  ),
  (r"Smp-Backward-G1", "a task that the page has the reader write"),
  (r"mine\.safetensors", "a prior that the page has the reader train"),
  (r"check_log", "needs a policy without base velocity, and its log"),
  (r"^uv run pytest", "the gate runs the tests"),
  (r"measure_checks.*--fit", "rewrites a shipped file"),
)
CLIPS = (
  r"csv_to_npz|select_|compute_norm|pretrain|datasets/npz|measure_checks|"
  r"style_classifier"
)
TRAINED = re.compile(r"logs/rsl_rl/\S*\.(?:pt|onnx)|model_\d+\.pt|\bFILE\b")
SERVES = re.compile(r"https?://\S+:\d+|listening", re.IGNORECASE)
SECONDS = 600.0


def documented(page: Path) -> Iterator[str]:
  """Yield the commands in the code blocks of a page, without their comments."""
  for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.M | re.S):
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
      if line.strip().startswith("uv run "):
        yield re.sub(r"\s+#.*$", "", line.strip())


def all_commands() -> dict[str, str]:
  """Return every documented command once, with the page it stands on first."""
  pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
  rank = {name: i for i, name in enumerate(FIRST)}
  pages.sort(key=lambda page: rank.get(page.relative_to(ROOT).as_posix(), len(rank)))
  found: dict[str, str] = {}
  for page in pages:
    for command in documented(page):
      found.setdefault(command, page.relative_to(ROOT).as_posix())
  return found


def reason_to_skip(command: str) -> str | None:
  """Return why a command cannot run here; None: it can."""
  for pattern, reason in MISSING:
    if re.search(pattern, command):
      return reason
  if re.search(CLIPS, command) and not os.environ.get("SMP_LAFAN_DIR"):
    return "needs the LAFAN1 clips (SMP_LAFAN_DIR)"
  return None


def prepared(command: str, clone: Path) -> str:
  """Return the command at a small size, with a file of this clone for each name."""

  def newest(match: re.Match) -> str:
    suffix = "onnx" if match.group().endswith("onnx") else "pt"
    files = sorted(clone.glob(f"logs/rsl_rl/*/*/*.{suffix}"), key=os.path.getmtime)
    files = [file for file in files if suffix == "onnx" or "model_" in file.name]
    return files[-1].relative_to(clone).as_posix() if files else match.group()

  command = TRAINED.sub(newest, command)
  command = re.sub(r"(?<=\s)policy\.onnx", lambda m: newest(m), command)
  command = re.sub(r"--agent.load-run RUN", "--agent.load-run '*'", command)
  script = re.search(r"scripts/(\w+)\.py", command)
  if script is None or "--viewer" in command:
    return command
  return f"{command} {SMALL.get(script.group(1), '')}".strip()


def run(command: str, clone: Path, log: Path) -> str:
  """Run a command; return "" if it works, else how it ended."""
  environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONUNBUFFERED": "1"}
  environment.pop("VIRTUAL_ENV", None)
  with log.open("w") as output:
    process = subprocess.Popen(
      shlex.split(command),
      cwd=clone,
      env=environment,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    end, serving = time.monotonic() + SECONDS, False
    while process.poll() is None and time.monotonic() < end and not serving:
      time.sleep(0.5)
      serving = SERVES.search(log.read_text(errors="replace")) is not None
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      return "" if serving else f"still running after {SECONDS:.0f} s"
  lines = log.read_text(errors="replace").strip().splitlines()
  return "" if process.returncode == 0 else (lines or ["no output"])[-1][:160]


def main() -> None:
  words, table = sys.argv[1:], Table("page", "command", "result")
  failed = 0
  with tempfile.TemporaryDirectory() as folder:
    clone = Path(folder) / "smp"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for number, (command, page) in enumerate(all_commands().items()):
      if words and not any(word in command for word in words):
        continue
      reason = reason_to_skip(command)
      if reason is None:
        began = time.monotonic()
        wrong = run(prepared(command, clone), clone, Path(folder) / f"{number}.log")
        failed += bool(wrong)
        # A prior of three steps is no prior for the commands that follow.
        for made in clone.glob("my_*.safetensors"):
          shutil.copy(clone / "datasets/priors" / made.name.removeprefix("my_"), made)
        result = wrong or f"works ({time.monotonic() - began:.0f} s)"
      else:
        result = f"left out: {reason}"
      print(f"{page}: {command}\n  {result}", flush=True)
      table.add_row(page, command, result)
  Console(width=200).print(table)
  sys.exit(1 if failed else 0)


if __name__ == "__main__":
  main()
