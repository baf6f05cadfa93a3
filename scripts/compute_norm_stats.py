"""Compute the ranges that features are normalised by. See --help."""

import tyro

from smp.errors import run
from smp.data.stats import StatsCfg, run_stats

if __name__ == "__main__":
  run(lambda: run_stats(tyro.cli(StatsCfg, description=StatsCfg.__doc__)))
