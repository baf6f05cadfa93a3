"""Make a policy file of a checkpoint. Usage: uv run scripts/ship_policy.py FILE TASK"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.ship_policy import main

  run(main)
