"""Convert a prior of the published G1 reproduction. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.import_prior import main

  run(main)
