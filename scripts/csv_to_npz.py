"""Convert motion clips (CSV) to windows (NPZ). See --help."""

from smp.cli.options import parse
from smp.data.convert import ConvertCfg, convert
from smp.errors import run

if __name__ == "__main__":
  run(lambda: convert(parse(ConvertCfg)))
