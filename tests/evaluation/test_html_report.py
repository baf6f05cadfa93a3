"""From recorded episodes to conditions, plots, strips and one page."""

from __future__ import annotations

import copy
import functools
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from smp.cli.evaluate import print_tables
from smp.episodes.protocol import COMMAND, PUSH, EvalBatch, assign, unit
from smp.episodes.trajectory import Trajectory
from smp.evaluation.intervals import wilson
from smp.evaluation.policy.episode_plots import (
  STRIP_FRAMES,
  curve,
  strip_frames,
  typical,
)
from smp.evaluation.policy.html_report import cell, in_words, render_report
from smp.evaluation.policy.motion_similarity import Data, window_rows, windows_of
from smp.evaluation.policy.summary import ALL, metrics_in, metrics_of, summarise
from smp.tasks.registry import protocol_of
from tests.evaluation.test_episode_metrics import TASKS, standing, stats

SECONDS = 2.0


def in_the_world(given: EvalBatch) -> dict[str, torch.Tensor]:
  """What a batch asks for, as it is recorded: Forward's direction too, which is fixed."""
  found = {"direction": np.tile((1.0, 0.0), (len(given.condition), 1)), **given.command}
  for name in {"direction", "facing"} & set(given.command):
    found[name] = unit(np.radians(given.command[name][:, 0]))
  return {name: torch.from_numpy(value).float() for name, value in found.items()}


@functools.cache
def _evaluated(task: str, windows: int) -> tuple[dict[str, Any], Trajectory]:
  protocol = protocol_of(task, SECONDS)
  count = len(protocol.conditions)
  envs = 2 * count
  given = assign(protocol, envs, seed=0)
  ended = torch.zeros(100, envs, 2, dtype=torch.bool)
  ended[49, :count, 1] = True
  motion = standing(
    100,
    envs,
    ended=ended,
    end_names=(
      "self_collision",
      "root_too_low" if protocol.stops else "out_of_distribution",
    ),
    command=in_the_world(given),
    stops=protocol.stops,
  )
  generator = torch.Generator().manual_seed(0)
  motion.qpos[..., 7:] = 0.1 * torch.randn(100, envs, 29, generator=generator)
  step, env = window_rows(motion.valid(), windows)
  data = Data(windows_of(motion, step, env), stats(), "its own <windows>")
  seed = (np.arange(envs) >= count).astype(int)
  rows = summarise(motion, given.condition, seed, protocol, data)
  result = {
    "command": "evaluate.py <TASK>",
    "protocol": {
      "task": task,
      "version": 1,
      "standard": False,
      "notes": list(protocol.notes),
      "seconds": SECONDS,
      "axes": protocol.axes,
      "conditions": [asdict(c) for c in protocol.conditions],
    },
    "method": "none",
    "seeds": [0, 1],
    "num_envs": count,
    "data": data.about(),
    "strips": "none rendered",
    "policies": [
      {
        "name": "a & b",
        "agent": "trained",
        "file": "<x>.pt",
        "sha256": "0" * 64,
        "conditions": rows,
      }
    ],
  }
  return result, motion


def evaluated(task: str, windows: int = 40) -> tuple[dict[str, Any], Trajectory]:
  """What the JSON would hold of robots that shake where they stand, two in each
  condition, one of which falls; and what was recorded of them.

  Args:
    windows: How many of their own windows they are held against.
  """
  return copy.deepcopy(_evaluated(task, windows))


def test_figures_of_conditions_and_of_all():
  result, _ = evaluated("Smp-Forward-G1")
  rows = result["policies"][0]["conditions"]
  assert [row["sweep"] for row in rows] == [COMMAND] * 10 + [PUSH] * 5 + [COMMAND]
  assert rows[-1]["label"] == ALL and rows[-1]["episodes"] == 20
  slow, fast = rows[0]["figures"], rows[9]["figures"]
  # Who stands still misses a commanded speed by just that speed.
  assert slow["velocity_error"]["value"] == pytest.approx(0.5)
  assert fast["velocity_error"]["value"] == pytest.approx(5.0)
  assert slow["speed"]["value"] == pytest.approx(0.0)
  assert rows[-1]["figures"]["velocity_error"]["value"] == pytest.approx(2.75)
  # One of two fell after one of two seconds, in the run with seed 0.
  assert slow["fall_rate"]["value"] == 0.5
  assert slow["fall_rate"]["seeds"] == {"0": 1.0, "1": 0.0}
  assert slow["root_too_low"]["value"] == 0.5 and slow["self_collision"]["value"] == 0.0
  assert slow["falls_per_minute"]["value"] == pytest.approx(1 / (3 / 60))
  assert slow["return"]["value"] == pytest.approx(0.75)
  # A share has the interval of a share, which a mean of so few does not have.
  known, share = wilson(10, 20), rows[-1]["figures"]["fall_rate"]
  assert share["count"] == 20
  assert (share["low"], share["high"]) == pytest.approx((known.low, known.high))
  assert slow["fall_rate"]["low"] == pytest.approx(wilson(1, 2).low)


def test_motion_held_against_some_of_itself():
  result, motion = evaluated("Smp-Getup-G1", windows=950)
  metrics = result["policies"][0]["conditions"][-1]["figures"]
  assert metrics["nearest"]["value"] < result["data"]["halves_nearest"]
  assert metrics["frechet"]["value"] < result["data"]["halves_frechet"]
  assert metrics["amplitude"]["value"] == pytest.approx(1.0, abs=0.05)
  assert metrics["diversity"]["value"] == pytest.approx(1.0, abs=0.05)
  few, _ = evaluated("Smp-Getup-G1")
  assert few["data"]["halves_frechet"] is None


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_figures_as_plain_json(task: str):
  result, _ = evaluated(task)
  text = json.dumps(result, allow_nan=False)
  keys = {figure.key for figure in metrics_of(task)}
  assert all(
    set(row["figures"]) == keys for row in json.loads(text)["policies"][0]["conditions"]
  )


def test_getup_counts_who_stands_whatever_failed():
  result, motion = evaluated("Smp-Getup-G1")
  assert motion.valid().all()
  metrics = result["policies"][0]["conditions"][0]["figures"]
  assert metrics["stood_strictly"]["value"] == 1.0
  assert metrics["standing_at_end"]["value"] == 1.0
  assert metrics["stood_up"]["value"] == 0.0  # Takes 2.5 s.


def test_no_column_is_cut_in_a_file(capsys):
  result, _ = evaluated("Smp-Forward-G1")
  result["style_judge"] = {"asked": {"upper": "guarded", "lower": "run"}}
  figures = {metric.key: metric for metric in metrics_in(result)}
  one = {"value": -1234.5, "low": -2345.6, "high": 1234.5}
  for row in result["policies"][0]["conditions"]:
    row["figures"] = dict.fromkeys(figures, one)
  print_tables(result)
  out = capsys.readouterr().out
  assert "…" not in out
  for metric in figures.values():
    if metric.short:
      cell = " ".join(in_words(metric, one))
      assert f" {metric.short} " in out and f" {cell} " in out
  rows = [line for line in out.splitlines() if line.startswith("│")]
  assert len(rows) == 2 * len(result["policies"][0]["conditions"])


class _Page(HTMLParser):
  """What a page asks for, and whether its tags are closed."""

  def __init__(self) -> None:
    super().__init__()
    self.open: list[str] = []
    self.asked: list[str] = []
    self.pictures = 0

  def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)
    self.pictures += tag in ("img", "svg")
    for name, value in attrs:
      if name in ("src", "href", "xlink:href") and value:
        self.asked.append(value)

  def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
    self.handle_starttag(tag, attrs)
    self.handle_endtag(tag)

  def handle_endtag(self, tag: str) -> None:
    if tag not in ("meta", "img", "br"):
      assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing():
  result, _ = evaluated("Smp-Steering-G1")
  second = {**result["policies"][0], "name": "zero", "agent": "zero"}
  second |= {"file": None, "sha256": None}  # A policy that is no file.
  result["policies"].append(second)
  labels = [c["label"] for c in result["protocol"]["conditions"]]
  strips = {(i, label): b"jpeg" for i in (0, 1) for label in labels}
  text = render_report(result, strips)
  page = _Page()
  page.feed(text)
  assert page.open == []
  assert all(asked.startswith(("data:", "#")) for asked in page.asked)
  assert "<script" not in text and "@import" not in text
  assert re.search(r"url\((?!#)", text) is None
  assert text.count("data:image/jpeg") == len(strips)
  assert "a &amp; b" in text and "&lt;x&gt;.pt" in text and "<TASK>" not in text
  assert "Not the standard protocol: episodes of 2 s instead of 20 s" in text
  assert "prefers-color-scheme: dark" in text and "#010203" not in text


def test_the_page_says_why_there_are_no_frames():
  result, _ = evaluated("Smp-Location-G1")
  text = render_report(result, {})
  assert "none rendered" in text and "data:image" not in text


def test_a_drawing_has_every_condition():
  result, _ = evaluated("Smp-Forward-G1")
  figure = next(f for f in metrics_of("Smp-Forward-G1") if f.key == "velocity_error")
  svg = curve(figure, result["policies"], COMMAND, "speed")
  assert svg.startswith("<svg") and "currentColor" in svg


def test_numbers_in_words():
  rate = next(f for f in metrics_of("Smp-Forward-G1") if f.kind == "rate")
  one = {"value": 0.5, "low": 0.25, "high": 0.75}
  assert in_words(rate, one) == ("50.0", "[25.0, 75.0]")
  assert in_words(rate, {"value": None, "low": None, "high": None}) == ("–", "")
  assert cell(rate, {rate.key: {**one, "low": None}}) == "50.0"


def test_strips_show_what_counts():
  protocol = protocol_of("Smp-Forward-G1", 10.0)
  motion = standing(500, 2)
  motion.qpos[:, :, 0] = torch.arange(500).unsqueeze(-1)  # Numbers the steps.
  motion.ended[39, 1, 0] = True
  plain, pushed = protocol.conditions[0], protocol.conditions[-1]
  frames = strip_frames(motion, 0, plain, protocol)
  assert frames.shape == (STRIP_FRAMES, 36)
  assert (frames[0, 0], frames[-1, 0]) == (100, 180)
  assert strip_frames(motion, 0, pushed, protocol)[0, 0] == 190
  # Of one that falls, the end.
  fallen = strip_frames(motion, 1, plain, protocol)
  assert (fallen[0, 0], fallen[-1, 0]) == (0, 39)


def test_the_typical_episode_is_in_the_middle():
  returns = np.array([0.9, 0.1, 0.5, 0.3, 0.0])
  assert typical(returns, np.array([True, True, True, False, False])) == 2
