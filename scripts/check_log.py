"""Find out why a controller's log is not what its policy would have done. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.check_log import main

  run(main)
