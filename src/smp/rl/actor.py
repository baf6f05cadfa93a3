"""The network of a policy, whichever learner trained it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from rsl_rl.modules import EmpiricalNormalization
from torch import Tensor, nn

from smp.errors import UserError, one_line

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "silu": nn.SiLU}


@dataclass(frozen=True)
class ActorSpec:
  """Architecture of an actor as far as its weights do not determine it."""

  activation: str = "elu"
  """Name in `ACTIVATIONS`."""

  layer_norm: bool = False
  """Whether a LayerNorm follows each hidden linear layer."""

  squash: bool = False
  """Whether actions are squashed into their bounds (`Actor.squash`); else they are the
  output."""

  obs_clip: float = math.inf
  """Normalised observations are clipped to plus or minus this."""

  def to_dict(self) -> dict[str, Any]:
    """Return plain numbers and words for a file of tensors."""
    return asdict(self)

  @staticmethod
  def from_dict(values: object) -> ActorSpec:
    """Return the spec from the output of `to_dict`.

    Raises:
      ValueError: An entry is missing, unknown, or of the wrong type.
    """
    if not isinstance(values, dict):
      raise ValueError("the actor's description is not a table")
    kinds = {"activation": str, "layer_norm": bool, "squash": bool, "obs_clip": float}
    if set(values) != set(kinds):
      raise ValueError(f"the actor's description needs {', '.join(kinds)}")
    for name, kind in kinds.items():
      if not isinstance(values[name], kind):
        raise ValueError(f"{name} is not of type {kind.__name__}")
    if not values["obs_clip"] > 0.0:
      raise ValueError(f"obs_clip is {values['obs_clip']}, expected more than 0")
    if values["activation"] not in ACTIVATIONS:
      raise ValueError(f"unknown activation '{values['activation']}'")
    return ActorSpec(**cast(Any, values))


def make_mlp(
  sizes: tuple[int, ...], activation: str, layer_norm: bool
) -> nn.Sequential:
  """Return linear layers of ``sizes`` with activations between them.

  Args:
    sizes: Input, hidden layers, output.
    activation: Name in `ACTIVATIONS`.
    layer_norm: Whether to normalise each hidden layer before its activation.
  """
  layers: list[nn.Module] = []
  for width, following in zip(sizes[:-2], sizes[1:-1], strict=True):
    layers.append(nn.Linear(width, following))
    if layer_norm:
      layers.append(nn.LayerNorm(following))
    layers.append(ACTIVATIONS[activation]())
  return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Actor(nn.Module):
  """A deterministic policy: normalise, multilayer perceptron, optional squashing.

  The names in its state are rsl_rl's, so that the weights of its PPO can be loaded.

  Args:
    sizes: Observation (O), hidden layers, actions (A).
    spec: The rest of the architecture.
    action_bound: (A,) largest actions, used if ``spec.squash``.
  """

  action_bound: Tensor
  output_clip: float | None = None
  """Largest action, to either side, that leaves it: ``clip_actions`` of its training,
  which clipped what the actor said. None: whatever it says."""

  def __init__(
    self, sizes: tuple[int, ...], spec: ActorSpec, action_bound: Tensor | None = None
  ) -> None:
    super().__init__()
    self.sizes, self.spec = sizes, spec
    self.obs_normalizer = EmpiricalNormalization(sizes[0])
    self.mlp = make_mlp(sizes, spec.activation, spec.layer_norm)
    bound = torch.ones(sizes[-1]) if action_bound is None else action_bound
    self.register_buffer("action_bound", bound, persistent=spec.squash)

  def digest(self) -> str:
    """Return the SHA-256 of all weights and buffers, in hexadecimal.

    It is that of the policy, whichever file it is in.
    """
    found = hashlib.sha256(repr(self.spec).encode())
    if self.output_clip is not None:
      found.update(repr(self.output_clip).encode())
    for name, value in sorted(self.state_dict().items()):
      found.update(name.encode())
      found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()

  def normalize(self, obs: Tensor) -> Tensor:
    """Return the normalised and clipped observations (..., O)."""
    normalized = self.obs_normalizer(obs)
    clip = self.spec.obs_clip
    return normalized if math.isinf(clip) else normalized.clamp(-clip, clip)

  @property
  def action_unit(self) -> Tensor:
    """Return the smallest bound (), by which a small output moves every action."""
    return self.action_bound.min()

  def squash(self, output: Tensor) -> Tensor:
    """Return actions (..., A) within their bounds, of outputs (..., A).

    All actions have the same slope at 0, so an update moves a joint with a wide bound no
    faster than the others: with ``bound * tanh(output)`` wrists that may turn far swing
    wildly from the first updates on.
    """
    bound = self.action_bound
    return bound * torch.tanh(output * (self.action_unit / bound))

  def act(self, normalized: Tensor) -> Tensor:
    """Return actions (..., A) for normalised observations (..., O)."""
    output = self.mlp(normalized)
    return self.squash(output) if self.spec.squash else output

  def forward(self, obs: Tensor) -> Tensor:
    """Return actions (..., A) for observations (..., O)."""
    action, limit = self.act(self.normalize(obs)), self.output_clip
    return action if limit is None else action.clamp(-limit, limit)


def actor_from(saved: dict[str, Any], path: object) -> Actor:
  """Return the actor in a checkpoint or policy file, on the CPU, without gradients.

  Args:
    saved: Contents with ``actor_state_dict`` and, unless it is PPO's, ``actor_spec``.
    path: Path of the file, for errors.

  Raises:
    UserError: The weights do not form an actor.
  """
  weights = {
    name: value.cpu() if isinstance(value, Tensor) else value
    for name, value in saved["actor_state_dict"].items()
    if not str(name).startswith("distribution.")
  }
  try:
    given = saved.get("actor_spec")
    spec = ActorSpec() if given is None else ActorSpec.from_dict(given)
    actor = Actor(_sizes(weights), spec)
    actor.load_state_dict(weights)
  except (ValueError, RuntimeError, AttributeError, TypeError, KeyError) as error:
    detail = one_line(error)
    raise UserError(f"{path}: not the actor of a policy ({detail})") from error
  return actor.eval().requires_grad_(False)


def _sizes(weights: dict[str, Any]) -> tuple[int, ...]:
  """Return the layer sizes of an actor from its linear weights."""
  found = {
    int(name.split(".")[1]): value.shape
    for name, value in weights.items()
    if name.startswith("mlp.") and name.endswith(".weight") and value.dim() == 2
  }
  shapes = [found[index] for index in sorted(found)]
  if not shapes:
    raise ValueError("it has no linear layers")
  return (int(shapes[0][1]), *(int(shape[0]) for shape in shapes))
