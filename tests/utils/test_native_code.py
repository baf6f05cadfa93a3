"""C code can be switched off, and a compiler that fails does not stop the work."""

from collections.abc import Callable

import pytest
import torch

from smp.diffusion import native_denoiser, prior, sds
from smp.diffusion.denoiser import Denoiser
from smp.errors import UserError
from smp.motion import native_kinematics
from smp.motion.kinematics import Kinematics
from smp.robots import g1
from smp.utils.native_code import NativeKernel, enabled

Result = dict[str, torch.Tensor]


def _fresh(monkeypatch: pytest.MonkeyPatch, snippet: str | None = None) -> None:
  """Kernels that nobody has used, of ``snippet`` or as they are."""
  for module in (native_denoiser, native_kinematics):
    fresh = NativeKernel(module.KERNEL.name, snippet or module.KERNEL._snippet)
    if snippet is None:
      # Compiled already, most likely: only the decision is taken anew.
      fresh.__dict__["_kernel"] = module.KERNEL._kernel
    monkeypatch.setattr(module, "KERNEL", fresh)


def _compute() -> Result:
  """What the C code has a part in, by the ways that everybody uses."""
  torch.manual_seed(0)
  denoiser = Denoiser(59, 10, d_model=64, nhead=2, num_layers=1)
  denoiser.eval().requires_grad_(False)
  steps = torch.tensor([3, 15])
  predict = sds.make_predictor(denoiser, steps, "float32")
  sample = prior._sampler(denoiser, denoiser.time_modulation(torch.arange(20)))
  quat = torch.nn.functional.normalize(torch.randn(7, 4), dim=-1)
  kinematics = Kinematics(g1.load_model())
  return {
    "scored": predict(torch.randn(2, 5, 10, 59)).clone(),
    "sampled": sample(torch.randn(3, 10, 59), 4),
    "ends": kinematics.ee_positions(torch.randn(7, 3), quat, torch.randn(7, 29)),
  }


def _forbid(*args: object, **kwargs: object) -> None:
  raise AssertionError("C code was launched")


def _off(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("SMP_NATIVE", "0")
  _fresh(monkeypatch)
  monkeypatch.setattr(NativeKernel, "record", _forbid)


def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
  _fresh(monkeypatch, "this is no C;")


@pytest.mark.parametrize("way, warnings", [(_off, 0), (_broken, 2)])
def test_torch_gives_the_same(
  way: Callable[[pytest.MonkeyPatch], None],
  warnings: int,
  monkeypatch: pytest.MonkeyPatch,
  capsys: pytest.CaptureFixture[str],
):
  recorded: list[str] = []
  with monkeypatch.context() as patch:
    record = NativeKernel.record
    patch.setattr(
      NativeKernel,
      "record",
      lambda self, job: (recorded.append(self.name), record(self, job))[1],
    )
    native = _compute()
  assert {"denoiser", "forward kinematics"} <= set(recorded)
  way(monkeypatch)
  capsys.readouterr()
  plain = _compute()
  _compute()  # Nobody is told twice.
  for name, value in native.items():
    torch.testing.assert_close(plain[name], value, rtol=1e-5, atol=1e-5)
  lines = [line for line in capsys.readouterr().err.splitlines() if "[WARN]" in line]
  assert len(lines) == warnings
  assert all("SMP_NATIVE=0" in line for line in lines)


def test_the_switch_is_0_or_1(monkeypatch: pytest.MonkeyPatch):
  monkeypatch.delenv("SMP_NATIVE", raising=False)
  assert enabled()
  monkeypatch.setenv("SMP_NATIVE", "off")
  with pytest.raises(UserError, match="SMP_NATIVE=off.*0"):
    enabled()
