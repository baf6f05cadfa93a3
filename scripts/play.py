"""Show a policy. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.play import main

  run(main)
