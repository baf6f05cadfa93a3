"""Files of other tools: the same motion, however it is written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from smp.data.checks import ISAAC
from smp.data.clip_kinematics import body_names, find_bodies
from smp.data.formats import read_rows
from smp.data.motion_files import find_files
from smp.data.read_clips import clip_of
from smp.data.source import JOINTS_23, SourceCfg, joint_of
from smp.errors import UserError
from smp.motion.clips import Clip
from smp.motion.kinematics import Kinematics
from smp.robots import g1
from tests.standing import standing_clip, table, text

CLIP = standing_clip()
VALUES = table(CLIP)
QPOS = np.column_stack((CLIP.root_pos, CLIP.root_quat, CLIP.joint_pos))


def same(path: Path, source: SourceCfg | None = None, fps: float = 30.0) -> None:
  clip = clip_of(read_rows(path, source or SourceCfg()))
  assert clip.fps == fps
  np.testing.assert_allclose(clip.root_pos, CLIP.root_pos, atol=1e-6)
  np.testing.assert_allclose(clip.joint_pos, CLIP.joint_pos, atol=1e-6)
  cos = np.abs((clip.root_quat * CLIP.root_quat).sum(axis=1))
  np.testing.assert_allclose(cos, 1.0, atol=1e-9)


@pytest.mark.parametrize(
  "content",
  [
    b"\xef\xbb\xbf" + text(VALUES).encode(),
    text(VALUES).replace("\n", "\r\n").encode("utf-16"),
    text(VALUES).replace("\n", "\r").encode(),
    text(VALUES, ";").encode(),
    text(VALUES, ";").replace(".", ",").encode(),
    text(VALUES, "\t").encode(),
    text(VALUES, " ").encode(),
    text(VALUES, ", ").encode(),
    ("# made by a tool\n# m, rad\n" + text(VALUES)).encode(),
    ("motion of a G1\n\n" + text(VALUES)).encode(),
    text(np.column_stack((np.arange(len(VALUES)), VALUES))).encode(),
  ],
)
def test_plain_tables(tmp_path, content):
  path = tmp_path / "walk.csv"
  path.write_bytes(content)
  same(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_columns_by_name_in_any_order(tmp_path, seed, separator):
  rng = np.random.default_rng(seed)
  root = ("root_pos_x", "root_pos_y", "root_pos_z", "qx", "qy", "qz", "qw")
  names = ["frame", *root, *(n + ("_dof" if seed % 2 else "") for n in g1.JOINT_NAMES)]
  values = np.column_stack((np.arange(len(VALUES)), VALUES))
  order = rng.permutation(len(names))
  heading = separator.join(names[i] for i in order) + "\n"
  path = tmp_path / "walk.csv"
  path.write_text(text(values[:, order], separator, heading))
  same(path)


def test_units_in_the_heading_and_times(tmp_path):
  names = ["time", "x (cm)", "y (cm)", "z (cm)", "qw", "qx", "qy", "qz"]
  names += [f"{n} [deg]" for n in g1.JOINT_NAMES]
  values = np.column_stack(
    (
      np.arange(len(VALUES)) / 50,
      100 * CLIP.root_pos,
      CLIP.root_quat,
      np.degrees(CLIP.joint_pos),
    )
  )
  path = tmp_path / "walk.csv"
  path.write_text(text(values, ",", ",".join(names) + "\n"))
  same(path, fps=50.0)


def seed_file(path: Path, values: np.ndarray = VALUES) -> Path:
  names = ["Frame", *(f"root_translate{a}" for a in "XYZ")]
  names += [f"root_rotate{a}" for a in "XYZ"] + [f"{n}_dof" for n in g1.JOINT_NAMES]
  euler = Rotation.from_quat(values[:, 3:7]).as_euler("xyz", degrees=True)
  parts = (100 * CLIP.root_pos, euler, np.degrees(CLIP.joint_pos))
  values = np.column_stack((np.arange(len(VALUES)), *parts))
  path.write_text(text(values, ",", ",".join(names) + "\n"))
  return path


def test_bones_seed(tmp_path):
  path = seed_file(tmp_path / "walk.csv")
  same(path, fps=120.0)
  same(path, SourceCfg(format="seed", fps=60.0), fps=60.0)


def test_euler_angles_are_about_fixed_axes(tmp_path):
  values = VALUES.copy()
  turns = Rotation.from_rotvec((0.3, -0.4, 0.5)) * Rotation.from_quat(VALUES[:, 3:7])
  values[:, 3:7] = turns.as_quat()
  clip = clip_of(read_rows(seed_file(tmp_path / "walk.csv", values)))
  read = Rotation.from_quat(clip.root_quat[:, [1, 2, 3, 0]])
  assert (read * turns.inv()).magnitude().max() < 1e-6


def timed(path: Path, times: np.ndarray) -> Path:
  names = ["time", "x", "y", "z", "qx", "qy", "qz", "qw", *g1.JOINT_NAMES]
  values = np.column_stack((times, VALUES))
  path.write_text(text(values, ",", ",".join(names) + "\n"))
  return path


@pytest.mark.parametrize(
  "step, fps",
  [(0.02, 50.0), (20.0, 50.0), (1 / 120, 120.0), (1.0, 1000.0), (1e9 / 30, 30.0)],
)
def test_times_in_seconds_or_parts_of_them(tmp_path, step, fps):
  same(timed(tmp_path / "walk.csv", np.arange(len(VALUES)) * step), fps=fps)


def test_times_may_be_rounded(tmp_path):
  for fps in (30.0, 60.0, 120.0):
    times = np.round(np.arange(len(VALUES)) / fps, 2)
    same(timed(tmp_path / "walk.csv", times), fps=fps)


def test_times_that_cannot_be_are_refused_unless_the_rate_is_given(tmp_path):
  even = np.arange(len(VALUES)) / 120
  gap = even + (np.arange(len(VALUES)) >= 12) / 120
  back = np.where(np.arange(len(VALUES)) == 12, 0.0, even)
  path = tmp_path / "walk.csv"
  for times, message in (
    (
      gap,
      "row 14: column 'time' jumps by 0.01667, elsewhere by 0.008.*: rows are miss",
    ),
    (back, "row 14: column 'time' does not increase"),
    (0.0 * even, "column 'time' does not increase"),
    (1e5 * even, "column 'time' grows by 833.3 a row, which is no frame rate"),
  ):
    with pytest.raises(UserError, match=f"walk.csv: .*{message}.*--input-fps"):
      read_rows(timed(path, times))
    same(path, SourceCfg(fps=120.0), fps=120.0)


def test_a_column_named_twice(tmp_path):
  names = ["x", "y", "z", "qx", "qy", "qz", "qw", *g1.JOINT_NAMES]
  names[10] = "left_hip_pitch"
  path = tmp_path / "walk.csv"
  path.write_text(text(VALUES, ",", ",".join(names) + "\n"))
  with pytest.raises(UserError, match="two columns are called 'left_hip_pitch_joint'"):
    read_rows(path)


def test_options_for_plain_files(tmp_path):
  path = tmp_path / "walk.csv"
  values = np.column_stack(
    (1000 * CLIP.root_pos, CLIP.root_quat, np.degrees(CLIP.joint_pos))
  )
  order = [g1.JOINT_NAMES.index(name) for name in ISAAC]
  path.write_text(text(np.column_stack((values[:, :7], values[:, 7:][:, order]))))
  cfg = SourceCfg("csv", 25.0, "wxyz", "mm", "deg", "z", ("isaac",))
  same(path, cfg, fps=25.0)
  same(path, SourceCfg("csv", 25.0, "wxyz", "mm", "deg", "z", ISAAC), fps=25.0)
  with pytest.raises(UserError, match="left_toe"):
    SourceCfg(joint_order=("left_toe", "left_knee")).check()
  with pytest.raises(UserError, match="twice"):
    SourceCfg(joint_order=("left_knee", "left_knee_joint")).check()


def test_up_is_y_on_request(tmp_path):
  turn = Rotation.from_euler("x", -90, degrees=True)
  values = VALUES.copy()
  values[:, :3] = turn.apply(VALUES[:, :3])
  values[:, 3:7] = (turn * Rotation.from_quat(VALUES[:, 3:7])).as_quat()
  path = tmp_path / "walk.csv"
  path.write_text(text(values))
  same(path, SourceCfg(up_axis="y"))


def test_rows_know_the_order_of_their_quaternion(tmp_path):
  path = tmp_path / "walk.csv"
  path.write_text(text(VALUES))
  assert read_rows(path).quaternion_order == "xyzw"
  assert read_rows(path, SourceCfg(quaternion_order="wxyz")).quaternion_order == "wxyz"
  assert read_rows(seed_file(path)).quaternion_order == ""


def test_23_joints_on_request_only(tmp_path):
  columns = [g1.JOINT_NAMES.index(name) for name in JOINTS_23]
  path = tmp_path / "walk.csv"
  path.write_text(text(np.column_stack((VALUES[:, :7], VALUES[:, 7:][:, columns]))))
  with pytest.raises(UserError, match="--fill-missing-joints"):
    read_rows(path)
  rows = read_rows(path, SourceCfg(fill_missing_joints=True))
  np.testing.assert_allclose(
    rows.joint_pos[:, columns], CLIP.joint_pos[:, columns], atol=1e-7
  )
  assert not rows.joint_pos[:, list(rows.filled)].any() and len(rows.filled) == 6


def gmr(clip: Clip = CLIP, **more) -> dict:
  rot = clip.root_quat[:, [1, 2, 3, 0]]
  parts = {"root_pos": clip.root_pos, "root_rot": rot, "dof_pos": clip.joint_pos}
  return {"fps": 30, **parts, "local_body_pos": None, "link_body_list": ["a"], **more}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_gmr_pickles(tmp_path, protocol):
  path = tmp_path / "walk.pkl"
  for fps in (30, np.float64(30)):
    path.write_bytes(pickle.dumps(gmr(fps=fps), protocol))
    same(path)
  path.write_bytes(pickle.dumps({"walk": gmr()}, protocol))
  same(path)


def test_gmr_archives_and_other_keys(tmp_path):
  path = tmp_path / "walk.npz"
  data = gmr()
  parts = {k: data[k] for k in ("fps", "root_pos", "root_rot", "dof_pos")}
  np.savez(path, **parts)
  same(path)
  del parts["dof_pos"]
  np.savez(path, **parts)
  with pytest.raises(UserError, match="'dof_pos'"):
    read_rows(path)


@pytest.mark.parametrize("order", [g1.JOINT_NAMES, ISAAC])
def test_tracking_archives_of_both_orders(tmp_path, order):
  """The bodies in the file tell the order of the joints."""
  kinematics = Kinematics(g1.load_model())
  args = (CLIP.root_pos, CLIP.root_quat, CLIP.joint_pos)
  pos, quat = kinematics(*(torch.from_numpy(a).float() for a in args))
  joints = CLIP.joint_pos[:, [g1.JOINT_NAMES.index(name) for name in order]]
  path = tmp_path / "motion.npz"
  body_pos = pos.numpy().astype(np.float64)
  body_pos[:, 0] = CLIP.root_pos
  body_quat = quat.numpy().astype(np.float64)
  body_quat[:, 0] = CLIP.root_quat
  np.savez(path, fps=[50], joint_pos=joints, body_pos_w=body_pos, body_quat_w=body_quat)
  same(path, fps=50.0)


def test_the_root_of_tracking_archives_is_found_by_name(tmp_path):
  found = find_bodies(CLIP.root_pos, CLIP.root_quat, CLIP.joint_pos)
  torso = found[:, body_names().index("torso_link")]
  bodies = np.stack((torso, CLIP.root_pos), axis=1)
  quats = np.stack((CLIP.root_quat[:, [1, 0, 3, 2]], CLIP.root_quat), axis=1)
  path, names = tmp_path / "a.npz", ["torso_link", "pelvis"]
  np.savez(
    path,
    fps=[50],
    body_names=names,
    joint_names=list(g1.JOINT_NAMES),
    joint_pos=CLIP.joint_pos,
    body_pos_w=bodies,
    body_quat_w=quats,
  )
  same(path, fps=50.0)


def test_coordinates_of_mujoco(tmp_path):
  qpos = np.column_stack((CLIP.root_pos, CLIP.root_quat, CLIP.joint_pos))
  path = tmp_path / "a.npz"
  np.savez(path, qpos=qpos)
  same(path)


@pytest.mark.parametrize("fps", [0, -30, 1e6, np.nan, np.inf])
def test_rates_that_cannot_be(tmp_path, fps):
  path = tmp_path / "walk.pkl"
  path.write_bytes(pickle.dumps(gmr(fps=fps)))
  with pytest.raises(UserError, match="'fps' is"):
    read_rows(path)


class Runs:
  def __init__(self, mark: Path):
    self.mark = mark

  def __reduce__(self):
    return Path.touch, (self.mark,)


def test_pickles_run_nothing(tmp_path):
  path, mark = tmp_path / "walk.pkl", tmp_path / "ran"
  for protocol in (0, 2, 4, 5):
    path.write_bytes(pickle.dumps(gmr(more=Runs(mark)), protocol))
    with pytest.raises(UserError, match="it asks for"):
      read_rows(path)
  path.write_bytes(pickle.dumps(gmr(root_pos=np.array([{}], object))))
  with pytest.raises(UserError):
    read_rows(path)
  path.write_bytes(b"\x80\x04")
  with pytest.raises(UserError, match="walk.pkl"):
    read_rows(path)
  assert not mark.exists()


@pytest.mark.parametrize(
  "content, reason",
  [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    (b"<!DOCTYPE html><html>", "web page"),
    (b"\x1f\x8b\x08", "gzip"),
    (text(VALUES).replace("\n", ",\n").encode(), "ends with a separator"),
    (text(VALUES[:, :30]).encode(), "23-joint"),
    (text(VALUES[:, :20]).encode(), "20 columns, expected 36"),
    (b"a,b\nc,d\n", "row 1 has 2 columns"),
  ],
)
def test_what_is_no_motion_is_named(tmp_path, content, reason):
  path = tmp_path / "walk.csv"
  path.write_bytes(content)
  with pytest.raises(UserError, match=reason) as error:
    read_rows(path)
  assert "walk.csv" in str(error.value) and "\n" not in str(error.value)


def test_files_are_found_in_sub_folders(tmp_path):
  for name in ("a/walk.csv", "b/walk.CSV", "b/.walk.csv", "__MACOSX/x.csv", "c.PKL"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("1")
  (tmp_path / "README.txt").write_text("Read me.\n")
  np.savez(tmp_path / "windows.npz", windows=np.zeros(3))
  assert sorted(find_files(tmp_path)) == ["a__walk", "b__walk", "c"]
  (tmp_path / "b" / "walk.tsv").write_text("1")
  with pytest.raises(UserError, match="same name"):
    find_files(tmp_path)


def test_links_are_followed_once_and_one_to_nothing_is_refused(tmp_path, capsys):
  clips = tmp_path / "elsewhere" / "deep"
  clips.mkdir(parents=True)
  (clips / "walk.csv").write_text("1")
  folder = tmp_path / "clips"
  (folder / "b").mkdir(parents=True)
  (folder / "b" / "run.csv").write_text("1")
  (folder / "a").symlink_to(clips.parent)
  (folder / "again").symlink_to("b")
  (folder / "b" / "back").symlink_to(folder)
  (folder / "linked.csv").symlink_to(clips / "walk.csv")
  assert sorted(find_files(folder)) == ["a__deep__walk", "b__run", "linked"]
  (folder / "notes").write_text("1")
  (folder / "more.v2").symlink_to("/mnt/clips9")
  capsys.readouterr()
  assert len(find_files(folder)) == 3
  assert "more.v2: a link to /mnt/clips9, which is not there" in capsys.readouterr().out
  (folder / "b" / "gone.csv").symlink_to("annex.csv")
  with pytest.raises(UserError, match="gone.csv: a link to annex.csv, which is not"):
    find_files(folder)


def test_links_take_no_files_from_real_folders(tmp_path):
  for name in ("runs/1/walk.csv", "z/deep/jog.csv", ".cache/own.csv"):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("1")
  (tmp_path / ".latest").symlink_to("runs/1")
  (tmp_path / ".cache" / "s").symlink_to("../z")
  (tmp_path / "a").symlink_to("z/deep")
  (tmp_path / "above").symlink_to("/")
  (tmp_path / "z" / "self").symlink_to(tmp_path)
  os.mkfifo(tmp_path / "pipe.npz")
  assert sorted(find_files(tmp_path)) == ["runs__1__walk", "z__deep__jog"]


@pytest.mark.parametrize(
  "name",
  ["left_knee", "Left_Knee_Joint", "left_knee_joint_dof", "L_knee", "q_left_knee"],
)
def test_names_of_joints(name):
  assert joint_of(name) == "left_knee_joint"


@pytest.mark.parametrize(
  ("extra", "fps"),
  [
    ({}, 30.0),
    ({"fps": 60}, 60.0),
    ({"mocap_frame_rate": np.array([120.0])}, 120.0),
    ({"mocap_framerate": 24}, 24.0),
    ({"dt": 0.02}, 50.0),
    ({"frame_time": 0.0333}, 30.0),
    ({"time": np.arange(len(VALUES)) / 100}, 100.0),
    ({"timestamp": np.arange(len(VALUES)) * 1e9 / 60}, 60.0),
    ({"fps": 50, "dt": 0.005, "time": np.zeros(len(VALUES))}, 50.0),
    ({"dt": 0.017}, 60.0),
    ({"dt": np.r_[0.0, np.full(len(VALUES) - 1, 0.02)]}, 50.0),
    ({"Timestamps": np.arange(len(VALUES))[:, None] / 25}, 25.0),
    ({"t": np.arange(len(VALUES))}, 30.0),
    ({"hz": np.zeros(0), "sampling_rate": 120}, 120.0),
  ],
)
def test_the_rate_of_arrays_is_read_by_all_its_names(tmp_path, extra, fps):
  path = tmp_path / "walk.npz"
  np.savez(path, qpos=QPOS, **extra)
  assert read_rows(path).fps == pytest.approx(fps)
  assert read_rows(path, SourceCfg(fps=40.0)).fps == 40.0


@pytest.mark.parametrize(
  ("extra", "message"),
  [
    ({"dt": 0.0}, "'dt' is 0, expected 0.001 to 1 s"),
    ({"dt": 33.3}, "'dt' is 33.3, expected 0.001 to 1 s"),
    ({"frame_rate": 0.5}, "'frame_rate' is 0.5, expected 1 to 1000"),
    ({"time": np.ones(len(VALUES))}, "'time' does not increase"),
  ],
)
def test_a_rate_that_cannot_be_is_refused(tmp_path, extra, message):
  path = tmp_path / "walk.npz"
  np.savez(path, qpos=QPOS, **extra)
  with pytest.raises(UserError, match=message):
    read_rows(path)
  # A rate that is given leaves it unread.
  assert read_rows(path, SourceCfg(fps=40.0)).fps == 40.0


def test_a_heading_that_contradicts_a_clip_read_by_place_is_refused(tmp_path):
  wxyz = VALUES[:, [0, 1, 2, 6, 3, 4, 5, *range(7, VALUES.shape[1])]]
  joints = [f"motor_{i}" for i in range(29)]
  path = tmp_path / "walk.csv"

  def write(values: np.ndarray, *root: str) -> None:
    path.write_text(text(values, ",", ",".join((*root, *joints)) + "\n"))

  write(wxyz, "x", "y", "z", "qw", "qx", "qy", "qz")
  with pytest.raises(UserError, match=r"column 4 'qw', but .* --quaternion-order wxyz"):
    read_rows(path)
  same(path, SourceCfg(quaternion_order="wxyz"))
  write(VALUES, "y", "x", "z", "qx", "qy", "qz", "qw")
  with pytest.raises(UserError, match=r"column 1 'y', but .* not known: 'motor_0'"):
    read_rows(path)
  write(VALUES, "x", "y", "z", "rx", "ry", "rz", "yaw")
  with pytest.raises(UserError, match="the root's|column"):
    read_rows(path)
  # In the order that a clip without names has, the heading changes nothing.
  write(VALUES, "x", "y", "z", "qx", "qy", "qz", "qw")
  same(path)
  write(VALUES, "x", "y", "z", "rx", "ry", "rz", "rw")
  same(path)
  numbered = np.column_stack((np.arange(len(VALUES)), VALUES))
  write(numbered, "frame_number", "x", "y", "z", "qx", "qy", "qz", "qw")
  same(path)
  numbered = np.column_stack((np.arange(len(VALUES)), wxyz))
  write(numbered, "frame_number", "x", "y", "z", "qw", "qx", "qy", "qz")
  with pytest.raises(UserError, match="column 5 'qw'"):
    read_rows(path)
