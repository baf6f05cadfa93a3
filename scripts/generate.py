"""Show what a prior generates. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.generate import main

  run(main)
