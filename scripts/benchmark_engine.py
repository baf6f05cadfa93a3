"""Compare the engines. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.benchmark_engine import main

  run(main)
