"""TD3 with parallel environments, a distributional critic and n-step returns.

Twin-delayed deep deterministic policy gradient (Fujimoto et al., arXiv 1802.09477) with
many environments at once, a noise scale for each (Seo et al., FastTD3, arXiv 2505.22642),
and critics that predict a distribution of returns over fixed atoms (Bellemare et al.,
arXiv 1707.06887).
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from rsl_rl.modules import EmpiricalNormalization
from torch import Tensor, nn

from smp.mdp.symmetry import Mirror
from smp.rl.actor import Actor, ActorSpec, make_mlp
from smp.rl.replay import Batch
from smp.utils.cuda_graph import Graphed


@dataclass
class Td3Cfg:
  """Settings of TD3. Times are in steps of the environment."""

  hidden_dims: tuple[int, ...] = (256, 256, 128)
  """Hidden layers of the actor and of each critic."""

  batch_size: int = 512

  updates_per_step: int = 6
  """Updates of the critics after each step of all environments."""

  gamma: float = 0.97
  """Discount of one step."""

  n_step: int = 3
  """Number of rewards that a return adds up before it bootstraps."""

  learning_rate: float = 1e-3

  weight_decay: float = 1e-3

  betas: tuple[float, float] = (0.9, 0.95)
  """Betas of AdamW."""

  tau: float = 0.02
  """Share of the critics' weights that their targets take over in an update."""

  actor_interval: int = 2
  """Updates of the critics for each one of the actor."""

  actor_delay: int = 400
  """Updates of the critics before the first of the actor."""

  teacher_updates: int = 6000
  """Updates of the critics, from the beginning of the training, during which the actor
  imitates its teacher, if it has one; half of the environments with noise follow the
  teacher meanwhile."""

  teacher_weight: float = 10.0
  """Weight of the imitation beside the critics' value when they take over; without it
  the actor leaves at once for actions that the critics have never seen (TD3+BC, Fujimoto
  and Gu, arXiv 2106.06860)."""

  teacher_half_life: int = 4000
  """Updates of the critics in which that weight halves."""

  teacher_floor: float = 0.0
  """Weight below which it does not fall: above 0 the policy stays near its teacher."""

  num_atoms: int = 101

  value_range: tuple[float, float] | None = None
  """Range of the atoms: returns times (1 - gamma), which are mean rewards. None: from 0
  to `DEFAULT_SHARE` of the largest reward in ``product``, all of it otherwise; for a
  task with costs, from minus `COST_SHARE` of that."""

  target_noise: float = 0.1
  """Standard deviation of the noise on target actions."""

  target_noise_clip: float = 0.3

  exploration_noise: tuple[float, float] = (0.0, 0.3)
  """Smallest and largest standard deviation of the noise on actions; each environment
  keeps one value between them."""

  noise_free_envs: int = 8
  """Environments without noise, which measure the policy; at most a quarter of all."""

  action_bound: float = 3.0
  """Factor on the tanh output, in units of the action; see ``action_reach``."""

  action_reach: Literal["none", "prior", "joint_limits"] = "none"
  """What the targets of joints must reach, if the bound does not: the poses of the
  prior's samples, such as knees that fold to 2.7 rad, or the joints' limits. No bound
  shrinks: an ankle pushes by a target beyond its limit."""

  action_penalty: float = 2e-4
  """Weight of the squared output before tanh, which keeps it from saturating."""

  mirror: bool = True
  """Whether half of each batch is mirrored from left to right."""

  max_grad_norm: float = 0.0
  """Maximum norm of gradients; 0: not clipped."""

  bfloat16: bool = True
  """Compute the products of the updates in bfloat16 on processors that have it."""


ActorStep = Literal["wait", "imitate", "improve"]
"""What the actor does in an update of the critics: nothing, learn from its teacher, or
from the critics."""
DEFAULT_SHARE, DEFAULT_SHARE_SCALE = 0.7, 6.0
"""Share of the largest reward that the atoms span in ``product``, where the prior's
reward stays well below 1; at this w_s."""
COST_SHARE = 0.25
"""How far the atoms go below 0 where costs may make returns negative, as a share of
their upper end."""
OBS_CLIP = 10.0
BFLOAT16_GAIN = 1.2
"""How many times as fast products in bfloat16 must be to be used."""
PULL_TO_SPEAK_OF = 0.1
"""Weight of the imitation below which a teacher hardly teaches, and above which a policy
may fall without its teacher."""
OUTPUT_GAIN = 0.01
"""Factor on the actor's last layer, so that the first actions are the default pose."""


class TwinCritic(nn.Module):
  """Two networks that each predict a distribution of returns."""

  def __init__(self, sizes: tuple[int, ...]) -> None:
    super().__init__()
    self.nets = nn.ModuleList(make_mlp(sizes, "silu", True) for _ in range(2))

  def forward(self, normalized: Tensor, action: Tensor) -> Tensor:
    """Return logits (2, B, atoms) for observations (B, C) and actions (B, A)."""
    joined = torch.cat((normalized, action), dim=-1)
    return torch.stack([net(joined) for net in self.nets])

  def first(self, normalized: Tensor, action: Tensor) -> Tensor:
    """Return the first network's logits (B, atoms)."""
    return self.nets[0](torch.cat((normalized, action), dim=-1))


def project(
  probability: Tensor, reward: Tensor, discount: Tensor, low: float, high: float
) -> Tensor:
  """Return the distribution of ``reward + discount * return`` on the same atoms.

  Each atom moves to a new value, and its probability is divided among the two atoms
  nearest to that value, or goes to the end atom if it is outside. Source: Bellemare et
  al., arXiv 1707.06887, algorithm 1.

  Args:
    probability: (B, M), distribution of the return after the transition.
    reward: (B,).
    discount: (B,).
    low: Value of the first atom.
    high: Value of the last atom.

  Returns:
    (B, M).
  """
  count = probability.shape[-1]
  atoms = torch.linspace(low, high, count, device=probability.device)
  step = (high - low) / (count - 1)
  landing = reward.unsqueeze(-1) + discount.unsqueeze(-1) * atoms
  place = ((landing - low) / step).clamp(0, count - 1)
  below = place.floor()
  above = (below + 1).clamp(max=count - 1)
  share = place - below
  result = torch.zeros_like(probability)
  result.scatter_add_(-1, below.long(), probability * (1 - share))
  return result.scatter_add_(-1, above.long(), probability * share)


class Td3:
  """The networks of TD3 and their updates.

  All is tensor arithmetic with static shapes: no value is read back to the host.

  Args:
    obs_dim: O.
    critic_dim: C.
    action_bound: (A,) largest actions.
    num_envs: N.
    value_range: Values of the first and the last atom, in units of the mean reward.
    cfg: Further settings.
    device: Device to compute on.
    mirrors: Mirrors of actor observations, critic observations and actions; None: none.
    teacher: Returns the actions (N, A) to imitate at first, for observations of the
      actor (N, O) and of the critic (N, C); None: nothing is imitated.
  """

  def __init__(
    self,
    obs_dim: int,
    critic_dim: int,
    action_bound: Tensor,
    num_envs: int,
    value_range: tuple[float, float],
    cfg: Td3Cfg,
    device: str | torch.device,
    mirrors: tuple[Mirror, Mirror, Mirror] | None = None,
    teacher: Callable[[Tensor, Tensor], Tensor] | None = None,
  ) -> None:
    self.teacher = teacher
    self.cfg, self.device, self.value_range = cfg, torch.device(device), value_range
    actions = len(action_bound)
    self.spec = ActorSpec("silu", layer_norm=True, squash=True, obs_clip=OBS_CLIP)
    self.actor = Actor((obs_dim, *cfg.hidden_dims, actions), self.spec, action_bound)
    with torch.no_grad():
      last = self.actor.mlp[-1]
      assert isinstance(last, nn.Linear)
      last.weight.mul_(OUTPUT_GAIN)
      last.bias.zero_()
    self.critic_normalizer = EmpiricalNormalization(critic_dim).to(device)
    sizes = (critic_dim + actions, *cfg.hidden_dims, cfg.num_atoms)
    self.critic = TwinCritic(sizes).to(device)
    self.actor.to(device)
    self.target_mlp = copy.deepcopy(self.actor.mlp).requires_grad_(False)
    self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
    self.atoms = torch.linspace(*value_range, cfg.num_atoms, device=device)
    self.actor_optimizer = self._optimizer(self.actor.mlp)
    self.critic_optimizer = self._optimizer(self.critic)
    self.mirrors = mirrors if cfg.mirror else None
    self.noise = self._noise_scales(num_envs).to(device)
    self.updates = 0
    # Weight of the imitation beside the value, where a graph reads it.
    self._pull = torch.zeros((), device=device)
    # Every other environment with noise.
    place = torch.arange(num_envs, device=device).unsqueeze(1)
    self.follows_teacher = (place >= self.num_quiet) & (place % 2 == 1)
    # Static inputs of an update, and its graphs by what the actor does.
    self._inputs: tuple[Batch, Tensor] | None = None
    self._graphs: dict[ActorStep, Graphed] = {}

  def _optimizer(self, module: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), fused=True, **self._step_settings())

  def _step_settings(self) -> dict[str, Any]:
    """Return the settings of the optimizers."""
    cfg = self.cfg
    return {
      "lr": cfg.learning_rate,
      "weight_decay": cfg.weight_decay,
      "betas": cfg.betas,
      "capturable": self.device.type == "cuda",
    }

  def _noise_scales(self, num_envs: int) -> Tensor:
    """Return the noise scale of each environment (N, 1)."""
    scales = torch.linspace(*self.cfg.exploration_noise, num_envs).unsqueeze(1)
    self.num_quiet = min(self.cfg.noise_free_envs, num_envs // 4)
    scales[: self.num_quiet] = 0.0
    return scales

  def begin_with(self, actor: Actor) -> None:
    """Take over the weights and the normaliser of an actor.

    Where its bounds are others, small actions stay what they were and large ones change.

    Raises:
      ValueError: It is of another architecture.
    """
    if (actor.sizes, actor.spec) != (self.actor.sizes, self.actor.spec):
      raise ValueError(
        f"layers of {actor.sizes} and {actor.spec.to_dict()}, expected "
        f"{self.actor.sizes} and {self.spec.to_dict()}"
      )
    bound = self.actor.action_bound.clone()
    self.actor.load_state_dict(actor.state_dict())
    with torch.no_grad():
      unit = self.actor.action_unit.clone()
      self.actor.action_bound.copy_(bound)
      last = self.actor.mlp[-1]
      assert isinstance(last, nn.Linear)
      for parameter in (last.weight, last.bias):
        parameter.mul_(unit / self.actor.action_unit)
    self.target_mlp.load_state_dict(self.actor.mlp.state_dict())

  # Acting.

  @torch.no_grad()
  def observe(self, obs: Tensor, critic_obs: Tensor) -> None:
    """Update the normalisers with observations (N, O) and (N, C)."""
    _update_in_place(self.actor.obs_normalizer, obs)
    _update_in_place(self.critic_normalizer, critic_obs)

  @torch.no_grad()
  def explore(self, obs: Tensor, critic_obs: Tensor) -> Tensor:
    """Return noisy actions (N, A) for observations (N, O) and (N, C).

    While the actor imitates its teacher, those of some environments are the teacher's.
    """
    action = self.actor(obs)
    if self.teacher is not None and self.updates < self.cfg.teacher_updates:
      action = torch.where(self.follows_teacher, self.teacher(obs, critic_obs), action)
    bound = self.actor.action_bound
    noisy = action + self.noise * torch.randn_like(action)
    return torch.minimum(torch.maximum(noisy, -bound), bound)

  # Learning.

  def update(self, batch: Batch, noise: Tensor | None = None) -> dict[str, Tensor]:
    """Learn from a batch of transitions; return the losses, still on the device.

    On a GPU an update is a CUDA graph, from the fourth of its kind on: all batches must
    be of one size.

    Args:
      batch: B transitions.
      noise: (B, A), standard normal, for the target actions; None: drawn here.
    """
    if noise is None:
      noise = torch.randn_like(batch.action)
    self.updates += 1
    actor_step = self._actor_step()
    self._pull.fill_(self.pull())
    if self.device.type == "cuda":
      self._set_inputs(batch, noise)
      return self._graph(actor_step)()
    with bfloat16_products(self.cfg.bfloat16):
      return self._update(batch, noise, actor_step)

  def _set_inputs(self, batch: Batch, noise: Tensor) -> None:
    """Copy a batch and noise to where the graphs read them."""
    if self._inputs is None:
      self._inputs = Batch(**{k: v.clone() for k, v in vars(batch).items()}), noise
      return
    kept, kept_noise = self._inputs
    for name, value in vars(batch).items():
      getattr(kept, name).copy_(value)
    kept_noise.copy_(noise)

  def _graph(self, actor_step: ActorStep) -> Graphed:
    """Return the graph of an update in which the actor does this."""
    if actor_step not in self._graphs:

      def compute() -> dict[str, Tensor]:
        assert self._inputs is not None
        return self._update(*self._inputs, actor_step)

      self._graphs[actor_step] = Graphed(compute)
    return self._graphs[actor_step]

  def _update(
    self, batch: Batch, noise: Tensor, actor_step: ActorStep
  ) -> dict[str, Tensor]:
    """Return the losses of an update.

    Args:
      batch: Transitions; half of them are mirrored in place.
      noise: (B, A), standard normal.
      actor_step: What the actor does.
    """
    batch = self._mirror_half(batch)
    obs = self.actor.normalize(batch.obs)
    critic_obs = self._normalize_critic(batch.critic_obs)
    losses = self._update_critic(batch, critic_obs, noise)
    if actor_step == "imitate":
      losses |= self._imitate(obs, batch)
    elif actor_step == "improve":
      losses |= self._update_actor(obs, critic_obs, batch)
    return losses

  def pull(self) -> float:
    """Return the present weight of the imitation beside the critics' value."""
    cfg = self.cfg
    if self.teacher is None:
      return 0.0
    since = max(self.updates - cfg.teacher_updates, 0)
    fading = cfg.teacher_weight * 0.5 ** (since / cfg.teacher_half_life)
    return max(fading, cfg.teacher_floor)

  def _actor_step(self) -> ActorStep:
    cfg = self.cfg
    if self.teacher is not None and self.updates <= cfg.teacher_updates:
      return "imitate"
    learns = self.updates > cfg.actor_delay and self.updates % cfg.actor_interval == 0
    return "improve" if learns else "wait"

  def _normalize_critic(self, critic_obs: Tensor) -> Tensor:
    return self.critic_normalizer(critic_obs).clamp(-OBS_CLIP, OBS_CLIP)

  def _mirror_half(self, batch: Batch) -> Batch:
    """Mirror the first half of a batch, in place."""
    if self.mirrors is None:
      return batch
    half = len(batch.reward) // 2
    flip_obs, flip_critic, flip_action = self.mirrors
    for tensor, flip in (
      (batch.obs, flip_obs),
      (batch.next_obs, flip_obs),
      (batch.critic_obs, flip_critic),
      (batch.next_critic_obs, flip_critic),
      (batch.action, flip_action),
    ):
      tensor[:half] = flip(tensor[:half])
    return batch

  @torch.no_grad()
  def _target(self, batch: Batch, noise: Tensor) -> Tensor:
    """Return the target distribution (B, atoms) of both critics."""
    cfg, bound = self.cfg, self.actor.action_bound
    action = self.actor.squash(self.target_mlp(self.actor.normalize(batch.next_obs)))
    noise = cfg.target_noise * noise
    action = action + noise.clamp(-cfg.target_noise_clip, cfg.target_noise_clip)
    action = torch.minimum(torch.maximum(action, -bound), bound)
    logits = self.target_critic(
      self._normalize_critic(batch.next_critic_obs), action / self.actor.action_unit
    )
    probability = logits.softmax(dim=-1)
    # Take the distribution of the target critic with the lower mean (clipped double Q).
    mean = (probability * self.atoms).sum(dim=-1)
    smaller = (mean[0] <= mean[1]).unsqueeze(-1)
    chosen = torch.where(smaller, probability[0], probability[1])
    # Returns times (1 - gamma) are in units of the mean reward, as the atoms are.
    reward = batch.reward * (1.0 - cfg.gamma)
    return project(chosen, reward, batch.discount, *self.value_range)

  def _update_critic(
    self, batch: Batch, critic_obs: Tensor, noise: Tensor
  ) -> dict[str, Tensor]:
    target = self._target(batch, noise)
    logits = self.critic(critic_obs, batch.action / self.actor.action_unit)
    # Cross-entropy of each critic with the target, summed over the two.
    loss = -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean(dim=1).sum()
    self.critic_optimizer.zero_grad()
    loss.backward()
    self._clip(self.critic)
    self.critic_optimizer.step()
    _follow(self.target_critic, self.critic, self.cfg.tau)
    return {"critic": loss.detach(), "target": (target * self.atoms).sum(-1).mean()}

  def _update_actor(
    self, obs: Tensor, critic_obs: Tensor, batch: Batch
  ) -> dict[str, Tensor]:
    """Move the actor towards more value, and towards its teacher if it has one.

    Args:
      obs: (B, O), normalised.
      critic_obs: (B, C), normalised.
      batch: Both as observed.
    """
    output = self.actor.mlp(obs)
    self.critic.requires_grad_(False)
    # The critics take actions in units of the smallest bound.
    action = self.actor.squash(output) / self.actor.action_unit
    logits = self.critic.first(critic_obs, action)
    self.critic.requires_grad_(True)
    value = (logits.softmax(dim=-1) * self.atoms).sum(dim=-1).mean()
    loss = -value + self.cfg.action_penalty * output.square().mean()
    losses = {"value": value.detach()}
    if self.teacher is not None:
      error = self._imitation(output, batch)
      loss = loss + self._pull * error
      losses["imitation"] = error.detach()
    self._step_actor(loss, self.cfg.actor_interval * self.cfg.tau)
    return losses

  def _imitate(self, obs: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Move the actor towards the teacher's actions in the states of a batch.

    Half of these are the actor's own, as in DAgger (Ross et al., arXiv 1011.0686).

    Args:
      obs: (B, O), normalised.
      batch: Observations as they were.
    """
    loss = self._imitation(self.actor.mlp(obs), batch)
    self._step_actor(loss, self.cfg.tau)
    return {"imitation": loss.detach()}

  def _imitation(self, output: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared distance of actions from the teacher's, over the unit.

    Args:
      output: (B, A), the actor's before it is squashed.
      batch: Observations as they were.
    """
    assert self.teacher is not None
    with torch.no_grad():
      taught = self.teacher(batch.obs, batch.critic_obs)
      bound, unit = self.actor.action_bound, self.actor.action_unit
      wanted = torch.minimum(torch.maximum(taught, -bound), bound) / unit
    return (self.actor.squash(output) / unit - wanted).square().mean()

  def _step_actor(self, loss: Tensor, share: float) -> None:
    """Reduce a loss of the actor; its target takes over ``share``."""
    self.actor_optimizer.zero_grad()
    loss.backward()
    self._clip(self.actor.mlp)
    self.actor_optimizer.step()
    _follow(self.target_mlp, self.actor.mlp, share)

  def _clip(self, module: nn.Module) -> None:
    if self.cfg.max_grad_norm > 0.0:
      nn.utils.clip_grad_norm_(module.parameters(), self.cfg.max_grad_norm)

  # Checkpoints.

  def state_dict(self) -> dict[str, Any]:
    """Return the whole state of learning except for the replay."""
    return {
      "actor_state_dict": self.actor.state_dict(),
      "actor_spec": self.spec.to_dict(),
      "critic_state_dict": self.critic.state_dict(),
      "critic_normalizer": self.critic_normalizer.state_dict(),
      "target_actor": self.target_mlp.state_dict(),
      "target_critic": self.target_critic.state_dict(),
      "actor_optimizer": self.actor_optimizer.state_dict(),
      "critic_optimizer": self.critic_optimizer.state_dict(),
      "updates": self.updates,
      "pull": self.pull(),
      "value_range": self.value_range,
    }

  def load_state_dict(self, state: dict[str, Any]) -> None:
    """Load the output of `state_dict`; say what of it the settings here contradict.

    Raises:
      RuntimeError, KeyError, ValueError: It is of other networks.
    """
    bound = self.actor.action_bound.clone()
    self.actor.load_state_dict(state["actor_state_dict"])
    if not torch.allclose(bound, self.actor.action_bound, rtol=0.05):
      print(
        "[WARN] --agent.algorithm.action-bound and .action-reach: the policy keeps the "
        "bounds of its actions that it was trained with; others need a new training "
        "(--agent.init-policy)"
      )
    before, now = state.get("value_range"), self.value_range
    if before is not None and any(
      abs(a - b) > 1e-4 for a, b in zip(before, now, strict=True)
    ):
      print(
        f"[WARN] the critics' values reached from {before[0]:.3g} to {before[1]:.3g} and "
        f"are now read from {now[0]:.3g} to {now[1]:.3g}, so they begin wrong; "
        f'--agent.algorithm.value-range "({before[0]:.3g},{before[1]:.3g})" keeps them'
      )
    self.critic.load_state_dict(state["critic_state_dict"])
    self.critic_normalizer.load_state_dict(state["critic_normalizer"])
    self.target_mlp.load_state_dict(state["target_actor"])
    self.target_critic.load_state_dict(state["target_critic"])
    self.actor_optimizer.load_state_dict(state["actor_optimizer"])
    self.critic_optimizer.load_state_dict(state["critic_optimizer"])
    for optimizer in (self.actor_optimizer, self.critic_optimizer):
      for group in optimizer.param_groups:
        # The state may be of another device, and of a training with other settings.
        group |= self._step_settings()
    self.updates = int(state["updates"])
    if self.teacher is not None and self.pull() < PULL_TO_SPEAK_OF:
      print(
        f"[WARN] --agent.teacher: at {self.updates} updates the pull to it has faded to "
        f"{self.pull():.2g}; to be taught from now on, raise "
        "--agent.algorithm.teacher-updates above that"
      )
    self._graphs.clear()  # They use the optimizers' former state.


@torch.no_grad()
def _follow(target: nn.Module, source: nn.Module, share: float) -> None:
  """Move the parameters of ``target`` towards those of ``source``."""
  kept: Any = list(target.parameters())
  cast(Any, torch)._foreach_lerp_(kept, list(source.parameters()), share)


def _update_in_place(normalizer: EmpiricalNormalization, x: Tensor) -> None:
  """Update a normaliser with values (N, C), in the memory that a CUDA graph reads.

  rsl_rl's own update puts the standard deviation into a new tensor.
  """
  deviation = normalizer._std
  normalizer.update(x)
  deviation.copy_(normalizer._std)
  normalizer._std = deviation


@functools.cache
def has_bfloat16() -> bool:
  """Return whether this processor multiplies faster with factors rounded to bfloat16.

  Processors that say they have the instructions are timed once, as some that do gain
  nothing by them: the shortest of a few products counts.
  """
  if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
    return False
  left, right = torch.ones(512, 512), torch.ones(512, 512)

  def seconds(precision: str) -> float:
    with _product_precision(precision):
      times = []
      for _ in range(6):  # The first also chooses a kernel.
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - start)
    return min(times)

  return seconds("ieee") > BFLOAT16_GAIN * seconds("bf16")


@contextmanager
def _product_precision(precision: str) -> Iterator[None]:
  """Set the precision of oneDNN's float32 products; leave it as it was."""
  backend = cast(Any, torch.backends.mkldnn).matmul
  before = backend.fp32_precision
  backend.fp32_precision = precision
  try:
    yield
  finally:
    backend.fp32_precision = before


@contextmanager
def bfloat16_products(wanted: bool) -> Iterator[None]:
  """Let oneDNN round the factors of float32 products to bfloat16, where it is faster.

  Sums stay in float32. The previous setting is restored.
  """
  if not (wanted and has_bfloat16()):
    yield
    return
  with _product_precision("bf16"):
    yield
