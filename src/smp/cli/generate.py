"""Look at what a prior generates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from smp.diffusion.prior import MotionPrior
from smp.motion.features import decode, qpos_of
from smp.paths import resolve_prior
from smp.render import film_strip


@dataclass(frozen=True)
class GenerateCfg:
  """Sample windows from a prior and show poses of them as a film strip, slow to fast."""

  prior: Annotated[str, tyro.conf.Positional]
  """A shipped prior by name, or a file (.safetensors)."""

  output: Path
  """The picture to write (PNG)."""

  samples: int = 128
  """Windows sampled; the pictures are spread evenly over their speeds."""

  pictures: int = 8
  """Pictures in the strip."""

  seed: int = 0


def generate(cfg: GenerateCfg) -> None:
  """Sample, choose, render, write."""
  prior = MotionPrior.load(resolve_prior(cfg.prior))
  state = decode(prior.sample(cfg.samples, torch.Generator().manual_seed(cfg.seed)))
  steps = state.root_pos_w[:, -1, :2] - state.root_pos_w[:, 0, :2]
  speed = steps.norm(dim=-1) * prior.spec.fps / (prior.spec.window - 1)
  order = speed.argsort()
  spread = torch.linspace(0, cfg.samples - 1, cfg.pictures).round().long()
  chosen = order[spread]
  label = f"{speed[chosen[0]]:.1f} to {speed[chosen[-1]]:.1f} m/s"
  film_strip([qpos_of(state)[chosen.numpy(), -1]], cfg.output, [label])
  print(f"{cfg.pictures} of {cfg.samples} windows, {label} -> {cfg.output}")


def main() -> None:
  """``generate PRIOR --output FILE``."""
  generate(tyro.cli(GenerateCfg, description=GenerateCfg.__doc__))
