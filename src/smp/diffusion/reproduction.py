"""Import of the priors published with the G1 reproduction, which are pickles.

A pickle runs code when it is loaded. Here one is read by torch's restricted loader,
which may build tensors, plain containers and the numpy arrays listed below and nothing
else. The rest of the project reads safetensors only.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smp.diffusion.denoiser import Denoiser
from smp.diffusion.prior import MotionPrior, check_heads, check_tensors
from smp.errors import UserError
from smp.motion.features import FeatureSpec, g1_spec
from smp.utils.schema import Size, read_as

_RECONSTRUCT = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
# numpy before 2.0 wrote the second name.
_ALLOWED = [
  (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
  (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
  np.ndarray,
  np.dtype,
  np.dtypes.Float32DType,
]

UNKNOWN_LICENCE = "none stated by its publisher: for comparison, do not redistribute"


@dataclass(frozen=True)
class Sizes:
  """Sizes of the network in the configuration of a published prior."""

  d_model: Size
  nhead: Size
  num_layers: Size
  num_timesteps: Size
  feature_dim: Size
  window_size: Size


def import_reproduction(path: Path, licence: str = UNKNOWN_LICENCE) -> MotionPrior:
  """Read a published checkpoint as a `MotionPrior`.

  Its windows were anchored at the yaw of the last root and its velocities taken from
  whole clips, so its spec says heading "yaw" and velocity "clip".

  Raises:
    UserError: The file is missing, damaged, asks for code to be run, or does not hold
      a prior over the features of `g1_spec`.
  """
  checkpoint = _read(path)
  for key in ("model", "q_low", "q_high", "cfg"):
    if key not in checkpoint:
      raise UserError(f"{path}: no '{key}' in it, so not a published motion prior")
  spec = g1_spec(heading="yaw", velocity="clip")
  sizes = _sizes(path, checkpoint["cfg"], spec)
  denoiser = Denoiser(
    feature_dim=sizes.feature_dim,
    window=sizes.window_size,
    d_model=sizes.d_model,
    nhead=sizes.nhead,
    num_layers=sizes.num_layers,
  )
  tensors = _tensors(path, checkpoint["model"])
  check_tensors(path, tensors, denoiser.state_dict())
  denoiser.load_state_dict(tensors)
  low, high = (
    _quantiles(path, key, checkpoint[key], sizes.feature_dim)
    for key in ("q_low", "q_high")
  )
  info = {
    "source": {
      "file": path.name,
      "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
      "epoch": _plain(checkpoint.get("epoch")),
    },
    "config": _plain(checkpoint["cfg"]),
    "licence": licence,
  }
  return MotionPrior(denoiser, low, high, spec, sizes.num_timesteps, info)


def _read(path: Path) -> dict[str, Any]:
  if not path.is_file():
    raise UserError(f"{path}: no such file; give the path of a published prior (.pt)")
  try:
    with torch.serialization.safe_globals(_ALLOWED):
      checkpoint = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    raise UserError(
      f"{path}: refused: it holds more than tensors and float32 arrays, or is no "
      f"checkpoint at all ({_first_sentence(error)}); import only priors you trust to "
      "be what they say"
    ) from error
  except Exception as error:  # Damaged files raise many kinds of errors.
    raise UserError(
      f"{path}: cannot be read, damaged or cut short ({_first_sentence(error)}); "
      "download it again"
    ) from error
  if not isinstance(checkpoint, dict):
    raise UserError(f"{path}: not a table of entries, so not a published motion prior")
  return checkpoint


def _first_sentence(error: Exception) -> str:
  """Return the first sentence of an error of torch's loader.

  The rest of the message is long, and some of its advice is wrong here.
  """
  text = str(error).split("WeightsUnpickler error:")[-1].strip() or type(error).__name__
  return text.splitlines()[0].split(". ")[0][:160]


def _sizes(path: Path, cfg: Any, spec: FeatureSpec) -> Sizes:
  sizes = read_as(Sizes, cfg, path, "not a published motion prior", at="cfg")
  ours = {"feature_dim": sum(spec.feature_dims), "window_size": spec.window}
  for name, want in ours.items():
    if getattr(sizes, name) != want:
      raise UserError(
        f"{path}: 'cfg.{name}' is {getattr(sizes, name)}, this program's windows have "
        f"{want}; a prior over other features cannot be imported"
      )
  check_heads(str(path), sizes.d_model, sizes.nhead)
  return sizes


def _tensors(path: Path, model: Any) -> dict[str, Tensor]:
  if not isinstance(model, dict):
    raise UserError(f"{path}: 'model' is not a table of tensors")
  for name, value in model.items():
    if not isinstance(value, Tensor):
      raise UserError(f"{path}: model entry '{name}' is not a tensor")
  return dict(model)


def _quantiles(path: Path, key: str, value: Any, dim: int) -> Tensor:
  array = value.numpy() if isinstance(value, Tensor) else value
  if not isinstance(array, np.ndarray) or array.shape != (dim,):
    raise UserError(f"{path}: '{key}' is not an array of {dim} numbers")
  if not np.isfinite(array).all():
    raise UserError(f"{path}: '{key}' has non-finite values")
  return torch.from_numpy(array.astype(np.float32))


def _plain(value: Any) -> Any:
  """Return ``value`` in JSON types; anything that JSON cannot hold becomes text."""
  if isinstance(value, dict):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  return value if isinstance(value, int | float | str | None) else str(value)
