"""Plain reward, sampling and pretraining, with which ours are compared.

They are written for clarity: every buffer is rolled in every step, every timestep has
its own call of the denoiser with its time embeddings computed anew, counts and means
are numbers on the host, and data sets are on the host too. The formulas are those of
`smp.mdp.smp_reward` and `smp.diffusion`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from smp.diffusion.ddpm import ddpm_sample
from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior
from smp.mdp.sds_normalizer import MU_FLOOR
from smp.motion.features import MotionState, encode
from smp.motion.kinematics import Kinematics
from smp.robots import g1


class PlainSmpReward:
  """The reward of the prior, step by step."""

  def __init__(
    self,
    prior: MotionPrior,
    timesteps: tuple[int, ...],
    robots: int,
    device: str,
    sds_scale: float = 6.0,
    freeze_after_samples: float = 5e7,
  ) -> None:
    self.prior, self.timesteps, self.sds_scale = prior, timesteps, sds_scale
    self.freeze_after_samples = freeze_after_samples
    self.kinematics = Kinematics(g1.load_model()).to(device)
    window = prior.spec.window
    sizes = (3, 4, 3, 3, g1.NUM_JOINTS, 3 * len(g1.EE_BODY_NAMES))
    self.buffers = [torch.zeros(robots, window, size, device=device) for size in sizes]
    self.buffers[1][..., 0] = 1.0
    self.mean, self.count = [0.0] * len(timesteps), 0

  def push(
    self, pos: Tensor, quat: Tensor, lin: Tensor, ang: Tensor, joints: Tensor
  ) -> None:
    """Add a frame (N, ...) of every environment, with the simulator's velocities."""
    ee = self.kinematics.ee_positions(pos, quat, joints).flatten(1)
    frame = (pos, quat, lin, ang, joints, ee)
    for i, (buffer, value) in enumerate(zip(self.buffers, frame, strict=True)):
      self.buffers[i] = torch.roll(buffer, -1, dims=1)
      self.buffers[i][:, -1] = value

  def encode(self) -> Tensor:
    """Return the features (N, W, F) of the windows."""
    pos, quat, lin, ang, joints, ee = self.buffers
    ee = ee.unflatten(-1, (-1, 3))
    state = MotionState(pos, quat, lin, ang, joints, ee)
    return encode(state, heading=self.prior.spec.heading)

  @torch.no_grad()
  def score(self, features: Tensor) -> Tensor:
    """Return r_smp (N,) of windows (N, W, F), raw units, and update the running means."""
    clean = self.prior.normalize(features)
    relative = torch.zeros(len(features), device=features.device)
    seen = self.count
    for k, timestep in enumerate(self.timesteps):
      t = torch.full((len(features),), timestep, device=features.device)
      noise = torch.randn_like(clean)
      noised = self.prior.schedule.add_noise(clean, noise, t)
      error = (self.prior.denoiser(noised, t) - noise).square().mean(dim=(1, 2))
      if seen < self.freeze_after_samples:
        total = self.mean[k] * seen + error.sum().item()
        self.mean[k] = total / (seen + len(error))
      relative += error / max(self.mean[k], MU_FLOOR)
    if seen < self.freeze_after_samples:
      self.count += len(features)
    return torch.exp(-self.sds_scale * relative / len(self.timesteps))


@torch.no_grad()
def plain_sample(prior: MotionPrior, n: int) -> Tensor:
  """Sample ``n`` windows (n, W, F), with one call of the denoiser for each timestep."""

  def predict(x: Tensor, t: int) -> Tensor:
    return prior.denoiser(x, torch.full((len(x),), t, device=x.device))

  shape = (n, prior.denoiser.window, prior.denoiser.feature_dim)
  return prior.denormalize(ddpm_sample(predict, shape, prior.schedule))


class PlainTraining:
  """Pretraining from a data set on the host, one draw of timesteps at a time."""

  def __init__(self, prior: MotionPrior, batch: int, draws: int, device: str) -> None:
    self.device, self.draws = device, draws
    source = prior.denoiser
    self.denoiser = Denoiser(
      source.feature_dim, source.window, source.d_model, source.nhead, source.num_layers
    ).to(device)
    self.schedule = prior.schedule
    self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=3e-4)
    windows = torch.randn(
      math.ceil(2e4 / batch) * batch, source.window, source.feature_dim
    )
    self.loader = DataLoader(TensorDataset(windows), batch, shuffle=True)
    self.batches = iter(self.loader)

  def step(self) -> float:
    """Take one step of the optimiser and return the loss."""
    try:
      (clean,) = next(self.batches)
    except StopIteration:
      self.batches = iter(self.loader)
      (clean,) = next(self.batches)
    clean = clean.to(self.device)
    loss = torch.zeros((), device=self.device)
    for _ in range(self.draws):
      t = torch.randint(self.schedule.num_timesteps, (len(clean),)).to(self.device)
      noise = torch.randn(clean.shape).to(self.device)
      noised = self.schedule.add_noise(clean, noise, t)
      loss = loss + F.l1_loss(self.denoiser(noised, t), noise) / self.draws
    self.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
    self.optimizer.step()
    return loss.item()
