"""Make a policy file of a checkpoint. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.package_policy import main

  run(main)
