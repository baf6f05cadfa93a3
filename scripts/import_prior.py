"""Convert a published prior. Usage: import_prior.py IN.pt OUT.safetensors"""

from smp.errors import run

if __name__ == "__main__":
  from smp.cli.import_prior import main

  run(main)
