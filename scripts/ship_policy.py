"""Make a policy file of a checkpoint. Usage: uv run scripts/ship_policy.py CHECKPOINT TASK [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.ship_policy import main

  run(main)
