"""Paths stored in a .blend file keep their meaning between Windows and other systems."""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from pathlib import Path

import bpy
import pytest


@pytest.fixture
def armature() -> bpy.types.Object:
    made = bpy.data.objects.new("ann", bpy.data.armatures.new("ann"))
    bpy.context.scene.collection.objects.link(made)
    return made


@pytest.mark.skipif(os.name == "nt", reason="these are full paths on Windows")
@pytest.mark.parametrize("path", ["C:\\film\\ann.effigy", "\\\\server\\film\\ann.effigy"])
def test_saving_elsewhere_keeps_a_full_path_of_windows(armature, tmp_path: Path, path: str) -> None:
    armature.effigy.avatar = path
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert bpy.data.objects["ann"].effigy.avatar == path


def test_a_relative_path_written_on_windows_is_found(armature, tmp_path: Path, module) -> None:
    (tmp_path / "avatars").mkdir()
    (tmp_path / "avatars" / "ann.effigy").touch()
    armature.effigy.avatar = "//avatars\\ann.effigy"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    armature = bpy.data.objects["ann"]
    assert module("blender_addon.avatars").avatar_path(armature) == tmp_path / "avatars" / "ann.effigy"
    # Saving writes it in the form that every system reads.
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert armature.effigy.avatar == "//avatars/ann.effigy"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_file_beside_a_linked_folder_of_shots_is_found(armature, tmp_path: Path, module) -> None:
    (tmp_path / "disk" / "shots").mkdir(parents=True)
    (tmp_path / "shots").symlink_to(tmp_path / "disk" / "shots")
    (tmp_path / "avatars").mkdir()
    (tmp_path / "avatars" / "ann.effigy").touch()
    armature.effigy.avatar = str(tmp_path / "avatars" / "ann.effigy")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shots" / "shot.blend"))
    armature = bpy.data.objects["ann"]
    assert armature.effigy.avatar == "//../avatars/ann.effigy"
    assert module("blender_addon.avatars").avatar_path(armature) == tmp_path / "avatars" / "ann.effigy"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_path_that_was_chosen_is_written_only_where_it_was_chosen(armature, tmp_path: Path, module) -> None:
    """A link and `..` in the path of a stranger's .blend spell the chosen path and lead to another folder."""
    chosen, private = tmp_path / "shot" / "ann.capture", tmp_path / "private" / "ann.capture"
    for folder in (chosen, private, tmp_path / "private" / "inner"):
        folder.mkdir(parents=True)
    (tmp_path / "shot" / "link").symlink_to(tmp_path / "private" / "inner")
    paths, trusted_paths = module("blender_addon.paths"), module("blender_addon.trusted_paths")
    trusted_paths.trust(chosen)
    named = paths.absolute(f"{tmp_path}/shot/link/../ann.capture", armature)
    assert trusted_paths.was_chosen(named) and os.path.samefile(named, chosen)


@pytest.mark.parametrize("how", ["fails", "is a copy"])
def test_a_file_that_was_never_saved_keeps_its_full_paths_when_saving(armature, tmp_path: Path, module, how) -> None:
    """On a full disk, say. There is no folder yet to which a path could be relative."""
    avatar = tmp_path / "anna.effigy"
    avatar.touch()
    armature.effigy.avatar = str(avatar)
    armature.effigy.training = json.dumps({"avatar": str(avatar), "capture": str(tmp_path / "anna.capture")})
    if how == "fails":
        with pytest.raises(RuntimeError):
            bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "no such folder" / "shot.blend"))
    else:
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"), copy=True)
    assert armature.effigy.avatar == str(avatar) and module("blender_addon.paths").absolute(str(avatar)) == avatar
    assert json.loads(armature.effigy.training)["capture"] == str(tmp_path / "anna.capture")


def test_a_path_of_another_system_is_recognised(module) -> None:
    is_foreign = module("blender_addon.paths").is_of_another_system
    for path in ("C:\\film\\a", "c:/film", "\\\\server\\film\\a"):
        assert is_foreign(path, windows=False) and not is_foreign(path, windows=True)
    assert is_foreign("/mnt/film", windows=True) and not is_foreign("/mnt/film", windows=False)
    for path in ("film/a", "film\\a", "C:a", "\\film"):
        assert not is_foreign(path, windows=False) and not is_foreign(path, windows=True)


def test_a_packed_avatar_with_a_device_name_is_unpacked_to_a_file(armature, tmp_path: Path, module) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    armature = bpy.data.objects["ann"]
    header = b'{"__metadata__":{"effigy":"{}"}}'
    content = len(header).to_bytes(8, "little") + header
    text = bpy.data.texts.new("../CON: ?")
    text.from_string(base64.b64encode(content).decode())
    armature.effigy.packed = text
    path = module("blender_addon.avatars").unpack(armature)
    assert path.parent == tmp_path and path.read_bytes() == content and not set(path.name) & set(':?"\\')


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_only_what_is_below_the_blend_or_was_chosen_is_written(armature, tmp_path: Path, module) -> None:
    paths, trusted_paths = module("blender_addon.paths"), module("blender_addon.trusted_paths")
    disk, shots, elsewhere = tmp_path / "disk", tmp_path / "shots", tmp_path / "elsewhere"
    for folder in (disk / "ann.capture", elsewhere):
        folder.mkdir(parents=True)
    # The artist's way to the folder of the .blend leads through a link.
    shots.symlink_to(disk)
    (disk / "out").symlink_to(elsewhere)
    (disk / "loop").symlink_to(disk / "loop")

    def is_written(path: Path) -> bool:
        with suppress(module("blender_addon.errors").EffigyError):
            paths.check_written(path, armature)
            return True
        return False

    assert not is_written(shots / "ann.capture"), "an unsaved file has no folder"
    bpy.ops.wm.save_as_mainfile(filepath=str(shots / "shot.blend"))
    armature = bpy.data.objects["ann"]
    assert is_written(shots / "ann.capture") and is_written(disk / "ann.effigy")
    for path in (elsewhere / "ann.effigy", shots / "out" / "ann.effigy", tmp_path / "ann.effigy", disk / "loop" / "x"):
        assert not is_written(path)
    for path in (disk / ("x" * 5000), Path(f"{disk}/a\0b")):
        is_written(path)
    trusted_paths.trust(elsewhere / "read.effigy", chosen=False)
    trusted_paths.trust(elsewhere / "written.effigy")
    assert not is_written(elsewhere / "read.effigy") and is_written(elsewhere / "written.effigy")
