"""Write the policy of a checkpoint as ONNX. See --help."""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.export import main

  run(main)
