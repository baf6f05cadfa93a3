"""Train a motion prior. Usage: uv run scripts/pretrain.py --config CONFIG.yaml"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.pretrain import main

  run(main)
