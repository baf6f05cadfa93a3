"""Steering by keys and gamepad."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
import time
from pathlib import Path

import pytest

from smp.cli.sim2sim import Sim2SimCfg, sim2sim
from smp.deploy.fixed_command import Command
from smp.errors import UserError
from smp.utils.components import scalar
from smp.viz import hand_control
from smp.viz.hand_control import HandControl, steered, take_event
from tests.deploy_fakes import GOAL, g1_policy, robot_policy, write_policy

VELOCITY = (
  scalar("vx", "m/s", "forward", -0.5, 3.0, 0.0),
  scalar("vy", "m/s", "to the left", -0.6, 0.6, 0.0),
  scalar("yaw_rate", "rad/s", "turning left", -1.5, 1.5, 0.0),
)


@pytest.fixture
def command() -> Command:
  return Command(robot_policy(VELOCITY), {})


def pressed(command: Command, keys: str) -> list[float]:
  control = HandControl(command)
  for key in keys:
    control.press(key)
  return [value for part in command.parts for value in command.values[part.name]]


def test_keys_change_their_number(command: Command):
  assert pressed(command, "ww") == pytest.approx([0.6, 0.0, 0.0])
  assert pressed(command, "aq") == pytest.approx([0.6, 0.06, 0.15])
  assert pressed(command, "dde") == pytest.approx([0.6, -0.06, 0.0])
  assert pressed(command, "x\n") == pytest.approx([0.6, -0.06, 0.0])
  assert pressed(command, " ") == [0.0, 0.0, 0.0]


def test_a_command_stays_in_the_range_of_training(command: Command):
  assert pressed(command, "w" * 50 + "a" * 50 + "e" * 50) == [3.0, 0.6, -1.5]
  assert pressed(command, "s" * 50) == [-0.5, 0.6, -1.5]


def test_zero_is_within_reach_of_a_command_that_was_not_trained_there():
  spec = g1_policy((scalar("speed", "m/s", "", 0.5, 2.0, 1.0, least=0.0), GOAL))
  command = Command(spec, {})
  assert pressed(command, "s" * 50) == [0.0, 2.0, 0.0]
  assert pressed(command, "d" * 50) == [0.0, -10.0, 0.0]


def test_sticks_span_the_range(command: Command):
  control = HandControl(command)

  def stick(axis: int, value: int, kind: int = 2) -> list[float]:
    take_event(control, struct.pack("IhBB", 0, value, kind, axis))
    return [command.values[part.name][0] for part in VELOCITY]

  assert stick(1, -32767) == [3.0, 0.0, 0.0]  # Up.
  assert stick(1, 32767) == [-0.5, 0.0, 0.0]
  assert stick(0, -32767)[1] == 0.6  # Left.
  assert stick(3, 16384)[2] == pytest.approx(-0.75, abs=1e-3)
  assert stick(1, 900)[0] == 0.0  # Near the middle.
  before = list(command.values.values())
  stick(7, 32767)
  stick(1, 32767, kind=1)  # A button.
  take_event(control, b"short")
  assert list(command.values.values()) == before


def test_a_terminal_and_a_gamepad_are_read_until_they_end(
  command: Command, monkeypatch
):
  """The read ends where the device does."""
  inside, outside = os.pipe()
  os.write(outside, b"wwa")
  os.close(outside)
  monkeypatch.setattr(sys, "stdin", os.fdopen(inside, "rb"))
  control, end = HandControl(command), threading.Event()
  hand_control._read_keys(control, end)
  assert command.values["vx"] == pytest.approx((0.6,))
  assert command.values["vy"] == pytest.approx((0.06,))
  inside, outside = os.pipe()
  os.write(outside, struct.pack("IhBB", 0, -32767, 2, 1))
  os.close(outside)
  hand_control._read_gamepad(control, end, inside)
  assert command.values["vx"] == (3.0,)
  os.close(inside)
  hand_control._read_gamepad(control, end, inside)  # Unplugged.


def test_keys_come_at_once_and_the_terminal_is_left_as_it_was(
  command: Command, monkeypatch
):
  pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
  ours, theirs = pty.openpty()
  monkeypatch.setattr(sys, "stdin", os.fdopen(theirs, "rb"))
  before = termios.tcgetattr(theirs)
  with steered(command, True, False):
    assert not termios.tcgetattr(theirs)[3] & termios.ICANON
    os.write(ours, b"w")
    end = time.monotonic() + 20.0
    while command.values["vx"] == (0.0,) and time.monotonic() < end:
      os.sched_yield()
  assert command.values["vx"] == pytest.approx((0.3,))
  assert termios.tcgetattr(theirs) == before


def test_what_is_not_there_is_one_line(command: Command, tmp_path: Path, monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.StringIO())
  with (
    pytest.raises(UserError, match="--keys: no terminal"),
    steered(command, True, False),
  ):
    pass
  monkeypatch.setattr(hand_control, "GAMEPAD", tmp_path / "js0")
  with (
    pytest.raises(UserError, match="js0 .No such file"),
    steered(command, False, True),
  ):
    pass
  file = write_policy(tmp_path / "policy.onnx", robot_policy(VELOCITY))
  with pytest.raises(UserError, match="--keys and --gamepad: add --viewer"):
    sim2sim(Sim2SimCfg(file, keys=True))
