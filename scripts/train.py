"""Train a policy. Usage: uv run scripts/train.py TASK [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.train import main

  run(main)
