"""A GPU that is not there: tensors that say they are on ``cuda:0``, computed by the CPU.

Code that has never met a GPU breaks on one in a few ways. These need none to be found:

- Tensors of two devices meet in one operation, or a generator is of the other device.
- The host waits for the device: ``.item()``, a boolean index, a copy between the two.
  `SimulatedGpu.waits` lists where; with ``torch.cuda.set_sync_debug_mode("error")`` it
  is an error, as there, and while a graph is captured it always is.
- A CUDA graph computes nothing in capture, and replays operations only, with the memory
  of that time: what Python or the host did in between is not repeated.
- Branches for a GPU that no machine without one ever enters.

Kernels, their rounding, streams, speed and memory are not simulated.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
aten = torch.ops.aten

_WAITING = (
  aten._local_scalar_dense,
  aten._unique2,
  aten.bincount,
  aten.equal,
  aten.is_nonzero,
  aten.item,
  aten.masked_select,
  aten.nonzero,
  aten.unique_consecutive,
  aten.unique_dim,
)
"""Operations whose result, or its shape, the host must see."""

_INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


@dataclass(frozen=True)
class Wait:
  """The host waited for the device."""

  what: str
  place: str
  """File and line that asked for it: the innermost outside torch."""


class GpuTensor(torch.Tensor):
  """A tensor on the simulated GPU; ``host`` has the numbers.

  To torch's own code in C++ it is on the CPU, which would otherwise call the driver.
  """

  host: torch.Tensor

  @staticmethod
  def __new__(cls, host: torch.Tensor):
    return torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
      cls,
      host.shape,
      strides=host.stride(),
      storage_offset=host.storage_offset(),
      dtype=host.dtype,
      device=torch.device("cpu"),
    )

  def __init__(self, host: torch.Tensor):
    self.host = host

  device = property(lambda self: GPU)  # pyright: ignore[reportAssignmentType]
  is_cuda = property(lambda self: True)  # pyright: ignore[reportAssignmentType]
  is_cpu = property(lambda self: False)  # pyright: ignore[reportAssignmentType]

  def get_device(self) -> int:
    return 0

  def tolist(self):
    return self.cpu().tolist()

  def numpy(self, *, force: bool = False):
    if not force:
      raise TypeError("can't convert cuda:0 device type tensor to numpy")
    return self.cpu().numpy()

  def __array__(self, dtype: Any = None):
    raise TypeError("can't convert cuda:0 device type tensor to numpy")

  def __format__(self, spec: str) -> str:
    return format(self.item(), spec)

  def __repr__(self, *, tensor_contents: Any = None) -> str:
    return f"GpuTensor({self.host!r})"

  def __reduce_ex__(self, protocol: Any):
    return self.host.detach().__reduce_ex__(protocol)

  def __deepcopy__(self, memo: dict[int, Any]):
    if id(self) not in memo:
      made: torch.Tensor = GpuTensor(self.host.detach().clone())
      if isinstance(self, torch.nn.Parameter):
        made = torch.nn.Parameter(made, self.requires_grad)
      memo[id(self)] = made
    return memo[id(self)]

  @classmethod
  def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
    return SimulatedGpu.current().execute(func, args, kwargs or {})


def _host(x: Any) -> Any:
  return x.host if isinstance(x, GpuTensor) else x


def _on_gpu(device: Any) -> bool:
  return device is not None and torch.device(device).type == "cuda"


class SimulatedGpu:
  """While this context is open, ``cuda`` is a device that works.

  Attributes:
    waits: Each time the host waited for the device, in order.
    launches: How many operations, and graphs, the host asked the device for.
  """

  _current: SimulatedGpu | None = None

  def __init__(self) -> None:
    self.waits: list[Wait] = []
    self.launches = 0
    self.sync_debug = "default"
    self.recording: Recording | None = None
    self._stack = contextlib.ExitStack()

  @classmethod
  def current(cls) -> SimulatedGpu:
    if cls._current is None:
      raise RuntimeError("no simulated GPU is open")
    return cls._current

  def __enter__(self) -> SimulatedGpu:
    SimulatedGpu._current = self
    for name, value in _cuda(self).items():
      self._patch(torch.cuda, name, value)
    self._patch(torch, "load", _load)
    self._patch(torch, "Generator", _Generator)
    self._patch(torch.onnx, "export", _export)
    # Warp computes on the CPU; torch sees its arrays on the GPU.
    wp.init()
    from warp._src.context import Runtime

    self._patch(Runtime, "get_device", _warp_device)
    self._patch(wp, "to_torch", lambda array: GpuTensor(_to_torch(array)))
    # A module takes new parameters when it moves: these cannot be put into the old.
    future = torch.__future__
    before = future.get_overwrite_module_params_on_conversion()
    future.set_overwrite_module_params_on_conversion(True)
    self._stack.callback(future.set_overwrite_module_params_on_conversion, before)
    self._stack.enter_context(_Functions())
    self._stack.enter_context(_Operations())
    return self

  def __exit__(self, *error: Any) -> None:
    self._stack.close()
    SimulatedGpu._current = None

  def _patch(self, owner: Any, name: str, value: Any) -> None:
    self._stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)

  def execute(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation: on the host, or checked and computed for the device."""
    device = kwargs.get("device")
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, GpuTensor)]
    if not ours and not _on_gpu(device):
      return func(*args, **kwargs)
    on_gpu = True
    if func.overloadpacket is aten.copy_:
      on_gpu = isinstance(args[0], GpuTensor)
      if len(ours) < len(tensors) and not (len(args) > 2 and args[2]):
        self.wait("copy between host and device")
    elif func.overloadpacket in _INDEXING:
      self._check_index(func, args)
    else:
      _check_devices(func, tensors)
      if func.overloadpacket in _WAITING:
        self.wait(str(func))
    if device is not None:
      kwargs = {**kwargs, "device": torch.device("cpu")}
    if self.recording is not None:
      self.recording.before(func, args, kwargs)
    elif not _is_view(func):
      self.launches += 1
    # Tensors made in inference mode could not be written to outside of it. Leaving it
    # would record gradients here, below those that torch has recorded already.
    with torch.inference_mode(False), torch.no_grad():
      out = _compute(func, args, kwargs, on_gpu)
    if self.recording is not None:
      self.recording.calls.append((func, args, kwargs, out))
    return out

  def _check_index(self, func: Any, args: tuple) -> None:
    indices = [x for x in args[1] if x is not None]
    if not isinstance(args[0], GpuTensor):
      raise RuntimeError(f"{func}: an index on the GPU into a tensor on the host")
    value = args[2] if len(args) > 2 else None
    one_number = value is not None and value.numel() == 1
    if value is not None and not isinstance(value, GpuTensor) and not one_number:
      raise RuntimeError(f"{func}: a value on the host into a tensor on the GPU")
    if not all(isinstance(x, GpuTensor) for x in indices):
      self.wait(f"{func} with an index on the host")
    if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
      # A number under one mask needs no count of where it goes.
      if not (one_number and len(indices) == 1):
        self.wait(f"{func} with a boolean index")

  def wait(self, what: str) -> None:
    """The host waits for the device."""
    if self.recording is not None:
      raise RuntimeError(f"{what}: not permitted while a graph is captured")
    if self.sync_debug == "error":
      raise RuntimeError(f"called a synchronizing CUDA operation: {what}")
    frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename]
    outside = [f for f in frames if f.filename != __file__]
    self.waits.append(Wait(what, f"{outside[-1].filename}:{outside[-1].lineno}"))


def _check_devices(func: Any, tensors: list[torch.Tensor]) -> None:
  for x in tensors:
    if not isinstance(x, GpuTensor) and x.dim() > 0:
      raise RuntimeError(
        f"{func}: expected all tensors to be on the same device, found at least two, "
        f"cuda:0 and cpu {tuple(x.shape)}"
      )


def _is_view(func: Any) -> bool:
  """Whether an operation only looks at the same memory otherwise."""
  aliases = [result.alias_info for result in func._schema.returns]
  return bool(aliases) and all(a is not None and not a.is_write for a in aliases)


def _compute(func: Any, args: tuple, kwargs: dict[str, Any], on_gpu: bool) -> Any:
  given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, GpuTensor)]
  wrappers = {id(x.host): x for x in given}

  def wrap(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not on_gpu:
      return x
    known = wrappers.get(id(x))
    if known is None:
      return GpuTensor(x)
    assert known.shape == x.shape, f"{func}: a change of shape in place"
    return known

  return tree_map(wrap, func(*tree_map(_host, args), **tree_map(_host, kwargs)))


class _Operations(TorchDispatchMode):
  def __torch_dispatch__(self, func, types, args=(), kwargs=None):
    return SimulatedGpu.current().execute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
  """What asks the driver before it reaches an operation, or reaches none."""

  def __torch_function__(self, func, types, args=(), kwargs=None):
    kwargs = dict(kwargs or {})
    if _on_gpu(kwargs.get("device")):
      kwargs["device"] = GPU
    generator = kwargs.get("generator")
    if isinstance(generator, _Generator):
      given = [x for x in args if isinstance(x, torch.Tensor)]
      device = given[0].device if given else kwargs.get("device")
      if _on_gpu(device) != generator.on_gpu:
        raise RuntimeError(f"{func}: the generator is for {generator.device}")
    if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
      return _moved(func, *args, **kwargs)
    if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == GPU:
      del kwargs["device"]
      return _moved(torch.Tensor.to, func(*args, **kwargs), GPU)
    return func(*args, **kwargs)


def _moved(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
  """``Tensor.to``, ``cpu`` and ``cuda``."""
  device, dtype = kwargs.get("device"), kwargs.get("dtype")
  non_blocking = kwargs.get("non_blocking", False)
  if func is not torch.Tensor.to:
    device, args = (GPU if func is torch.Tensor.cuda else "cpu"), ()
  for arg in args:
    if isinstance(arg, torch.Tensor):
      device, dtype = arg.device, arg.dtype
    elif isinstance(arg, torch.dtype):
      dtype = arg
    elif isinstance(arg, bool):
      non_blocking = arg
    elif arg is not None:
      device = arg
  dtype = dtype or x.dtype
  if device is None or torch.device(device).type == x.device.type:
    same = dtype == x.dtype and not kwargs.get("copy", False)
    return x if same else aten._to_copy(x, dtype=dtype)
  if not non_blocking:
    SimulatedGpu.current().wait(f"copy from {x.device} to {device}")
  return _Move.apply(x, torch.device(device), dtype)  # pyright: ignore[reportReturnType]


class _Move(torch.autograd.Function):
  @staticmethod
  def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
    x, device, dtype = inputs
    ctx.back = x.device, x.dtype
    value = _host(x).to(dtype, copy=True)
    return GpuTensor(value) if device.type == "cuda" else value

  @staticmethod
  def backward(ctx: Any, *grads: Any) -> Any:
    return _moved(torch.Tensor.to, grads[0], *ctx.back), None, None


class _Generator(torch.Generator):
  """A generator that remembers what device it is for."""

  on_gpu: bool

  def __new__(cls, device: Any = "cpu"):
    made = super().__new__(cls, device="cpu")  # pyright: ignore[reportCallIssue]
    made.on_gpu = _on_gpu(device)
    return made

  @property
  def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
    return GPU if self.on_gpu else torch.device("cpu")


class Recording:
  """The operations of a CUDA graph."""

  def __init__(self) -> None:
    self.calls: list[tuple[Any, tuple, dict[str, Any], Any]] = []
    self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

  def before(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Keep what an operation is about to overwrite."""
    seeded = torch.Tag.nondeterministic_seeded in func.tags
    if seeded and "attention" not in str(func):  # There, for a dropout of zero.
      raise RuntimeError(f"{func}: random numbers in a graph are not simulated")
    for i, argument in enumerate(func._schema.arguments):
      if argument.alias_info is None or not argument.alias_info.is_write:
        continue
      value = args[i] if i < len(args) else kwargs.get(argument.name)
      for x in tree_leaves(value):
        if isinstance(x, GpuTensor):
          self._before.append((x.host, x.host.clone()))

  def undo(self) -> None:
    """Nothing is computed in capture."""
    for host, value in reversed(self._before):
      host.copy_(value)
    self._before.clear()

  @torch.no_grad()
  def replay(self) -> None:
    """Compute all again, into the same memory."""
    for func, args, kwargs, out in self.calls:
      found = func(*tree_map(_host, args), **tree_map(_host, kwargs))
      for new, old in zip(tree_leaves(found), tree_leaves(out), strict=True):
        if isinstance(old, GpuTensor) and new.data_ptr() != old.host.data_ptr():
          old.host.copy_(new)


def _cuda(gpu: SimulatedGpu) -> dict[str, Any]:
  """As much of ``torch.cuda`` as is used."""

  class Stream:
    def wait_stream(self, other: Stream) -> None: ...

  class CUDAGraph:
    recording: Recording | None = None

    def replay(self) -> None:
      assert self.recording is not None, "nothing was captured"
      gpu.launches += 1
      self.recording.replay()

  @contextlib.contextmanager
  def graph(into: CUDAGraph) -> Iterator[None]:
    gpu.recording = into.recording = Recording()
    try:
      yield
    finally:
      gpu.recording = None
      into.recording.undo()

  def set_sync_debug_mode(mode: str) -> None:
    gpu.sync_debug = mode

  return {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda device=None: "simulated",
    "Stream": Stream,
    "stream": lambda stream: contextlib.nullcontext(),
    "current_stream": lambda device=None: Stream(),
    "CUDAGraph": CUDAGraph,
    "graph": graph,
    "is_current_stream_capturing": lambda: gpu.recording is not None,
    "synchronize": lambda device=None: gpu.wait("torch.cuda.synchronize"),
    "set_sync_debug_mode": set_sync_debug_mode,
    "empty_cache": lambda: None,
    "memory_allocated": lambda device=None: 0,
    "mem_get_info": lambda device=None: (2**30, 2**30),
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
  }


_torch_load, _torch_onnx_export, _to_torch = torch.load, torch.onnx.export, wp.to_torch


def _load(file: Any, map_location: Any = None, **options: Any) -> Any:
  """``torch.load``: files hold tensors of the host."""
  loaded = _torch_load(file, map_location="cpu", **options)
  if not _on_gpu(map_location):
    return loaded
  return tree_map(
    lambda x: _moved(torch.Tensor.to, x, GPU) if isinstance(x, torch.Tensor) else x,
    loaded,
  )


def _export(*args: Any, **kwargs: Any) -> Any:
  """``torch.onnx.export``, whose tracing knows no modes: all must be on the host."""
  with _pop_mode_temporarily(), _disable_current_modes():
    return _torch_onnx_export(*args, **kwargs)


def _warp_device(self: Any, ident: Any = None) -> Any:
  """Warp's device for a name: its CPU, whatever is asked for."""
  return self.cpu_device
