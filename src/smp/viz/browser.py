"""Shared parts of the browser pages: the server, the clock, the first view.

`mjviser.Viewer` has a loop too, but is not used: it takes one physics step of one model
per call and paces by that model's time step, has no public way to add or leave out
controls, and writes to the joints, the controls and the physics of the model, which
have to be those of the policy's file. Its controls are of no use for motions without
physics. Its scene, `mjviser.ViserMujocoScene`, draws both pages.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from typing import Protocol

import viser

from smp.errors import UserError

REFRESH = 1.0 / 50.0
"""Seconds between two frames."""
FIELD_OF_VIEW = math.radians(50.0)

Point = tuple[float, float, float]


class Page(Protocol):
  """A page that is updated repeatedly, in one thread."""

  def tick(self, elapsed: float) -> object:
    """Advance by ``elapsed`` seconds and redraw."""


def serve(make_page: Callable[[viser.ViserServer], Page], host: str, port: int) -> None:
  """Show a page in the browser until Ctrl-C.

  Args:
    make_page: Called once with the server.
    host: Address to listen on.
    port: Port to listen on, or the next free one if it is taken; 0: any.

  Raises:
    UserError: Cannot listen on ``host``.
  """
  check_host(host)
  server = viser.ViserServer(host=host, port=port, verbose=False)
  try:
    page = make_page(server)
    print(f"http://{host}:{server.get_port()}  (Ctrl-C ends)", flush=True)
    keep_time(page.tick)
  except KeyboardInterrupt:
    print("\nclosed")
  finally:
    server.stop()


def keep_time(tick: Callable[[float], object]) -> None:
  """Call ``tick`` with the seconds since the last call, until it returns False."""
  last = time.monotonic()
  while True:
    time.sleep(REFRESH)
    now = time.monotonic()
    if tick(now - last) is False:
      return
    last = now


def set_up(
  server: viser.ViserServer, title: str, camera: Point, look_at: Point
) -> None:
  """Set the title and the first view, m; every visitor has a separate camera."""
  server.initial_camera.position = camera
  server.initial_camera.look_at = look_at
  server.initial_camera.fov = FIELD_OF_VIEW
  server.gui.configure_theme(control_width="medium", show_share_button=False)
  server.gui.set_panel_label(title)


def show_playing(button: viser.GuiButtonHandle, playing: bool) -> None:
  """Label a button with what it does next: pause or play."""
  button.label = "Pause" if playing else "Play"
  button.icon = viser.Icon.PLAYER_PAUSE if playing else viser.Icon.PLAYER_PLAY


def check_host(host: str) -> None:
  """Raise ``UserError`` if nothing can listen on ``host``.

  Without this check a server would try for ever.
  """
  try:
    socket.create_server((host, 0)).close()
  except OSError as error:
    raise UserError(
      f"--host {host}: cannot listen there ({error.strerror}); use localhost, or "
      "0.0.0.0 for other machines to see the page"
    ) from error
