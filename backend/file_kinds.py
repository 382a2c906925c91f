"""What a file is that its reader does not take, by its first bytes, keys and suffix, and the sentence for a file that
the system does not give.

Users drop what they have: a point cloud of another program where an avatar is asked for, a web page that was saved in
place of a download, a pointer of Git LFS in place of the file. A reader that refuses a file asks here what it is, so
that the sentence names it and says where it belongs. Nothing here is needed to read a file that is what it should be.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import stat
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST_LOOKED_AT: Final = 64 * 2**10
"""Bytes of a file's beginning in which its telltales are."""
MOST_DIRECTORY: Final = 2**20
"""Bytes of the directory of a ZIP archive that is looked through."""
MOST_NAMES: Final = 2000
"""Names of a folder or an archive that are looked at."""

EXPORT_IS_ONE_WAY: Final = "open the avatar (.effigy) itself, because Effigy writes such files and reads none"
LIP_SYNC: Final = "use it with Lip Sync"


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """With its article: `a video`."""
    advice: str
    """What to do with it."""
    nouns: tuple[str, ...] = ()
    """What readers call it that take such files: a file of theirs that they refuse is damaged, not of another kind."""


_FILM: Final = ("video", "video or photograph", "image", "sound")
_ARRAYS: Final = ("track", "capture", "head model")

GIT_LFS: Final = Kind(
    "a pointer of Git LFS, which stands where the file should be", "fetch the file with `git lfs pull`"
)
WEB_PAGE: Final = Kind(
    "a web page that was saved in place of the file", "download the file again, signed in where its page asks for it"
)
ZEROS: Final = Kind(
    "full of zeros from its beginning on, so its copy or download was never finished", "copy or download it again"
)
SHORTCUT: Final = Kind("a shortcut to a file", "choose the file itself")
MAC_NOTE: Final = Kind(
    "a note that macOS keeps beside a file, whose name begins with “._”", "choose the file without that beginning"
)
UNFINISHED: Final = Kind("an unfinished download", "let the download finish, or start it again")
ARCHIVE: Final = Kind("a packed archive", "unpack it, then choose what is in it")
PACKED_CAPTURE: Final = Kind("a packed archive of a capture", "unpack it, then choose the folder with capture.json")

AVATAR: Final = Kind("an Effigy avatar", "add it with Add Avatar", ("avatar", "checkpoint"))
CAPTURE: Final = Kind(
    "a capture, which is a folder", "choose that folder with Add Capture; its track is track.npz in it", ("capture",)
)
CAPTURE_PART: Final = Kind(
    "a part of a capture", "choose the capture's folder, in which the file is", ("capture", "stamp")
)
TRACK: Final = Kind("a track of Effigy's", "use it with Transfer Performance or `python -m backend render`", ("track",))
HEAD: Final = Kind("a head model", "choose it with Use My FLAME File, or with --head", ("head model",))
FLAME: Final = Kind("a FLAME head model", "choose it with Use My FLAME File, or with --head", ("head model",))
SHEET: Final = Kind("a sheet of clips", "run it with `python -m backend batch`", ("sheet of clips",))
ARKIT: Final = Kind("a table of ARKit's channels", "use it with Transfer Performance", ("performance",))
ARKIT_CURVES: Final = Kind("a recording of face curves", "use it with Transfer Performance", ("performance",))

VIDEO: Final = Kind("a video", "import it with Import Video, or with `python -m backend capture`", _FILM)
IMAGE: Final = Kind("an image", "import it with Import Video: a photograph is footage of one frame", _FILM)
SOUND: Final = Kind("a sound without pictures", LIP_SYNC, ("sound",))
SEQUENCE: Final = Kind(
    "a folder of numbered images", "import it with Import Video, or with `python -m backend capture`", _FILM
)

SPLATS_PLY: Final = Kind("a PLY of 3D Gaussians", EXPORT_IS_ONE_WAY, ("file of Gaussians",))
SPLATS: Final = Kind("a file of 3D Gaussians", EXPORT_IS_ONE_WAY)
SPLATS_FOLDER: Final = Kind(
    "a folder of another program's Gaussians", "train an avatar from the person's video instead"
)
POINTS: Final = Kind("a PLY of points or a mesh", "Effigy makes avatars from videos", ("file of Gaussians",))
MESH: Final = Kind("a mesh or a scene of another program", "open it with Blender's own import")
BLEND: Final = Kind("a Blender file", "open or append it with Blender's File menu")
MOTION: Final = Kind("a motion of a skeleton (BVH)", "choose a performance of a face: a track, or ARKit's channels")
TEXT_GRID: Final = Kind(
    "a Praat TextGrid with the times of words or sounds", f"{LIP_SYNC}, beside its sound", ("phone table",)
)
PAPAGAYO: Final = Kind(
    "a file of Papagayo with the times of mouth shapes", f"{LIP_SYNC}, beside its sound", ("phone table",)
)
CAMERAS: Final = Kind(
    "a file of cameras of another program",
    "Effigy finds the camera itself, from the video alone; for several cameras at once give it to `track --cameras`",
    ("file of cameras",),
)
OFFICE_TABLE: Final = Kind("a workbook of an office program", "save the table as CSV there, then choose that file")

SMPLX: Final = Kind(
    "a SMPL-X body model", "Effigy animates heads of FLAME's format: choose a FLAME model of the same person"
)
SMPL: Final = Kind("a SMPL or SMPL-H body model", "Effigy animates heads of FLAME's format: choose a FLAME model")
STAR: Final = Kind("a STAR body model", "Effigy animates heads of FLAME's format: choose a FLAME model")
MANO: Final = Kind("a MANO hand model", "Effigy animates heads of FLAME's format: choose a FLAME model")
FLAME_MOTION: Final = Kind(
    "a motion of FLAME by another tracker",
    "import the video itself: Effigy tracks with its own head or with your FLAME",
)
FLAME_MASKS: Final = Kind(
    "a list of FLAME's regions", "choose the FLAME model itself, generic_model.pkl or flame2023.pkl"
)
FLAME_TEXTURE: Final = Kind(
    "a texture model for FLAME", "choose the FLAME model itself, generic_model.pkl or flame2023.pkl"
)
FLAME_LANDMARKS: Final = Kind(
    "a list of landmarks on FLAME",
    "choose the FLAME model itself; mediapipe_landmark_embedding.npz is read from beside it",
)
BASEL: Final = Kind(
    "a MATLAB or HDF5 file, as the Basel Face Model has",
    "Effigy animates heads of FLAME's format: choose a FLAME model",
)
TORCH: Final = Kind(
    "a file of PyTorch, such as a checkpoint", "Effigy reads FLAME's own .pkl and .npz: choose one of those"
)
WEIGHTS: Final = Kind("weights of another program's network (safetensors)", "choose an avatar that Effigy has trained")
PICKLE: Final = Kind("a Python pickle", "only FLAME head models are read from pickles", ("head model",))
ONE_ARRAY: Final = Kind("a single NumPy array (.npy)", "choose a file that Effigy or FLAME has made")
JSON: Final = Kind(
    "a JSON file of another program",
    "choose another file",
    ("capture", "evaluation", "list of head models", "note", "performance", "phone table", "stamp"),
)

MODEL_KEYS: Final = frozenset(
    b"hands_components hands_coeffs hands_mean hands_componentsl hands_meanl lmk_faces_idx lmk_bary_coords joint2num "
    b"lmk_face_idx lmk_b_coords v_template tex_dir specMU left_eyeball right_eyeball scalp jaw_pose expr".split()
)
"""Names of parts by which models of bodies, and what belongs to them, are told apart."""
_BEGINNINGS: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"version https://git-lfs", GIT_LFS),
    (b"BLENDER", BLEND),
    (b"glTF", MESH),
    (b"Kaydara FBX", MESH),
    (b"; FBX", MESH),
    (b"PXR-USDC", MESH),
    (b"#usda", MESH),
    (b"Ogawa", MESH),
    (b"HIERARCHY", MOTION),
    (b"NGSP", SPLATS),
    (b"\x89PNG", IMAGE),
    (b"\xff\xd8\xff", IMAGE),
    (b"II*\0", IMAGE),
    (b"MM\0*", IMAGE),
    (b"GIF8", IMAGE),
    (b"v/1\x01", IMAGE),
    (b"8BPS", IMAGE),
    (b"#?RADIANCE", IMAGE),
    (b"\x1aE\xdf\xa3", VIDEO),
    (b"FLV\x01", VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", VIDEO),
    (b"\x06\x0e+4\x02\x05\x01\x01", VIDEO),
    (b"ID3", SOUND),
    (b"fLaC", SOUND),
    (b"MATLAB", BASEL),
    (b"\x89HDF\r\n", BASEL),
    (b"\x93NUMPY", ONE_ARRAY),
    (b"L\0\0\0\x01\x14\x02\0", SHORTCUT),
    (b"book\0\0\0\0mark", SHORTCUT),
    (b"[InternetShortcut]", SHORTCUT),
    (b"\0\x05\x16\x07", MAC_NOTE),
    (b"Rar!", ARCHIVE),
    (b"7z\xbc\xaf", ARCHIVE),
    (b"\xfd7zXZ", ARCHIVE),
    (b"BZh", ARCHIVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OFFICE_TABLE),
    (b"%PDF", Kind("a PDF document", "choose another file")),
)
_SUFFIXES: Final = {
    ".splat": SPLATS,
    ".ksplat": SPLATS,
    ".obj": MESH,
    ".stl": MESH,
    ".crdownload": UNFINISHED,
    ".part": UNFINISHED,
    ".partial": UNFINISHED,
    ".icloud": Kind("a note for a file that is still in iCloud", "download the file in the Finder first"),
}
_PHOTOGRAPHS: Final = (b"heic", b"heix", b"mif1", b"avif")
"""Brands of ISO media files that hold images."""


def kind_of(path: Path) -> Kind | None:
    """What a file or folder is, or None if that is not known. Opens regular files only, and raises nothing."""
    with suppress(OSError, ValueError, zipfile.BadZipFile, EOFError, RecursionError, NotImplementedError):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _kind_of_folder(path)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                beginning = file.read(MOST_LOOKED_AT)
            return _kind_of_bytes(path, beginning, status.st_size)
    return None


def _kind_of_folder(path: Path) -> Kind | None:
    with os.scandir(path) as entries:
        names = {entry.name for _, entry in zip(range(MOST_NAMES), entries, strict=False)}
    if "capture.json" in names:
        return CAPTURE
    if names & {"point_cloud", "point_cloud.ply", "cameras.json"}:
        return SPLATS_FOLDER
    numbered = [name for name in names if re.search(r"\d\.(png|jpe?g|exr|tiff?|dpx)$", name, re.IGNORECASE)]
    return SEQUENCE if len(numbered) > 1 else None


def _kind_of_bytes(path: Path, beginning: bytes, size: int) -> Kind | None:
    suffix = path.suffix.lower()
    for start, kind in _BEGINNINGS:
        if beginning.startswith(start):
            return kind
    if not any(beginning):
        return ZEROS
    if beginning[4:8] == b"ftyp":
        return IMAGE if beginning[8:12] in _PHOTOGRAPHS else VIDEO
    if beginning[:4] == b"RIFF":
        return {b"WAVE": SOUND, b"AVI ": VIDEO, b"WEBP": IMAGE}.get(beginning[8:12])
    if beginning[4:8] in (b"moov", b"mdat", b"wide") or beginning[:4] == b"\0\0\x01\xba":
        return VIDEO
    if beginning[:4] in (b"ply\n", b"ply\r"):
        return SPLATS_PLY if b" f_dc_0" in beginning else POINTS
    if beginning[:2] == b"BM" and suffix == ".bmp":
        return IMAGE
    if beginning[:2] == b"\x1f\x8b":
        return _kind_of_gzip(path, suffix)
    if beginning[:4] == b"(\xb5/\xfd":
        return BLEND if suffix.startswith(".blend") else ARCHIVE
    if beginning[257:262] == b"ustar":
        return ARCHIVE
    if beginning[:4] == b"PK\3\4":
        return _kind_of_zip(path, suffix)
    if beginning[8:10] == b'{"' and int.from_bytes(beginning[:8], "little") < size:
        return AVATAR if b'"effigy"' in beginning else WEIGHTS
    if (beginning[:1] == b"\x80" and beginning[1:2] in (b"\2", b"\3", b"\4", b"\5")) or beginning[:3] in (
        b"(dp",
        b"(lp",
    ):
        return kind_of_model_keys({key for key in MODEL_KEYS if key in beginning}) or PICKLE
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    return _kind_of_text(beginning)


def _kind_of_gzip(path: Path, suffix: str) -> Kind:
    with gzip.open(path) as file:
        start = file.read(7)
    if start.startswith(b"NGSP"):
        return SPLATS
    return BLEND if start == b"BLENDER" or suffix.startswith(".blend") else ARCHIVE


def _kind_of_zip(path: Path, suffix: str) -> Kind | None:
    with open(path, "rb") as file:
        # As in the reader of arrays, a directory of millions of names is not made into objects.
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 2**16))
        found = (tail := file.read()).rfind(b"PK\5\6")
        if found < 0 or int.from_bytes(tail[found + 12 : found + 16], "little") > MOST_DIRECTORY:
            # Cut short, or no archive of any use: its reader says so.
            return None
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist()[:MOST_NAMES])
    last = {name.rpartition("/")[2] for name in names}
    if "[Content_Types].xml" in names or "content.xml" in names:
        return OFFICE_TABLE
    if "data.pkl" in last:
        return TORCH
    if "capture.json" in last:
        return PACKED_CAPTURE
    if suffix == ".usdz":
        return MESH
    if any(name.endswith(".npy") for name in names):
        return kind_of_arrays({name.removesuffix(".npy") for name in names})
    if "meta.json" in last and any(name.endswith(".webp") for name in last):
        return SPLATS
    return ARCHIVE


def kind_of_arrays(keys: set[str]) -> Kind | None:
    """What an archive of arrays is, by their names."""
    if {"head_fingerprint", "head_to_camera"} <= keys:
        return TRACK
    if {"landmarks", "detector_pose"} <= keys:
        return CAPTURE_PART
    if {"template", "skinning"} <= keys:
        return HEAD
    return kind_of_model_keys({key.encode("utf-8", "replace") for key in keys})


def kind_of_model_keys(keys: set[bytes]) -> Kind | None:
    """Which model of a body, or part of one, has parts of these names. None for a FLAME model too, whose vertices and
    joints must be counted to tell it from others.
    """
    if keys & {b"hands_componentsl", b"hands_meanl"}:
        return SMPLX if keys & {b"lmk_faces_idx", b"lmk_bary_coords", b"joint2num"} else SMPL
    if keys & {b"hands_components", b"hands_coeffs", b"hands_mean"}:
        return MANO
    if {b"lmk_face_idx", b"lmk_b_coords"} <= keys and b"v_template" not in keys:
        return FLAME_LANDMARKS
    if {b"tex_dir"} <= keys or {b"specMU"} <= keys:
        return FLAME_TEXTURE
    if {b"left_eyeball", b"right_eyeball", b"scalp"} <= keys:
        return FLAME_MASKS
    if {b"jaw_pose", b"expr"} <= keys:
        return FLAME_MOTION
    return None


def kind_of_counts(vertices: int, joints: int, pose_directions: int = 0) -> Kind | None:
    """Which well-known model has so many vertices and joints. None for FLAME and for what is not known.

    Counts: SMPL 6890 and 24, SMPL-H 52, SMPL-X 10475 and 55, MANO 778 and 16, STAR as SMPL but with 93 directions of
    pose in place of 207 (the models' own papers and the package smplx).
    """
    if vertices == 778:
        return MANO
    if vertices == 10475 or joints == 55:
        return SMPLX
    if vertices == 6890:
        return STAR if pose_directions == 93 else SMPL
    return None


def _kind_of_text(beginning: bytes) -> Kind | None:
    encodings = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
    text = beginning.decode(encodings.get(beginning[:2], "utf-8"), "replace").lstrip("\ufeff \t\r\n")
    lower = text[:20_000].lower()
    if lower.startswith(("<!doctype html", "<html")):
        return WEB_PAGE
    if "ootextfile" in lower[:200] and "textgrid" in lower[:400]:
        return TEXT_GRID
    if lower.startswith(("lipsync version", "mohoswitch1")):
        return PAPAGAYO
    if text.startswith(("{", "[")):
        return _kind_of_json(text)
    if lower.startswith(("info,", "bs,", "k,")) and "\nbs," in f"\n{lower}":
        return ARKIT_CURVES
    first_rows = re.sub(r"[ _\"]", "", lower[:8000])
    if "eyeblinkleft" in first_rows and "jawopen" in first_rows:
        return ARKIT
    if re.match(r"[^\n]*\b(footage|capture)\b[^\n]*[,;\t]", lower) or re.match(
        r"[^\n]*[,;\t](footage|capture)\b", lower
    ):
        return SHEET
    return None


def _kind_of_json(text: str) -> Kind:
    if '"facsNames"' in text or '"weightMat"' in text or "blendshape" in text.lower():
        return ARKIT_CURVES
    if '"transform_matrix"' in text or '"camera_angle_x"' in text or '"img_name"' in text or '"camera_model"' in text:
        return CAMERAS
    if '"frame_suffix"' in text or ('"intrinsics"' in text and '"crop"' in text):
        return CAPTURE_PART
    with suppress(ValueError, RecursionError):
        content = json.loads(text)
        if isinstance(content, dict) and {"asset", "meshes"} <= content.keys():
            return MESH
    return JSON


def with_article(noun: str) -> str:
    """`track` -> `a track`."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def sentence_of_kind(path: Path, noun: str) -> str | None:
    """The sentence for a file or folder that is of another kind than the `noun` that was asked for. None if it is of
    that kind, or of no kind that is known.
    """
    kind = kind_of(path)
    if kind is None or noun in kind.nouns:
        return None
    return f"{path} is {kind.name}, where {with_article(noun)} is needed: {kind.advice}."


def sentence_of_system(error: OSError, path: Path, noun: str, remedy: str, missing: str) -> str:
    """The sentence for a file that the system does not give. `noun` says what it is, `remedy` what to do if it is
    damaged, and `missing` what to do if it does not exist.
    """
    number = error.errno
    if number == errno.ENOENT:
        if os.path.lexists(path):
            return f"The {noun} {path} is a link to a file that is gone: {missing}."
        with suppress(OSError, ValueError):
            if path.with_name(f".{path.name}.icloud").exists():
                return f"The {noun} {path} is still in iCloud: download it in the Finder, then try again."
        return f"There is no {noun} at {path}: {missing}."
    if number in (errno.EACCES, errno.EPERM):
        closed = _closed_folder(path)
        if closed is not None:
            return (
                f"The {noun} {path} cannot be read: you have no permission to look into the folder {closed}. Ask its "
                "owner for that, or copy it to a folder of your own."
            )
        return (
            f"The {noun} {path} cannot be read: you have no permission to open it. Ask its owner for that, or copy it "
            "to a folder of your own."
        )
    if number == errno.EISDIR:
        return (
            sentence_of_kind(path, noun)
            or f"{path} is a folder, where the file of {with_article(noun)} is needed: name the file itself."
        )
    if number == errno.ENOTDIR:
        return (
            sentence_of_kind(path, noun)
            or f"There is no {noun} at {path}: a file stands where a folder is needed. Check the name and the folder."
        )
    if number in (errno.ENAMETOOLONG, errno.EINVAL) and not os.path.lexists(path):
        return f"There is no {noun} at {path}: that name is longer, or has other characters, than any file's."
    if number == errno.ENOMEM:
        return f"There is not enough free memory to open the {noun} {path}: close other programs and try again."
    if _is_in_the_cloud(path):
        return (
            f"The {noun} {path} is in the cloud and not on this computer, and could not be fetched "
            f"({error.strerror or error}): make it available offline, then try again."
        )
    return f"The {noun} {path} cannot be read ({error.strerror or error}): copy it to another disk, or {remedy}."


def _closed_folder(path: Path) -> Path | None:
    """The uppermost folder on the way to `path` that may not be looked into, if there is one."""
    for folder in reversed(path.absolute().parents):
        try:
            if not os.access(folder, os.X_OK):
                return folder
        except OSError:
            return folder
    return None


def _is_in_the_cloud(path: Path) -> bool:
    """Whether a cloud drive holds a file whose content is not on the disk (Windows' attributes OFFLINE and RECALL_…,
    macOS' SF_DATALESS).
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    marked = getattr(status, "st_file_attributes", 0) & (0x1000 | 0x40000 | 0x400000)
    return bool(marked or getattr(status, "st_flags", 0) & 0x40000000)
