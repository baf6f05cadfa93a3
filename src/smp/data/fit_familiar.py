"""Fit of the models and ranges of `smp.data.familiar` to real clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from smp.data.clip_kinematics import Poses, find_poses
from smp.data.familiar import (
  LENGTHS,
  RATE,
  STATISTICS,
  Familiar,
  fit,
  pose_numbers,
  ranges,
  signature,
)
from smp.motion.clips import Clip

CUTS = (60, 60, 40, 20, 6)
"""Number of cuts of each clip for each of `LENGTHS`, evenly spread; plus the whole."""


def fit_familiar(clips: Sequence[Clip]) -> Familiar:
  """Return the models of clips at `RATE`, and the ranges over cuts of them."""
  poses = [find_poses(c.root_pos, c.root_quat, c.joint_pos) for c in clips]
  numbers = [
    pose_numbers(clip.root_pos, pose.up, clip.joint_pos)
    for clip, pose in zip(clips, poses, strict=True)
  ]
  empty = np.zeros((len(LENGTHS), len(STATISTICS)))
  models = Familiar(
    fit(numbers), fit([np.diff(part, axis=0) * RATE for part in numbers]), empty, empty
  )
  found = []
  for length, count in zip(LENGTHS, CUTS, strict=True):
    figures = []
    for clip, pose in zip(clips, poses, strict=True):
      long = min(length, len(clip))
      starts = np.linspace(0, len(clip) - long, count).astype(int)
      spans = [(s, s + long) for s in starts]
      if length == LENGTHS[-1]:
        spans.append((0, len(clip)))
      for start, stop in spans:
        part = clip.cut(start, stop)
        seen = cut_poses(pose, start, stop)
        figures.append(signature(seen, part.root_pos, part.joint_pos, models))
    found.append(ranges(np.array(figures)))
  low, high = (np.stack(part) for part in zip(*found, strict=True))
  return Familiar(models.pose, models.rate, low, high)


def cut_poses(poses: Poses, start: int, stop: int) -> Poses:
  """Return the poses of the rows from ``start`` to ``stop``, not included."""
  return Poses(*(getattr(poses, f.name)[start:stop] for f in fields(poses)))
