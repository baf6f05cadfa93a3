"""Write the policy of a checkpoint as ONNX. Usage: uv run scripts/export.py TASK [OPTIONS]"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.export import main

  run(main)
