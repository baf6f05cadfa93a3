"""Files of arrays: GMR's NPZ and PKL, qpos, and mjlab's tracking tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smp.data.array_values import Objects, array_of, first_of
from smp.data.arrays import order_of, raw_of, width_of
from smp.data.pickles import load_pickle
from smp.data.source import Raw, SourceCfg
from smp.data.tracking_files import read_tracking
from smp.errors import UserError

_POS = ("root_pos", "root_trans_offset", "root_trans", "trans", "base_pos")

_ROT = ("root_rot", "root_quat", "base_quat")

_DOF = ("dof_pos", "dof", "joint_pos", "joints")


def read_arrays(path: Path, source: SourceCfg) -> Raw:
  """Return the contents of an NPZ or PKL.

  Raises:
    UserError: names the file, and the array that is wrong or missing.
  """
  data = _load_npz(path) if path.suffix.lower() == ".npz" else load_pickle(path)
  data = _unwrapped(path, data)
  tracking = "body_pos_w" in data and "joint_pos" in data
  if source.format == "csv" or source.format == "seed":
    raise UserError(f"{path}: --format {source.format} is of text files")
  if source.format == "mjlab" and not tracking:
    raise UserError(f"{path}: no arrays 'joint_pos' and 'body_pos_w', so not mjlab's")
  if tracking and source.format != "gmr":
    return read_tracking(path, data, source)
  if first_of(data, ("qpos",)) is not None and first_of(data, _POS) is None:
    return _qpos(path, data, source)
  names = [first_of(data, group) for group in (_POS, _ROT, _DOF)]
  for name, group in zip(names, (_POS, _ROT, _DOF), strict=True):
    if name is None:
      have = ", ".join(map(str, list(data)[:6]))
      raise UserError(
        f"{path}: no array '{group[0]}', so neither GMR's nor mjlab's (it holds {have})"
      )
  pos, rot, dof = (array_of(path, data, str(name)) for name in names)
  order = order_of(path, data, source, width_of(dof))
  return raw_of(path, data, pos, rot, dof, "xyzw", order, source.fps)


def _unwrapped(path: Path, data: Any) -> dict[str, Any]:
  """Return the table of arrays; some tools nest it in a table of clips by name."""
  if isinstance(data, dict) and len(data) == 1:
    (inner,) = data.values()
    if isinstance(inner, dict):
      data = inner
  elif (
    isinstance(data, dict) and data and all(isinstance(v, dict) for v in data.values())
  ):
    raise UserError(f"{path}: holds {len(data)} clips; save each in a file of its own")
  if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
    raise UserError(f"{path}: not a table of arrays, but {type(data).__name__}")
  return data


def _load_npz(path: Path) -> dict[str, Any]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      found = {}
      for key in archive.files:
        try:
          found[key] = archive[key]
        except ValueError as error:
          if "Object arrays" not in str(error):
            raise UserError(
              f"{path}: array '{key}' is unreadable: its header contradicts its size, or "
              "is damaged; write the file again"
            ) from None
          # Reading it could run code. Most are descriptions, which nothing asks for.
          found[key] = Objects()
      return found
  except UserError:
    raise
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror or error})") from error
  except Exception as error:  # numpy parses headers as Python: many types of errors.
    raise UserError(f"{path}: not a readable NPZ ({type(error).__name__})") from error


def _qpos(path: Path, data: Mapping[str, Any], source: SourceCfg) -> Raw:
  """Return the contents of MuJoCo's coordinates: root xyz, wxyz, joints."""
  qpos = array_of(path, data, "qpos")
  if qpos.ndim != 2 or qpos.shape[1] < 8:
    raise UserError(f"{path}: 'qpos' is {qpos.shape}, expected (T, 36)")
  parts = (qpos[:, :3], qpos[:, 3:7], qpos[:, 7:])
  order = order_of(path, data, source, qpos.shape[1] - 7)
  return raw_of(path, data, *parts, "wxyz", order, source.fps)
