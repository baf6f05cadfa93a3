"""Limits of options: which values pass, and what the others are told."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import tyro

from smp.cli.benchmark import Options as BenchmarkOptions
from smp.cli.check_init_states import CheckInitStatesCfg
from smp.cli.compare_runs import CompareRunsCfg
from smp.cli.evaluate import EvaluateArgs
from smp.cli.generate import GenerateCfg
from smp.cli.inspect_clips import InspectCfg
from smp.cli.measure_checks import MeasureCfg
from smp.cli.options import parse
from smp.cli.play import PlayArgs
from smp.cli.train_style_classifier import Options as ClassifierOptions
from smp.data.convert import ConvertCfg
from smp.data.select_getups import SelectGetupsCfg
from smp.data.select_locomotion import SelectCfg
from smp.diffusion.trainer import PretrainCfg
from smp.errors import UserError
from smp.paths import ROOT
from smp.utils.limits import (
  Count,
  PictureFile,
  Positive,
  Seed,
  VideoFile,
  check_changes,
  check_limits,
  check_rate,
)


@dataclass(frozen=True)
class Inner:
  share: float = 0.5
  times: Count = 1


@dataclass(frozen=True)
class Other:
  turns: Count = 1


@dataclass(frozen=True)
class Options:
  counts: tuple[Count, ...] = (1, 2)
  top: float = math.inf
  seconds: Positive | None = None
  seed: Seed = 0
  plot: PictureFile | None = None
  film: VideoFile | None = None
  folder: Path = Path(".")
  files: tuple[Path, ...] = ()
  inner: Inner = field(default_factory=Inner)
  flat: tyro.conf.OmitArgPrefixes[Inner] = field(default_factory=Inner)
  named: Annotated[Other, tyro.conf.arg(name="")] = field(default_factory=Other)


def test_all_that_is_within_its_limits_passes() -> None:
  check_limits(Options())
  check_limits(
    Options((1,), 3.0, 0.1, 2**32 - 1, Path("a.PNG"), Path("b.gif"), inner=Inner(-2.0))
  )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (Options(counts=(1, 0)), "--counts 0: must be at least 1"),
    (Options(top=-math.inf), "--top -inf: must be a finite number"),
    (Options(top=math.nan), "--top nan: must be a finite number"),
    (Options(seconds=0.0), "--seconds 0.0: must be above 0"),
    (Options(seconds=math.inf), "--seconds inf: must be a finite number"),
    (Options(seed=2**32), "--seed 4294967296: must be below 4294967296"),
    (Options(seed=-1), "--seed -1: must be at least 0"),
    (Options(plot=Path("a.gif")), "--plot a.gif: give a name that ends in .png"),
    (Options(film=Path("a")), "--film a: give a name that ends in .mp4 or .gif"),
    (Options(inner=Inner(math.nan)), "--inner.share nan: must be a finite number"),
    (Options(flat=Inner(times=0)), "--times 0: must be at least 1"),
    (Options(named=Other(-3)), "--turns -3: must be at least 1"),
  ],
)
def test_the_message_names_option_value_and_limit(
  options: Options, message: str
) -> None:
  with pytest.raises(UserError) as error:
    check_limits(options)
  assert str(error.value).startswith(message)


@pytest.mark.parametrize("rate", [1e-300, 0.0333, 1001.0, math.nan, math.inf, -5.0])
def test_rates_are_rows_per_second(rate: float) -> None:
  with pytest.raises(
    UserError, match="^--fps .*: must be 1 to 1000: give rows per second, not seconds"
  ):
    check_rate(rate, "--fps")
  for fine in (None, 1.0, 30.0, 1000.0):
    check_rate(fine, "--fps")


HUGE = str(2**70)


@pytest.mark.parametrize(
  ("kind", "words"),
  [
    (BenchmarkOptions, ["--seconds", "nan"]),
    (BenchmarkOptions, ["--envs", "0"]),
    (CheckInitStatesCfg, ["Smp-Forward-G1", "--num-envs", "0"]),
    (CheckInitStatesCfg, ["Smp-Forward-G1", "--seconds", "-1"]),
    (ClassifierOptions, ["a.safetensors", "--windows", "w", "--seed", HUGE]),
    (CompareRunsCfg, ["run", "--minutes", "nan"]),
    (ConvertCfg, ["--output-dir", "a", "--output-fps", "nan"]),
    (ConvertCfg, ["--output-dir", "a", "--output-fps", "1e6"]),
    (ConvertCfg, ["--output-dir", "a", "--input-fps", "0.0333"]),
    (EvaluateArgs, ["--seconds", "inf"]),
    (EvaluateArgs, ["--seeds", "0", HUGE]),
    (GenerateCfg, ["loco", "--seed", HUGE]),
    (GenerateCfg, ["loco", "--seconds", "inf"]),
    (GenerateCfg, ["loco", "--style-weight", "nan"]),
    (InspectCfg, ["clips", "--every", "0"]),
    (InspectCfg, ["clips", "--port", "70000"]),
    (MeasureCfg, ["--rows", "0"]),
    (MeasureCfg, ["--seed", HUGE]),
    (PlayArgs, ["--num-envs", "0"]),
    (PlayArgs, ["--video-length", "0"]),
    (PlayArgs, ["--video-file", "play.avi"]),
    (PretrainCfg, ["--seed", HUGE]),
    (PretrainCfg, ["--learning-rate", "inf"]),
    (SelectCfg, ["--output", "a.yaml", "--chunk-s", "0"]),
    (SelectCfg, ["--output", "a.yaml", "--chunk-s", "1e-9"]),
    (SelectCfg, ["--output", "a.yaml", "--bin-width", "1e-9"]),
    (SelectCfg, ["--output", "a.yaml", "--max-repeats", "1000000000"]),
    (SelectCfg, ["--output", "a.csv"]),
    (SelectCfg, ["--output", "a.yaml", "--seed", HUGE]),
    (SelectGetupsCfg, ["--output", "a.yaml", "--before-s", "nan"]),
    (SelectGetupsCfg, ["--output", "a.yaml", "--plot", "heights.txt"]),
    (SelectGetupsCfg, ["--output", "a.yaml", "--poses", "poses.txt"]),
  ],
)
def test_scripts_refuse_impossible_values_before_they_begin(
  kind: type, words: list[str]
) -> None:
  option, value = words[-2:]
  if not option.startswith("--"):
    option = next(word for word in reversed(words) if word.startswith("--"))
  with pytest.raises(UserError, match=f"^{option} "):
    parse(kind, words)


@pytest.mark.parametrize("name", ["lafan_run", "walk_run"])
def test_maxima_may_be_infinite_as_in_the_commands_of_priors(name: str) -> None:
  text = (ROOT / "configs" / "priors" / f"{name}.yaml").read_text()
  comments = text.replace("\\\n#", "").splitlines()
  command = next(line for line in comments if "scripts/select_clips.py" in line)
  options = parse(SelectCfg, shlex.split(command)[4:])
  assert options.max_turn == options.max_quiet == math.inf
  with pytest.raises(UserError, match="--min-height inf: must be a finite number"):
    parse(SelectCfg, [*shlex.split(command)[4:], "--min-height", "inf"])


def test_home_folders_are_expanded_where_no_shell_did(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setenv("HOME", "/home/somebody")
  options = parse(Options, ["--folder", "~/clips", "--files", "~/a", "b"])
  assert options.folder == Path("/home/somebody/clips")
  assert options.files == (Path("/home/somebody/a"), Path("b"))
  assert parse(Options, ["--folder", "~nobody9"]).folder == Path("~nobody9")


@dataclass
class Term:
  """A term of an environment, as another project writes it."""

  weight: float = 1.0
  params: dict[str, object] = field(default_factory=dict)
  interval_range_s: tuple[float, float] | None = None


def terms(weight: float = 1.0, **params: object) -> dict[str, Term]:
  usual = {"scale": 0.5, "x": (2.0, 1.0), "force_threshold": 10.0, "on": True}
  usual["ranges"] = {"vx": (0.0, 3.0)}
  return {"push": Term(weight, {**usual, **params})}


def test_changes_to_configurations_of_others_are_checked() -> None:
  def refused(changed: dict[str, Any], usual: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as error:
      check_changes(changed, usual or terms(), "env.")
    return str(error.value)

  nan, inf = math.nan, math.inf
  assert refused(terms(nan)) == "--env.push.weight nan: must be a finite number"
  assert "--env.push.params.scale inf" in refused(terms(scale=inf))
  assert "--env.push.params.force-threshold -inf" in refused(
    terms(force_threshold=-inf)
  )
  assert "--env.push.params.ranges.vx nan" in refused(terms(ranges={"vx": (nan, 1.0)}))
  found = refused(terms(ranges={"vx": (3.0, 0.0)}))
  assert found == "--env.push.params.ranges.vx (3.0,0.0): give the lower end first"
  timed = {"push": replace(terms()["push"], interval_range_s=(4.0, 2.0))}
  assert "--env.push.interval-range-s (4.0,2.0)" in refused(timed)

  named = refused(terms(joint_pos={".*_knee_joint": nan}))
  assert named.startswith("--env.push.params.joint-pos..*_knee_joint nan")
  inside = {"a": (Term(), Term(nan))}
  assert refused(inside, {"a": (Term(), Term())}) == (
    "--env.a.1.weight nan: must be a finite number"
  )
  assert "--env.push.params.clip" in refused(terms(clip=(inf, 1.0)))

  # Infinity is "no limit" where there may be one; a huge whole number is a number.
  check_changes(terms(10**400), terms(), "env.")
  cases: list[dict[str, Any]] = [
    {"maximum_speed": inf},
    {"limit_angle": inf},
    {"freeze_after_samples": inf},
    {"minimum_height": -inf},
    {"clip": (-1.0, inf)},
    {"clip": {".*": (-inf, 1.0)}},
    {"kind": Term},
  ]
  for free in cases:
    check_changes(terms(1.0, **free), terms(), "env.")

  # What a task comes with is its own affair, and so are pairs that are no range.
  check_changes(terms(nan), terms(nan), "env.")
  check_changes(
    terms(ranges={"vx": (3.0, 0.0)}), terms(ranges={"vx": (3.0, 0.0)}), "e."
  )
  check_changes(terms(x=(3.0, 1.0), force_threshold=inf, on=False), terms(), "env.")
  check_changes({**terms(), "more": Term(2.0)}, terms(), "env.")
