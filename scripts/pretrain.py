"""Train a motion prior. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.pretrain import main

  run(main)
