"""Time the prior's part of a step beside plain code. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.benchmark import main

  run(main)
