"""A browser page that plays motions."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import mujoco
import numpy as np
import viser
from mjviser import ViserMujocoScene

from smp.robots.scene import scene_model
from smp.viz import browser
from smp.viz.offscreen import MotionBatch

SPACING = 1.5
"""Distance between neighbours, m: the motions all begin at the same place."""
CAMERA = (2.4, -3.2, 1.7)
"""Position of the camera at first, m from what it looks at: in front, to the right."""
LOOK_AT_HEIGHT = 0.7


class Playback:
  """Time within a motion that plays in a loop, s."""

  def __init__(self, length: float) -> None:
    self.length, self.time, self.playing, self.speed = length, 0.0, True, 1.0

  def advance(self, elapsed: float) -> None:
    """Advance by ``elapsed`` seconds of the viewer's time."""
    if self.playing:
      # With a single frame the length is 0, and the time stays at 0.
      self.time = (self.time + elapsed * self.speed) % max(self.length, 1e-6)

  def frame(self, fps: float, frames: int) -> int:
    """Return the index of the frame at the present time."""
    return min(int(self.time * fps + 0.5), frames - 1)


class MotionPage:
  """The motions of a gallery, side by side, and their controls.

  The server's callbacks run in threads of their own. They only record what was asked
  for; `tick` does it, in the one thread that touches the scene.

  Attributes:
    playback: Time, speed, and whether it plays.
    gallery: The motions shown.
  """

  def __init__(
    self,
    server: viser.ViserServer,
    galleries: Iterator[MotionBatch],
    fps: float,
    title: str,
    renewable: bool = True,
  ) -> None:
    self.server, self.galleries, self.fps = server, galleries, fps
    self.gallery = next(galleries)
    count, frames, _ = self.gallery.qpos.shape
    self.playback = Playback((frames - 1) / fps)
    self.scene = ViserMujocoScene(server, scene_model(), count)
    # Tracking would move the floor up and down with the robot.
    self.scene.camera_tracking_enabled = False
    self._fetched: MotionBatch | Exception | None = None
    self._fetching = False
    self._shown: tuple | None = None
    browser.set_up(server, title, CAMERA, (0.0, 0.0, LOOK_AT_HEIGHT))
    self._add_controls()
    self.renew.visible = renewable
    self.show()

  def _add_controls(self) -> None:
    gui = self.server.gui
    self.note = gui.add_markdown(self.gallery.title)
    self.select = gui.add_dropdown("Sample", self._options())
    self.follow = gui.add_checkbox("Follow robot", True)
    self.alone = gui.add_checkbox("Show selected only", False)
    self.play = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
    step = 1.0 / self.fps
    length = max(self.playback.length, step)
    self.time = gui.add_slider("Time (s)", 0.0, length, step, 0.0)
    self.speed = gui.add_slider("Playback speed", 0.1, 2.0, 0.1, 1.0)
    self.renew = gui.add_button("New samples", icon=viser.Icon.REFRESH)

    @self.play.on_click
    def _(_event) -> None:
      self.set_playing(not self.playback.playing)

    @self.time.on_update
    def _(event) -> None:
      if event.client is not None:  # Ignore the updates by `tick` itself.
        self.playback.time = self.time.value
        self.set_playing(False)

    @self.speed.on_update
    def _(_event) -> None:
      self.playback.speed = self.speed.value

    @self.renew.on_click
    def _(_event) -> None:
      self.fetch()

  def _options(self) -> list[str]:
    return [f"{i + 1}: {label}" for i, label in enumerate(self.gallery.labels)]

  @property
  def selected(self) -> int:
    """Return the index of the selected motion."""
    options = self.select.options
    return options.index(self.select.value) if self.select.value in options else 0

  def set_playing(self, playing: bool) -> None:
    """Play or pause."""
    self.playback.playing = playing
    browser.show_playing(self.play, playing)

  def fetch(self) -> None:
    """Sample other motions in another thread, as it may take a while."""
    if self._fetching:
      return
    self._fetching, self.renew.disabled = True, True
    self.note.content = "Sampling ..."
    threading.Thread(target=self._fetch, name="sampling", daemon=True).start()

  def _fetch(self) -> None:
    try:
      self._fetched = next(self.galleries)
    except Exception as error:
      self._fetched = error

  def tick(self, elapsed: float) -> None:
    """Advance by ``elapsed`` seconds and redraw."""
    self._take()
    self.playback.advance(elapsed)
    if self.playback.playing:
      self.time.value = min(self.playback.time, self.time.max)
    self.show()

  def _take(self) -> None:
    """Replace the old samples by new ones when these are ready."""
    fetched, self._fetched = self._fetched, None
    if fetched is None:
      return
    self._fetching, self.renew.disabled = False, False
    if isinstance(fetched, Exception):
      self.note.content = f"No new samples: {fetched}"
      return
    index = self.selected
    self.gallery, self.note.content = fetched, fetched.title
    self.select.options = self._options()
    self.select.value = self._options()[index]
    self.playback.time = 0.0

  def show(self) -> None:
    """Send the present poses to the browser, unless they are there already."""
    count, frames, _ = self.gallery.qpos.shape
    frame, selected = self.playback.frame(self.fps, frames), self.selected
    view = (id(self.gallery), frame, selected, self.follow.value, self.alone.value)
    if view == self._shown:
      return
    self._shown = view
    poses = self.gallery.qpos[:, frame].copy()
    # Place the motions to the left, away from the camera.
    poses[:, 1] += SPACING * np.arange(count)
    shift = np.zeros(3)
    if self.follow.value:
      shift[:2] = -poses[selected, :2]
    poses[:, :3] += shift
    self.scene.show_only_selected = self.alone.value
    with self.server.atomic():
      xpos, xmat = _kinematics(self.scene.mj_model, self.scene.mj_data, poses)
      self.scene.update_from_arrays(xpos, xmat, env_idx=selected)
      self.scene.fixed_bodies_frame.position = shift


def _kinematics(
  model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return positions (N, B, 3) and rotations (N, B, 3, 3) of bodies in poses (N, 36)."""
  xpos = np.empty((len(qpos), model.nbody, 3))
  xmat = np.empty((len(qpos), model.nbody, 3, 3))
  for i, pose in enumerate(qpos):
    data.qpos[:] = pose
    mujoco.mj_kinematics(model, data)
    xpos[i], xmat[i] = data.xpos, data.xmat.reshape(-1, 3, 3)
  return xpos, xmat


def serve(
  galleries: Iterator[MotionBatch],
  fps: float,
  title: str,
  host: str,
  port: int,
  renewable: bool = True,
) -> None:
  """Show galleries, one after the other when asked, until Ctrl-C.

  Args:
    galleries: Endless, of equal shapes.
    fps: Frames per second of the motions.
    title: Title of the page.
    host: Address to listen on.
    port: Port to listen on, or the next free one if it is taken; 0: any.
    renewable: Whether other motions can be asked for: samples, but not a clip.

  Raises:
    UserError: Cannot listen on ``host``.
  """

  def make_page(server: viser.ViserServer) -> MotionPage:
    if renewable:
      print("sampling ...", flush=True)
    return MotionPage(server, galleries, fps, title, renewable)

  browser.serve(make_page, host, port)
