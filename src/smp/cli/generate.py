"""Display of a prior's samples: in the browser, as a film strip, as a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from smp.cli.options import parse
from smp.diffusion.inpainting import OVERLAP, RESAMPLE, check_overlap, generate_motion
from smp.diffusion.prior import MotionPrior
from smp.diffusion.styles import StyleCfg, parse_style, split_names
from smp.errors import UserError
from smp.motion.features import FeatureSpec, MotionState, decode, g1_spec, qpos_of
from smp.motion.head import Head
from smp.paths import resolve_prior
from smp.robots import g1
from smp.utils.limits import Count, NotNegative, Port, Seed, check_limits
from smp.utils.rows import evenly_spaced
from smp.viz.offscreen import MotionBatch, direction, film_strip, video

STRIP, VIDEOS = ".png", (".mp4", ".gif")
WINDOWS, MOTIONS = 128, 4
"""Default numbers of samples."""
SECONDS = 4.0
"""Default length of long motions, s."""
UPRIGHT_SPREAD = 0.3
"""Spread of head heights, m, that standing, walking and running stay within, but
getting up exceeds."""


@dataclass(frozen=True)
class GenerateCfg:
  """Show what a prior generates: in the browser, or as a picture or video.

  Example: uv run scripts/generate.py loco --seconds 4 --output loco.gif

  Of a prior with styles: uv run scripts/generate.py styles --style run --style-upper
  guarded --output guarded_run.png; side by side: --styles walk,run,guarded/run

  Samples windows or long motions. A .png is a film strip, .mp4 and .gif are videos.
  """

  prior: Annotated[str, tyro.conf.Positional] = "loco"
  """A shipped prior by name, or a file (.safetensors)."""

  output: Path | None = None
  """The file to write: .png, .mp4 or .gif. Without it a page opens for the browser."""

  seconds: NotNegative | None = None
  """Length of long motions, s, each window continuing the one before; 0: windows as
  they are. Default: 0 for a film strip, else 4."""

  samples: Count | None = None
  """Number of samples. Default: 128 windows, of which `pictures` are shown, or 4 long
  motions, all of which are shown."""

  pictures: Count = 8
  """Windows shown, spread evenly in the order of `sort`; with long motions the pictures
  in a row of the film strip, spread evenly over time."""

  sort: Literal["auto", "speed", "height"] = "auto"
  """Order: slow to fast, or by the height of the head, low to high. ``auto`` takes the
  height where heads differ by more than they do upright."""

  overlap: int = OVERLAP
  """Frames that a window of a long motion shares with the motion before it."""

  resample: Count = RESAMPLE
  """Repetitions of each denoising step of a long motion, for seams that fit."""

  styles: str | None = None
  """Styles to show side by side, such as walk,run,guarded/run: UPPER/LOWER composes two
  by body part. Of each there is one long motion, or `samples`."""

  style: str | None = None
  """Style of a prior that has several; default: all of them, without a label."""

  style_upper: str | None = None
  """Style of the upper body (waist, arms, torso), if another than ``style``."""

  style_lower: str | None = None
  """Style of the lower body (legs, root), if another than ``style``."""

  style_weight: float = 1.0
  """w of classifier-free guidance: 0 ignores the style, above 1 exaggerates it."""

  seed: Seed = 0

  host: str = "localhost"
  """Address of the page; 0.0.0.0 lets other machines see it."""

  port: Port = 8080
  """Port of the page, or the next free one if it is taken."""

  def check(self) -> None:
    """Raise an error for an impossible option.

    Raises:
      UserError: The message names the option.
    """
    check_limits(self)
    if self.styles is not None and self.choice.named():
      raise UserError(
        f"--styles {self.styles} and style '{self.choice.title()}': give one of them"
      )
    if self.output is not None and self.suffix not in (STRIP, *VIDEOS):
      raise UserError(
        f"{self.output}: cannot write '{self.suffix}' files; give a name that ends in "
        f"{STRIP} (film strip), {' or '.join(VIDEOS)} (video)"
      )

  @property
  def choice(self) -> StyleCfg:
    """Return the choice of a style for all motions."""
    return StyleCfg(self.style, self.style_upper, self.style_lower, self.style_weight)

  def choices(self) -> dict[str, StyleCfg]:
    """Return the choices of styles to show side by side, by their titles.

    Raises:
      UserError: The list is malformed.
    """
    if self.styles is None:
      return {self.choice.title() if self.choice.named() else "": self.choice}
    names = split_names(self.styles)
    choices = [replace(parse_style(n), weight=self.style_weight) for n in names]
    return {choice.title(): choice for choice in choices}

  @property
  def suffix(self) -> str:
    """Return the suffix of the file to write, in lower case."""
    return "" if self.output is None else self.output.suffix.lower()

  @property
  def length(self) -> float:
    """Return the seconds of the motions; 0: windows."""
    if self.seconds is not None:
      return self.seconds
    return 0.0 if self.suffix == STRIP and self.styles is None else SECONDS


def generate(cfg: GenerateCfg) -> None:
  """Sample, choose and show motions.

  Raises:
    UserError: The options or the prior are invalid, or nothing can be rendered.
  """
  cfg.check()
  file = resolve_prior(cfg.prior)
  plain = MotionPrior.load(file)
  _check_robot(file, plain.spec)
  priors = {name: plain.with_style(each) for name, each in cfg.choices().items()}
  check_overlap(plain, cfg.overlap)
  shortest = plain.spec.window / plain.spec.fps
  if 0.0 < cfg.length < shortest:
    raise UserError(
      f"--seconds is {cfg.length:g}, expected 0 (windows as they are) or at least "
      f"{shortest:g}, the length of one"
    )
  if cfg.output is None:
    _browse(cfg, priors)
    return
  galleries = sample_each(cfg, priors, cfg.seed)
  if cfg.suffix == STRIP:
    _write_strip(cfg, galleries)
  else:
    video(join(galleries).qpos, cfg.output, plain.spec.fps)
  for name, gallery in galleries.items():
    print(f"{name}: {gallery.title}" if name else gallery.title)
  print(f"-> {cfg.output}")


def _check_robot(file: Path, spec: FeatureSpec) -> None:
  """Raise an error for a prior of other joints or features than can be shown.

  Raises:
    UserError: The message names the file and what differs.
  """
  expected = g1_spec(
    window=spec.window, fps=spec.fps, heading=spec.heading, velocity=spec.velocity
  )
  try:
    spec.check(expected)
  except UserError as error:
    raise UserError(f"{file} is not of the G1 as it is drawn here: {error}") from None


def sample_each(
  cfg: GenerateCfg, priors: dict[str, MotionPrior], seed: int
) -> dict[str, MotionBatch]:
  """Sample each of several priors as `sample` does; one long motion, if more than one."""
  if len(priors) > 1 and cfg.length > 0:
    cfg = replace(cfg, samples=cfg.samples or 1)
  return {name: sample(cfg, prior, seed) for name, prior in priors.items()}


def join(galleries: dict[str, MotionBatch]) -> MotionBatch:
  """Return the motions of several galleries, one after the other."""
  labels = [
    f"{name}, {label}" if name else label
    for name, gallery in galleries.items()
    for label in gallery.labels
  ]
  first = next(iter(galleries.values()))
  title = first.title if len(galleries) == 1 else f"{len(labels)} motions by style"
  qpos = np.concatenate([gallery.qpos for gallery in galleries.values()])
  return MotionBatch(qpos, labels, title)


def sample(cfg: GenerateCfg, prior: MotionPrior, seed: int) -> MotionBatch:
  """Sample windows or long motions and sort them; of windows, select some."""
  generator = torch.Generator().manual_seed(seed)
  if cfg.length > 0:
    frames, count = round(cfg.length * prior.spec.fps), cfg.samples or MOTIONS
    state = generate_motion(prior, count, frames, cfg.overlap, cfg.resample, generator)
    shown, kind = count, f"motions of {frames / prior.spec.fps:g} s"
  else:
    count = cfg.samples or WINDOWS
    state = decode(prior.sample(count, generator))
    shown, kind = min(cfg.pictures, count), "windows"
  speed, height = mean_speed(state, prior), head_height(state)
  key, unit = sort_key(cfg.sort, speed, height)
  chosen = key.argsort()[evenly_spaced(count, shown)]
  ends = f"{key[chosen[0]]:.1f} to {key[chosen[-1]]:.1f} {unit}"
  return MotionBatch(
    qpos_of(state)[chosen.numpy()],
    [f"{speed[i]:.1f} m/s, head at {height[i]:.1f} m" for i in chosen],
    f"{shown} of {count} {kind}, {ends}",
  )


def mean_speed(state: MotionState, prior: MotionPrior) -> torch.Tensor:
  """Return the mean horizontal speeds (n,), m/s.

  They are means of straight-line speeds over the length of a window, so that jitter
  does not count.
  """
  xy = state.root_pos_w[..., :2]
  span = min(prior.spec.window, xy.shape[1]) - 1
  if span == 0:
    return torch.zeros(len(xy))
  steps = (xy[:, span:] - xy[:, :-span]).norm(dim=-1)
  return steps.mean(dim=1) * prior.spec.fps / span


def head_height(state: MotionState) -> torch.Tensor:
  """Return the mean heights of the head (n,) above the floor, m."""
  head, _ = Head(g1.load_model())(state.root_pos_w, state.root_quat_w, state.joint_pos)
  return head[..., 2].mean(dim=1)


def sort_key(
  sort: str, speed: torch.Tensor, height: torch.Tensor
) -> tuple[torch.Tensor, str]:
  """Return the quantity to sort by (n,), and its unit."""
  if sort == "auto":
    tenths = torch.quantile(height, torch.tensor((0.1, 0.9)))
    sort = "height" if float(tenths[1] - tenths[0]) > UPRIGHT_SPREAD else "speed"
  return (height, "m") if sort == "height" else (speed, "m/s")


def _write_strip(cfg: GenerateCfg, galleries: dict[str, MotionBatch]) -> None:
  """Write the last poses of windows in a row, or long motions as a row each over time."""
  assert cfg.output is not None
  if cfg.length == 0:
    titles = [
      ": ".join(filter(None, (name, gallery.title.split(", ")[1])))
      for name, gallery in galleries.items()
    ]
    rows = [gallery.qpos[:, -1] for gallery in galleries.values()]
    film_strip(rows, cfg.output, titles)
    return
  gallery = join(galleries)
  times = np.linspace(0, gallery.qpos.shape[1] - 1, cfg.pictures).round().astype(int)
  directions = [direction(motion) for motion in gallery.qpos]
  film_strip(list(gallery.qpos[:, times]), cfg.output, gallery.labels, directions)


def _browse(cfg: GenerateCfg, priors: dict[str, MotionPrior]) -> None:
  from smp.viz.motion_viewer import serve

  def galleries() -> Iterator[MotionBatch]:
    seed = cfg.seed
    while True:
      yield join(sample_each(cfg, priors, seed))
      seed += 1

  fps = next(iter(priors.values())).spec.fps
  serve(galleries(), fps, f"prior {cfg.prior}", cfg.host, cfg.port)


def main() -> None:
  """Run ``generate PRIOR [OPTIONS]``."""
  generate(parse(GenerateCfg))
