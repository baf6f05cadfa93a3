"""Convert motion clips (CSV) to windows (NPZ). See --help."""

import tyro

from smp.data.convert import ConvertCfg, convert
from smp.errors import run

if __name__ == "__main__":
  run(lambda: convert(tyro.cli(ConvertCfg, description=ConvertCfg.__doc__)))
