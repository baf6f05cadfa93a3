"""Evaluate a policy by the fixed protocol of its task. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.evaluate import main

  run(main)
