"""Compute the ranges that features are normalised by. See --help."""

from smp.cli.options import parse
from smp.data.stats import StatsCfg, run_stats
from smp.errors import run

if __name__ == "__main__":
  run(lambda: run_stats(parse(StatsCfg)))
