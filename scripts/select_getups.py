"""Cut the get-ups out of LAFAN1 clips. See --help."""

import tyro

from smp.errors import run
from smp.data.select_getups import SelectGetupsCfg, select

if __name__ == "__main__":
  run(lambda: select(tyro.cli(SelectGetupsCfg, description=SelectGetupsCfg.__doc__)))
