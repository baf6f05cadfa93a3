"""Put a prior or a policy on W&B. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.upload import main

  run(main)
