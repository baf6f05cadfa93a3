"""Watch a policy. Usage: uv run scripts/play.py TASK [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.play import main

  run(main)
