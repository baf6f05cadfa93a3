"""How much random damage of clips the checks notice; fit their ranges. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.measure_checks import main

  run(main)
