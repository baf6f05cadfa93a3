"""An exported policy: a function from observations to actions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime

from smp.deploy.policy_spec import KEY, PolicySpec
from smp.errors import UserError


class OnnxPolicy:
  """A policy in an ONNX file that this project wrote.

  Args:
    path: The file.

  Attributes:
    spec: Description of the policy in the file's metadata.

  Raises:
    UserError: There is no such file, or it is not ONNX, not exported by this project,
      or damaged.
  """

  def __init__(self, path: str | os.PathLike[str]) -> None:
    self.path = Path(path)
    self._session = _open(self.path)
    self.spec = _read_spec(self.path, self._session)
    inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
    found = [tuple(each.shape) for each in (*inputs, *outputs)]
    wanted = [(1, self.spec.observation_size), (1, len(self.spec.joints.names))]
    if found != wanted:
      raise UserError(
        f"{path}: the network maps {found}, its metadata says {wanted}; export the "
        "policy again"
      )
    self._input = inputs[0].name

  def __call__(self, observation: np.ndarray) -> np.ndarray:
    """Return the action (A,), float32, for one observation (O,)."""
    row = np.asarray(observation, np.float32)[None]
    action = np.asarray(self._session.run(None, {self._input: row})[0])[0]
    limit = self.spec.clip_actions
    return action if limit is None else np.clip(action, -limit, limit)


def _open(path: Path) -> onnxruntime.InferenceSession:
  """Open the network on one core: it is small, and the physics runs beside it."""
  if not path.is_file():
    raise UserError(f"{path}: no such policy file")
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  options.inter_op_num_threads = 1
  options.log_severity_level = 4
  try:
    return onnxruntime.InferenceSession(
      path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
  except OSError as error:
    raise UserError(f"{path}: cannot read ({error.strerror})") from error
  except Exception as error:  # onnxruntime raises many private kinds of errors.
    raise UserError(
      f"{path}: not a readable ONNX file ({type(error).__name__}); export one with "
      "scripts/export.py"
    ) from error


def _read_spec(path: Path, session: onnxruntime.InferenceSession) -> PolicySpec:
  metadata = session.get_modelmeta().custom_metadata_map
  if KEY not in metadata:
    raise UserError(
      f"{path}: an ONNX file without the metadata '{KEY}'; export it with "
      "scripts/export.py"
    )
  try:
    return PolicySpec.loads(metadata[KEY])
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
