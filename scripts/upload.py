"""Put a prior or a policy on W&B. Usage: uv run scripts/upload.py FILE [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.upload import main

  run(main)
