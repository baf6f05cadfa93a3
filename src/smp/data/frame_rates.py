"""Rows per second: what a text file or a file of arrays says about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smp.data.array_values import key_of, refuse_objects
from smp.data.source import plain
from smp.data.text_tables import Table, counts
from smp.errors import UserError
from smp.utils.limits import RATES

CLOCK_RATES = (2.0, RATES[1])
"""Range of the rows per second that a column of times may mean."""

USUAL_RATES = (24.0, 25.0, 30.0, 50.0, 60.0, 90.0, 100.0, 120.0, 200.0, 240.0, 500.0)
"""Rates that rounded times stand for if they come near."""

_CLOCKS = {"time", "times", "timestamp", "timestamps", "t", "timesec"}
"""Names of the times of frames, as `key_of`."""

_SAID = re.compile(
  r"\b(fps|frame[ _-]?rate|frames[ _-]per[ _-]second|sampl(?:e|ing)[ _-](?:rate|"
  r"frequency)|mocap[ _-]?frame[ _-]?rate|frame[ _-]?time)\b(?: *[\(\[]?(?:hz|s)\b)?[^\w.+-]*(\d+\.?\d*(?:e-?\d+)?)"
  r"|(?<![\w.])(\d+\.?\d*) ?(?:fps\b|frames per second)",
  re.IGNORECASE,
)
"""A rate in a line above the numbers, such as ``# fps: 60`` or ``60 fps``."""


def rate_of_table(path: Path, table: Table) -> float | None:
  """Return the rows per second by columns or remarks; None: there are none.

  Times are in s, ms, microseconds or nanoseconds, whichever gives a rate of `CLOCK_RATES`.

  Raises:
    UserError: Times do not increase, have a gap, or are in none of these units, or two
      rates contradict each other.
  """
  rates: dict[str, float] = {}
  steps: dict[str, float] = {}
  for index, name in enumerate(table.names):
    values, told = table.values[:, index], f"column '{name}'"
    key = key_of(plain(name))
    if key in _CLOCKS and len(values) >= 3:
      if key == "t" and counts(values):
        continue  # Numbers of frames.
      rates[told] = _rate_of(path, told, values, table.lines)
    if key in _FPS or key in _STEP:
      rate = float(np.mean(values[1:] if len(values) > 1 else values))
      if np.ptp(values[1:]) > (0.5 if key in _STEP else 0.05) * abs(rate):
        raise UserError(f"{path}: {told} changes; give the rate (--input-fps, --fps)")
      simulated = key == "dt" and rate <= SIMULATOR_STEP
      (steps if simulated else rates)[told] = _sensible(path, told, rate, key in _STEP)
  for number, line in enumerate(table.above, start=1):
    for match in _SAID.finditer(line):
      word, value, alone = match.groups()
      step = bool(word) and re.sub(r"[ _-]", "", word.lower()) == "frametime"
      told = f"row {number} ('{match.group()[:40]}')"
      rates[told] = _sensible(path, told, float(value or alone), step)
  return _one_rate(path, rates or steps)


def _sensible(path: Path, told: str, value: float, step: bool) -> float:
  """Return the rate that a number means; raise ``UserError`` if it cannot be one.

  Args:
    path: The file.
    told: What gives the number, for messages.
    value: Rows per second, or the time from one to the next, s.
    step: Whether it is the time.
  """
  limits = (1.0 / RATES[1], 1.0 / RATES[0]) if step else RATES
  if not limits[0] <= value <= limits[1]:
    unit = " s" if step else ""
    raise UserError(
      f"{path}: {told} is {value:g}, expected {limits[0]:g} to {limits[1]:g}{unit}; give "
      "the rate (--input-fps, --fps), which leaves it unread"
    )
  return _usual(1.0 / value) if step else value


def _rate_of(path: Path, told: str, times: np.ndarray, lines: np.ndarray) -> float:
  """Return the rows per second by their times (T,), T at least 3.

  Args:
    path: The file.
    told: What the times are called, for messages.
    times: In one of the units that `rate_of_table` names.
    lines: (T,), number of each row in the file.

  Raises:
    UserError: As `rate_of_table`.
  """
  steps = np.diff(times)
  # The mean, as times may be rounded: 0.03, 0.07, 0.1 are 30 rows per second.
  mean = float(steps.mean())
  remedy = "mend it, or give the rate (--input-fps, --fps), which leaves it unread"
  if steps.min() < 0.0 or not mean > 0.0:
    line = lines[int(np.argmin(steps)) + 1]
    raise UserError(f"{path}: row {line}: {told} does not increase; {remedy}")
  usual = max(mean, float(np.median(steps)))
  if steps.max() > 1.6 * usual:
    line = lines[int(np.argmax(steps)) + 1]
    raise UserError(
      f"{path}: row {line}: {told} jumps by {steps.max():.4g}, elsewhere by "
      f"{usual:.4g}: rows are missing; {remedy}"
    )
  rate = _rate_by(mean)
  if rate is None:
    raise UserError(
      f"{path}: {told} grows by {mean:.4g} a row, which is no frame rate in s, ms, "
      f"microseconds or nanoseconds; {remedy}"
    )
  return _usual(rate)


def _usual(rate: float) -> float:
  """Return the usual or whole rate that one of rounded times stands for."""
  near = min(USUAL_RATES, key=lambda each: abs(each - rate))
  if abs(rate - near) < 0.025 * rate:
    return near
  return round(rate) if abs(rate - round(rate)) < 0.02 * rate else rate


_FPS = {
  *("fps", "framerate", "framespersecond", "mocapframerate", "mocapfps", "frequency"),
  *("samplerate", "samplingrate", "hz"),
}

_STEP = {"dt", "frametime", "frameduration", "stepdt"}
"""Names of a frame rate, and of the time from one frame to the next, s, as `key_of`."""


def rate_of_arrays(path: Path, data: Mapping[str, Any], count: int) -> float | None:
  """Return the frames per second that a file of arrays gives; None: it gives none.

  A rate counts before the time between frames, and that before the times of frames:
  these may be rounded, and a clock may have gaps.

  Args:
    path: The file.
    data: Its arrays.
    count: Number of frames.

  Raises:
    UserError: A rate is no number or impossible, two of them contradict each other, or
      times are as `rate_of_table` refuses.
  """
  rates: dict[str, float] = {}
  for names in (_FPS, _STEP):
    for name in data:
      if key_of(name) not in names or data[name] is None or not np.size(data[name]):
        continue
      refuse_objects(path, data, name)
      try:
        values = np.asarray(data[name], float).reshape(-1)
      except (TypeError, ValueError):
        raise UserError(f"{path}: '{name}' is not a number") from None
      # Of each frame one, of which the first may be zero: from no frame before it.
      value = float(np.median(values[1:] if len(values) == count > 1 else values))
      rate = _sensible(path, f"'{name}'", value, names is _STEP)
      if key_of(name) == "dt" and value <= SIMULATOR_STEP and rates:
        continue
      rates[f"'{name}'"] = rate
  for name in data:
    if key_of(name) not in _CLOCKS or data[name] is None:
      continue
    refuse_objects(path, data, name)
    if count < 3 or np.size(data[name]) != count:
      continue
    try:
      times = np.asarray(data[name], float).reshape(-1)
    except (TypeError, ValueError):
      continue
    steps = np.diff(times)
    if (steps == 1.0).all():
      continue  # Numbers of frames.
    if not rates:
      return _rate_of(path, f"'{name}'", times, np.arange(1, count + 1))
    told = [_rate_by(step) for step in (float(np.median(steps)), float(steps.mean()))]
    near = [rate for rate in told if rate is not None]
    first = next(iter(rates.values()))
    if near and not any(_agree(first, rate) for rate in near):
      rates[f"'{name}'"] = near[0]
  return _one_rate(path, rates)


SIMULATOR_STEP = 0.005
"""Longest ``dt`` beside a frame rate that may be a simulator's step, s: it takes several
from one frame to the next."""


def _rate_by(step: float) -> float | None:
  """Return the rows per second of rows a step apart, in any unit; None: no rate."""
  units = (1.0, 1e3, 1e6, 1e9)
  if not step > 0.0:
    return None
  return next(
    (u / step for u in units if CLOCK_RATES[0] <= u / step <= CLOCK_RATES[1]), None
  )


def _agree(first: float, second: float) -> bool:
  """Return whether two rates are the same, if one is rounded, or its time is to ms."""
  off = abs(first - second) / max(first, second)
  return off < 0.035 or (off < 0.15 and abs(1.0 / first - 1.0 / second) < 5.1e-4)


def _one_rate(path: Path, rates: Mapping[str, float]) -> float | None:
  """Return the first of the rates that a file gives; None: it gives none.

  Args:
    path: The file.
    rates: By what gives them.

  Raises:
    UserError: They contradict each other.
  """
  if not rates:
    return None
  (first, rate), *others = rates.items()
  for name, other in others:
    if not _agree(rate, other):
      raise UserError(
        f"{path}: {first} means {rate:.4g} rows per second, {name} {other:.4g}; give the "
        "rate (--input-fps, --fps), or remove the wrong one"
      )
  return rate
