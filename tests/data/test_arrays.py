"""Arrays of other tools that say something about the motion: heeded, or refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from smp.data.checks import ISAAC
from smp.data.clip_kinematics import body_names, find_bodies
from smp.data.formats import read_rows
from smp.data.source import SourceCfg
from smp.robots import g1
from tests.data.test_headings import NAMES, VALUES, refused, same
from tests.standing import standing_clip, text

CLIP = standing_clip()
ORDER = np.random.default_rng(1).permutation(g1.NUM_JOINTS)
ORDERED = [g1.JOINT_NAMES[i] for i in ORDER]
BODIES = find_bodies(CLIP.root_pos, CLIP.root_quat, CLIP.joint_pos)
TORSO = body_names().index("torso_link")
TIMES = np.arange(len(VALUES))


def gmr(path: Path, **more) -> Path:
  parts = {"root_pos": CLIP.root_pos, "root_rot": VALUES[:, 3:7]}
  content = {"fps": 30, **parts, "dof_pos": CLIP.joint_pos, **more}
  content = {key: value for key, value in content.items() if value is not None}
  if path.suffix == ".pkl":
    path.write_bytes(pickle.dumps(content))
  else:
    np.savez(path, **content)
  return path


def tracking(path: Path, bodies: list[int], **more) -> Path:
  quat = np.tile(CLIP.root_quat[:, None], (1, len(bodies), 1))
  # Only that of the pelvis is right.
  for place, body in enumerate(bodies):
    if body:
      quat[:, place] = quat[:, place][:, [1, 0, 3, 2]]
  parts = {"body_pos_w": BODIES[:, bodies], "body_quat_w": quat}
  np.savez(path, **{"fps": 30, "joint_pos": CLIP.joint_pos, **parts, **more})
  return path


# Names of joints.


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize(
  "more",
  [
    {"joint_names": ORDERED},
    {"joint_names": np.array([name.encode() for name in ORDERED])},
    {"joint_names": ",".join(ORDERED)},
    {"dof_joint_names": ORDERED},
    {"names": ORDERED},
    {"joint_order": ORDERED, "link_body_list": list(g1.JOINT_NAMES)},
    {"joint_names": ORDERED, "left_joints": list(g1.JOINT_NAMES[:12])},
  ],
)
def test_names_of_joints_give_their_order(tmp_path, suffix, more):
  more = {"dof_pos": CLIP.joint_pos[:, ORDER], **more}
  same(gmr(tmp_path / f"walk{suffix}", **more))


@pytest.mark.parametrize(
  "more, message",
  [
    (
      {"joint_names": np.array(ORDERED, object)},
      "'joint_names' is an array of Python o",
    ),
    (
      {"dof_joint_names": np.array(ORDERED, object)},
      "'dof_joint_names' is an array of",
    ),
    ({"joint_names": [*ORDERED[:-1], ORDERED[0]]}, "'joint_names' has .* twice"),
    ({"names": [*ORDERED[:-1], ORDERED[0]]}, "'names' has .* twice"),
    ({"joint_names": ORDERED, "dof_names": g1.JOINT_NAMES}, "in different orders"),
    ({"joint_order": ORDER}, "'joint_order' is not a list of joint names"),
    ({"names": ["pelvis", *ORDERED]}, "'names' has 'pelvis', which the G1 has not"),
  ],
)
def test_names_of_joints_that_cannot_be_used(tmp_path, more, message):
  path = gmr(tmp_path / "walk.npz", **more)
  refused(path, message)
  refused(path, message, SourceCfg(fill_missing_joints=True))
  same(path, SourceCfg(joint_order=("mujoco",)))


def test_arrays_of_objects_that_do_not_count_are_skipped(tmp_path):
  same(gmr(tmp_path / "walk.npz", notes=np.array([{}, None], object)))


@pytest.mark.parametrize("name", ["fps", "dof_pos", "root_pos", "time", "dt"])
def test_arrays_of_objects_that_count_are_refused(tmp_path, name):
  value = np.array(60 if name in ("fps", "dt") else list(CLIP.root_pos), object)
  path = gmr(tmp_path / "walk.npz", **{"fps": None, name: value})
  refused(path, f"'{name}' is an array of Python objects.*without dtype=object")


def test_a_damaged_array_is_called_so(tmp_path):
  path = gmr(tmp_path / "walk.npz")
  with zipfile.ZipFile(path) as archive:
    parts = {name: archive.read(name) for name in archive.namelist()}
  shape = f"({len(VALUES)}, 29)".encode()
  parts["dof_pos.npy"] = parts["dof_pos.npy"].replace(shape, b"(99, 29)")
  with zipfile.ZipFile(path, "w") as archive:
    for name, content in parts.items():
      archive.writestr(name, content)
  refused(path, "array 'dof_pos' is unreadable")


# Rates.


@pytest.mark.parametrize(
  "more",
  [
    {"fps": 60, "dt": 1 / 30},
    {"fps": 30, "dt": 1 / 60},
    {"fps": 30, "mocap_framerate": 60},
    {"fps": 30, "time": TIMES / 60},
    {"fps": 50, "step_dt": 0.005},
    {"fps": None, "dt": 0.02, "t": TIMES / 30},
  ],
)
def test_rates_that_contradict_each_other_are_refused(tmp_path, more):
  path = gmr(tmp_path / "walk.npz", **more)
  refused(path, "means .* rows per second, '.*--input-fps")
  assert read_rows(path, SourceCfg(fps=40.0)).fps == 40.0


@pytest.mark.parametrize(
  "more, fps",
  [
    ({"fps": 30, "dt": 0.033, "time": np.round(TIMES / 30, 2)}, 30.0),
    ({"fps": 60, "dt": 0.017}, 60.0),
    ({"fps": 50, "dt": 0.002, "frame_time": 0.02}, 50.0),
    ({"fps": 30, "time": TIMES / 30 + (TIMES > 9)}, 30.0),
    ({"fps": 29, "mocap_framerate": 29.97, "t": TIMES}, 29.0),
  ],
)
def test_rates_that_agree_but_for_rounding(tmp_path, more, fps):
  same(gmr(tmp_path / "walk.npz", **more), fps=fps)


@pytest.mark.parametrize("names", [NAMES, [f"c{i}" for i in range(36)], []])
@pytest.mark.parametrize(
  "above, fps",
  [
    ("# fps: 60\n", 60.0),
    ("Frame Time: 0.0166667\n", 60.0),
    ("# recorded at 120 fps\n", 120.0),
    ("# fps (Hz) = 50\n", 50.0),
    ("# filtered at 6 Hz, 36 columns\n", 30.0),
  ],
)
def test_a_remark_gives_the_rate(tmp_path, names, above, fps):
  path = tmp_path / "walk.csv"
  heading = ",".join(names) + "\n" if names else ""
  path.write_text(text(VALUES, ",", above + heading))
  same(path, fps=fps)
  same(path, SourceCfg(fps=40.0), fps=40.0)


def test_a_column_gives_the_rate(tmp_path):
  path = tmp_path / "walk.csv"

  def write(above: str, **columns) -> None:
    values = [np.broadcast_to(each, len(VALUES)) for each in columns.values()]
    heading = above + ",".join((*NAMES, *columns)) + "\n"
    path.write_text(text(np.column_stack((VALUES, *values)), ",", heading))

  write("", fps=60)
  same(path, fps=60.0)
  write("", time=TIMES / 60, dt=0.002)
  same(path, fps=60.0)
  write("# fps: 30\n", fps=60)
  refused(path, "column 'fps' means 60 rows per second, row 1 .'fps: 30'. 30")
  write("", time=TIMES / 30, fps=60)
  refused(path, "column 'time' means 30 rows per second, column 'fps' 60")
  write("", fps=TIMES + 20)
  refused(path, "column 'fps' changes")
  write("", fps=0)
  refused(path, "column 'fps' is 0, expected 1 to 1000")
  same(path, SourceCfg(fps=40.0), fps=40.0)


# Bodies of a tracking task.


@pytest.mark.parametrize("pelvis", ["pelvis", "robot/pelvis", "pelvis_link"])
@pytest.mark.parametrize("kind", [str, bytes])
def test_the_pelvis_is_found_by_its_name(tmp_path, pelvis, kind):
  names = np.array(["torso_link", pelvis]).astype("S" if kind is bytes else "U")
  joints = {"joint_names": g1.JOINT_NAMES}
  same(tracking(tmp_path / "walk.npz", [TORSO, 0], body_names=names, **joints))


@pytest.mark.parametrize(
  "names, message",
  [
    (["torso_link", "left_knee_link"], "'body_names' must have 'pelvis' once"),
    (np.array(["torso_link", "pelvis"], object), "'body_names' is an array of Python"),
    (["torso_link", "imu", "pelvis"], "3 names of the 2 bodies"),
  ],
)
def test_another_body_is_not_taken_for_the_pelvis(tmp_path, names, message):
  more = {"body_names": names, "joint_names": g1.JOINT_NAMES}
  refused(tracking(tmp_path / "walk.npz", [TORSO, 0], **more), message)


def test_names_of_bodies_that_are_exchanged(tmp_path):
  quat = np.tile(CLIP.root_quat[:, None], (1, 2, 1))
  more = {"body_names": ["pelvis", "torso_link"], "joint_names": g1.JOINT_NAMES}
  path = tracking(tmp_path / "walk.npz", [TORSO, 0], body_quat_w=quat, **more)
  refused(path, "bodies in 'body_pos_w' are 8.8 cm from where")


@pytest.mark.parametrize("named", [False, True])
def test_the_first_body_must_be_the_pelvis_if_none_is_named(tmp_path, named):
  more = {"joint_names": g1.JOINT_NAMES} if named else {}
  bodies = [*range(len(body_names()))]
  same(tracking(tmp_path / "walk.npz", bodies, **more))
  path = tracking(tmp_path / "walk.npz", [TORSO, *bodies[1:]], **more)
  refused(path, "cm from where 'joint_pos' puts them, if body 1 is the pelvis")
  # An order that is not that of the bodies.
  wrong = {"joint_names": ISAAC}
  refused(tracking(path, bodies, **wrong), "cm from where 'joint_pos' puts them")


def test_bodies_that_do_not_tell_the_order(tmp_path):
  path = tracking(tmp_path / "walk.npz", [0])
  refused(path, "do not tell the order of the joints; give --joint-order")
  same(path, SourceCfg(joint_order=("mujoco",)))


@pytest.mark.parametrize(
  "pos, quat",
  [((0, 3), (0, 4)), ((2, 3), (1, 4)), ((2, 2), (2, 4)), ((2, 3), (2, 3))],
)
def test_bodies_of_other_shapes(tmp_path, pos, quat):
  arrays = {
    "body_pos_w": np.zeros((len(VALUES), *pos)),
    "body_quat_w": np.zeros((len(VALUES), *quat)),
  }
  path = tracking(tmp_path / "walk.npz", [0], body_names=["a", "pelvis"], **arrays)
  refused(path, "'body_pos_w' is .*, 'body_quat_w' .*expected .T, bodies, 3")
