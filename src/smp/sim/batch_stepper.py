"""Run MuJoCo over a batch of environments: copy in, call MuJoCo, copy out, in C.

mjlab keeps the state of all environments in arrays of shape (environments, ...) in
float32. MuJoCo's C engine works on one ``MjData`` in float64. `BatchStepper` connects
the
two: each thread owns one ``MjData`` and one ``MjModel``, takes the next environment,
copies its rows in, calls ``mj_step`` (or another function of the same signature), and
copies the results out.

The loop over environments is C (`smp.utils.native_code`), and gets the address of the
MuJoCo function. The call releases Python's lock, so threads run in parallel. All
threads take environments from one counter, so environments with many contacts do not
delay the rest. The result does not depend on which thread takes which environment.
"""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from smp.sim.failures import survive_divergence
from smp.utils.native_code import LaunchPool, NativeKernel

_HEADER = 8
_ROW = 5
_FLOATS, _BYTES, _INTS = range(3)
_KINDS = {
  ("f8", "f4"): _FLOATS,
  ("b1", "b1"): _BYTES,
  ("u1", "b1"): _BYTES,
  ("i4", "i4"): _INTS,
}

# The job is an array of 64-bit integers: function, model, data, counter, environments,
# rows to copy in, rows to copy out, unused; then per row: address in MuJoCo, address of
# environment 0, bytes from one environment to the next, number of values, type. Rows
# are copied in before the call and out after it; MuJoCo's doubles become floats in the
# batch.
_SNIPPET = f"""
void (*call)(void*, void*) = (void (*)(void*, void*))job[0];
Int* counter = (Int*)job[3];
const Int robots = job[4], ins = job[5], rows = job[5] + job[6];
for (;;) {{
  const Int robot = __atomic_fetch_add(counter, (Int)1, __ATOMIC_RELAXED);
  if (robot >= robots) break;
  for (Int k = 0; k < rows; ++k) {{
    if (k == ins) call((void*)job[1], (void*)job[2]);
    const Int* row = job + {_HEADER} + {_ROW} * k;
    const Int number = row[3], batch = row[1] + robot * row[2];
    if (row[4] == {_FLOATS}) {{
      double* one = (double*)row[0];
      float* all = (float*)batch;
      if (k < ins) for (Int e = 0; e < number; ++e) one[e] = (double)all[e];
      else for (Int e = 0; e < number; ++e) all[e] = (float)one[e];
    }} else if (row[4] == {_BYTES}) {{
      char* one = (char*)row[0];
      char* all = (char*)batch;
      if (k < ins) for (Int e = 0; e < number; ++e) one[e] = all[e];
      else for (Int e = 0; e < number; ++e) all[e] = one[e];
    }} else {{
      int* one = (int*)row[0];
      int* all = (int*)batch;
      if (k < ins) for (Int e = 0; e < number; ++e) one[e] = all[e];
      else for (Int e = 0; e < number; ++e) all[e] = one[e];
    }}
  }}
}}
"""


_KERNEL = NativeKernel("native physics", _SNIPPET)


class FieldMismatch(Exception):
  """Raised for a field whose layouts in MuJoCo and MuJoCo Warp differ."""


@dataclass(frozen=True)
class Row:
  """A copy between one array of MuJoCo and the rows of one batch array."""

  name: str
  one: np.ndarray
  batch: np.ndarray

  def words(self) -> list[int]:
    """Return the row as the C loop reads it.

    Raises:
      FieldMismatch: sizes or types differ.
    """
    values = int(np.prod(self.batch.shape[1:], initial=1))
    if self.one.size != values:
      raise FieldMismatch(f"{self.name} ({self.one.size} values, Warp has {values})")
    pair = (self.one.dtype.str[1:], self.batch.dtype.str[1:])
    kind = _KINDS.get(pair)
    if kind is None:
      raise FieldMismatch(f"{self.name} ({pair[0]}, Warp has {pair[1]})")
    stride = 0 if self.batch.shape[0] == 1 else self.batch.strides[0]
    return [self.one.ctypes.data, self.batch.ctypes.data, stride, values, kind]


class BatchStepper:
  """Caller of a MuJoCo function for every environment, on several threads.

  Args:
    model: Copied once per thread; per-environment values are written into the copies.
    batch_model: Warp's model, which holds the per-environment values.
    batch_data: Warp's data on the CPU, which holds the state of all environments.
    num_envs: Rows of the batch.
    threads: At least 1.
  """

  def __init__(
    self,
    model: mujoco.MjModel,
    batch_model: Any,
    batch_data: Any,
    num_envs: int,
    threads: int,
  ) -> None:
    self.threads = min(threads, num_envs)
    self._batch_model, self._batch_data = batch_model, batch_data
    self._num_envs = num_envs
    self._counter = np.zeros(1, np.int64)
    self._models = [copy.copy(model) for _ in range(self.threads)]
    self._data = [mujoco.MjData(one) for one in self._models]
    self._launch_pool = LaunchPool(self.threads)
    self._jobs: dict[str, list[tuple[Any, np.ndarray]]] = {}

  @property
  def models(self) -> list[mujoco.MjModel]:
    """Return the threads' models, for changes that all environments share."""
    return self._models

  @property
  def data(self) -> list[mujoco.MjData]:
    """Return the threads' data."""
    return self._data

  def prepare(
    self,
    function: str,
    model_in: Iterable[str],
    data_in: Iterable[str],
    data_out: Iterable[str] = (),
    model_out: Iterable[str] = (),
  ) -> None:
    """Set what a call of ``function`` copies; names are fields of both engines.

    Raises:
      FieldMismatch: the layouts of a field differ between the two engines.
    """
    library = _library()
    survive_divergence(library)
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    assert address is not None
    names = [list(each) for each in (model_in, data_in, data_out, model_out)]
    self._jobs[function] = [
      self._job(address, model, data, *names)
      for model, data in zip(self._models, self._data, strict=True)
    ]

  def run(self, function: str) -> None:
    """Call ``function`` for every environment, and return when all are done."""
    self._counter[0] = 0
    self._launch_pool.run([launch for launch, _ in self._jobs[function]])

  def _job(
    self,
    address: int,
    model: mujoco.MjModel,
    data: mujoco.MjData,
    model_in: list[str],
    data_in: list[str],
    data_out: list[str],
    model_out: list[str],
  ) -> tuple[Any, np.ndarray]:
    """Return a recorded launch of the C loop, and the array that it reads."""
    ins = self._rows(model, self._batch_model, model_in)
    ins += self._rows(data, self._batch_data, data_in)
    outs = self._rows(data, self._batch_data, data_out)
    outs += self._rows(model, self._batch_model, model_out)
    # The addresses stay valid: self keeps the counter and the MuJoCo objects alive, and
    # the owners of the rows keep the rows.
    header = [address, model._address, data._address, self._counter.ctypes.data]
    header += [self._num_envs, len(ins), len(outs), 0]
    job = np.array([header + sum(ins + outs, [])], np.int64)
    return _KERNEL.record(job), job

  @staticmethod
  def _rows(one: Any, batch: Any, names: list[str]) -> list[list[int]]:
    pairs = [(name, _array(one, name), getattr(batch, name)) for name in names]
    # Warp's `numpy` shares the memory of an array on the CPU.
    return [Row(n, a, b.numpy()).words() for n, a, b in pairs if a.size]


def _array(owner: Any, name: str) -> np.ndarray:
  """Return a field of ``MjModel`` or ``MjData`` as an array that shares its memory."""
  if name != "time":
    array = getattr(owner, name, None)
    if isinstance(array, np.ndarray):
      return array
    raise FieldMismatch(f"{name} (not an array in MuJoCo)")
  # `time` is a plain number in Python. In memory it lies right before `energy`.
  address = owner.energy.ctypes.data - owner.energy.itemsize
  time = np.ctypeslib.as_array((ctypes.c_double * 1).from_address(address))
  before, owner.time = owner.time, 1.25
  if time[0] != 1.25:
    raise RuntimeError("mjData.time is not where this version of MuJoCo had it")
  owner.time = before
  return time


@functools.cache
def _library() -> ctypes.CDLL:
  """Return the MuJoCo library that the Python package has loaded."""
  folder = Path(mujoco.__file__).parent
  for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll"):
    for path in sorted(folder.glob(pattern)):
      return ctypes.CDLL(str(path))
  raise RuntimeError(f"{folder}: no MuJoCo library here")
