"""Steering by hand: keys of the terminal, and a gamepad.

Both set the command of a running policy, whichever viewer shows it. A velocity command
takes forward speed, sideways speed and turning; any other takes its numbers in order.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from smp.deploy.fixed_command import Command
from smp.errors import UserError

GAMEPAD = Path("/dev/input/js0")
"""The first gamepad of Linux."""
KEYS = "w/s, a/d, q/e change the command, space sets it to zero"
_STEPS = {
  "w": (0, 1),
  "s": (0, -1),
  "a": (1, 1),
  "d": (1, -1),
  "q": (2, 1),
  "e": (2, -1),
}
"""Number of the command and direction, by key: forward, to the left, turning left."""
_AXES = {1: (0, -1.0), 0: (1, -1.0), 3: (2, -1.0)}
"""Number of the command and sign, by axis of a gamepad; sticks are positive to the right
and down."""
_SHARE = 10
"""Presses of a key from zero to the end of a range."""
_DEAD = 0.1
"""Share of a stick's way that counts as none."""
_EVENT = struct.Struct("IhBB")
"""Time, value, type and number: ``struct js_event`` of linux/joystick.h."""
_AXIS, _FULL = 2, 32767.0


class HandControl:
  """The numbers of a command that a person can set.

  Args:
    command: The command, which is changed.
  """

  def __init__(self, command: Command) -> None:
    self._command = command
    self._places = [
      (part, i)
      for part in command.parts
      if part.settable
      for i in range(part.given_size)
    ]

  def press(self, key: str) -> None:
    """Take a key of the terminal; others than `KEYS` do nothing."""
    if key == " ":
      for number in range(len(self._places)):
        self._set(number, 0.0)
    elif key in _STEPS:
      number, sign = _STEPS[key]
      if number < len(self._places):
        part, i = self._places[number]
        step = max(abs(part.low), abs(part.high)) / _SHARE
        self._set(number, self._command.values[part.name][i] + sign * step)

  def tilt(self, axis: int, share: float) -> None:
    """Take a stick's place on an axis of a gamepad, from -1 to 1."""
    if axis not in _AXES or _AXES[axis][0] >= len(self._places):
      return
    number, sign = _AXES[axis]
    part, _ = self._places[number]
    share = 0.0 if abs(share) < _DEAD else sign * share
    self._set(number, share * (part.high if share > 0 else abs(part.low)))

  def _set(self, number: int, value: float) -> None:
    """Set a number, within the range of training; zero is always allowed."""
    part, i = self._places[number]
    low = min(0.0, part.low if part.least is None else part.least)
    low = -part.high if part.given_size > 1 else low
    values = list(self._command.values[part.name])
    values[i] = min(max(value, low), max(0.0, part.high))
    self._command.values[part.name] = tuple(values)


@contextlib.contextmanager
def steered(command: Command, keys: bool, gamepad: bool) -> Iterator[None]:
  """Steer a command by keys and gamepad until the block ends.

  Raises:
    UserError: There is no terminal to take keys from, or no gamepad.
  """
  control, end = HandControl(command), threading.Event()
  with contextlib.ExitStack() as stack:
    if keys:
      stack.enter_context(_raw_terminal())
      _start(_read_keys, control, end)
      print(KEYS)
    if gamepad:
      _start(_read_gamepad, control, end, _open_gamepad(stack))
    try:
      yield
    finally:
      end.set()


def _start(target, *args) -> None:
  threading.Thread(target=target, args=args, daemon=True).start()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
  """Make the terminal give each key at once."""
  try:
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
  except Exception as error:  # No such module, no terminal, or no file at all.
    raise UserError(
      "--keys: no terminal to take keys from; use the sliders of --viewer viser"
    ) from error
  try:
    tty.setcbreak(sys.stdin)
    yield
  finally:
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _read_keys(control: HandControl, end: threading.Event) -> None:
  for key in _bytes_of(sys.stdin.fileno(), 1, end):
    control.press(key.decode(errors="replace"))


def _open_gamepad(stack: contextlib.ExitStack) -> int:
  try:
    handle = os.open(GAMEPAD, os.O_RDONLY)
  except OSError as error:
    raise UserError(
      f"--gamepad: no gamepad at {GAMEPAD} ({error.strerror}); use --keys"
    ) from error
  stack.callback(os.close, handle)
  return handle


def _read_gamepad(control: HandControl, end: threading.Event, handle: int) -> None:
  for event in _bytes_of(handle, _EVENT.size, end):
    take_event(control, event)


def _bytes_of(handle: int, size: int, end: threading.Event) -> Iterator[bytes]:
  """Yield what comes from a device until the end, or until the device is gone."""
  with contextlib.suppress(OSError):  # Unplugged, or closed at the end.
    while not end.is_set():
      if select.select([handle], [], [], 0.1)[0]:
        found = os.read(handle, size)
        if not found:
          return
        yield found


def take_event(control: HandControl, event: bytes) -> None:
  """Take an event of a gamepad, as the kernel writes it."""
  if len(event) == _EVENT.size:
    _, value, kind, number = _EVENT.unpack(event)
    if kind & _AXIS:
      control.tilt(number, value / _FULL)
