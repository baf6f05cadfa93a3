"""Classifier of motion windows by style, trained on labelled clips alone.

It judges samples and policies from outside: it never sees either in training, nor a
prior. One small network sees the whole body, one its upper part and one its lower part,
with the features that composition gives to each (`smp.diffusion.styles.body_masks`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from smp.diffusion.prior import check_tensors
from smp.diffusion.styles import body_masks
from smp.errors import UserError
from smp.evaluation import intervals
from smp.motion.dataset import NormStats, WindowSet
from smp.motion.features import FeatureSpec, g1_spec, mirror_features
from smp.utils.files import atomic_path
from smp.utils.limits import BelowOne, Count, Seed, check_limits
from smp.utils.schema import Size, read_as

WHOLE, UPPER, LOWER = PARTS = ("whole", "upper", "lower")
"""Parts of the body that a network sees."""
FORMAT_VERSION = 1
METADATA_KEY = "smp_style_classifier"
MADE_BY = "scripts/train_style_classifier.py"
MIN_WINDOWS = 10
"""Minimum number of windows of a style to train on; they share no frames."""


@dataclass(frozen=True)
class ClassifierCfg:
  """Settings of the training."""

  steps: Count = 500
  batch_size: Count = 256
  """Windows per step, of which each style has the same share, and of a style each
  clip. Half of them are mirrored."""

  hidden: Count = 128
  """Width of the two hidden layers."""

  learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-3
  weight_decay: BelowOne = 1e-3
  dropout: BelowOne = 0.2
  noise: Annotated[float, Field(ge=0.0, lt=10.0)] = 0.3
  """Standard deviation of the noise on normalised features, of which the range of
  LAFAN1 is 2."""

  label_smoothing: BelowOne = 0.05
  seed: Seed = 0

  def check(self) -> None:
    """Raise a `UserError` for a setting out of its range."""
    check_limits(self)


@dataclass(frozen=True)
class StyleAccuracy:
  """How a classifier labels windows of one style."""

  style: str
  part: str
  windows: int
  given: dict[str, float]
  """Share of the windows that it gives each label: a row of the confusion matrix."""
  low: float | None
  high: float | None
  """95 % interval of the share of its own label; it takes windows without common
  frames as independent, which those of one person are not."""

  @property
  def accuracy(self) -> float:
    """Return the share of windows that it gives their own label."""
    return self.given[self.style]


class StyleClassifier(nn.Module):
  """Networks that name the style of a window, by what they see of the body.

  Attributes:
    styles: Names of the styles, in the order of the outputs.
    spec: Layout of the windows.
    held_out: Accuracy on clips held out of the training, for styles that have any.
    info: Provenance in plain JSON types.
  """

  gain: Tensor
  offset: Tensor

  def __init__(
    self,
    styles: Sequence[str],
    spec: FeatureSpec,
    stats: NormStats | None = None,
    hidden: int = ClassifierCfg.hidden,
    dropout: float = 0.0,
  ):
    super().__init__()
    self.styles, self.spec, self.hidden = tuple(styles), spec, hidden
    self.held_out: list[StyleAccuracy] = []
    self.info: dict[str, Any] = {}
    size = sum(spec.feature_dims)
    gain, offset = torch.ones(size), torch.zeros(size)
    if stats is not None:
      low, high = torch.from_numpy(stats.q_low), torch.from_numpy(stats.q_high)
      gain = 2.0 / (high - low)
      offset = -1.0 - low * gain
    self.register_buffer("gain", gain)
    self.register_buffer("offset", offset)
    upper, lower = body_masks(spec)
    masks = {WHOLE: torch.ones(size), UPPER: upper, LOWER: lower}
    self._columns = {part: mask.nonzero().squeeze(1) for part, mask in masks.items()}
    self.networks = nn.ModuleDict(
      {
        part: _network(len(columns) * spec.window, hidden, len(self.styles), dropout)
        for part, columns in self._columns.items()
      }
    )

  def forward(self, features: Tensor, part: str = WHOLE, noise: float = 0.0) -> Tensor:
    """Return the logits (N, S) of windows (N, W, F), in raw units.

    Args:
      features: Windows of `spec`.
      part: What it sees of the body, one of `PARTS`.
      noise: Standard deviation of noise on the normalised features.
    """
    seen = (features * self.gain + self.offset)[..., self._columns[part]]
    if noise:
      seen = seen + noise * torch.randn_like(seen)
    return self.networks[part](seen.flatten(1))

  @torch.inference_mode()
  def label(self, features: Tensor, part: str = WHOLE) -> Tensor:
    """Return the index (N,) in `styles` that windows (N, W, F) most look like."""
    return self(features, part).argmax(dim=-1)

  def accuracy(self, part: str) -> dict[str, float]:
    """Return its accuracy on held-out clips by style, for one part of the body."""
    return {each.style: each.accuracy for each in self.held_out if each.part == part}

  def save(self, path: Path) -> None:
    """Write it as safetensors, with its description as JSON in the metadata."""
    description = {
      "format_version": FORMAT_VERSION,
      "spec": self.spec.to_dict(),
      "styles": list(self.styles),
      "hidden": self.hidden,
      "held_out": [asdict(each) for each in self.held_out],
      "info": self.info,
    }
    tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
    content = save(tensors, {METADATA_KEY: json.dumps(description)})
    with atomic_path(path) as temporary:
      temporary.write_bytes(content)

  @classmethod
  def load(cls, path: Path, expected: FeatureSpec | None = None) -> StyleClassifier:
    """Read a classifier, for windows of the expected layout (default: this project's).

    Raises:
      UserError: The file is missing, damaged, no classifier, or one of other features.
    """
    described, tensors = _read(Path(path))
    try:
      described.spec.check(g1_spec() if expected is None else expected)
    except UserError as error:
      raise UserError(f"{path}: a classifier of other windows: {error}") from None
    classifier = cls(described.styles, described.spec, hidden=described.hidden)
    check_tensors(Path(path), tensors, classifier.state_dict())
    classifier.load_state_dict(tensors)
    classifier.held_out = list(described.held_out)
    classifier.info = described.info
    return classifier.eval().requires_grad_(False)


def _network(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
  return nn.Sequential(
    *(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout)),
    *(nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout)),
    nn.Linear(hidden, outputs),
  )


@dataclass(frozen=True)
class _Description:
  """Metadata of a classifier's file."""

  spec: FeatureSpec
  format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
  styles: Annotated[tuple[str, ...], Field(min_length=2)]
  hidden: Size
  held_out: tuple[StyleAccuracy, ...] = ()
  info: dict[str, Any] = field(default_factory=dict)


def _read(path: Path) -> tuple[_Description, dict[str, Tensor]]:
  fix = f"train it again with {MADE_BY}"
  if not path.is_file():
    raise UserError(f"{path}: no such file; train a style classifier with {MADE_BY}")
  try:
    with safe_open(path, framework="pt") as file:
      metadata = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}
    if METADATA_KEY not in metadata:
      raise UserError(f"{path}: not a style classifier; {fix}")
    description = json.loads(metadata[METADATA_KEY])
  except (SafetensorError, OSError, ValueError, RecursionError) as error:
    raise UserError(
      f"{path}: not a readable style classifier ({type(error).__name__}); {fix}"
    ) from error
  return read_as(_Description, description, f"{path}: metadata", fix), tensors


# Training.


@dataclass(frozen=True)
class LabelledWindows:
  """Windows with labels, none mirrored, and of each clip and style none that overlap."""

  features: Tensor
  """(N, W, F), raw units."""
  label: Tensor
  """(N,) index of the style."""
  clip: Tensor
  """(N,) index of the clip."""


def labelled(windows: WindowSet, split: str) -> LabelledWindows:
  """Return the labelled windows of one split that share (nearly) no frames."""
  window = windows.windows.shape[1]
  every = -(-window // windows.stride)
  index = windows.style_index if windows.styles else np.full(len(windows.windows), -1)
  of_split = np.array([each == split for each in windows.splits])[windows.clip_index]
  good = of_split & (index >= 0) & ~windows.mirrored
  rows = [
    np.flatnonzero(good & (index == style) & (windows.clip_index == clip))[::every]
    for clip in range(len(windows.clips))
    for style in range(len(windows.styles))
  ]
  chosen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
  return LabelledWindows(
    torch.from_numpy(windows.windows[chosen]),
    torch.from_numpy(index[chosen]),
    torch.from_numpy(windows.clip_index[chosen]),
  )


def train_classifier(
  windows: WindowSet, stats: NormStats, cfg: ClassifierCfg
) -> StyleClassifier:
  """Train a classifier on the clips of split ``train``; those of ``val`` judge it.

  Args:
    windows: Labelled windows, of this project's layout.
    stats: Quantiles that normalise the features.
    cfg: Settings.

  Raises:
    UserError: The windows are of another layout, have fewer than two styles, or too few
      of one.
  """
  cfg.check()
  windows.spec.check(g1_spec())
  data, held_out = labelled(windows, "train"), labelled(windows, "val")
  _check_counts(windows, data)
  torch.manual_seed(cfg.seed)
  classifier = StyleClassifier(
    windows.styles, windows.spec, stats, cfg.hidden, cfg.dropout
  )
  for part in PARTS:
    _fit(classifier, part, data, cfg)
  classifier.eval().requires_grad_(False)
  classifier.held_out = judge(classifier, held_out)
  classifier.info = {
    "settings": asdict(cfg),
    "clips": _clips(windows, data),
    "held_out_clips": _clips(windows, held_out),
  }
  return classifier


def _clips(windows: WindowSet, data: LabelledWindows) -> dict[str, list[str]]:
  """Return the clips that show each style."""
  return {
    style: [windows.clips[int(c)] for c in data.clip[data.label == i].unique()]
    for i, style in enumerate(windows.styles)
  }


def _check_counts(windows: WindowSet, data: LabelledWindows) -> None:
  if len(windows.styles) < 2:
    raise UserError(
      f"{len(windows.styles)} style(s) among the windows, a classifier needs two; "
      "convert a motion set with styles (configs/motions/styles.yaml)"
    )
  for i, style in enumerate(windows.styles):
    count = int((data.label == i).sum())
    if count < MIN_WINDOWS:
      raise UserError(
        f"style '{style}' has {count} window(s) of split train without common frames, "
        f"at least {MIN_WINDOWS} are needed; give it more motion, or remove its label"
      )


def _fit(
  classifier: StyleClassifier, part: str, data: LabelledWindows, cfg: ClassifierCfg
) -> None:
  """Train the network of one part."""
  both = torch.stack((data.features, mirror_features(data.features)))
  weights = _balance(data)
  network = classifier.networks[part]
  optimizer = torch.optim.AdamW(
    network.parameters(), cfg.learning_rate, weight_decay=cfg.weight_decay
  )
  decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cfg.steps)
  loss = nn.CrossEntropyLoss(label_smoothing=cfg.label_smoothing)
  for _ in range(cfg.steps):
    rows = torch.multinomial(weights, cfg.batch_size, replacement=True)
    side = torch.randint(0, 2, rows.shape)
    error = loss(classifier(both[side, rows], part, cfg.noise), data.label[rows])
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    decay.step()


def _balance(data: LabelledWindows) -> Tensor:
  """Return weights (N,): each style has the same, and of a style each clip."""
  groups = torch.stack((data.label, data.clip), dim=1)
  found, group, count = groups.unique(dim=0, return_inverse=True, return_counts=True)
  clips = torch.bincount(found[:, 0])
  return 1.0 / (count[group] * clips[data.label]).float()


# Judgement.


def judge(classifier: StyleClassifier, data: LabelledWindows) -> list[StyleAccuracy]:
  """Return the accuracy on windows, by part and by style, for the styles that have any.

  ``data.label`` counts in the classifier's own styles.
  """
  found = []
  for part in PARTS:
    given = classifier.label(data.features, part)
    for i, style in enumerate(classifier.styles):
      if bool((own := data.label == i).any()):
        found.append(accuracy_of(classifier, style, part, given[own]))
  return found


def accuracy_of(
  classifier: StyleClassifier, style: str, part: str, given: Tensor
) -> StyleAccuracy:
  """Return the accuracy on windows of one style from the labels (n,) that they get."""
  counts = torch.bincount(given, minlength=len(classifier.styles)).tolist()
  shares = {
    label: count / len(given)
    for label, count in zip(classifier.styles, counts, strict=True)
  }
  own = counts[classifier.styles.index(style)]
  interval = intervals.wilson(own, len(given))
  return StyleAccuracy(style, part, len(given), shares, interval.low, interval.high)


def mean_accuracy(found: Sequence[StyleAccuracy], part: str) -> float | None:
  """Return the mean over styles; None without any."""
  own = [each.accuracy for each in found if each.part == part]
  return sum(own) / len(own) if own else None
