"""Devices by name."""

from __future__ import annotations

import torch

from smp.errors import UserError


def choose_device(name: str) -> torch.device:
  """Return the device of a name: ``auto``, or any that torch knows.

  Raises:
    UserError: The device is unknown or not available.
  """
  if name == "auto":
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
  try:
    device = torch.device(name)
    if device.type == "meta":
      raise RuntimeError("it computes nothing")
    torch.empty(0, device=device)
  except (RuntimeError, AssertionError, ImportError) as error:
    reason = (str(error).splitlines() or [""])[0].split(". ")[0]
    known = name.partition(":")[0] in ("cpu", "cuda")
    raise UserError(
      f"device '{name}' cannot be used ({reason if known else 'not available here'}); "
      "try cpu, cuda, or auto"
    ) from error
  return device
