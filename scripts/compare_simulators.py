"""Compare a policy in mjlab and in plain MuJoCo. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.compare_simulators import main

  run(main)
