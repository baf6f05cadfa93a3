"""Give a prior its reference errors. Usage: uv run scripts/measure_reference.py PRIOR --windows NPZ..."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.measure_reference import main

  run(main)
