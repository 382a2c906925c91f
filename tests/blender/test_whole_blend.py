"""A .blend of which a full disk takes only the beginning is noticed, and the version before gets its name back."""

from __future__ import annotations

import os
from pathlib import Path

import bpy
import pytest
from rig_scenes import make_rig


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_is_whole_only_with_its_last_byte(effigy, tmp_path, module, compress):
    is_whole, path = module("blender_addon.whole_blend").is_whole, tmp_path / "shot.blend"
    make_rig()
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=compress)
    whole = path.read_bytes()
    assert is_whole(path) and (whole[:4] == b"\x28\xb5\x2f\xfd") == compress
    # Up to 28 bytes after the code of the last block are zeros that nobody reads.
    for cut in (29, 33, 100, 5000, len(whole) // 2, len(whole) - 3, len(whole)):
        path.write_bytes(whole[: len(whole) - cut])
        assert not is_whole(path), cut
    if compress:
        # A part in the middle did not fit, and the table at the end did.
        path.write_bytes(whole[:2000] + whole[2100:])
        assert not is_whole(path)


@pytest.fixture
def cut_off():
    """Cuts every file that is saved, before the extension looks at it, as a full disk does."""

    def cut(filepath, *_):
        os.truncate(filepath, 20_000)

    bpy.app.handlers.save_post.insert(0, cut)
    yield
    if cut in bpy.app.handlers.save_post:
        bpy.app.handlers.save_post.remove(cut)


def test_the_version_before_gets_its_name_back(effigy, tmp_path, capsys, request):
    rig, path = make_rig(), tmp_path / "shot.blend"
    bpy.context.preferences.filepaths.save_version = 0
    rig.key_blocks["jawOpen"].value = 0.25
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    before = path.read_bytes()
    request.getfixturevalue("cut_off")
    rig.key_blocks["jawOpen"].value = 0.75
    bpy.ops.wm.save_mainfile()
    assert "shot.blend could not be saved" in capsys.readouterr().out
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_beginning_without_a_version_before_is_removed(effigy, tmp_path, capsys, cut_off):
    make_rig()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "new.blend"))
    assert "There is no version before it" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_saving_leaves_only_the_file(effigy, tmp_path, capsys):
    make_rig()
    bpy.context.preferences.filepaths.save_version = 0
    for _ in range(2):
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    with pytest.raises(RuntimeError):
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "no such folder" / "shot.blend"))
    assert [path.name for path in Path(tmp_path).iterdir()] == ["shot.blend"]
    assert "could not be saved" not in capsys.readouterr().out
