"""Confidence intervals that contain the true value with 95 % confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, chi2, t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
  """A metric and the interval of its true value."""

  value: float | None
  """None: there was nothing to measure."""
  low: float | None
  high: float | None
  count: int
  """Episodes with a value; of falls per minute the falls, of a jackknife the groups."""
  method: str
  """``wilson``, ``t``, ``poisson`` or ``jackknife``."""


def wilson(successes: int, trials: int) -> Interval:
  """Return a proportion with the score interval of Wilson (1927).

  The interval stays within 0 and 1, and is informative at 0 of n and n of n too.
  """
  if trials == 0:
    return Interval(None, None, None, 0, "wilson")
  interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, "wilson")
  low, high = float(interval.low), float(interval.high)
  # Remove rounding errors at the ends.
  low, high = (0.0 if successes == 0 else low), (1.0 if successes == trials else high)
  return Interval(successes / trials, low, high, trials, "wilson")


def mean(values: np.ndarray, signed: bool = True) -> Interval:
  """Return the mean of the finite ``values`` (N,) with Student's t interval.

  Each value is of one episode; episodes are independent, whatever their seed. A single
  value has no interval. For values that cannot be negative (``signed`` False) the
  interval ends at 0.
  """
  finite = values[np.isfinite(values)].astype(np.float64)
  if not len(finite):
    return Interval(None, None, None, 0, "t")
  center = float(finite.mean())
  if len(finite) == 1:
    return Interval(center, None, None, 1, "t")
  error = float(finite.std(ddof=1)) / math.sqrt(len(finite))
  low, high = _students(center, error, len(finite))
  return Interval(center, low if signed else max(0.0, low), high, len(finite), "t")


def per_minute(events: int, seconds: float) -> Interval:
  """Return events per minute, with the exact Poisson interval of Garwood (1936)."""
  if seconds <= 0.0:
    return Interval(None, None, None, 0, "poisson")
  tail, minutes = (1 - CONFIDENCE) / 2, seconds / 60.0
  low = float(chi2.ppf(tail, 2 * events)) / 2 if events else 0.0
  high = float(chi2.ppf(1 - tail, 2 * events + 2)) / 2
  return Interval(events / minutes, low / minutes, high / minutes, events, "poisson")


def jackknife(
  statistic: Callable[[np.ndarray], float | None], groups: np.ndarray
) -> Interval:
  """Return a distance of all rows with an interval from leaving out one group each.

  For statistics that are no mean and for which copies of rows, as a bootstrap makes
  them, would be wrong (nearest neighbours, covariances). Source: Efron and Stein, "The
  jackknife estimate of variance" (1981).

  Args:
    statistic: Of a boolean choice of rows (N,); None where there are too few.
    groups: (N,) group of each row, such as its environment modulo the number of groups.
  """
  value = statistic(np.ones(len(groups), dtype=bool))
  names = np.unique(groups)
  if value is None or len(names) < 2:
    return Interval(value, None, None, len(names), "jackknife")
  parts = [statistic(groups != name) for name in names]
  known = np.array([part for part in parts if part is not None])
  if len(known) < len(names):
    return Interval(value, None, None, len(names), "jackknife")
  count = len(names)
  error = math.sqrt((count - 1) / count * float(((known - known.mean()) ** 2).sum()))
  low, high = _students(value, error, count)
  return Interval(value, max(0.0, low), high, count, "jackknife")


def _students(center: float, error: float, count: int) -> tuple[float, float]:
  """Return Student's t interval of a mean of ``count``; without spread, the mean."""
  if error == 0.0:
    return center, center
  low, high = t.interval(CONFIDENCE, count - 1, center, error)
  return float(low), float(high)
