"""Two Blenders have one .blend open: the second to save keeps the version of the first, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import pytest
from rig_scenes import make_rig


def jaw_in(path: Path) -> float:
    bpy.ops.wm.open_mainfile(filepath=str(path))
    return round(bpy.data.shape_keys[0].key_blocks["jawOpen"].value, 3)


def save_with_jaw(rig, value: float) -> None:
    rig.key_blocks["jawOpen"].value = value
    bpy.ops.wm.save_mainfile()


@pytest.fixture
def shot(effigy, tmp_path):
    """A saved file with a rig, another version of it beside, and the rig of the open file."""
    rig, path, elsewhere = make_rig(), tmp_path / "shot.blend", tmp_path / "elsewhere"
    elsewhere.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    rig.key_blocks["jawOpen"].value = 0.25
    bpy.ops.wm.save_as_mainfile(filepath=str(elsewhere / "other.blend"), copy=True)
    return rig, path, elsewhere / "other.blend"


def test_a_version_that_another_blender_has_saved_is_kept(shot, capsys):
    rig, path, other = shot
    shutil.copy(other, path)
    save_with_jaw(rig, 0.75)
    assert "shot.blend was saved by another Blender since it was opened here" in capsys.readouterr().out
    kept = path.with_name("shot of another Blender.blend")
    assert jaw_in(path) == 0.75 and jaw_in(kept) == 0.25
    assert {found.name for found in path.parent.glob("*.blend")} == {path.name, kept.name}


def test_a_file_that_only_this_blender_saves_is_saved_without_a_word(shot, capsys):
    rig, path, _ = shot
    for value in (0.5, 0.6):
        save_with_jaw(rig, value)
    bpy.ops.wm.save_as_mainfile(filepath=str(path.with_name("next.blend")))
    bpy.ops.wm.save_mainfile()
    assert "another Blender" not in capsys.readouterr().out
    assert {found.name for found in path.parent.glob("*.blend")} == {"shot.blend", "next.blend"}


def test_a_version_that_cannot_be_kept_is_reported(shot, capsys, module, monkeypatch):
    rig, path, other = shot
    shutil.copy(other, path)

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module("blender_addon.saved_elsewhere"), "_link_or_copy", refuse)
    save_with_jaw(rig, 0.75)
    assert "could not be kept (No space left on device)" in capsys.readouterr().out and jaw_in(path) == 0.75


def test_a_file_without_a_rig_is_none_of_our_business(shot, capsys):
    _, path, other = shot
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(path.with_name("plain.blend")))
    shutil.copy(other, path.with_name("plain.blend"))
    bpy.ops.wm.save_mainfile()
    assert "another Blender" not in capsys.readouterr().out
