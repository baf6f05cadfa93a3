"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from smp.errors import UserError
from smp.sim.engine import find_device
from smp.utils.device import choose_device


def test_a_device_of_this_machine_is_itself() -> None:
  assert choose_device("cpu") == torch.device("cpu")
  found = choose_device("auto")
  assert found.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["foo", "cuda:99", "meta", ""])
def test_any_other_is_refused_in_one_line(name: str) -> None:
  with pytest.raises(UserError, match=f"^device '{name}' cannot be used") as error:
    choose_device(name)
  assert "\n" not in str(error.value)


def test_an_engine_chooses_the_device_where_none_is_named(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
  for name in (None, "auto"):
    assert find_device(name, "native") == "cpu"  # Even beside a GPU.
  assert find_device("cpu", "auto") == "cpu"
  with pytest.raises(UserError, match="device 'foo'"):
    find_device("foo", "native")
