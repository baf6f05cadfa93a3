"""From the robots' poses to the prior's reward: what happens once in every step."""

from __future__ import annotations

import contextlib
import gc
import math
import time
import warnings
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from smp.diffusion.sds import SdsLoss
from smp.mdp.composition import smp_reward_of
from smp.mdp.sds_normalizer import SdsNormalizer
from smp.motion.buffer import MotionBuffer
from smp.motion.features import encode
from smp.motion.kinematics import Kinematics
from smp.motion.rotations import HeadingKind

_WARM_UP = 3
"""Runs before a CUDA graph is captured: libraries choose their kernels in them."""


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
  """What is collected might free memory of the device (an environment from before),
  which no capture survives."""
  was_on = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_on:
      gc.enable()


class SmpReward:
  """Pushes the poses at hand, encodes and scores the windows, forms r_smp.

  All of it is arithmetic on the device with static shapes. On a GPU it is captured in a
  CUDA graph when `prepare` is called, and one replay computes a step; on a CPU the same
  code runs as it stands.

  Args:
    buffer: The rolling windows, one row per environment.
    kinematics: For the end effectors of the current poses.
    score: The prior's errors of windows.
    normalizer: Their scale.
    heading: How the prior finds headings.
    sds_scale: w_s in r_smp = exp(-w_s * mean over K of error / μ).
    update: Whether the scale moves, if it is a running one.
    limbs: (L, J) that averages joint amplitudes over limbs, for the log.
  """

  def __init__(
    self,
    buffer: MotionBuffer,
    kinematics: Kinematics,
    score: SdsLoss,
    normalizer: SdsNormalizer,
    heading: HeadingKind,
    sds_scale: float,
    update: bool,
    limbs: Tensor,
  ) -> None:
    self.buffer, self.kinematics, self.normalizer = buffer, kinematics, normalizer
    self.score = score
    self._heading: HeadingKind = heading
    self._sds_scale, self._update, self._limbs = sds_scale, update, limbs
    n, device = buffer.num_envs, limbs.device
    steps, joints = len(normalizer.mean), limbs.shape[1]
    features = score.gain.shape[0]
    self.noise = torch.empty(steps, n, buffer.window_size, features, device=device)
    self._pos = torch.zeros(n, 3, device=device)
    self._quat = torch.zeros(n, 4, device=device)
    self._quat[:, 0] = 1.0
    self._joints = torch.zeros(n, joints, device=device)
    self.r_smp = torch.zeros(n, device=device)
    """(N,) in [0, 1]."""
    self.sds_loss = torch.zeros(n, steps, device=device)
    """(N, K), not divided by anything."""
    self.amplitude = torch.zeros(len(limbs), device=device)
    """(L,) standard deviation of the joints over a window, mean over environments."""
    self._graph: torch.cuda.CUDAGraph | None = None

  def step(self, pos: Tensor, quat: Tensor, joints: Tensor) -> None:
    """Record one frame of every environment and score its window.

    Args:
      pos: (N, 3), m, pelvis relative to the environment's own origin.
      quat: (N, 4), wxyz.
      joints: (N, J), rad.
    """
    self._pos.copy_(pos)
    self._quat.copy_(quat)
    self._joints.copy_(joints)
    # Outside the graph, so that torch's generator works as it always does.
    self.noise.normal_()
    if self._graph is not None:
      self._graph.replay()
    else:
      self._compute()

  @torch.no_grad()
  def _compute(self) -> None:
    ee = self.kinematics.ee_positions(self._pos, self._quat, self._joints)
    self.buffer.push(self._pos, self._quat, self._joints, ee)
    window = self.buffer.window()
    error = self.score(encode(window, heading=self._heading), self.noise)
    if self._update:
      self.normalizer.update(error)
    self.sds_loss.copy_(error)
    # A diverged simulation earns nothing, and spoils no mean in the log.
    scale = self.normalizer.scale()
    self.r_smp.copy_(smp_reward_of(error, scale, self._sds_scale))
    amplitude = window.joint_pos.std(dim=1).nanmean(dim=0)
    torch.mv(self._limbs, amplitude, out=self.amplitude)

  def prepare(self, compiled: bool = False) -> None:
    """Warm up and, on a GPU, capture the graph. Leaves no trace in any state.

    Args:
      compiled: Hand the score to ``torch.compile`` first. Where that fails, a warning
        says so once and the score stays as it is.
    """
    kept = [tensor.clone() for tensor in self._state()]
    if compiled:
      self._compile()
    if self.r_smp.is_cuda:
      self._capture()
    for tensor, value in zip(self._state(), kept, strict=True):
      tensor.copy_(value)

  def _state(self) -> list[Tensor]:
    """What a step changes and the next one, or a checkpoint, looks at."""
    outputs = [self.r_smp, self.sds_loss, self.amplitude]
    return [*self.buffer.state(), *self.normalizer.buffers(), *outputs]

  def _capture(self) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    self.noise.normal_()
    with torch.cuda.stream(stream):
      for _ in range(_WARM_UP):
        self._compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with _no_garbage_collection(), torch.cuda.graph(graph):
      self._compute()
    self._graph = graph

  def _compile(self) -> None:
    start, plain = time.perf_counter(), self.score
    if torch.backends.cuda.matmul.fp32_precision == "tf32":
      # The same said in the old way: compilers ask in it, and torch then refuses to tell.
      torch.set_float32_matmul_precision("high")
    try:
      self.score = cast(SdsLoss, torch.compile(plain))
      self.noise.normal_()
      self._compute()
      if not math.isfinite(float(self.r_smp.sum())):
        raise RuntimeError("the compiled score is not finite")
    except Exception as error:  # Compilers fail in as many ways as there are machines.
      self.score = plain
      reason = " ".join(str(error).split())[:200] or type(error).__name__
      warnings.warn(f"torch.compile failed, going on without: {reason}", stacklevel=2)
      return
    seconds = time.perf_counter() - start
    print(f"[INFO] torch.compile of the score took {seconds:.0f} s")
