"""The style reward of SMP: r_smp, from the SDS losses of a frozen denoiser."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from smp.diffusion.sds import SdsLoss
from smp.errors import one_line
from smp.mdp.composition import smp_reward_of
from smp.mdp.sds_normalizer import SdsNormalizer, StyleNormalizers

TIMESTEPS = "timesteps"
"""Entry of a saved mu: the K diffusion timesteps that it is of, a list."""


class SmpReward:
  """Style reward of windows under a frozen motion prior (`smp.mdp.style_reward`).

  Source: the SMP paper (Mu et al., arXiv 2512.03028).

  Args:
    sds_loss_fn: The prior's SDS losses of windows.
    normalizer: Their scale, mu; of environments with styles of their own, all scales.
    timesteps: The K diffusion timesteps, for the names in the log.
    sds_scale: w_s in r_smp = exp(-w_s * mean over K of error / mu).
    update: Whether the scale is updated, if it is a running one.
    num_envs: N.
    window: W.

  Attributes:
    reward: (N,) r_smp, in [0, 1].
    losses: (N, K) SDS losses, not normalised; (N, S * K) where environments have styles
      of their own (`StyleNormalizers`).
    noise: (K, N, W, F) noise that is added to the windows; drawn in every step.
  """

  def __init__(
    self,
    sds_loss_fn: SdsLoss,
    normalizer: SdsNormalizer | StyleNormalizers,
    timesteps: Sequence[int],
    sds_scale: float,
    update: bool,
    num_envs: int,
    window: int,
  ) -> None:
    self.sds_loss_fn, self.normalizer = sds_loss_fn, normalizer
    self._timesteps = tuple(timesteps)
    self._sds_scale, self._update = sds_scale, update
    steps, features = len(self._timesteps), sds_loss_fn.gain.shape[0]
    device = sds_loss_fn.gain.device
    self.noise = torch.empty(steps, num_envs, window, features, device=device)
    self.reward = torch.zeros(num_envs, device=device)
    self.losses = torch.zeros(num_envs, len(normalizer.mean), device=device)

  @property
  def errors(self) -> Tensor:
    """Return the SDS losses (N, K) of the last step, by timestep alone."""
    return self.normalizer.gather(self.losses)

  def mu(self) -> Tensor:
    """Return mu (K,) or of each environment (N, K)."""
    return self.normalizer.mu()

  def draw(self) -> None:
    """Draw the noise of a step, outside a CUDA graph as torch's generator requires."""
    self.noise.normal_()

  @torch.no_grad()
  def score(self, features: Tensor) -> None:
    """Set ``losses`` and ``reward`` for windows (N, W, F); update a running scale."""
    error = self.sds_loss_fn(features, self.noise)
    if self._update:
      self.normalizer.update(error)
    losses = self.normalizer.spread(error)
    self.losses.copy_(losses)
    # A diverged simulation earns nothing.
    self.reward.copy_(smp_reward_of(losses, self.scale(), self._sds_scale))

  def scale(self) -> Tensor:
    """Return what ``losses`` are divided by: mu (K,), or (S * K,)."""
    return self.normalizer.scale()

  def state(self) -> list[Tensor]:
    """Return the tensors that `score` changes."""
    return [*self.normalizer.buffers(), self.reward, self.losses]

  def synchronize(self) -> None:
    """Average the running means over several processes."""
    if self._update:
      self.normalizer.average_over_ranks()

  def state_dict(self) -> dict[str, Any]:
    """Return mu: ``mean`` (K,), ``count`` (1,), the kind ``sds_normalizer``, timesteps.

    With S styles these are (S * K,) and (S,).
    """
    return {
      "mean": self.normalizer.mean,
      "count": self.normalizer.count,
      "sds_normalizer": "reference" if self._is_reference() else "running",
      TIMESTEPS: list(self._timesteps),
    }

  def load_state_dict(self, saved: dict[str, Any]) -> bool:
    """Load mu from a checkpoint. A scale that is the prior's own stays as it is.

    Returns:
      Whether there is a scale now: not if the checkpoint is of other timesteps or styles
      and the scale is a running one, which then starts anew.
    """
    same = tuple(saved.get(TIMESTEPS, self._timesteps)) == self._timesteps
    if not same or saved["mean"].shape != self.normalizer.mean.shape:
      kept = "stay the prior's" if self._is_reference() else "start anew"
      print(f"[WARN] checkpoint has other timesteps or styles: means of errors {kept}")
      return self._is_reference()
    moves = self._update and not self._is_reference()
    if moves and saved.get("sds_normalizer") == "reference":
      print(
        "[WARN] checkpoint was trained on the prior's reference scale, which now becomes "
        "a running mean; --env.commands.smp.sds-normalizer reference goes on as before"
      )
    self.normalizer.load(saved["mean"], saved["count"])
    return True

  def log(self) -> dict[str, Tensor]:
    """Return mean r_smp, and the SDS loss and mu of each timestep."""
    error = self.errors
    error = error.where(error.isfinite(), torch.nan).nanmean(dim=0)
    values = {"Smp/r_smp": self.reward.mean()}
    for k, timestep in enumerate(self._timesteps):
      values[f"Smp/sds_loss_t{timestep}"] = error[k]
      for end, scale in self.normalizer.log():
        values[f"Smp/mu_t{timestep}{end}"] = scale[k]
    return values

  def _is_reference(self) -> bool:
    return self.normalizer.fixed

  def compile(self) -> None:
    """Apply ``torch.compile`` to the denoiser; if that fails, warn and do without."""
    start, plain = time.perf_counter(), self.sds_loss_fn
    if torch.backends.cuda.matmul.fp32_precision == "tf32":
      # Also set the legacy flag: torch.compile reads it, and raises if only the new one
      # is set.
      torch.set_float32_matmul_precision("high")
    try:
      self.sds_loss_fn = cast(SdsLoss, torch.compile(plain))
      self.draw()
      self.score(torch.zeros_like(self.noise[0]))
      if not math.isfinite(float(self.reward.sum())):
        raise RuntimeError("the compiled reward is not finite")
    except Exception as error:  # Compilers raise many types of exceptions.
      self.sds_loss_fn = plain
      reason = one_line(error)
      warnings.warn(f"torch.compile failed, going on without: {reason}", stacklevel=2)
      return
    seconds = time.perf_counter() - start
    print(f"[INFO] torch.compile of the denoiser took {seconds:.0f} s")
