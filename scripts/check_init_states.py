"""Report what physics makes of the initial states of a task. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.check_init_states import main

  run(main)
