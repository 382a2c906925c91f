"""Blender writes to a disk that fills up: a sentence, no half-written file, and old files as they were."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fault_rows._blender import add_rig, blender, copied_avatars, part, pixels_of, stage
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "disk full at 50 random moments of bake, render, export, pack, unpack and save in Blender"
ASKED: Final = "nothing half-written, a sentence, old files whole"
FULL: Final = 50
SHORT: Final = 6
NEEDS_BLENDER: Final = True

SIZE: Final = 96
"""Pixels."""
FRAMES: Final = 3
CAMERAS: Final = 300
"""Datablocks that make the .blend take a megabyte, so that it does not fit into the last free kilobytes."""


@dataclass(frozen=True)
class Try:
    """Something that an artist does, and what it may write."""

    name: str
    act: Callable[[], set[str]]
    room: int
    """Bytes that it needs at most."""
    writes: str
    """Regular expression for the names of the files that it may leave, whole."""


def run(place: Place, seed: int, count: int) -> Outcome:
    with blender(place.scratch):
        return _run(place, random.Random(seed), count)


def _run(place: Place, draw: random.Random, count: int) -> Outcome:
    import bpy

    outcome, disk = Outcome(), place.small_disk
    # Baked frames are written to Blender's temporary folder, and packed avatars for the worker below the user's.
    bpy.context.preferences.filepaths.temporary_directory = str(disk)
    (part("preferences").user_folder() / "unpacked").symlink_to(disk)
    project = disk / "project"
    avatar = copied_avatars(project)["bundled"]
    add_rig(avatar)
    stage(SIZE)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.effigy.bake_to = 1, FRAMES, "DISK"
    for _ in range(CAMERAS):
        bpy.data.cameras.new("filler").use_fake_user = True
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    bpy.ops.effigy.export_splats(filepath=str(project / "head.ply"))
    size_of = {path.name: path.stat().st_size for path in project.iterdir()}
    tries = (
        Try("bake", bpy.ops.effigy.bake_playback, FRAMES * 2 * size_of["head.ply"], r"frames"),
        Try("render", _render_to(project / "frames" / "shot_"), FRAMES * 40 * SIZE**2, r"shot_\d{4}\.png"),
        Try("export", _export_to(project / "head.ply"), size_of["head.ply"], r"head\.ply"),
        Try("export to a new file", _export_to(project / "new.ply"), size_of["head.ply"], r"new\.ply"),
        Try("pack and pose", _pack_and_pose, size_of[avatar.name], r"[0-9a-f]{24}\.effigy"),
        Try(
            "unpack",
            _pack_and_unpack,
            2 * size_of[avatar.name],
            rf"[0-9a-f]{{24}}\.effigy|{avatar.stem}(-\d+)?\.effigy",
        ),
        Try("save", bpy.ops.wm.save_mainfile, size_of["shot.blend"], r"shot\.blend1?"),
        Try("save a packed avatar", _save_packed, 2 * size_of["shot.blend"], r"shot\.blend1?|[0-9a-f]{24}\.effigy"),
        Try("save for the first time", _save_first(avatar), size_of["shot.blend"] // 2, r"first\.blend"),
        Try("save a copy", _save_copy(project / "copy.blend"), size_of["shot.blend"], r"copy\.blend"),
    )
    for number in range(count):
        tried = tries[number % len(tries)]
        left = draw.randrange(tried.room) if number >= len(tries) else draw.randrange(tried.room // 4)
        failure = _try(tried, disk, left)
        outcome.record(f"{tried.name} with {left >> 10} KB free", failure)
        print(f"{tried.name}, {left >> 10} KB free: {failure or 'as asked'}", file=sys.stderr, flush=True)
        _start_again(project, avatar)
    return outcome


def _try(tried: Try, disk: Path, left: int) -> str | None:
    """What is wrong after this has been tried with only `left` bytes free on the disk; None if nothing is."""
    before = _contents(disk)
    with _filled(disk, left):
        try:
            said = "" if "CANCELLED" not in tried.act() else "it ended without a sentence"
        except RuntimeError as error:
            said = str(error)
            if not re.search(r"free some space|room|[Nn]o space|full|disk|cannot|could not|writ", said):
                return f"no sentence about the disk: {said}"
            if "Traceback" in said or "defect" in said:
                return f"an unexpected exception: {said}"
            said = ""
    if said:
        return said
    after = _contents(disk)
    for path, digest in before.items():
        if path not in after:
            return f"{path.name} is gone"
        if after[path] != digest and (wrong := _wrong_in(path)):
            return f"{path.name} was whole and is damaged: {wrong}"
    try:
        part("avatars").avatar_path(_rig().armature)
    except part("errors").EffigyError as error:
        return f"the rig has lost its avatar: {error}"
    for path in after.keys() - before.keys():
        if re.fullmatch(tried.writes, path.name) is None:
            return f"{path.name} is left"
        if wrong := _wrong_in(path):
            return f"{path.name} is half-written: {wrong}"
    return None


def _start_again(project: Path, avatar: Path) -> None:
    """The file as it was saved first, and nothing else on the disk."""
    import bpy

    bpy.ops.wm.open_mainfile(filepath=str(project / "shot.blend"))
    rig = next(iter(part("rig.rig_properties").find_rigs(bpy.context.scene.objects)))
    rig.armature.effigy.avatar, rig.armature.effigy.packed = str(avatar), None
    for text in list(bpy.data.texts):
        bpy.data.texts.remove(text)
    for path in project.parent.rglob("*"):
        if path.is_file() and path.name not in (
            "shot.blend",
            "head.ply",
            avatar.name,
            "small_head.npz",
            "person.effigy",
        ):
            path.unlink()


@contextmanager
def _filled(disk: Path, left: int) -> Iterator[None]:
    """Fills the disk except for `left` bytes."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - left))
    try:
        yield
    finally:
        filler.unlink()


def _contents(disk: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in disk.rglob("*") if path.is_file()}


def _wrong_in(path: Path) -> str | None:
    """Why a file is not whole, or None."""
    import bpy

    try:
        match path.suffix:
            case ".png":
                return None if pixels_of(path)[..., 3].max() > 0.5 else "nothing is in the picture"
            case ".ply":
                header, _, rows = path.read_bytes().partition(b"end_header\n")
                count = int(re.search(rb"element vertex (\d+)", header)[1])
                return None if len(rows) == 4 * count * header.count(b"property float") else "its end is missing"
            case ".effigy":
                part("worker.session").client().call("avatar.open", {"path": path})
            case ".blend" | ".blend1":
                # Blender refuses to look into the file that is open.
                copy = shutil.copy(path, Path(tempfile.gettempdir(), "looked_into.blend"))
                with bpy.data.libraries.load(str(copy)) as (found, _):
                    return None if found.objects else "datablocks are missing"
    except (RuntimeError, OSError, TypeError, part("errors").EffigyError) as error:
        return str(error)
    return None


def _render_to(path: Path) -> Callable[[], set[str]]:
    def render() -> set[str]:
        import bpy

        bpy.context.scene.render.filepath = str(path)
        return bpy.ops.render.render(animation=True)

    return render


def _export_to(path: Path) -> Callable[[], set[str]]:
    def export() -> set[str]:
        import bpy

        return bpy.ops.effigy.export_splats(filepath=str(path))

    return export


def _pack_and_pose() -> set[str]:
    """Packs the avatar; the worker gets it as a file when it is posed."""
    import bpy

    bpy.ops.effigy.pack_avatar()
    rig = _rig()
    try:
        part("avatars").avatar_path(rig.armature)
    except part("errors").EffigyError as error:
        raise RuntimeError(str(error)) from error
    return {"FINISHED"}


def _pack_and_unpack() -> set[str]:
    import bpy

    bpy.ops.effigy.pack_avatar()
    _rig().armature.effigy.packed.name = "another.effigy"
    bpy.context.view_layer.objects.active = _rig().armature
    return bpy.ops.effigy.unpack_avatar()


def _save_packed() -> set[str]:
    import bpy

    bpy.ops.effigy.pack_avatar()
    return bpy.ops.wm.save_mainfile()


def _save_first(avatar: Path) -> Callable[[], set[str]]:
    def save() -> set[str]:
        import bpy

        bpy.ops.wm.read_homefile(use_empty=True)
        add_rig(avatar)
        return bpy.ops.wm.save_as_mainfile(filepath=str(avatar.with_name("first.blend")))

    return save


def _save_copy(path: Path) -> Callable[[], set[str]]:
    def save() -> set[str]:
        import bpy

        return bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)

    return save


def _rig() -> Any:
    import bpy

    return next(iter(part("rig.rig_properties").find_rigs(bpy.context.scene.objects)))
