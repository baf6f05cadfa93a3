"""Train a policy. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.train import main

  run(main)
