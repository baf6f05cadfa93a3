"""mjlab's ``Simulation`` on MuJoCo's C engine: the same arrays, filled on the CPU.

`NativeSimulation` keeps mjlab's arrays (Warp arrays in ordinary memory, which torch and
numpy share), so that entities, sensors, events, terms and viewers read and write them
as usual. Only the computation is replaced: ``step``, ``forward``, ``reset`` and
``recompute_constants``. Ray casts and camera rendering (``sense``) stay with Warp,
which reads the same arrays.

It depends on these parts of mjlab, each with a test in ``tests/sim/test_native.py``:

- ``mjlab.envs.manager_based_rl_env`` builds its simulation by the module's name
  ``Simulation``, with the keywords of `NativeSimulation` (see `smp.sim.engine`).
- ``Simulation.__init__`` applies ``cfg.mujoco`` to ``model`` and calls
  ``_finish_init``, which reads ``cfg.nconmax`` and ``cfg.njmax`` and sets ``_wp_data``
  and ``_data_bridge``; ``_wp_model``, ``_mj_model``, ``_mj_data`` and
  ``_expanded_fields`` hold what their names say.
- ``WarpBridge`` keeps the struct that it wraps in ``_struct`` and looks attributes up
  in ``__getattr__``.
- ``event_manager._DERIVED_FIELDS`` lists the fields that ``recompute_constants``
  computes.
- ``NanGuard.watch`` wraps a step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import torch
from mjlab.managers.event_manager import _DERIVED_FIELDS, RecomputeLevel
from mjlab.sim.sim import Simulation, SimulationCfg
from mjlab.sim.sim_data import TorchArray, WarpBridge

from smp.errors import UserError, one_line
from smp.sim.batch_stepper import BatchStepper, FieldMismatch

FALLBACK_HINT = "use --engine warp"

STATE = (
  "time",
  "qpos",
  "qvel",
  "act",
  "qacc_warmstart",
)
"""Fields that a step changes and the next one starts from."""

CONTROLS = (
  "ctrl",
  "qfrc_applied",
  "xfrc_applied",
  "eq_active",
  "mocap_pos",
  "mocap_quat",
  "userdata",
)
"""Fields that actions and events write and a step reads."""

RESULTS = (
  "qacc",
  "act_dot",
  "sensordata",
  "xpos",
  "xquat",
  "xmat",
  "xipos",
  "ximat",
  "xanchor",
  "xaxis",
  "geom_xpos",
  "geom_xmat",
  "site_xpos",
  "site_xmat",
  "cam_xpos",
  "cam_xmat",
  "light_xpos",
  "light_xdir",
  "subtree_com",
  "cdof",
  "cdof_dot",
  "cvel",
  "ten_length",
  "ten_velocity",
  "actuator_length",
  "actuator_velocity",
  "actuator_force",
  "qfrc_bias",
  "qfrc_spring",
  "qfrc_damper",
  "qfrc_gravcomp",
  "qfrc_fluid",
  "qfrc_passive",
  "qfrc_actuator",
  "qfrc_smooth",
  "qacc_smooth",
  "qfrc_constraint",
)
"""Fields that ``step`` and ``forward`` compute."""

_FRAMES = {"body_ipos", "body_iquat", "geom_pos", "geom_quat", "site_pos", "site_quat"}


class NativeData(WarpBridge):
  """View of mjlab's data without the arrays that this engine does not fill."""

  def __getattr__(self, name: str) -> Any:
    value = super().__getattr__(name)
    if name not in _FILLED and isinstance(value, (TorchArray, WarpBridge)):
      raise UserError(
        f"sim.data.{name}: the native engine does not fill this array; {FALLBACK_HINT}"
      )
    return value


_FILLED = frozenset(STATE + CONTROLS + RESULTS)


class NativeSimulation(Simulation):
  """mjlab's simulation, computed by MuJoCo's C engine on the CPU.

  Args:
    num_envs: Environments.
    cfg: As for mjlab. ``nconmax`` and ``njmax`` have no effect: MuJoCo's C engine
      allocates the memory that it needs.
    model: A compiled model, or
    spec: one to compile.
    device: "cpu".
    variant_info: Must be empty.
    threads: Number of environments computed in parallel. Default: one per core.

  Raises:
    UserError: the device is not the CPU, or the model does not compile or has a feature
      that this engine lacks.
  """

  def __init__(
    self,
    num_envs: int,
    cfg: SimulationCfg,
    model: mujoco.MjModel | None = None,
    device: str = "cpu",
    *,
    spec: mujoco.MjSpec | None = None,
    variant_info: list[Any] | None = None,
    threads: int = 1,
  ) -> None:
    if torch.device(device).type != "cpu":
      raise UserError(
        f"engine native: computes on the CPU, not on '{device}'; use --engine warp or "
        "--device cpu"
      )
    if variant_info:
      names = ", ".join(prefix.rstrip("/") for prefix, _ in variant_info)
      raise UserError(f"engine native: no mesh variants ({names}); {FALLBACK_HINT}")
    self._threads = threads
    if model is None and spec is not None:
      model = _compile(spec)
    if model is not None:
      _refuse_unsupported(model, cfg)
    try:
      super().__init__(num_envs, cfg, model=model, device=device)
    except NotImplementedError as error:
      # MuJoCo Warp names what it cannot store; this engine uses its arrays, too.
      raise UserError(f"model: {one_line(error)}") from error

  def _finish_init(self) -> None:
    cfg = self.cfg
    # Warp's arrays of contacts and constraints are unused, so make them minimal.
    contacts, constraints = self._mj_data.ncon, self._mj_data.nefc
    self.cfg = replace(cfg, nconmax=max(1, contacts), njmax=max(1, constraints))
    super()._finish_init()
    self.cfg = cfg
    self._data_bridge = NativeData(self._wp_data)
    self._loop = BatchStepper(
      self._mj_model, self._wp_model, self._wp_data, self.num_envs, self._threads
    )
    for model, data in zip(self._loop.models, self._loop.data, strict=True):
      if model.opt.jacobian == mujoco.mjtJacobian.mjJAC_AUTO and model.nv > 32:
        # This is Warp's choice. Dense, MuJoCo's own, takes a fifth longer on a G1.
        model.opt.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
      # As on Warp, an environment keeps a state that is not finite until its reset, so
      # that terminations and the NaN guard can detect it.
      model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET.value
      for warning in (
        mujoco.mjtWarning.mjWARN_BADQPOS,
        mujoco.mjtWarning.mjWARN_BADQVEL,
        mujoco.mjtWarning.mjWARN_BADQACC,
      ):
        data.warning[warning].number = 1  # MuJoCo logs only the first warning.
    self._prepare()

  def expand_model_fields(self, fields: tuple[str, ...]) -> None:
    """Give every environment its own row of model fields.

    Raises:
      UserError: the layouts of a field differ between the engines, or this engine would
        not read it.
    """
    if "body_gravcomp" in fields and not self._mj_model.ngravcomp:
      raise UserError(
        "engine native: cannot give robots their own body_gravcomp where the model has "
        f"none (MuJoCo leaves it out at compile time); give one body some, or {FALLBACK_HINT}"
      )
    super().expand_model_fields(fields)
    if _FRAMES & self._expanded_fields:
      for model in self._loop.models:
        # Clear shortcuts of the compiler that hold for the compiled offsets only.
        model.body_sameframe[:] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value
        model.geom_sameframe[:] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value
        model.site_sameframe[:] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE.value
        model.body_simple[:] = 0
    self._prepare()

  def step(self) -> None:
    """Advance every environment by one physics step."""
    with self.nan_guard.watch(self.data):
      self._loop.run("mj_step")

  def forward(self) -> None:
    """Compute everything that follows from the state, without a step."""
    self._loop.run("mj_forward")

  def reset(self, env_ids: torch.Tensor | None = None) -> None:
    """Reset environments (n,), by default all, to the model's initial state."""
    rows = slice(None) if env_ids is None else env_ids
    for name in ("time", "qvel", "act", "qacc_warmstart", "qacc", "act_dot"):
      getattr(self.data, name)[rows] = 0.0
    for name in ("ctrl", "qfrc_applied", "xfrc_applied", "userdata", "sensordata"):
      getattr(self.data, name)[rows] = 0.0
    self.data.qpos[rows] = self.model.qpos0[rows]
    model = self._mj_model
    if model.neq:
      self.data.eq_active[rows] = torch.from_numpy(model.eq_active0.astype(bool))
    for body in np.flatnonzero(model.body_mocapid >= 0):
      mocap = model.body_mocapid[body]
      self.data.mocap_pos[rows, mocap] = self.model.body_pos[rows, body]
      self.data.mocap_quat[rows, mocap] = self.model.body_quat[rows, body]

  def recompute_constants(self, level: RecomputeLevel) -> None:
    """Compute the model fields that follow from expanded ones, per environment."""
    scratch = BatchStepper(
      self._mj_model, self._wp_model, self._wp_data, self.num_envs, threads=1
    )
    derived = [name for name in _DERIVED_FIELDS[level] if name in self._expanded_fields]
    given = self._expanded_fields.difference(_DERIVED_FIELDS[RecomputeLevel.set_const])
    scratch.prepare("mj_setConst", sorted(given), (), (), derived)
    scratch.run("mj_setConst")

  def _prepare(self) -> None:
    fields = sorted(self._expanded_fields)
    inputs = STATE + CONTROLS
    try:
      self._loop.prepare("mj_step", fields, inputs, STATE + RESULTS)
      # As in Warp, `forward` leaves time, state and warm start unchanged.
      self._loop.prepare("mj_forward", fields, inputs, RESULTS)
    except FieldMismatch as error:
      raise UserError(
        f"engine native: cannot give robots their own {error}; {FALLBACK_HINT}"
      ) from error


def _compile(spec: mujoco.MjSpec) -> mujoco.MjModel:
  try:
    return spec.compile()
  except ValueError as error:
    raise UserError(
      f"the scene does not compile: {one_line(error)}; check the models, sensors and "
      "names in its configuration"
    ) from error


def _refuse_unsupported(model: mujoco.MjModel, cfg: SimulationCfg) -> None:
  """Raise ``UserError`` for features whose code or memory this engine lacks."""
  kinds = {
    "sensor": (model.sensor_type, mujoco.mjtSensor, ("USER", "PLUGIN")),
    "actuator": (model.actuator_dyntype, mujoco.mjtDyn, ("USER",)),
    "actuator gain": (model.actuator_gaintype, mujoco.mjtGain, ("USER",)),
    "actuator bias": (model.actuator_biastype, mujoco.mjtBias, ("USER",)),
  }
  for what, (types, enum, names) in kinds.items():
    for index, value in enumerate(types):
      kind = enum(int(value)).name.rsplit("_", 1)[-1]
      if kind in names:
        name = (model.sensor if what == "sensor" else model.actuator)(index).name
        raise UserError(
          f"{what} '{name}' (type {kind.lower()}): the native engine has no code for "
          f"it; {FALLBACK_HINT} or leave it out"
        )
  counts = {"plugins": model.nplugin, "flexes": model.nflex, "delays": model.nhistory}
  for what, count in counts.items():
    if count:
      raise UserError(
        f"the native engine has no {what} ({count} here); {FALLBACK_HINT}"
      )
  if "sleep" in cfg.mujoco.enableflags:
    raise UserError(f"the native engine has no enableflag 'sleep'; {FALLBACK_HINT}")
