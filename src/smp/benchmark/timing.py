"""Reliable timing: warm-up, synchronisation, medians, quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

LEAST = 5
"""Minimum number of repetitions of a measurement, however long one takes."""
_WARM_UP = 3


@dataclass(frozen=True)
class Spread:
  """Milliseconds per call: median, and lower and upper quartile."""

  median: float
  lower: float
  upper: float
  repetitions: int


def spread(numbers: list[float]) -> Spread:
  """Return the quartiles of at least two numbers."""
  lower, median, upper = statistics.quantiles(numbers, n=4)
  return Spread(median, lower, upper, len(numbers))


def time_call(call: Callable[[], object], seconds: float, device: str) -> Spread:
  """Time single calls for about ``seconds``, each until the device is done."""
  return spread(time_calls([call], seconds, device)[0])


def time_calls(
  calls: Sequence[Callable[[], object]], seconds: float, device: str
) -> list[list[float]]:
  """Return milliseconds of single calls, interleaved so that all meet the same machine.

  Args:
    calls: The functions to compare.
    seconds: Approximate duration for each of them, s.
    device: The device to wait for before and after each call.
  """
  numbers: list[list[float]] = [[] for _ in calls]
  for _ in range(_WARM_UP):
    for call in calls:
      call()
  end = time.perf_counter() + seconds * len(calls)
  while len(numbers[0]) < LEAST or time.perf_counter() < end:
    for call, found in zip(calls, numbers, strict=True):
      synchronize(device)
      start = time.perf_counter()
      call()
      synchronize(device)
      found.append(1e3 * (time.perf_counter() - start))
  return numbers


def ratio(slow: list[float], fast: list[float]) -> Spread:
  """Return how many times faster: quartiles over pairs of successive measurements."""
  return spread([s / f for s, f in zip(slow, fast, strict=True)])


def synchronize(device: str) -> None:
  """Wait until a GPU has finished; on a CPU do nothing."""
  if torch.device(device).type == "cuda":
    torch.cuda.synchronize(device)
