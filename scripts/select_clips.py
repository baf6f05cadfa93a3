"""Choose forward locomotion in LAFAN1 clips. See --help."""

from smp.cli.options import parse
from smp.data.select_locomotion import SelectCfg, select
from smp.errors import run

if __name__ == "__main__":
  run(lambda: select(parse(SelectCfg)))
