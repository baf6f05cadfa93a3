"""Convert motion clips (CSV) to windows (NPZ). See --help."""

import tyro

from smp.errors import run
from smp.data.convert import ConvertCfg, convert

if __name__ == "__main__":
  run(lambda: convert(tyro.cli(ConvertCfg, description=ConvertCfg.__doc__)))
