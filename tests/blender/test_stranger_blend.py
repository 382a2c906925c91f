"""A .blend of a stranger: nothing is looked for, written or started before the artist asks, and then only in the folder
that the artist sees.

The files are copies of those of Effigy 0.1 in a folder that was never used, as after a download.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest
from test_all_settings import compositor

from bench.fault_rows import _unasked
from bench.fault_rows._file_access import Access, recorded

FILES = Path(__file__).resolve().parents[1] / "files_of_0_1"
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="made of links and pipes")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A downloaded folder, beside which nothing may be touched."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name in ("person.blend", "person.effigy", "stopped.effigy.checkpoint"):
        shutil.copyfile(FILES / name, folder / name)
    shutil.copytree(FILES / "person.capture", folder / "person.capture")
    return folder


@pytest.fixture
def blend(project: Path) -> Path:
    return project / "person.blend"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """The artist's own folder with a file; it must be as it was after each test."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "work.py").write_text("years of work")
    yield folder
    assert [path.name for path in folder.rglob("*")] == ["work.py"]
    assert (folder / "work.py").read_text() == "years of work"


@pytest.fixture
def armature(project: Path) -> bpy.types.Object:
    """The rig with the avatar's file, active in the opened .blend."""
    bpy.ops.wm.open_mainfile(filepath=str(project / "person.blend"))
    found = next(obj for obj in bpy.data.objects if obj.type == "ARMATURE" and not obj.effigy.packed)
    bpy.context.view_layer.objects.active = found
    return found


@pytest.fixture
def packed(project: Path, armature: bpy.types.Object) -> bpy.types.Object:
    """The rig with the packed avatar, active."""
    found = next(obj for obj in bpy.data.objects if obj.effigy.packed)
    bpy.context.view_layer.objects.active = found
    return found


def set_by_a_stranger(settings: Any, name: str, value: Any, module: Any) -> None:
    """As a .blend brings it: no property is set by the artist."""
    with module("blender_addon.trusted_paths").suspended():
        setattr(settings, name, value)


def reopened(blend: Path, capsys: Any = None) -> Access:
    """Saves the .blend, opens it again, and does all that Blender does without a click."""
    name = bpy.context.view_layer.objects.active.name if bpy.context.view_layer.objects.active else None
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    with recorded() as access:
        bpy.ops.wm.open_mainfile(filepath=str(blend))
        if name:
            bpy.context.view_layer.objects.active = bpy.data.objects[name]
        _unasked.run()
    return access


def own_folders(effigy: Any) -> tuple[Path, ...]:
    """Where Blender and the extension keep what belongs to them, and the .blend itself, which was just read."""
    import sys

    return (
        Path(bpy.data.filepath),
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(bpy.__file__).parent,
        Path(effigy.__file__).parent,
        Path(bpy.utils.resource_path("USER")),
        Path(os.environ["BLENDER_USER_RESOURCES"]),
        Path(__file__).resolve().parents[2],
        # The backend's interpreter, of another Python than Blender's.
        (Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python").resolve().parents[1],
    )


def test_opening_a_strangers_file_reaches_for_nothing_that_it_names(blend, armature, effigy, module) -> None:
    client = module("blender_addon.worker.session").current()
    access = reopened(blend)
    assert access.outside(*own_folders(effigy)) == []
    assert access.written == [] and access.started == []
    assert module("blender_addon.worker.session").current() is client


def test_opening_a_strangers_file_says_why_its_heads_are_meshes(blend, armature, capsys) -> None:
    reopened(blend)
    assert "avatars that were not used on this computer before" in capsys.readouterr().out


def test_a_packed_avatar_needs_no_consent_for_the_file_it_was_packed_from(packed, module) -> None:
    rig_files = module("blender_addon.rig_files")
    set_by_a_stranger(packed.effigy, "avatar", "//packed_from.effigy", module)
    assert not any("packed_from" in text for text in rig_files.unknown(packed))
    text, packed.effigy.packed = packed.effigy.packed, None
    assert any("packed_from" in text for text in rig_files.unknown(packed))
    packed.effigy.packed = text


def test_the_panel_names_the_files_and_one_click_uses_them(blend, armature, module) -> None:
    avatars, training = module("blender_addon.avatars"), module("blender_addon.training")
    texts, name = " ".join(_unasked.draw_panels()), armature.name
    assert "were not used on this computer before" in texts and "person.effigy" in texts
    assert "Relink" not in texts
    with pytest.raises(Exception, match="press Look for Its Files"):
        avatars.avatar_path(armature, asked=False)
    assert not module("blender_addon.viewport.mesh_visibility")._should_hide(
        module("blender_addon.active").need_rig(bpy.context)
    )
    assert bpy.ops.effigy.look_for_files() == {"FINISHED"}
    assert "were not used" not in " ".join(_unasked.draw_panels())
    assert avatars.avatar_path(armature, asked=False) == blend.parent / "person.effigy"
    # It is remembered for the next time, also by another Blender.
    trusted = module("blender_addon.trusted_paths")
    trusted._trusted.keys.clear()
    trusted._trusted.stamp = None
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    assert "were not used" not in " ".join(_unasked.draw_panels())
    rig = module("blender_addon.rig.rig_properties").find_rig(bpy.data.objects[name])
    assert training.can_resume(rig) and training.has_refined_track(rig)


def test_what_the_artist_chooses_and_what_blender_may_run_need_no_second_click(blend, armature, module) -> None:
    avatars = module("blender_addon.avatars")
    armature.effigy.avatar = "//person.effigy"
    assert avatars.is_known(armature)
    set_by_a_stranger(armature.effigy, "avatar", "//elsewhere.effigy", module)
    assert not avatars.is_known(armature)
    filepaths = bpy.context.preferences.filepaths
    filepaths.use_scripts_auto_execute = True
    try:
        assert avatars.is_known(armature)
    finally:
        filepaths.use_scripts_auto_execute = False


def test_saving_makes_no_path_known(blend, armature, module) -> None:
    set_by_a_stranger(armature.effigy, "avatar", "//../elsewhere/x.effigy", module)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend.parent.parent / "copy.blend"))
    assert armature.effigy.avatar == "//elsewhere/x.effigy"
    assert not module("blender_addon.avatars").is_known(armature)


def test_an_avatar_is_unpacked_beside_the_blend_whatever_path_it_names(packed, project, outside, module) -> None:
    content = (FILES / "person.effigy").read_bytes()
    (project / "person.effigy").write_bytes(b"another file")
    packed.effigy.packed.name = "../own/work.py"
    for path in (str(outside / "work.py"), "//../own/work.py", "//../own/new.effigy"):
        set_by_a_stranger(packed.effigy, "avatar", path, module)
    before = set(project.iterdir())
    assert bpy.ops.effigy.unpack_avatar() == {"FINISHED"}
    (made,) = set(project.iterdir()) - before
    assert made.name == "_own_work.py.effigy" and made.read_bytes() == content
    assert bpy.data.objects[packed.name].effigy.avatar == f"//{made.name}"
    assert (project / "person.effigy").read_bytes() == b"another file"


def test_unpacking_replaces_no_file_and_uses_one_that_is_the_same(packed, project, module) -> None:
    avatars, content = module("blender_addon.avatars"), (FILES / "person.effigy").read_bytes()
    packed.effigy.packed.name = "person.effigy"
    text = packed.effigy.packed
    text.use_fake_user = True
    assert avatars.unpack(packed) == project / "person.effigy"
    (project / "person.effigy").write_bytes(b"another file")
    packed.effigy.packed = text
    assert avatars.unpack(packed) == project / "person-2.effigy"
    assert (project / "person.effigy").read_bytes() == b"another file"
    assert (project / "person-2.effigy").read_bytes() == content
    assert not [path for path in project.iterdir() if path.name.startswith(".")]


@POSIX_ONLY
def test_unpacking_follows_no_link_that_waits_for_it(packed, project, outside, module) -> None:
    packed.effigy.packed.name = "new.effigy"
    (project / "new.effigy").symlink_to(outside / "new.effigy")
    assert module("blender_addon.avatars").unpack(packed) == project / "new-2.effigy"


def test_in_an_unsaved_file_the_artist_chooses_where_an_avatar_is_unpacked(packed, tmp_path, module) -> None:
    name = packed.name
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "download" / "person.blend")) as (source, target):
        target.objects = [name]
    bpy.context.scene.collection.objects.link(target.objects[0])
    for child in [obj for obj in bpy.data.objects if obj.parent == target.objects[0]]:
        bpy.context.scene.collection.objects.link(child)
    brought = target.objects[0]
    with pytest.raises(Exception, match="Save the .blend file first"):
        module("blender_addon.avatars").unpack(brought)
    chosen = tmp_path / "mine.txt"
    assert module("blender_addon.avatars").unpack(brought, chosen) == tmp_path / "mine.txt.effigy"


@pytest.mark.parametrize("content", [b"import os\n", b"\x93NUMPY", b""])
def test_bytes_that_are_no_avatar_are_never_written(packed, project, content, module) -> None:
    packed.effigy.packed.clear()
    packed.effigy.packed.write(base64.b64encode(content).decode())
    with recorded() as access:
        for operator in ("unpack_avatar", "bake_playback"):
            with pytest.raises(RuntimeError, match="holds no avatar"):
                getattr(bpy.ops.effigy, operator)()
    assert not [path for path in access.written if str(project) in path or "unpacked" in path]


def stopped_training(armature: bpy.types.Object, module: Any, **changed: Any) -> None:
    settings = {"capture": "//person.capture", "avatar": "//stopped.effigy", "preset": "draft", "device": "cpu"}
    set_by_a_stranger(armature.effigy, "training", json.dumps(settings | changed), module)


@pytest.mark.parametrize(
    "avatar, sentence",
    [
        ("//../own/work.py", "no .effigy file"),
        ("//../own/new.effigy", "not in the folder of this .blend"),
        ("//link/new.effigy", "not in the folder of this .blend"),
    ],
)
@POSIX_ONLY
def test_resuming_writes_only_below_the_folder_of_the_blend(armature, project, outside, avatar, sentence, module):
    (project / "link").symlink_to(outside)
    checkpoint = Path(os.path.normpath(project / avatar[2:])).resolve()
    stopped_training(armature, module, avatar=avatar)
    training = module("blender_addon.training")
    rig = module("blender_addon.active").need_rig(bpy.context)
    # The consent is about reading.
    bpy.ops.effigy.look_for_files()
    # The stranger's checkpoint would have to be there as well.
    module("blender_addon.training").is_file = lambda path: True
    try:
        with pytest.raises(Exception, match=sentence):
            training.resume(rig)
    finally:
        module("blender_addon.training").is_file = module("blender_addon.paths").is_file
    assert not os.path.lexists(f"{checkpoint}.checkpoint")


def test_a_capture_elsewhere_is_not_trained_into_before_the_artist_chooses_it(armature, project, tmp_path, module):
    shutil.move(project / "person.capture", tmp_path / "person.capture")
    set_by_a_stranger(armature.effigy, "capture", "//../person.capture", module)
    bpy.ops.effigy.look_for_files()
    with pytest.raises(RuntimeError, match="would write to .*person.capture.*choose the capture's folder"):
        bpy.ops.effigy.train_avatar()
    armature.effigy.capture = armature.effigy.capture
    module("blender_addon.training")._check_places(
        module("blender_addon.active").need_rig(bpy.context),
        module("blender_addon.training").TrainingRequest(
            tmp_path / "person.capture", tmp_path / "person.effigy", "draft", "cpu"
        ),
    )


DAMAGED = (
    "{",
    "[]",
    "7",
    "null",
    '"text"',
    "[" * 50_000,
    '{"capture": 5, "avatar": {}}',
    '{"capture": "\\ud800", "avatar": "\\u0000", "preset": "draft", "device": "cpu"}',
    '{"capture": "//a", "avatar": "//b.effigy", "preset": [], "device": "cpu"}',
    '{"capture": "//a", "avatar": "//b.effigy", "preset": "draft", "device": "cpu", "size": "x"}',
    "x" * 3_000_000,
)


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:30])
def test_a_damaged_training_keeps_nothing_from_working(blend, armature, text, module, capfd) -> None:
    set_by_a_stranger(armature.effigy, "training", text, module)
    capfd.readouterr()
    reopened(blend)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend.with_name("again.blend")))
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    active = module("blender_addon.active").need_rig(bpy.context)
    assert active.armature.effigy.avatar == "//person.effigy", "the other paths are rewritten all the same"
    with pytest.raises(Exception, match="no stopped training"):
        module("blender_addon.training").resume(active)


ODD_PATHS = (
    "x" * 5_000,
    "a/" * 200_000,
    "\\\\server\\share\\x.effigy",
    "//\\\\server\\share\\x.effigy",
    "/dev/zero",
    "//../../../../dev/zero",
    "\x01\n\x7f",
    "bad \udcff byte.effigy",
)


@pytest.mark.parametrize("path", ODD_PATHS, ids=lambda path: repr(path[:20]))
def test_odd_paths_give_sentences_and_are_not_looked_for(blend, armature, path, effigy, module, capfd) -> None:
    for name in ("avatar", "capture"):
        set_by_a_stranger(armature.effigy, name, path, module)
    capfd.readouterr()
    access = reopened(blend)
    assert access.outside(*own_folders(effigy)) == [] and access.written == []
    for operator in ("train_avatar", "bake_playback", "pack_avatar"):
        with pytest.raises(RuntimeError) as refused:
            getattr(bpy.ops.effigy, operator)()
        assert "Error: " in str(refused.value) and len(str(refused.value)) < 6_000
    assert "Traceback" not in "".join(capfd.readouterr())


@POSIX_ONLY
def test_a_pipe_in_the_avatars_place_is_not_opened(armature, project, module) -> None:
    os.mkfifo(project / "pipe.effigy")
    armature.effigy.avatar = "//pipe.effigy"
    with pytest.raises(RuntimeError, match="pipe.effigy is a pipe or a device"):
        bpy.ops.effigy.pack_avatar()


def damage(name: str, value: Any):
    def change(armature: bpy.types.Object) -> None:
        if value is None:
            del armature["effigy_rig"][name]
        else:
            armature["effigy_rig"][name] = value

    return pytest.param(change, id=f"{name}={value!r}"[:40])


@pytest.mark.parametrize(
    "change",
    [
        *(
            damage(name, value)
            for name in ("head_name", "head_fingerprint", "expression_names", "identity", "joints", "joint_identity")
            for value in (None, 7, {"a": 1}, [1.0, 2.0], "x" * 100_000)
            if not (isinstance(value, list) and name == "identity")
        ),
        damage("schema", "text"),
        damage("arkit_names", "jawOpen"),
    ],
)
def test_damaged_rig_properties_are_told_and_do_not_stop_the_other_rigs(blend, armature, change, module, capfd) -> None:
    change(armature)
    bpy.context.view_layer.objects.active = armature
    capfd.readouterr()
    reopened(blend)
    texts = " ".join(_unasked.draw_panels())
    if change.__closure__ and "schema" not in str(change.__closure__[0].cell_contents):
        assert "are damaged" in texts
        with pytest.raises(RuntimeError, match="are damaged"):
            bpy.ops.render.render()
    assert "Traceback" not in "".join(capfd.readouterr())
    rigs = list(module("blender_addon.rig.rig_properties").find_rigs(bpy.context.scene.objects))
    assert rigs, "the second rig works"


def test_a_scene_that_names_no_scene_as_its_own_is_no_avatar_pass(armature, module, capfd) -> None:
    passes = importlib.import_module(f"{_unasked.PACKAGE}.blender_addon.engine.avatar_pass")
    scene = bpy.context.scene
    for value in ("text", 5, [1.0], {"a": 1}, bpy.data.objects[0], scene):
        scene[passes.SOURCE_SCENE] = value
        assert passes.find_pass(scene) is None
        passes._sync_before_render(scene)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_compositor_that_writes_files_is_not_switched_on_silently(armature, tmp_path, capfd) -> None:
    scene = bpy.context.scene
    scene.render.engine = "BLENDER_WORKBENCH"
    node = compositor(scene).nodes.new("CompositorNodeOutputFile")
    setattr(node, "directory" if hasattr(node, "directory") else "base_path", str(tmp_path / "startup"))
    scene.render.use_compositing = False
    capfd.readouterr()
    bpy.ops.effigy.set_up_composite()
    assert f"write to {tmp_path / 'startup'} when you render" in capfd.readouterr().out
    bpy.ops.effigy.set_up_composite()
    assert "when you render" not in capfd.readouterr().out, "it was on already"


def test_the_workers_log_sends_no_control_characters_to_the_terminal(module, capfd) -> None:
    session = module("blender_addon.worker.session")
    session._on_log("caf\u00e9\t\x1b]0;title\x07 \x9b2J\r\u202e")
    printed = capfd.readouterr().out.removesuffix("\n")
    assert "caf\u00e9\t" in printed and not set(printed) & set("\x1b\x07\x9b\r\u202e")
    assert session.log.pop() in printed


def test_paths_of_the_preferences_do_not_depend_on_the_open_blend(blend, armature, module, monkeypatch) -> None:
    preferences = module("blender_addon.preferences")
    monkeypatch.setenv("EFFIGY_BACKEND_PYTHON", "//python")
    with pytest.raises(Exception, match="relative to the .blend"):
        preferences.backend_python()
    settings = preferences.get()
    settings.head_file = "//head.pkl"
    row = settings.shared.add()
    row.local, row.remote = "//film", "/mnt/film"
    try:
        with pytest.raises(Exception, match="head model .* relative to the .blend"):
            preferences.chosen_head_file()
        with pytest.raises(Exception, match="shared folder .* relative to the .blend"):
            preferences.shared_folders()
    finally:
        settings.head_file = ""
        settings.shared.clear()
