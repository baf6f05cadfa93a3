"""Looking at what a prior generates: pictures, videos and the page."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from smp.cli import generate
from smp.diffusion.prior import MotionPrior
from smp.errors import UserError, run
from smp.motion.features import g1_spec
from smp.paths import resolve_prior
from smp.robots import g1
from smp.viz.offscreen import MotionBatch, OffscreenRenderer, direction, facing
from tests.cli.test_cli import can_render
from tests.diffusion.test_styles import make_prior


def type_in(monkeypatch, words: str) -> None:
  monkeypatch.setattr(sys, "argv", ["generate", *words.split()])


@pytest.fixture
def renders() -> None:
  if not can_render():
    pytest.skip("no OpenGL library to render with")


def standing(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
  pose = np.zeros(7 + g1.NUM_JOINTS)
  pose[:3] = x, y, 0.78
  pose[3], pose[6] = np.cos(yaw / 2), np.sin(yaw / 2)
  return pose


def lying() -> np.ndarray:
  """On its back."""
  pose = standing()
  pose[2] = 0.1
  pose[3:7] = np.sqrt(0.5), 0.0, -np.sqrt(0.5), 0.0
  return pose


# Bad input.


def test_a_prior_of_another_robot_is_refused(monkeypatch, tmp_path):
  spec = g1_spec(joint_names=("a_joint", *g1.JOINT_NAMES[1:]))
  monkeypatch.setattr(MotionPrior, "load", lambda _: SimpleNamespace(spec=spec))
  type_in(monkeypatch, f"loco --output {tmp_path / 'x.png'}")
  with pytest.raises(
    UserError, match="loco.safetensors is not of the G1 .*joint_names"
  ):
    generate.main()


@pytest.mark.parametrize(
  "words, message",
  [
    ("nobody --output x.png", "prior 'nobody'.*shipped: .*loco"),
    ("loco --output x.jpeg", r"x.jpeg: cannot write '.jpeg' files.*\.png.*\.mp4"),
    ("loco --output x", "x: cannot write '' files"),
    ("loco --output x.png --samples 0", "--samples 0: must be at least 1"),
    ("loco --output x.png --pictures -1", "--pictures -1: must be at least 1"),
    ("loco --output x.mp4 --resample 0", "--resample 0: must be at least 1"),
    ("loco --output x.png --seconds -1", "--seconds -1.0: must be at least 0"),
    ("loco --output x.png --seconds nan", "--seconds nan: must be a finite number"),
    ("loco --output x.png --seconds .1", "--seconds is 0.1, expected 0 .* least 0.2"),
    ("loco --output x.png --overlap 0", "overlap is 0, expected 1 to 9"),
    ("loco --output x.png --overlap 10", "overlap is 10, expected 1 to 9"),
    ("loco --output x.png --style run", "style 'run': this prior has no styles"),
    ("loco --output x.png --styles run,walk --style run", "give one of them"),
    ("loco --output x.png --styles run,", "styles 'run,': a name is missing"),
    ("loco --output x.png --styles run,run", "'run' is given twice"),
    ("loco --output x.png --styles run/run", "write run"),
    ("loco --port 70000", "--port 70000: must be at most 65535"),
    ("loco --host no.such.host.invalid", "--host no.such.host.invalid: cannot listen"),
  ],
)
def test_bad_input_is_one_line(monkeypatch, tmp_path, words, message):
  monkeypatch.chdir(tmp_path)
  type_in(monkeypatch, words)
  with pytest.raises(UserError, match=message) as caught:
    generate.main()
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_style_of_the_prior_is_what_is_sampled(monkeypatch, tmp_path):
  path = tmp_path / "p.safetensors"
  make_prior().save(path)
  sampled = []

  def keep(_cfg, prior, _seed) -> MotionBatch:
    sampled.append(prior)
    raise UserError("enough")

  monkeypatch.setattr(generate, "sample", keep)
  for words in ("--style run", "--style run --style-upper walk --style-weight 2", ""):
    type_in(monkeypatch, f"{path} --output {tmp_path}/x.png {words}")
    with pytest.raises(UserError, match="enough"):
      generate.main()
  titles = [prior.style.title() for prior in sampled]
  assert titles == ["run", "walk over run x 2", "no style"]
  type_in(monkeypatch, f"{path} --output {tmp_path}/x.png --style wlak")
  with pytest.raises(UserError, match="did you mean 'walk'"):
    generate.main()


def test_styles_side_by_side(monkeypatch, tmp_path, capsys):
  """Each has its own motion, in the order asked for, and a row of the strip."""
  path = tmp_path / "p.safetensors"
  make_prior().save(path)
  drawn, sampled = [], []

  def sample(cfg, prior, _seed) -> MotionBatch:
    sampled.append((prior.style.title(), cfg.samples))
    batch = walks(cfg.samples or 7, speed=len(sampled))
    return batch._replace(title="some motions, 1.0 to 2.0 m/s")

  def strip(rows, _path, labels, *_directions) -> None:
    drawn.append((rows, labels))

  monkeypatch.setattr(generate, "sample", sample)
  monkeypatch.setattr(generate, "film_strip", strip)
  words = f"{path} --output {tmp_path}/x.png --styles run,walk/run --pictures 3"
  type_in(monkeypatch, words)
  generate.main()
  assert sampled == [("run", 1), ("walk over run", 1)]
  (rows, labels), *_ = drawn
  assert [len(row) for row in rows] == [3, 3] and len(labels) == 2
  assert labels[0].startswith("run, ") and labels[1].startswith("walk over run, ")
  assert rows[1][-1, 0] == pytest.approx(2 * rows[0][-1, 0])
  type_in(monkeypatch, f"{words} --style-weight 2 --samples 2 --seconds 0")
  generate.main()
  assert sampled[2:] == [("run x 2", 2), ("walk over run x 2", 2)]
  assert [len(row) for row in drawn[1][0]] == [2, 2]
  assert "walk over run x 2: " in capsys.readouterr().out


# What is shown.


def cfg_for(**changes) -> generate.GenerateCfg:
  return generate.GenerateCfg(prior="loco", **changes)


def sampled(**changes) -> MotionBatch:
  prior = MotionPrior.load(resolve_prior("loco"))
  return generate.sample(cfg_for(**changes), prior, seed=0)


def test_windows_are_shown_slow_to_fast():
  gallery = sampled(seconds=0.0, samples=40, pictures=5)
  assert gallery.qpos.shape == (5, 10, 36)
  steps = gallery.qpos[:, -1, :2] - gallery.qpos[:, 0, :2]
  speed = np.linalg.norm(steps, axis=1) * 50 / 9
  assert (np.diff(speed) >= 0).all() and speed[-1] > speed[0] + 0.5
  assert gallery.title == f"5 of 40 windows, {speed[0]:.1f} to {speed[-1]:.1f} m/s"
  assert gallery.labels[0].startswith(f"{speed[0]:.1f} m/s, head at 1.")


def test_all_long_motions_are_shown():
  gallery = sampled(seconds=0.3, samples=3, pictures=2, resample=1)
  assert gallery.qpos.shape == (3, 15, 36)
  assert gallery.title.startswith("3 of 3 motions of 0.3 s, ")


def test_more_pictures_than_windows():
  assert sampled(seconds=0.0, samples=2, pictures=8).qpos.shape[0] == 2


def test_order_follows_what_differs():
  speed, upright = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([1.30, 1.25, 1.2])
  getting_up = torch.tensor([0.2, 1.2, 0.7])
  assert generate.sort_key("auto", speed, upright) == (speed, "m/s")
  assert generate.sort_key("auto", speed, getting_up) == (getting_up, "m")
  assert generate.sort_key("height", speed, upright) == (upright, "m")
  assert generate.sort_key("speed", speed, getting_up) == (speed, "m/s")


def test_a_file_without_a_length_is_windows_or_a_video_of_motions():
  assert cfg_for(output=Path("x.png")).length == 0.0
  assert cfg_for(output=Path("x.mp4")).length == cfg_for().length > 1.0
  assert cfg_for(output=Path("x.PNG"), seconds=2.0).length == 2.0


def test_direction_is_where_it_goes_or_faces():
  there = np.stack([standing(0, 0, 1.0), standing(-3.0, 0, 1.0)])
  assert direction(there) == pytest.approx(np.pi)
  stays = np.stack([standing(0, 0, 0.0), standing(0.1, 0, 1.0)])
  assert direction(stays) == pytest.approx(1.0)


# Pictures.


@pytest.mark.parametrize("yaw", [0.0, 2.5])
def test_the_camera_is_in_front_and_to_the_right(renders, yaw):
  pose = standing(3.0, -1.0, yaw)
  with OffscreenRenderer() as studio:
    studio.picture(pose, float(facing(pose)))
    x, y, _ = studio.renderer.scene.camera[0].pos - pose[:3]
  ahead = np.cos(yaw) * x + np.sin(yaw) * y
  left = np.cos(yaw) * y - np.sin(yaw) * x
  assert ahead > 0.8 and left < -1.5


@pytest.mark.parametrize("pose", [standing(), lying()], ids=["standing", "lying"])
def test_the_robot_is_in_the_picture_whole(renders, pose):
  away = pose.copy()
  away[2] = 50.0
  with OffscreenRenderer() as studio:
    views = [studio.picture(p, 0.0).astype(int) for p in (pose, away)]
  robot = np.abs(views[1] - views[0]).sum(axis=2) > 60
  rows, columns = np.flatnonzero(robot.any(axis=1)), np.flatnonzero(robot.any(axis=0))
  height, width = robot.shape
  assert robot.mean() > 0.02
  assert 0 < rows.min() and rows.max() < height - 1
  assert 0 < columns.min() and columns.max() < width - 1


@pytest.mark.parametrize("name, seconds", [("windows.png", 0), ("long.png", 0.2)])
def test_film_strip(renders, tmp_path, monkeypatch, capsys, name, seconds):
  out = tmp_path / name
  options = "--samples 2 --pictures 2 --resample 1"
  type_in(monkeypatch, f"loco --output {out} --seconds {seconds} {options}")
  generate.main()
  import matplotlib.image

  height, width, _ = matplotlib.image.imread(out).shape
  rows = 1 if seconds == 0 else 2
  assert width / height == pytest.approx(2 * 240 / (rows * 260), rel=0.1)
  assert f"2 of 2 {'windows' if seconds == 0 else 'motions'}" in capsys.readouterr().out
  assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_video(renders, tmp_path, monkeypatch, suffix):
  out = tmp_path / f"motion{suffix}"
  type_in(monkeypatch, f"loco --output {out} --samples 2 --seconds 0.2 --resample 1")
  generate.main()
  import imageio_ffmpeg

  reader = imageio_ffmpeg.read_frames(out)
  about = next(reader)
  assert about["size"] == (2 * 240, 260) and about["fps"] == 25.0
  frames = [np.frombuffer(data, dtype=np.uint8) for data in reader]
  assert len(frames) == 5  # Every second of ten.
  assert np.abs(frames[0].astype(int) - frames[-1]).max() > 40  # It moves.
  assert [p.name for p in tmp_path.iterdir()] == [out.name]


# The page.


@pytest.fixture
def server() -> Iterator:
  import viser

  server = viser.ViserServer(host="localhost", port=0, verbose=False)
  yield server
  server.stop()


def walks(count: int, speed: float = 1.0) -> MotionBatch:
  """Motions of one second along x, the next one faster."""
  qpos = np.stack(
    [[standing(speed * (i + 1) * t / 50) for t in range(51)] for i in range(count)]
  )
  labels = [f"{speed * (i + 1):g} m/s" for i in range(count)]
  return MotionBatch(qpos, labels, f"{count} walks")


def pelvis(page) -> np.ndarray:
  """Where the pelvises are on the page (N, 3), m."""
  body = page.scene.mj_model.body(g1.ROOT_BODY).id
  group = next(g for g in page.scene._mesh_groups if body in g.body_ids)
  return np.asarray(group.handle.batched_positions)


def test_page_plays_pauses_and_follows(server):
  from smp.viz.motion_viewer import SPACING, MotionPage

  page = MotionPage(server, iter([walks(2)]), 50.0, "walks")
  assert page.select.options == ("1: 1 m/s", "2: 2 m/s")
  assert pelvis(page)[:, :2] == pytest.approx(np.array([[0, 0], [0, SPACING]]))
  page.tick(0.5)
  # It goes along with the first one: the floor moves, the second is ahead.
  assert pelvis(page)[:, :2] == pytest.approx(np.array([[0, 0], [0.5, SPACING]]))
  assert page.scene.fixed_bodies_frame.position == pytest.approx([-0.5, 0, 0])
  assert page.time.value == pytest.approx(0.5)
  page.set_playing(False)
  page.tick(0.3)
  assert page.playback.time == pytest.approx(0.5) and page.play.label == "Play"
  page.select.value = "2: 2 m/s"
  page.tick(0.3)
  assert pelvis(page)[:, :2] == pytest.approx(np.array([[-0.5, -SPACING], [0, 0]]))
  page.alone.value = True
  page.tick(0.3)
  assert pelvis(page)[:, :2] == pytest.approx(np.zeros((1, 2)))
  page.follow.value = False
  page.tick(0.3)
  assert pelvis(page)[:, :2] == pytest.approx(np.array([[1.0, SPACING]]))


def test_page_speed_and_loop(server):
  from smp.viz.motion_viewer import MotionPage

  page = MotionPage(server, iter([walks(1)]), 50.0, "walks")
  page.playback.speed = 0.5
  page.tick(1.0)
  assert page.playback.time == pytest.approx(0.5)
  page.tick(1.2)
  assert page.playback.time == pytest.approx(0.1)


def test_only_what_can_be_sampled_anew_has_a_button_for_it(server):
  from smp.viz.motion_viewer import MotionPage

  samples = MotionPage(server, iter([walks(1)]), 50.0, "walks")
  clip = MotionPage(server, iter([walks(1)]), 50.0, "walk", renewable=False)
  assert samples.renew.visible and not clip.renew.visible


def test_page_takes_new_samples(server):
  from smp.viz.motion_viewer import MotionPage

  page = MotionPage(server, iter([walks(2), walks(2, speed=3.0)]), 50.0, "walks")
  page.select.value = "2: 2 m/s"
  page.tick(0.2)

  def fetch() -> None:
    page.fetch()
    assert page.renew.disabled
    for thread in threading.enumerate():
      if thread.name == "sampling":
        thread.join(20.0)
    page.tick(0.0)
    assert not page.renew.disabled

  fetch()
  assert page.gallery.qpos[0, -1, 0] == pytest.approx(3.0)
  assert page.select.value == "2: 6 m/s" and page.playback.time == 0.0
  fetch()  # There are no more: it says so and goes on.
  assert page.note.content.startswith("No new samples")
  page.tick(0.1)
  assert page.playback.time == pytest.approx(0.1)


def test_ctrl_c_closes_the_page(monkeypatch, capsys):
  from smp.viz import motion_viewer

  def interrupted(self, elapsed: float) -> None:
    raise KeyboardInterrupt

  monkeypatch.setattr(motion_viewer.MotionPage, "tick", interrupted)
  type_in(monkeypatch, "loco --seconds 0 --samples 2 --pictures 1 --port 0")
  with pytest.raises(SystemExit) as end:
    run(generate.main)
  captured = capsys.readouterr()
  assert end.value.code == 0 and not captured.err
  assert "http://localhost:" in captured.out and "closed" in captured.out
