"""The sagittal mirror of observations and actions: left and right swapped.

The robot and its world look the same in a mirror that stands upright in the middle of
the robot, so the mirror image of every valid transition is valid too. In the heading
frame (x forward, y left, z up) vectors such as velocities change the sign of y, angular
velocities those of x and z, and joints swap with those of the other side.

mjlab's G1 is very nearly symmetric: joints, limits, motors and masses are equal, but
the centres of mass of waist and torso lie 0.2 and 0.3 mm off the middle, the inertia of
one knee differs by 0.8 % and one end of a foot by 1 mm. After a step of 20 ms the
median difference is 0.006 rad/s, where joint speeds change by 15 rad/s; robots that lie
in many contacts may diverge further. The denoiser of a prior is not symmetric by
construction: its SDS losses of a motion and of the mirror image differ by 2 to 7 %,
about as much as two draws of noise for one window.

`observation_mirror` and `action_mirror` assemble such a signed permutation from what
each term declares about itself. A new term is declared with `register_mirror` or
`register_invariant`, a new command with an attribute ``mirror_sign``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import mujoco
import torch
from mjlab.envs import mdp as envs_mdp
from mjlab.envs.mdp.actions.actions import BaseAction
from mjlab.managers.observation_manager import ObservationTermCfg
from mjlab.managers.scene_entity_config import SceneEntityCfg
from torch import Tensor, nn

from smp.errors import UserError
from smp.robots import g1

if TYPE_CHECKING:
  from mjlab.envs import ManagerBasedRlEnv

POLAR = (1.0, -1.0, 1.0)
"""Signs of a mirrored velocity, force or direction, body frame."""

AXIAL = (-1.0, 1.0, -1.0)
"""Signs of a mirrored angular velocity or torque, body frame."""

_SENSORS = {
  mujoco.mjtSensor.mjSENS_VELOCIMETER: POLAR,
  mujoco.mjtSensor.mjSENS_ACCELEROMETER: POLAR,
  mujoco.mjtSensor.mjSENS_GYRO: AXIAL,
}

_TOLERANCE = 1e-5
"""Absolute tolerance between settings of the two sides that should be equal."""


class Mirror(nn.Module):
  """A signed permutation that is its own inverse.

  Args:
    index: (D,), source of each component of the mirrored vector.
    sign: (D,) of 1 and -1, factor of each component of the mirrored vector.

  Raises:
    ValueError: mirroring twice is not the identity.
  """

  index: Tensor
  """(D,) long."""
  sign: Tensor
  """(D,) float."""

  def __init__(self, index: Sequence[int] | Tensor, sign: Sequence[float] | Tensor):
    super().__init__()
    index = torch.as_tensor(index, dtype=torch.long)
    sign = torch.as_tensor(sign, dtype=torch.float)
    here = torch.arange(len(index), device=index.device)
    if len(sign) != len(index) or not torch.equal(index[index], here):
      raise ValueError("a mirror's index must be a permutation that is its own inverse")
    if not torch.equal(sign * sign[index], torch.ones_like(sign)):
      raise ValueError("a mirror's signs must be 1 or -1, alike for both of a pair")
    self.register_buffer("index", index, persistent=False)
    self.register_buffer("sign", sign, persistent=False)

  def __len__(self) -> int:
    return len(self.index)

  def forward(self, x: Tensor) -> Tensor:
    """Return the mirror image (..., D) of x (..., D)."""
    # This is five times as fast on a CPU as x[..., index].
    return x.index_select(-1, self.index) * self.sign

  @staticmethod
  def of_signs(sign: Sequence[float]) -> Mirror:
    """Return the mirror of components that keep their places."""
    return Mirror(torch.arange(len(sign)), sign)

  @staticmethod
  def join(parts: Sequence[Mirror]) -> Mirror:
    """Return the mirror of vectors that are concatenations of ``parts``."""
    index, sign = [], []
    for part in parts:
      index += [len(index) + place for place in part.index.tolist()]
      sign += part.sign.tolist()
    return Mirror(index, sign)


# Declarations of terms.

TermMirror = Callable[..., Mirror]
"""``f(env, width, **params)``, which returns the mirror of one frame, ``width``
numbers, of an observation term that has these params."""

_Func = TypeVar("_Func", bound=Callable[..., Any])

_TERMS: dict[Any, TermMirror] = {}


def register_mirror(
  func: Callable[..., Any], mirror: TermMirror | Sequence[float]
) -> None:
  """Declare how an observation term is mirrored.

  Args:
    func: The term's function, or its class.
    mirror: The signs of its components, if they keep their places, or
      ``f(env, width, **params) -> Mirror`` of one frame.
  """
  if callable(mirror):
    _TERMS[func] = mirror
  else:
    signs = tuple(mirror)
    _TERMS[func] = lambda *_, **__: Mirror.of_signs(signs)


def register_invariant(func: _Func) -> _Func:
  """Declare that the mirror changes no component of an observation term.

  Return the function, so that this can be used as a decorator.
  """
  _TERMS[func] = lambda env, width, **_: Mirror.of_signs((1.0,) * width)
  return func


# The mirror of an environment.


def observation_mirror(env: ManagerBasedRlEnv, group: str) -> Mirror:
  """Return the mirror of an observation group of a policy or a critic.

  With a flattened history the frames of a term follow one another, oldest first, and
  the terms after that; each frame is mirrored by itself.

  Args:
    env: Any environment all of whose terms are declared.
    group: Name such as "actor". Its terms must be concatenated.

  Raises:
    UserError: no such group, or a term that has no mirror; names the term and says how
      to declare it.
  """
  manager = env.observation_manager
  if group not in manager.active_terms:
    groups = ", ".join(manager.active_terms)
    raise UserError(f"observation group '{group}': no such group; choose of {groups}")
  if not manager.group_obs_concatenate[group]:
    raise UserError(
      f"observation group '{group}': terms are not concatenated, so it has no mirror; "
      "set concatenate_terms"
    )
  parts = []
  sizes = zip(
    manager.active_terms[group], manager.group_obs_term_dim[group], strict=True
  )
  for name, dims in sizes:
    cfg = manager.get_term_cfg(group, name)
    frames = max(1, cfg.history_length) if cfg.flatten_history_dim else 1
    where = f"observation term '{name}' of group '{group}'"
    mirror = _term_mirror(env, cfg, dims[-1] // frames, where)
    parts += [mirror] * frames
  return Mirror.join(parts).to(env.device)


def action_mirror(env: ManagerBasedRlEnv) -> Mirror:
  """Return the mirror of the actions (N, A) that a policy gives to ``env.step``.

  Raises:
    UserError: an action term does not move joints of the G1, or its scale, offset or
      clip differs between the two sides.
  """
  names = env.action_manager.active_terms
  return Mirror.join([_action_mirror(env, name) for name in names]).to(env.device)


def joint_mirror(names: Sequence[str]) -> Mirror:
  """Return the mirror of joint angles, rates or torques in the order of ``names``.

  Raises:
    UserError: a joint is not one of the G1, or its counterpart is missing.
  """
  index, sign = [], []
  for name in names:
    if name not in g1.JOINT_NAMES:
      raise UserError(f"joint '{name}' has no mirror: it is not a joint of the G1")
    joint = g1.JOINT_NAMES.index(name)
    other = g1.JOINT_NAMES[g1.MIRROR_INDEX[joint]]
    if other not in names:
      raise UserError(f"joint '{name}' has no mirror without '{other}': add it")
    index.append(list(names).index(other))
    sign.append(g1.MIRROR_SIGN[joint])
  return Mirror(index, sign)


def _term_mirror(
  env: ManagerBasedRlEnv, cfg: ObservationTermCfg, width: int, where: str
) -> Mirror:
  func: Any = cfg.func
  make = _TERMS.get(func) or _TERMS.get(type(func))
  if make is None:
    name = getattr(func, "__name__", type(func).__name__)
    raise UserError(
      f"{where}: no mirror is declared for '{name}'; declare it with "
      f"smp.mdp.symmetry.register_mirror({name}, signs) or register_invariant({name}), "
      "or train without mirroring"
    )
  try:
    mirror = make(env, width, **cfg.params)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  if len(mirror) != width:
    raise UserError(
      f"{where}: its mirror is declared for {len(mirror)} components, it has {width}"
    )
  _check_processing(cfg, mirror, where)
  return mirror


def _check_processing(cfg: ObservationTermCfg, mirror: Mirror, where: str) -> None:
  """Raise ``UserError`` unless scale and clip are equal for both sides."""
  if cfg.scale is not None:
    scale = torch.as_tensor(cfg.scale).cpu().expand(len(mirror))
    if not torch.equal(scale[mirror.index], scale):
      raise UserError(f"{where}: scale is not alike on both sides; make it so")
  if cfg.clip and bool((mirror.sign < 0).any()) and cfg.clip[0] != -cfg.clip[1]:
    raise UserError(
      f"{where}: clip {cfg.clip} must be symmetric about 0 to be mirrored"
    )


# Terms of mjlab.


def _joints(
  env: ManagerBasedRlEnv, asset_cfg: SceneEntityCfg | None, default: str
) -> Mirror:
  """Return the mirror of joints relative to an attribute of the robot's data."""
  asset_cfg = asset_cfg or SceneEntityCfg("robot")
  robot: Any = env.scene[asset_cfg.name]
  ids, names = asset_cfg.joint_ids, robot.joint_names
  chosen = names[ids] if isinstance(ids, slice) else [names[i] for i in ids]
  mirror = joint_mirror(chosen)
  rest = getattr(robot.data, default)[0, ids].cpu()
  if not torch.allclose(mirror(rest), rest, atol=_TOLERANCE):
    raise UserError(f"{default} of the robot is not alike on both sides")
  return mirror


def _joint_pos_rel(
  env: ManagerBasedRlEnv, width: int, asset_cfg: SceneEntityCfg | None = None, **_: Any
) -> Mirror:
  return _joints(env, asset_cfg, "default_joint_pos")


def _joint_vel_rel(
  env: ManagerBasedRlEnv, width: int, asset_cfg: SceneEntityCfg | None = None, **_: Any
) -> Mirror:
  return _joints(env, asset_cfg, "default_joint_vel")


def _last_action(
  env: ManagerBasedRlEnv, width: int, action_name: str | None = None
) -> Mirror:
  if action_name is None:
    return action_mirror(env).cpu()
  return _action_mirror(env, action_name)


def _generated_commands(
  env: ManagerBasedRlEnv, width: int, command_name: str
) -> Mirror:
  command = env.command_manager.get_term(command_name)
  sign = getattr(command, "mirror_sign", None)
  if sign is None:
    raise UserError(
      f"command '{command_name}': {type(command).__name__} does not say how it looks in "
      "the mirror; give the class an attribute mirror_sign with 1 or -1 per component, "
      "or train without mirroring"
    )
  return Mirror.of_signs(sign)


def _builtin_sensor(env: ManagerBasedRlEnv, width: int, sensor_name: str) -> Mirror:
  model = env.sim.mj_model
  sensor = model.sensor(sensor_name)
  sign = _SENSORS.get(mujoco.mjtSensor(int(sensor.type[0])))
  if sign is None:
    _refuse_sensor(sensor_name, "is of a kind that has no mirror here")
  body = model.body(model.site_bodyid[int(sensor.objid[0])]).name.rsplit("/", 1)[-1]
  if g1.other_side(body) != body:
    _refuse_sensor(sensor_name, f"is on one side of the robot ({body})")
  return Mirror.of_signs(sign)


def _refuse_sensor(name: str, why: str) -> NoReturn:
  raise UserError(
    f"sensor '{name}' {why}; observe it by a function of its own and declare that with "
    "smp.mdp.symmetry.register_mirror"
  )


register_mirror(envs_mdp.base_lin_vel, POLAR)
register_mirror(envs_mdp.base_ang_vel, AXIAL)
register_mirror(envs_mdp.projected_gravity, POLAR)
register_mirror(envs_mdp.joint_pos_rel, _joint_pos_rel)
register_mirror(envs_mdp.joint_vel_rel, _joint_vel_rel)
register_mirror(envs_mdp.last_action, _last_action)
register_mirror(envs_mdp.generated_commands, _generated_commands)
register_mirror(envs_mdp.builtin_sensor, _builtin_sensor)


def _action_mirror(env: ManagerBasedRlEnv, name: str) -> Mirror:
  """Return the mirror of one action term, on the CPU."""
  term = env.action_manager.get_term(name)
  where = f"action term '{name}'"
  if not isinstance(term, BaseAction):
    raise UserError(
      f"{where}: {type(term).__name__} has no mirror, only actions on joints have; "
      "train without mirroring"
    )
  try:
    mirror = joint_mirror(term.target_names)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  _check_both_sides(term, mirror, where)
  return mirror


def _check_both_sides(term: BaseAction, mirror: Mirror, where: str) -> None:
  """Raise ``UserError`` unless scale, offset and clip are equal for both sides."""
  scale, offset = (
    _first_robot(value).expand(len(mirror)) for value in (term.scale, term.offset)
  )
  settings = {"scale": (scale[mirror.index], scale), "offset": (mirror(offset), offset)}
  if term.cfg.clip is not None:
    low, high = _first_robot(term._clip).unbind(-1)
    ends = torch.stack((mirror(low), mirror(high))).sort(dim=0).values
    settings["clip"] = (ends, torch.stack((low, high)))
  for name, (image, value) in settings.items():
    if not torch.allclose(image, value, atol=_TOLERANCE):
      raise UserError(f"{where}: {name} is not alike on both sides; make it so")


def _first_robot(setting: Tensor | float) -> Tensor:
  """Return a setting of an action that all environments share, on the CPU."""
  return setting[0].cpu() if isinstance(setting, Tensor) else torch.tensor([setting])
