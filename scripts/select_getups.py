"""Cut the get-ups out of LAFAN1 clips. See --help."""

from smp.cli.options import parse
from smp.data.select_getups import SelectGetupsCfg, select
from smp.errors import run

if __name__ == "__main__":
  run(lambda: select(parse(SelectGetupsCfg)))
