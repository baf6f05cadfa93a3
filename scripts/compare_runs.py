"""Compare how fast trainings learned. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.compare_runs import main

  run(main)
