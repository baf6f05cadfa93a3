"""Judge priors. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.evaluate_prior import main

  run(main)
