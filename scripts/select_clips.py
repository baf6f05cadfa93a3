"""Choose forward locomotion in LAFAN1 clips. See --help."""

import tyro

from smp.errors import run
from smp.data.select_locomotion import SelectCfg, select

if __name__ == "__main__":
  run(lambda: select(tyro.cli(SelectCfg, description=SelectCfg.__doc__)))
