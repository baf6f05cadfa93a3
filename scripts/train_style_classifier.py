"""Train a classifier of windows by style. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.train_style_classifier import main

  run(main)
