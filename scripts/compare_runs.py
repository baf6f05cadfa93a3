"""Compare how fast trainings learned. Usage: uv run scripts/compare_runs.py RUN ..."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.compare_runs import main

  run(main)
