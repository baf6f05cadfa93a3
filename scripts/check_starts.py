"""What physics makes of a task's start states. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.check_starts import main

  run(main)
