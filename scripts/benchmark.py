"""Time ours against plain. Usage: uv run scripts/benchmark.py [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.benchmark import main

  run(main)
