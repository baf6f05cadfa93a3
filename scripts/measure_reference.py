"""Measure the reference errors of a prior and store them. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.measure_reference import main

  run(main)
