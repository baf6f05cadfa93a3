"""Run an exported policy in plain MuJoCo. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.sim2sim import main

  run(main)
