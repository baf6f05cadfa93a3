"""Evaluate a policy. Usage: uv run scripts/evaluate.py TASK --checkpoint-file FILE"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.evaluate import main

  run(main)
