"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MJLAB_WARP_QUIET", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

import smp  # noqa: E402, F401  Chooses a rendering library before MuJoCo is imported.
from smp.mdp.smp_reward import SmpReward  # noqa: E402
from tests.simulated_gpu import SimulatedGpu  # noqa: E402

PROCESSES = 2


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
  """Return how many processes share the tests: none of its own for some that are named."""
  if config.args_source == pytest.Config.ArgsSource.ARGS:
    config.option.dist = "no"
    return 0
  return PROCESSES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  if torch.cuda.is_available():
    return
  for item in items:
    if "gpu" in item.keywords:
      item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


def _folder(variable: str, what: str) -> Path:
  value = os.environ.get(variable)
  if not value:
    pytest.skip(f"{variable} is not set: no {what}")
  return Path(value)


@pytest.fixture
def gpu(monkeypatch) -> Iterator[SimulatedGpu | None]:
  """Makes the device ``cuda`` work: a real GPU (None), or else a simulated one."""
  if torch.cuda.is_available():
    yield None
    return
  # A training on the CPU in this process leaves this behind.
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  with SimulatedGpu() as simulated:
    yield simulated


@pytest.fixture(scope="session")
def lafan_dir() -> Path:
  """The folder of LAFAN1 CSVs retargeted to the G1."""
  return _folder("SMP_LAFAN_DIR", "LAFAN1 clips")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
  """The folder of the published reproduction's priors."""
  return _folder("SMP_REFERENCE_DIR", "published priors")


@pytest.fixture(scope="session")
def forward_dir() -> Path:
  """The folder of the published reproduction's walk, jog and run cycles."""
  return _folder("SMP_FORWARD_DIR", "published cycles")


@pytest.fixture(scope="module")
def forward_env() -> Iterator:
  """Smp-Forward-G1 with 8 environments and a small pool, on the CPU."""
  from mjlab.envs import ManagerBasedRlEnv

  cfg = small_env_cfg("Smp-Forward-G1", num_envs=8)
  env = ManagerBasedRlEnv(cfg, "cpu")
  env.reset()
  yield env
  env.close()


@pytest.fixture(scope="module")
def getup_env() -> Iterator:
  """Smp-Getup-G1 with 16 environments and a small pool, on the CPU."""
  from mjlab.envs import ManagerBasedRlEnv

  env = ManagerBasedRlEnv(small_env_cfg("Smp-Getup-G1", num_envs=16), "cpu")
  env.reset()
  yield env
  env.close()


def style_of(term) -> SmpReward:
  """Return the style reward of an SMP term, which here is SMP's."""
  assert isinstance(term.style, SmpReward)
  return term.style


def small_env_cfg(task: str, num_envs: int, play: bool = False):
  """A registered task's configuration, cut down to test size."""
  from mjlab.tasks.registry import load_env_cfg

  import smp.tasks  # noqa: F401

  cfg = load_env_cfg(task, play=play)
  cfg.scene.num_envs = num_envs
  cfg.seed = 0
  smp_term = cfg.commands["smp"]
  smp_term.gsi_buffer_size, smp_term.gsi_refresh_size = 32, 8  # pyright: ignore[reportAttributeAccessIssue]
  smp_term.fallen_buffer_size = 8  # pyright: ignore[reportAttributeAccessIssue]
  return cfg
