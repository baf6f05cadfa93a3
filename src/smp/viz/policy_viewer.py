"""Viewers of a policy in plain MuJoCo: a window, a browser page, a video."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import viser

from smp.deploy.fixed_command import Command
from smp.deploy.mujoco_robot import State, build_model
from smp.deploy.policy_spec import PolicySpec
from smp.deploy.rollout import Log, Rollout
from smp.errors import UserError, one_line
from smp.utils.components import Component
from smp.viz import browser, command_markers
from smp.viz.offscreen import SIDE, make_renderer, open_video

BEHIND = 0.2
"""Maximum lag, s of simulated time, before a slow machine skips ahead."""
VIDEO_SIZE = (480, 640)
VIDEO_FPS = 25.0
CAMERA, LOOK_AT = (2.2, -2.6, 1.5), (0.0, 0.0, 0.75)
"""Camera of the browser page, m from the floor under the robot."""
DISTANCE, ELEVATION, LOOK_AT_HEIGHT = 2.7, -12.0, 0.75
"""Camera of the window and the video: m, degrees, m."""
LYING_S = 1.0
"""Time that a fallen robot lies before it is reset, s."""
RECORDED_S = 600.0
"""Longest recording of a session, s; of a longer one the end is kept."""


class Session:
  """A rollout in real time.

  Args:
    rollout: Advanced by `advance`.
    start: Initial state of every reset; None: the default pose.
    record: Whether the rollout keeps what happened since the last reset, for at most
      `RECORDED_S`.

  Attributes:
    playing: Whether time passes.
    restart_fallen: Whether the robot is reset after a fall.
    values: Values of the command in each recorded step.
  """

  def __init__(
    self, rollout: Rollout, start: State | None, record: bool = False
  ) -> None:
    self.rollout, self.start = rollout, start
    self._keep = round(RECORDED_S / rollout.robot.step_s) if record else 0
    self.values: list[dict[str, tuple[float, ...]]] = []
    self.playing, self.restart_fallen, self.speed = True, True, 1.0
    self._owed, self._lying = 0.0, 0.0
    self.restart()

  def restart(self) -> None:
    """Reset the rollout to its initial state."""
    self.rollout.reset(self.start)
    self.values.clear()
    self._owed = self._lying = 0.0

  def advance(self, elapsed: float) -> None:
    """Advance by ``elapsed`` seconds of the viewer's time."""
    if not self.playing:
      return
    self._owed = min(self._owed + elapsed * self.speed, BEHIND)
    step = self.rollout.robot.step_s
    while self._owed >= step:
      self._owed -= step
      self.values.append(dict(self.rollout.robot.command.values))
      self.rollout.step()
      self.rollout.forget(self._keep)
      del self.values[: max(0, len(self.values) - self._keep)]
      if self._down(step):
        self.restart()
        return

  def _down(self, step: float) -> bool:
    """Return whether it is time to reset."""
    if self.rollout.diverged:
      return True
    robot = self.rollout.robot
    below = robot.spec.fallen_below
    if not self.restart_fallen or below is None or robot.data.qpos[2] >= below:
      self._lying = 0.0
      return False
    self._lying += step
    return self._lying >= LYING_S


def show_window(session: Session) -> None:
  """Show a session in MuJoCo's own viewer until its window is closed.

  Raises:
    UserError: There is no display.
  """
  linux = sys.platform.startswith("linux")
  if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    raise UserError(
      "--viewer native: no display (DISPLAY is not set); use --viewer viser for the "
      "browser, or --video FILE"
    )
  import mujoco.viewer

  robot = session.rollout.robot
  try:
    viewer = mujoco.viewer.launch_passive(robot.model, robot.data)
  except Exception as error:
    detail = one_line(error)
    raise UserError(
      f"--viewer native: cannot open a window ({detail}); use --viewer viser"
    ) from error
  with viewer:
    viewer.cam.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    viewer.cam.trackbodyid = robot.root
    viewer.cam.distance, viewer.cam.elevation = DISTANCE, ELEVATION
    browser.keep_time(lambda elapsed: _refresh_window(viewer, session, elapsed))


def _refresh_window(viewer: Any, session: Session, elapsed: float) -> bool:
  """Advance and redraw; return whether the window is still open."""
  robot = session.rollout.robot
  with viewer.lock():
    session.advance(elapsed)
    if viewer.user_scn is not None:
      viewer.user_scn.ngeom = 0
      command_markers.draw(viewer.user_scn, robot.command, robot.data.qpos[:2])
  viewer.sync()
  return viewer.is_running()


class PolicyPage:
  """A session in the browser, and its controls.

  The server's callbacks run in threads of their own. They take `lock`, as `tick` does.
  """

  def __init__(self, server: viser.ViserServer, session: Session, title: str) -> None:
    from mjviser import ViserMujocoScene

    self.server, self.session, self.lock = server, session, threading.Lock()
    self.robot = session.rollout.robot
    self.scene = ViserMujocoScene(server, self.robot.model, 1)
    self.scene.camera_tracking_enabled = False
    browser.set_up(server, title, CAMERA, LOOK_AT)
    self.note = server.gui.add_markdown("")
    self._add_buttons()
    with server.gui.add_folder("Command"):
      for part in self.robot.spec.command:
        self._add_command(part)
      if not any(part.settable for part in self.robot.spec.command):
        server.gui.add_markdown("This task takes no command.")
    self._balls: dict[str, viser.IcosphereHandle] = {}
    self._arrows: viser.ArrowsHandle | None = None
    self.show()

  def _add_buttons(self) -> None:
    gui = self.server.gui
    pause = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
    restart = gui.add_button("Reset", icon=viser.Icon.REFRESH)
    after = gui.add_checkbox("Auto-reset on fall", True)
    speed = gui.add_slider("Playback speed", 0.1, 2.0, 0.1, 1.0)

    @pause.on_click
    def _(_event) -> None:
      with self.lock:
        playing = self.session.playing = not self.session.playing
      browser.show_playing(pause, playing)

    @restart.on_click
    def _(_event) -> None:
      with self.lock:
        self.session.restart()

    @after.on_update
    def _(_event) -> None:
      self.session.restart_fallen = after.value

    @speed.on_update
    def _(_event) -> None:
      self.session.speed = speed.value

  def _add_command(self, part: Component) -> None:
    """Add sliders for a component, one for each of its numbers."""
    if not part.settable:
      return
    command = self.robot.command
    sliders = [
      self.server.gui.add_slider(
        label, min=low, max=high, step=step, initial_value=initial
      )
      for label, low, high, step, initial in part.sliders(command.values[part.name])
    ]

    def changed(_event) -> None:
      with self.lock:
        command.values[part.name] = tuple(float(each.value) for each in sliders)

    for slider in sliders:
      slider.on_update(changed)

  def tick(self, elapsed: float) -> None:
    """Advance by ``elapsed`` seconds and redraw."""
    with self.lock:
      self.session.advance(elapsed)
      self.show()

  def show(self) -> None:
    """Send the present state to the browser; the world moves, the robot stays in view."""
    data, command = self.robot.data, self.robot.command
    shift = np.array([*-data.qpos[:2], 0.0])
    with self.server.atomic():
      xpos = data.xpos + shift
      xmat = data.xmat.reshape(1, -1, 3, 3)
      self.scene.update_from_arrays(xpos[None], xmat, env_idx=0)
      self.scene.fixed_bodies_frame.position = shift
      self._show_command(command, shift)
      speed = np.linalg.norm(data.qvel[:2])
      self.note.content = (
        f"{data.time:.1f} s, {speed:.2f} m/s, pelvis at {data.qpos[2]:.2f} m"
      )

  def _show_command(self, command: Command, shift: np.ndarray) -> None:
    drawn = command_markers.arrows(command, np.zeros(2))
    if drawn:
      points = np.array([[arrow.start, arrow.end] for arrow in drawn])
      colors = np.array([arrow.color for arrow in drawn])
      if self._arrows is None:
        self._arrows = self.server.scene.add_arrows("/command", points, colors)
      else:
        self._arrows.points = points.astype(np.float32)
    for name, ball in command_markers.balls(command).items():
      if name not in self._balls:
        self._balls[name] = self.server.scene.add_icosphere(
          f"/{name}", radius=command_markers.RADIUS, color=command_markers.GOAL_COLOR
        )
      self._balls[name].position = ball + shift


def serve(session: Session, title: str, host: str, port: int) -> None:
  """Show a session in the browser until Ctrl-C.

  Args:
    session: The session to show.
    title: Title of the page.
    host: Address to listen on.
    port: Port to listen on, or the next free one if it is taken; 0: any.

  Raises:
    UserError: Cannot listen on ``host``.
  """
  browser.serve(lambda server: PolicyPage(server, session, title), host, port)


def write_video(
  spec: PolicySpec,
  command: Command,
  log: Log,
  path: Path,
  values: Sequence[dict[str, tuple[float, ...]]] = (),
) -> None:
  """Write a log as a video; the camera follows the robot.

  Args:
    spec: The policy.
    command: The command, which is drawn.
    log: The recording.
    path: The video.
    values: Values of the command in each step; empty: they do not change.

  Raises:
    UserError: There is no OpenGL library to render with, or the file cannot be written.
  """
  from rich.progress import track

  model = build_model(spec, visual=True)
  height, width = VIDEO_SIZE
  model.vis.global_.offheight, model.vis.global_.offwidth = height, width
  data, camera = mujoco.MjData(model), mujoco.MjvCamera()
  camera.distance, camera.elevation = DISTANCE, ELEVATION
  camera.azimuth = 180.0 + SIDE
  stride = max(1, round(spec.control_hz / VIDEO_FPS))
  with (
    make_renderer(model, VIDEO_SIZE) as renderer,
    open_video(path, VIDEO_SIZE, spec.control_hz / stride) as writer,
  ):
    for step in track(range(0, len(log.qpos), stride), "rendering", transient=True):
      pose = log.qpos[step]
      command.values = values[step] if values else command.values
      data.qpos[:] = pose
      mujoco.mj_kinematics(model, data)
      mujoco.mj_comPos(model, data)
      mujoco.mj_camlight(model, data)
      camera.lookat[:] = (pose[0], pose[1], LOOK_AT_HEIGHT)
      renderer.update_scene(data, camera)
      command_markers.draw(renderer.scene, command, pose[:2])
      writer.add_image(renderer.render())
