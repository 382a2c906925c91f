"""A file of another program is named for what it is, and every file is read through the one place that says so."""

from __future__ import annotations

import ast
import errno
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend import file_kinds
from backend.errors import EffigyError
from backend.file_kinds import kind_of, sentence_of_system
from backend.reading import reading
from bench.fault_rows._loaders import Loader, loaders
from blender_addon import reading as extension_reading
from blender_addon.avatar_header import check_avatar_file
from blender_addon.errors import EffigyError as ExtensionError

CLIP = "video"
ROOT = Path(__file__).resolve().parents[2]


def archive(**members: bytes | str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/"), content)
    return stream.getvalue()


def arrays(*names: str) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name: np.zeros(3) for name in names})
    return stream.getvalue()


def safetensors(metadata: dict[str, str]) -> bytes:
    header = json.dumps(
        {"__metadata__": metadata, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


OTHER_FILES: dict[str, tuple[str, bytes]] = {
    "point_cloud.ply": (
        "a PLY of 3D Gaussians",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty float f_dc_0\nend_header\n",
    ),
    "scan.ply": ("a PLY of points", b"ply\r\nformat ascii 1.0\r\nelement vertex 1\r\n"),
    "scene.spz": ("a file of 3D Gaussians", gzip.compress(b"NGSP\2\0\0\0" + bytes(40))),
    "scene4.spz": ("a file of 3D Gaussians", b"NGSP\4\0\0\0" + bytes(40)),
    "scene.splat": ("a file of 3D Gaussians", b"\1\2\3\4" * 16),
    "scene.sog": ("a file of 3D Gaussians", archive(**{"meta.json": "{}", "means_l.webp": b"RIFF"})),
    "shot.blend": ("a Blender file", b"BLENDER17-01v0501"),
    "old.blend": ("a Blender file", gzip.compress(b"BLENDER-v293")),
    "packed.blend": ("a Blender file", b"\x28\xb5\x2f\xfd" + bytes(40)),
    "clip.zip": ("a packed archive of a capture", archive(**{"clip.capture__capture.json": "{}"})),
    "other.zip": ("a packed archive", archive(**{"readme.txt": "hello"})),
    "shots.tar": ("a packed archive", bytes(257).replace(b"\0", b"a") + b"ustar\0" + bytes(200)),
    "transforms.json": ("a file of cameras", b'{"camera_angle_x": 0.6, "frames": [{"transform_matrix": []}]}'),
    "cameras.json": ("a file of cameras", b'[{"id": 0, "img_name": "00001", "width": 800}]'),
    "capture.json": ("a part of a capture", b'{"schema": 2, "crop": [0, 0, 1], "intrinsics": [[1]]}'),
    "words.TextGrid": ("a Praat TextGrid", b'File type = "ooTextFile"\nObject class = "TextGrid"\n'),
    "words16.TextGrid": ("a Praat TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n'.encode("utf-16")),
    "line.pgo": ("a file of Papagayo", b"lipsync version 1\r\nline.wav\r\n24\r\n"),
    "line.dat": ("a file of Papagayo", b"MohoSwitch1\n1 rest\n"),
    "head.glb": ("a mesh or a scene", b"glTF\2\0\0\0"),
    "head.fbx": ("a mesh or a scene", b"Kaydara FBX Binary  \0"),
    "walk.bvh": ("a motion of a skeleton", b"HIERARCHY\nROOT Hips\n"),
    "voice.wav": ("a sound without pictures", b"RIFF\0\0\0\0WAVEfmt "),
    "shots.xlsx": ("a workbook of an office program", archive(**{"[Content_Types].xml": "<x/>"})),
    "shots.ods": ("a workbook of an office program", archive(mimetype="opendocument", **{"content.xml": ""})),
    "shots.xls": ("a workbook of an office program", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90)),
    "SMPLX_NEUTRAL.npz": ("a SMPL-X body model", arrays("v_template", "hands_meanl", "lmk_faces_idx")),
    "SMPLH_male.npz": ("a SMPL or SMPL-H body model", arrays("v_template", "hands_meanl", "hands_componentsl")),
    "MANO_RIGHT.npz": ("a MANO hand model", arrays("v_template", "hands_components", "hands_mean")),
    "flame_param.npz": ("a motion of FLAME", arrays("translation", "jaw_pose", "expr", "shape", "static_offset")),
    "FLAME_texture.npz": ("a texture model for FLAME", arrays("mean", "tex_dir", "vt", "ft")),
    "landmarks.npz": ("a list of landmarks on FLAME", arrays("lmk_face_idx", "lmk_b_coords", "landmark_indices")),
    "FLAME_masks.pkl": (
        "a list of FLAME's regions",
        pickle.dumps({"left_eyeball": [1], "right_eyeball": [2], "scalp": [3], "boundary": [4]}, 2),
    ),
    "deca.tar": ("a file of PyTorch", archive(**{"deca__data.pkl": b"\x80\2}", "deca__data__0": bytes(8)})),
    "model2019_fullHead.h5": ("a MATLAB or HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(80)),
    "01_MorphableModel.mat": ("a MATLAB or HDF5 file", b"MATLAB 5.0 MAT-file, Platform: PCWIN" + bytes(90)),
    "betas.npy": ("a single NumPy array", b"\x93NUMPY\1\0" + bytes(100)),
    "weights.safetensors": ("weights of another program", safetensors({"format": "pt"})),
    "pointer": ("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n"),
    "login": ("a web page", b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head>"),
    "sparse": ("full of zeros", bytes(5000)),
    "clip.mp4 - Shortcut.lnk": ("a shortcut to a file", b"L\0\0\0\1\x14\2\0\0\0\0\0"),
    "._clip.mp4": ("a note that macOS keeps", b"\0\x05\x16\x07\0\2\0\0Mac OS X"),
    "clip.mp4.crdownload": ("an unfinished download", b"\x12\x34\x56\x78" * 9),
}  # fmt: skip
"""By a name that such a file has: what the sentence calls it, and a file that has its telltales."""
SUFFIX_ALONE = (".splat", ".crdownload", "packed.blend")
"""Ends of names that are the only telltale."""
ASKED = [
    loader
    for loader in loaders()
    if loader.name in ("avatar", "track", "head .npz", "head .pkl", CLIP, "Gaussians", "checkpoint", "performance")
]


def sentence(read: Callable[..., object], *arguments: object) -> str:
    with pytest.raises((EffigyError, ExtensionError)) as refusal:
        read(*arguments)
    text = str(refusal.value)
    assert "\n" not in text and text.endswith("."), text
    return text


def test_the_extension_has_the_same_table() -> None:
    assert (ROOT / "backend/file_kinds.py").read_bytes() == (ROOT / "blender_addon/file_kinds.py").read_bytes()


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_another_program_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    called, content = OTHER_FILES[name]
    (tmp_path / name).write_bytes(content)
    kind = kind_of(tmp_path / name)
    assert kind is not None and kind.name.startswith(called)


@pytest.mark.parametrize("loader", ASKED, ids=lambda loader: loader.name)
def test_every_loader_names_what_it_was_given_instead(samples: Path, loader: Loader) -> None:
    """Under the loader's own file name, so that only the content can tell."""
    taken = {"head .pkl": ("FLAME_masks.pkl",), "Gaussians": ("point_cloud.ply", "scan.ply")}
    path = samples / loader.file
    for name, (called, content) in OTHER_FILES.items():
        if name in taken.get(loader.name, ()) or name.endswith(SUFFIX_ALONE):
            continue
        path.write_bytes(content)
        said = sentence(loader.read, samples)
        assert f"{path.name} is {called}" in said, (name, said)


def test_footage_a_capture_a_track_and_an_avatar_are_named_where_another_of_them_is_needed(samples: Path) -> None:
    by_name = {loader.name: loader for loader in loaders()}
    own = {
        CLIP: "a video", "photograph .png": "an image", "track": "a track of Effigy's", "head .npz": "a head model",
        "avatar": "an Effigy avatar", "Gaussians": "a PLY of 3D Gaussians", "sheet": "a sheet of clips",
        "performance": "a table of ARKit's channels",
    }  # fmt: skip
    content = {name: (samples / by_name[name].file).read_bytes() for name in own}
    for asked in (CLIP, "track", "head .npz", "avatar", "Gaussians"):
        for given, called in own.items():
            if given == asked or (asked, given) == (CLIP, "photograph .png"):
                continue
            (samples / by_name[asked].file).write_bytes(content[given])
            said = sentence(by_name[asked].read, samples)
            assert f"is {called}, where a" in said, (asked, given, said)


def test_a_film_where_a_capture_is_needed_and_a_capture_where_a_film_is(samples: Path) -> None:
    from backend.footage.decode import probe
    from backend.formats.capture import load_capture
    from backend.formats.track import load_track

    assert "clip.mp4 is a video, where a capture is needed" in sentence(load_capture, samples / "clip.mp4")
    assert "person.effigy is an Effigy avatar" in sentence(load_capture, samples / "person.effigy")
    for read in (probe, load_track):
        assert "person.capture is a capture, which is a folder" in sentence(read, samples / "person.capture")
    (samples / "gaussians" / "point_cloud").mkdir(parents=True)
    assert "another program's Gaussians" in sentence(load_capture, samples / "gaussians")
    (samples / "shot").mkdir()
    for number in (1001, 1002):
        (samples / "shot" / f"shot.{number}.exr").write_bytes(b"v/1\x01")
    assert "a folder of numbered images" in sentence(load_capture, samples / "shot")


STATES = {
    "missing": (lambda path: path.unlink(), "There is no "),
    "empty": (lambda path: path.write_bytes(b""), "is empty: "),
    "a folder": (
        lambda path: (path.unlink(), path.mkdir()),
        "is a folder, where |it is a folder without numbered images",
    ),
    "damaged": (lambda path: path.write_bytes(b"\x07\x01\x02" * 400), "is damaged|is not a"),
    "a pointer": (lambda path: path.write_bytes(OTHER_FILES["pointer"][1]), "a pointer of Git LFS"),
    "a dead link": (lambda path: (path.unlink(), path.symlink_to("gone")), "is a link to a file that is gone"),
}


@pytest.mark.parametrize(
    "name", ["avatar", "track", "head .npz", "head .pkl", CLIP, "photograph .png", "performance", "sheet", "Gaussians",
             "checkpoint", "frame", "list of machines"],
)  # fmt: skip
def test_each_state_of_a_file_has_a_sentence_of_its_own(samples: Path, name: str) -> None:
    loader = next(loader for loader in loaders() if loader.name == name)
    path, said = samples / loader.file, {}
    whole = path.read_bytes()
    for state, (change, expected) in STATES.items():
        if name == "list of machines" and state in ("empty", "damaged", "a pointer"):
            continue  # Any line of text is the name of a machine until it is asked for.
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(whole)
        change(path)
        said[state] = sentence(loader.read, samples)
        assert any(part in said[state] for part in expected.split("|")), said[state]
    assert len(set(said.values())) == len(said)


@pytest.mark.parametrize("name", ["avatar", "track", "head .npz", "capture.json", "checkpoint"])
def test_a_newer_file_is_not_called_damaged(samples: Path, name: str) -> None:
    loader = next(loader for loader in loaders() if loader.name == name)
    path = samples / loader.file
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            content = dict(archive)
        np.savez(path, **content | {"schema": np.int64(99)})
    elif path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"schema": 99}))
    else:
        whole = path.read_bytes()
        assert whole.count(b'\\"schema\\": 1') == 1
        # As many bytes as before, so that the tensors stay where they are.
        path.write_bytes(whole.replace(b'\\"schema\\": 1', b'\\"schema\\":99'))
    assert "was written by a newer Effigy (format 99; this one reads up to" in sentence(loader.read, samples)


CLOSED = """
import os, sys
from pathlib import Path
from backend.errors import EffigyError
from bench.fault_rows._loaders import loaders
folder = Path(sys.argv[1])
asked = [loader for loader in loaders() if loader.name in sys.argv[2:]]
for loader in asked:
    loader.read(folder)  # As root, so that all modules are loaded.
os.setgroups([]); os.setgid(65534); os.setuid(65534)
if True:
    for loader in asked:
        try:
            loader.read(folder)
        except EffigyError as error:
            print(loader.name, "|", error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows' permissions are others")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_not_called_missing_or_damaged(all_samples: Path, what: str) -> None:
    """As another user, because root may read everything."""
    import shutil
    import tempfile

    names = [
        "avatar",
        "track",
        "head .npz",
        CLIP,
        "photograph .png",
        "performance",
        "sheet",
        "Gaussians",
        "capture.json",
    ]
    # Not pytest's own folder, which other users may not enter.
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(all_samples, folder / "files")
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o600 if what == "file" else 0o644)
        if what == "folder":
            (folder / "files").chmod(0o700)
        if os.geteuid():
            pytest.skip("only root can become another user")
        ended = subprocess.run(
            [sys.executable, "-c", CLOSED, str(folder / "files"), *names], cwd=ROOT, capture_output=True, text=True
        )
        said = dict(line.split(" | ", 1) for line in ended.stdout.splitlines())
        assert said.keys() == set(names), ended.stderr
        for name, text in said.items():
            assert "you have no permission to" in text, (name, text)
            assert what == "file" or f"look into the folder {folder / 'files'}" in text, (name, text)
    finally:
        shutil.rmtree(folder)


def test_a_cloud_drives_placeholder_is_told_from_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".clip.mp4.icloud").write_bytes(b"bplist00")
    missing = FileNotFoundError(errno.ENOENT, "none")
    said = sentence_of_system(missing, tmp_path / "clip.mp4", "video", "copy it", "look again")
    assert "still in iCloud: download it in the Finder" in said
    path = tmp_path / "clip.mov"
    path.write_bytes(b"x")
    failed = OSError(errno.EIO, "The cloud file provider is not running")
    assert "in the cloud" not in sentence_of_system(failed, path, "video", "copy it", "look again")
    real = os.stat_result

    class Placeholder:
        st_mode, st_size, st_flags, st_file_attributes = 0o100644, 9, 0, 0x400000

    monkeypatch.setattr(Path, "stat", lambda self, **_: Placeholder())
    assert "in the cloud and not on this computer" in sentence_of_system(failed, path, "video", "copy it", "look again")
    assert real is os.stat_result


def test_the_extension_says_the_same_of_an_avatar(samples: Path) -> None:
    path = samples / "person.effigy"
    for name, (called, content) in OTHER_FILES.items():
        if not name.endswith(SUFFIX_ALONE):
            path.write_bytes(content)
            assert f"is {called}" in sentence(check_avatar_file, path), name
    path.write_bytes(b"")
    assert "is empty" in sentence(check_avatar_file, path)
    path.unlink()
    for asked in ((check_avatar_file, path), (extension_reading.check_file, path, "avatar")):
        assert "There is no avatar at" in sentence(*asked)
    capture = samples / "person.capture"
    assert "is a capture, which is a folder" in sentence(extension_reading.check_file, capture, "avatar")


def test_what_a_file_is_is_asked_only_of_regular_files_and_never_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "none", Path("/dev/zero"), tmp_path / ("x" * 5000), Path("a\0b")):
        assert kind_of(path) is None
    random = np.random.default_rng(0)
    for start in (b"", b"PK\3\4", b"\x1f\x8b", b"{", b"\x80\4", b"RIFF", b"\xff\xfe", b"ply\n", b"\0\0\0\x18ftyp"):
        (tmp_path / "x").write_bytes(start + random.bytes(3000))
        kind_of(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"[" * 60_000)
    assert kind_of(tmp_path / "x") is file_kinds.JSON


def test_a_file_that_is_too_large_is_named_too(tmp_path: Path) -> None:
    from backend.reading import read_bytes

    (tmp_path / "take.csv").write_bytes(b"\0\0\0\x18ftypisom" + bytes(4000))
    with pytest.raises(EffigyError, match=r"take\.csv is a video"), reading(tmp_path / "take.csv", "performance", "-"):
        read_bytes(tmp_path / "take.csv", "performance", 1000, "-")


READS = {
    "backend/reading.py": "the one place",
    "backend/file_kinds.py": "looks at what a reader has refused",
    "backend/array_files.py": "an archive in a file that reading has opened",
    "backend/storage.py": "the hash of a file that is known to be there",
    "backend/output_files.py": "synchronises what was just written",
    "backend/output_lock.py": "locks, whose readers race with their writers",
    "backend/assets.py": "Effigy's own files",
    "backend/web_page.py": "Effigy's own files",
    "backend/service/web_pages.py": "what it has just written",
    "backend/correspondence/landmark_embedding.py": "Effigy's own files",
    "backend/tracking/detector/shape_response.py": "Effigy's own files",
    "backend/tracking/detector/pose_bias.py": "Effigy's own files",
    "backend/speech/closures.py": "Effigy's own files",
    "backend/splatting/jit.py": "Effigy's own files",
    "backend/avatar/avatar.py": "safetensors opens by name, within reading, after check_regular",
    "backend/formats/safetensors_file.py": "safetensors opens by name, within reading, after open_regular",
    "backend/footage/container.py": "FFmpeg opens by name, within reading, after check_regular",
    "backend/footage/detector.py": "the bundle of the models, which asset_bytes has read and checked",
    "backend/footage/production_images.py": "OpenEXR opens by name, within reading, after check_regular",
    "backend/footage/still.py": "Pillow opens by name, within reading, after check_regular",
    "backend/formats/image_reading.py": "bytes that reading has read",
    "backend/service/array_files.py": "the worker's own folder of arrays",
    "backend/service/exchange_store.py": "the worker's own folder of sent files",
    "backend/service/held_environment.py": "holds the installation's stamp open",
    "backend/service/batch/memory.py": "the system's /proc",
    "backend/service/cli.py": "the null device",
    "backend/service/protocol.py": "the null device",
    "blender_addon/reading.py": "the one place",
    "blender_addon/file_kinds.py": "looks at what a reader has refused",
    "blender_addon/output_files.py": "synchronises what was just written",
    "blender_addon/output_lock.py": "locks, whose readers race with their writers",
    "blender_addon/avatar_header.py": "within reading",
    "blender_addon/importing.py": "the summary of a capture that was just made, without which nothing is said",
    "blender_addon/avatars.py": "within reading; and whether a file there has the same bytes",
    "blender_addon/player/baked_file.py": "within reading",
    "blender_addon/pose_library.py": "within reading",
    "blender_addon/rig/open_head.py": "Effigy's own files",
    "blender_addon/sharing.py": "within reading",
    "blender_addon/textures/work.py": "within reading",
    "blender_addon/web_page.py": "Effigy's own files",
    "blender_addon/worker/file_sender.py": "within reading",
    "blender_addon/worker/file_fetcher.py": "the client's own parts of fetched files",
    "blender_addon/worker/array_folders.py": "the client's own folder of arrays",
    "blender_addon/whole_blend.py": "the .blend that Blender has just written",
    "blender_addon/trusted_paths.py": "the extension's own list, without which everything is asked again",
    "blender_addon/installation/place.py": "the installation's own files",
    "blender_addon/installation/plan.py": "the installation's own files",
    "blender_addon/installation/figures.py": "the installation's own files",
    "blender_addon/installation/run_module.py": "the null device",
}
"""Modules that open files for reading, and why they do."""
OPENERS = {
    "os.open", "np.load", "np.fromfile", "np.memmap", "zipfile.ZipFile", "gzip.open", "tarfile.open", "Image.open",
    "safe_open", "torch.load", "cv2.imread", "pickle.load", "csv.DictReader",
}  # fmt: skip


def _reads(tree: ast.AST) -> list[int]:
    """Lines on which a file is opened for reading."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        own = name == "open" or (
            isinstance(node.func, ast.Attribute) and node.func.attr == "open" and name != "os.open"
        )
        texts = [
            part.value for part in (*node.args, *(k.value for k in node.keywords)) if isinstance(part, ast.Constant)
        ]
        modes = [text for text in texts if isinstance(text, str) and text and set(text) <= set("rwxabt+U")]
        if (
            name.endswith((".read_text", ".read_bytes"))
            or name in OPENERS
            or (
                own
                and name.split(".")[0] not in ("webbrowser", "self", "archive", "stack")
                and not modes
                and name == "open"
            )
            or (
                own and (any("r" in mode for mode in modes) or (name == "av.open" and not any("w" in m for m in modes)))
            )
        ):
            lines.append(node.lineno)
    return lines


def test_every_file_is_read_through_one_place() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ("backend", "blender_addon", "operators")
        for path in (ROOT / room).rglob("*.py")
        if _reads(ast.parse(path.read_text("utf-8")))
    }
    assert found == READS.keys(), "a module reads files by itself, or a reason is no longer needed"
