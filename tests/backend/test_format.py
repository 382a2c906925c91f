"""The file that docs/format.md describes: its reference reader gives what the extension's player gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_player import deltas_of, make_avatar, make_pose, with_bust

from backend.avatar.avatar import file_parts, load_avatar
from backend.avatar.baked import motion_tensors, own_sliders
from backend.correspondence.arkit import ARKIT_NAMES, arkit_map
from backend.head.formats import load_head
from backend.head.jaw import GAZE_ANGLES
from backend.head_motion import STEPS
from backend.training.slider_poses import SliderPose, pose_arrays
from blender_addon.player.baked_file import read_baked
from blender_addon.player.evaluate import Player
from docs import read_avatar

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model():
    """The open head; with pose correctives of all joints."""
    waves = np.random.default_rng(2).normal(0, 0.002, (5200, 3, 36)).astype(np.float32)
    return replace(load_head(), pose_basis=waves)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    return make_avatar(model, tmp_path_factory.mktemp("avatar") / "person.effigy", degree=2)


TORSO = np.eye(4)
TORSO[:3, :3] = Rotation.from_rotvec((0.3, -0.2, 0.1)).as_matrix()
TORSO[:3, 3] = 0.05, -0.02, 0.01


@pytest.mark.parametrize(
    ("eye", "torso"), [((0.02, 0.03, 0.7), None), ((0.5, 0.2, 0.3), TORSO), ((0.1, 0.0, -0.6), np.eye(4))]
)
def test_the_reference_reader_gives_the_players_splats(file, model, tmp_path, eye, torso):
    file = with_bust(file, tmp_path / "person.effigy")
    header, tensors = read_avatar.read(file)
    pose = make_pose(model) | {"root": np.eye(4)}
    # The jaw's own shapes are rotations of its joint.
    pose["expression"][read_baked(file).jaw.any(1)] = 0
    rotations = np.array([np.zeros(3), *(pose[name] for name in ("neck", "jaw", "eye_L", "eye_R"))], np.float64)
    found = read_avatar.splats(
        header, tensors, (pose["expression"].astype(np.float64), rotations), np.array(eye), torso
    )
    moved = pose if torso is None else pose | {"torso": torso}
    player = Player(read_baked(file), deltas_of(model))
    expected = player.splats(moved, {"view": np.array(eye)})
    assert found.keys() == expected.keys()
    found["quaternions"] *= np.sign((found["quaternions"] * expected["quaternions"]).sum(1, keepdims=True))
    # Lips turn with edges of a millimetre, which the player has at single precision, and here some shrink to a tenth.
    lips = np.isin(player.vertices_of_gaussians[: len(expected["means"])], model.regions["lips"])
    assert np.abs(found["quaternions"][lips] - expected["quaternions"][lips]).max() < 1e-3
    found["quaternions"][lips] = expected["quaternions"][lips]
    for name, part in expected.items():
        assert np.abs(found[name] - part).max() < 1e-5, name


def test_the_files_sliders_are_those_of_the_rig(file, model):
    header, tensors = read_avatar.read(file)
    assert set(header["baked"]["sliders"]) == set(ARKIT_NAMES)
    values = {"jawOpen": 0.4, "jawLeft": 0.2, "mouthSmileLeft": 0.7, "eyeLookUpRight": 0.5, "eyeLookOutLeft": 1.0}
    expression, rotations = read_avatar.pose_of_sliders(header, tensors, values)
    expected = pose_arrays(model, [SliderPose("test", values)])
    assert np.abs(expression - expected[0][0]).max() < 1e-6 and np.abs(rotations - expected[1][0]).max() < 1e-6
    assert rotations[3, 1] == pytest.approx(GAZE_ANGLES[0]) and rotations[4, 0] == pytest.approx(-GAZE_ANGLES[1] / 2)


def test_the_reader_names_the_sliders_where_one_is_misspelt(file):
    with pytest.raises(SystemExit, match="no slider jawopen. Sliders: .*jawOpen"):
        read_avatar.pose_of_sliders(*read_avatar.read(file), {"jawopen": 0.5})


def test_deltas_are_stored_within_a_micrometre(model):
    made = motion_tensors(model, own_sliders(model))
    starts, units = made["baked.delta_starts"].numpy(), made["baked.delta_units"].numpy()
    assert 0 < units.max() * STEPS < 0.05 and units.max() / 2 < 1e-6
    row = model.expression_names.index("mouthSmileLeft")
    entries = slice(starts[row], starts[row + 1])
    dense = np.zeros((len(model.template), 3))
    dense[made["baked.delta_vertices"].numpy()[entries]] = units[row] * made["baked.delta_steps"].numpy()[entries]
    assert np.abs(dense - model.expression_basis[..., row]).max() <= 1e-6


def test_the_file_of_another_head_has_no_deltas_of_it(tmp_path):
    """Its components are somebody else's, and large."""
    head = load_head()
    other = replace(head, expression_names=tuple(f"expression_{k:03d}" for k in range(52)))
    header, _ = header_and_size(make_avatar(other, tmp_path / "other.effigy"))
    assert "sliders" not in header["baked"] and own_sliders(other) is None
    assert not any("delta" in part.name or "slider" in part.name for part in file_parts(tmp_path / "other.effigy"))
    with pytest.raises(ValueError, match="no baked model of its own head"):
        read_avatar.read(tmp_path / "other.effigy")


def header_and_size(path: Path) -> tuple[dict, int]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["effigy"]), len(content)


def test_sliders_and_deltas_take_half_a_megabyte(tmp_path):
    path = make_avatar(load_head(), tmp_path / "person.effigy")
    parts = {part.name: part.bytes for part in file_parts(path)}
    assert sum(size for name, size in parts.items() if "delta" in name or "slider" in name) < 0.5e6
    assert load_avatar(path).head_model.fingerprint == load_head().fingerprint


def test_the_arkit_sliders_of_a_named_head_are_its_own_expressions():
    head = load_head()
    mapping, sliders = arkit_map(head), own_sliders(head)
    order = [sliders.names.index(name) for name in ARKIT_NAMES]
    assert np.allclose(sliders.expression[order], mapping.expression) and np.allclose(sliders.jaw[order], mapping.jaw)


def test_the_reader_is_a_program_of_under_200_lines_that_needs_numpy_alone(file, tmp_path):
    program = ROOT / "docs" / "read_avatar.py"
    assert len(program.read_text("utf-8").splitlines()) < 200
    copy = tmp_path / "ann.effigy"
    copy.write_bytes(file.read_bytes())
    refuse = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('bpy', 'torch', 'scipy', 'backend', 'blender_addon', 'safetensors'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.argv = ['read_avatar.py', {str(copy)!r}, 'jawOpen=0.5']\n"
        f"runpy.run_path({str(program)!r}, run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", refuse], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ended.stdout.startswith("ann.effigy: 52 sliders, 15600 Gaussians")
    with np.load(tmp_path / "ann.npz") as found:
        assert found["means"].shape == (15600, 3)


def changed(file: Path, name: str, values: object, at: object = 0) -> bytes:
    """The content of a file with numbers of a tensor changed."""
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + length])[name]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    numbers = np.frombuffer(
        content, read_avatar.DTYPES[entry["dtype"]], 8 * (end - begin) // int(entry["dtype"][1:]), begin
    )
    numbers[at] = values
    return bytes(content)


HOSTILE = {
    "infinite deltas": ("baked.delta_units", np.inf),
    "huge deltas": ("baked.delta_units", 1e30),
    "deltas of other vertices": ("baked.delta_vertices", 32767),
    "deltas of vertices below zero": ("baked.delta_vertices", -1),
    "deltas that lie elsewhere": ("baked.delta_starts", 2**31 - 1),
    "deltas backwards": ("baked.delta_starts", -5),
    "not a number": ("networks.blendshapes.mean", np.nan),
    "a head of a light-year": ("baked.vertices", 9e15),
    "mixed to infinity": ("networks.blendshapes.mix.0.bias", 3e38),
    "half of infinity": ("baked.features", np.inf),
}


@pytest.mark.parametrize(
    "case", [*HOSTILE, "cut short", "no avatar", "deep", "no such file", "a tensor less", "degree"]
)
def test_the_reader_has_a_sentence_for_a_hostile_file(case, file, tmp_path):
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    made = {
        "cut short": content[:-1000],
        "no avatar": b"<html>" * 100,
        "deep": (10**5).to_bytes(8, "little") + b"[" * 10**5,
        "a tensor less": content.replace(b"baked.joints", b"baked.jointz", 1),
        "degree": content.replace(b'\\"sh_degree\\": 2', b'\\"sh_degree\\": 9', 1),
    }
    if case in HOSTILE:
        name, values = HOSTILE[case]
        made[case] = changed(file, name, values, slice(None, None, 3))
    path = tmp_path / "ann.effigy"
    if case in made:
        assert made[case] != content, length
        path.write_bytes(made[case])
    words = [sys.executable, str(ROOT / "docs" / "read_avatar.py"), str(path), "jawOpen=0.5", "mouthSmileLeft=1"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and not (tmp_path / "ann.npz").exists()
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{path} cannot be read as an avatar: "), ended.stderr
    print(lines[0])
