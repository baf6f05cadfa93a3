"""Look at motion files before they become windows. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.inspect_clips import main

  run(main)
