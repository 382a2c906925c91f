"""A rig's paths name the same files after everything that brings an object from one .blend to another."""

from __future__ import annotations

import base64
import json
import os
import shutil
import wave
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import bpy
import pytest

LIBRARY, SHOT = "library", "shots/010"
HAS_IMPORT_HANDLER = hasattr(bpy.app.handlers, "blend_import_post")
HEADER = b'{"__metadata__":{"effigy":"{}"}}'
AVATAR = len(HEADER).to_bytes(8, "little") + HEADER
"""What is recognised as an avatar's file."""


class Project:
    """A library `ann.blend` with a rig and its files beside it, and a shot in another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.library, self.shot = folder / LIBRARY / "ann.blend", folder / SHOT / "shot.blend"
        self.library.parent.mkdir(parents=True)
        self.shot.parent.mkdir(parents=True)
        self.avatar, self.capture = self.library.parent / "ann.effigy", self.library.parent / "films" / "ann.capture"
        self.capture.mkdir(parents=True)
        self.avatar.write_bytes(AVATAR)
        self.make_library()

    def make_library(self) -> None:
        bpy.ops.wm.read_homefile(use_empty=True)
        collection = bpy.data.collections.new("Ann")
        bpy.context.scene.collection.children.link(collection)
        armature = bpy.data.objects.new("ann", bpy.data.armatures.new("ann"))
        collection.objects.link(armature)
        bpy.ops.wm.save_as_mainfile(filepath=str(self.library))
        settings = armature.effigy
        settings.avatar, settings.capture = "//ann.effigy", str(self.capture)
        settings.training = json.dumps({"avatar": str(self.avatar), "capture": "//films/ann.capture"})
        bpy.ops.wm.save_mainfile()

    def new_shot(self) -> None:
        bpy.ops.wm.read_homefile(use_empty=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(self.shot))

    def bring(
        self, *, link: bool = False, kind: str = "collections", name: str = "Ann", file: Path | None = None
    ) -> Any:
        """Appends or links something of the library by a script; returns it."""
        with bpy.data.libraries.load(str(file or self.library), link=link) as (_, wanted):
            setattr(wanted, kind, [name])
        brought = getattr(wanted, kind)[0]
        children = bpy.context.scene.collection
        (children.children if kind == "collections" else children.objects).link(brought)
        bpy.context.view_layer.update()
        return brought


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def rig() -> bpy.types.Object:
    """The rig of the open file: the one that it stores, if there is a linked one as well."""
    found = [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]
    return min(found, key=lambda obj: obj.library is not None)


def reopen() -> None:
    path = bpy.data.filepath
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.open_mainfile(filepath=path)


def make_local() -> None:
    for block in (*bpy.data.collections, *bpy.data.objects):
        block.make_local()
    assert rig().library is None and rig().override_library is None


def appended(project: Project) -> None:
    project.new_shot()
    project.bring()


def appended_object(project: Project) -> None:
    project.new_shot()
    project.bring(kind="objects", name="ann")


def appended_by_the_menu(project: Project) -> None:
    """As dropping a collection from the asset browser does it as well."""
    project.new_shot()
    folder = f"{project.library}/Collection/"
    bpy.ops.wm.append(filepath=f"{folder}Ann", directory=folder, filename="Ann")


def appended_to_a_file_that_was_never_saved(project: Project) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    project.bring()


def appended_and_then_saved_for_the_first_time(project: Project) -> None:
    appended_to_a_file_that_was_never_saved(project)
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot))
    reopen()


def appended_and_saved(project: Project) -> None:
    appended(project)
    reopen()


def appended_twice(project: Project) -> None:
    appended(project)
    project.bring()


def appended_beside_a_linked_one(project: Project) -> None:
    """Blender then copies the linked rig."""
    linked(project)
    folder = f"{project.library}/Collection/"
    bpy.ops.wm.append(filepath=f"{folder}Ann", directory=folder, filename="Ann")


def appended_and_undone_and_redone(project: Project) -> None:
    project.new_shot()
    bpy.ops.ed.undo_push(message="new")
    project.bring()
    bpy.ops.ed.undo_push(message="append")
    bpy.ops.ed.undo()
    bpy.ops.ed.redo()


def linked(project: Project) -> None:
    project.new_shot()
    project.bring(link=True)


def linked_and_opened_again(project: Project) -> None:
    linked(project)
    reopen()


def linked_and_made_local(project: Project) -> None:
    linked(project)
    make_local()


def linked_made_local_and_saved(project: Project) -> None:
    linked_and_made_local(project)
    reopen()


def linked_and_all_made_local_by_the_menu(project: Project) -> None:
    linked(project)
    for obj in bpy.context.view_layer.objects:
        obj.select_set(True)
    bpy.ops.object.make_local(type="ALL")
    assert rig().library is None


def overridden(project: Project) -> None:
    linked(project)
    bpy.data.collections["Ann"].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    assert rig().override_library


def overridden_and_opened_again(project: Project) -> None:
    overridden(project)
    reopen()
    assert rig().override_library


def overridden_and_made_local(project: Project) -> None:
    overridden(project)
    rig().make_local()
    assert not rig().override_library


def overridden_saved_made_local_and_saved(project: Project) -> None:
    overridden_and_opened_again(project)
    rig().make_local()
    reopen()


def an_override_linked_from_the_file_that_made_it(project: Project) -> None:
    overridden_and_opened_again(project)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    other = project.folder / "edit" / "cut.blend"
    other.parent.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(other))
    names = [obj.name for obj in bpy.data.objects]
    with bpy.data.libraries.load(str(project.shot), link=True) as (there, wanted):
        wanted.objects = [name for name in there.objects if name not in names]
    assert any(obj.override_library for obj in bpy.data.objects)


def saved_elsewhere(project: Project) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot))


def saved_elsewhere_without_remapping(project: Project) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot), relative_remap=False)


def saved_elsewhere_and_undone(project: Project) -> None:
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot))
    bpy.context.scene.frame_set(7)
    bpy.ops.ed.undo_push(message="frame")
    bpy.ops.ed.undo()


def saved_as_a_copy(project: Project) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot), copy=True)


def a_saved_copy_opened(project: Project) -> None:
    saved_as_a_copy(project)
    bpy.ops.wm.open_mainfile(filepath=str(project.shot))


def a_saved_copy_of_an_appended_rig(project: Project) -> None:
    appended(project)
    bpy.ops.wm.save_as_mainfile(filepath=str(project.folder / "copy.blend"), copy=True)


def paths_made_absolute(project: Project) -> None:
    bpy.ops.file.make_paths_absolute()
    reopen()


def packed_and_unpacked_by_the_menu(project: Project) -> None:
    bpy.ops.file.pack_all()
    bpy.ops.file.unpack_all(method="USE_LOCAL")
    reopen()


def written_without_handlers(project: Project, name: str) -> Path:
    """A file as Blender keeps it in its temporary folder: with the paths as they are, and no handler called."""
    place = Path(bpy.app.tempdir) / name
    bpy.data.libraries.write(str(place), {*bpy.data.scenes, *bpy.data.objects}, fake_user=True)
    return place


def an_autosave_opened(project: Project) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(written_without_handlers(project, "ann_4711_autosave.blend")))


def an_autosave_recovered(project: Project) -> None:
    bpy.ops.wm.recover_auto_save(filepath=str(written_without_handlers(project, "ann_4711_autosave.blend")))


def an_autosave_of_an_appended_rig_recovered(project: Project) -> None:
    appended(project)
    an_autosave_recovered(project)


def the_last_session_recovered(project: Project) -> None:
    kept = written_without_handlers(project, "quit.blend")
    base = Path(bpy.app.tempdir.rstrip(os.sep)).parent / "quit.blend"
    if base.exists():
        pytest.skip(f"{base} is somebody's")
    shutil.move(kept, base)
    try:
        bpy.ops.wm.recover_last_session()
    finally:
        base.unlink()


def pasted(project: Project) -> None:
    """Ctrl+C in the library, Ctrl+V in the shot. The buffer is a .blend in the temporary folder."""
    for obj in bpy.context.view_layer.objects:
        obj.select_set(True)
    bpy.ops.view3d.copybuffer()
    project.new_shot()
    bpy.ops.view3d.pastebuffer()


def pasted_and_saved(project: Project) -> None:
    pasted(project)
    reopen()


def a_version_before_opened(project: Project) -> None:
    bpy.ops.wm.save_mainfile()
    shutil.copy(project.library, project.library.with_suffix(".blend1"))
    bpy.ops.wm.open_mainfile(filepath=str(project.library.with_suffix(".blend1")))


WAYS: tuple[Callable[[Project], None], ...] = (
    appended,
    appended_object,
    appended_by_the_menu,
    appended_to_a_file_that_was_never_saved,
    appended_and_then_saved_for_the_first_time,
    appended_and_saved,
    appended_twice,
    appended_and_undone_and_redone,
    appended_beside_a_linked_one,
    linked,
    linked_and_opened_again,
    linked_and_made_local,
    linked_made_local_and_saved,
    linked_and_all_made_local_by_the_menu,
    overridden,
    overridden_and_opened_again,
    overridden_and_made_local,
    overridden_saved_made_local_and_saved,
    an_override_linked_from_the_file_that_made_it,
    saved_elsewhere,
    saved_elsewhere_without_remapping,
    saved_elsewhere_and_undone,
    saved_as_a_copy,
    a_saved_copy_opened,
    a_saved_copy_of_an_appended_rig,
    paths_made_absolute,
    packed_and_unpacked_by_the_menu,
    an_autosave_opened,
    an_autosave_recovered,
    an_autosave_of_an_appended_rig_recovered,
    the_last_session_recovered,
    pasted,
    pasted_and_saved,
    a_version_before_opened,
)


def stored_paths(obj: bpy.types.Object, module: Any) -> dict[str, Path]:
    """What the stored paths of an object mean to Effigy."""
    absolute, settings = module("blender_addon.paths").absolute, obj.effigy
    training = json.loads(settings.training)
    texts = {"avatar": settings.avatar, "capture": settings.capture}
    texts |= {f"training {name}": training[name] for name in ("avatar", "capture")}
    return {name: absolute(text, obj) for name, text in texts.items()}


def expected(avatar: Path, capture: Path) -> dict[str, Path]:
    return {"avatar": avatar, "capture": capture, "training avatar": avatar, "training capture": capture}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_paths_name_the_same_files(way, project: Project, module, capfd) -> None:
    way(project)
    right = expected(project.avatar, project.capture)
    rigs = [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]
    assert rigs and all(stored_paths(obj, module) == right for obj in rigs)
    # Saved and opened again, they are relative to this file for anyone who reads them.
    bpy.ops.wm.save_as_mainfile(filepath=str(project.folder / "end.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(project.folder / "end.blend"))
    for obj in [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]:
        assert stored_paths(obj, module) == right
        if obj.library is None and obj.override_library is None:
            assert obj.effigy.avatar == f"//{LIBRARY}/ann.effigy"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.skipif(not HAS_IMPORT_HANDLER, reason="before Blender 4.3 the paths are written when the file is saved")
@pytest.mark.parametrize("way", [appended, appended_beside_a_linked_one])
def test_an_appended_path_is_relative_to_this_file_at_once(way, project: Project) -> None:
    way(project)
    assert rig().library is None and rig().effigy.avatar == f"//../../{LIBRARY}/ann.effigy"


def moved_folder(project: Project) -> Path:
    """The library's folder was moved as a whole, by the system, and nothing is left in its old place."""
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    shutil.move(project.folder / LIBRARY, project.folder / "moved")
    return project.folder / "moved"


@pytest.mark.parametrize("how", ["open", "append", "link", "link and make local", "override", "override made local"])
def test_a_blend_that_was_moved_with_its_folder_has_the_files_in_the_new_place(project: Project, how, module) -> None:
    place = moved_folder(project)
    if how == "open":
        bpy.ops.wm.open_mainfile(filepath=str(place / "ann.blend"))
    else:
        if not HAS_IMPORT_HANDLER and how == "append":
            pytest.skip("Blender 4.2 does not tell where an appended object came from")
        project.new_shot()
        project.bring(link=how != "append", file=place / "ann.blend")
        if not HAS_IMPORT_HANDLER:
            # There, the place of a library is noted when the file is opened.
            reopen()
    if how.startswith("override"):
        bpy.data.collections["Ann"].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    if how.endswith("local"):
        make_local()
    assert stored_paths(rig(), module) == expected(place / "ann.effigy", place / "films" / "ann.capture")


def test_a_shot_and_its_library_that_were_moved_together(project: Project, module) -> None:
    overridden_and_opened_again(project)
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot), relative_remap=True)
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    whole = project.folder.parent / f"{project.folder.name}-moved"
    shutil.move(project.folder, whole)
    bpy.ops.wm.open_mainfile(filepath=str(whole / SHOT / "shot.blend"))
    assert rig().override_library
    assert stored_paths(rig(), module)["avatar"] == whole / LIBRARY / "ann.effigy"
    shutil.move(whole, project.folder)


@pytest.mark.parametrize("name", ["ann.effigy", "ben.effigy"])
def test_an_override_keeps_an_avatar_of_its_own(project: Project, name, module) -> None:
    """Also one whose path reads as the library's does: each is relative to its own file."""
    overridden(project)
    own = project.shot.parent / name
    own.touch()
    rig().effigy.avatar = f"//{name}"
    assert stored_paths(rig(), module)["avatar"] == own
    for step in ("reopen", "elsewhere", "make local"):
        if step == "elsewhere":
            bpy.ops.wm.save_as_mainfile(filepath=str(project.folder / "other.blend"))
        elif step == "make local":
            rig().make_local()
        reopen()
        found = stored_paths(rig(), module)
        assert found["avatar"] == own, step
        assert (found["capture"], found["training avatar"]) == (project.capture, project.avatar), step


def test_an_override_whose_library_is_missing_keeps_the_librarys_paths(project: Project, module) -> None:
    overridden_and_opened_again(project)
    bpy.ops.wm.read_homefile(use_empty=True)
    project.library.rename(project.library.with_suffix(".away"))
    bpy.ops.wm.open_mainfile(filepath=str(project.shot))
    assert stored_paths(rig(), module) == expected(project.avatar, project.capture)
    bpy.ops.wm.save_mainfile()
    project.library.with_suffix(".away").rename(project.library)
    bpy.ops.wm.open_mainfile(filepath=str(project.shot))
    assert stored_paths(rig(), module)["avatar"] == project.avatar


@pytest.mark.skipif(not HAS_IMPORT_HANDLER, reason="before Blender 4.3 no handler looks at what was appended")
@pytest.mark.parametrize("library", ["there", "missing"])
def test_an_appended_override_keeps_following_its_library(library, project: Project, module) -> None:
    overridden_and_opened_again(project)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    away = project.library.with_suffix(".away")
    if library == "missing":
        project.library.rename(away)
    cut = project.folder / "edit" / "cut.blend"
    cut.parent.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(cut))
    project.bring(kind="objects", name="ann", file=project.shot)
    assert rig().override_library
    assert stored_paths(rig(), module) == expected(project.avatar, project.capture)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    # Now the library has another avatar.
    if library == "missing":
        away.rename(project.library)
    bpy.ops.wm.open_mainfile(filepath=str(project.library))
    rig().effigy.avatar = "//ben.effigy"
    bpy.ops.wm.save_mainfile()
    try:
        bpy.ops.wm.open_mainfile(filepath=str(cut))
    except RuntimeError as error:
        # From 5.3 on, Blender says that it mends the root of an appended override.
        assert "Missing library override hierarchy root" in str(error)
    assert stored_paths(rig(), module)["avatar"] == project.library.parent / "ben.effigy"


def test_a_path_set_on_a_linked_rig_leaves_the_librarys_other_paths(project: Project, module) -> None:
    linked(project)
    rig().effigy.avatar = str(project.library.parent / "ben.effigy")
    assert stored_paths(rig(), module)["capture"] == project.capture


def test_a_training_that_is_set_is_relative_to_this_file(project: Project, module) -> None:
    linked_and_made_local(project)
    rig().effigy.training = json.dumps({"avatar": "//ben.effigy", "capture": "//ben.capture"})
    found = stored_paths(rig(), module)
    assert found["training avatar"] == project.shot.parent / "ben.effigy"
    assert (found["avatar"], found["capture"]) == (project.avatar, project.capture)


def test_a_path_that_is_chosen_is_relative_to_this_file_and_the_others_stay(project: Project, module) -> None:
    linked_and_made_local(project)
    own = project.shot.parent / "ben.effigy"
    rig().effigy.avatar = "//ben.effigy"
    found = stored_paths(rig(), module)
    assert found["avatar"] == own
    assert (found["capture"], found["training capture"]) == (project.capture, project.capture)


def test_a_file_of_an_earlier_version_has_its_paths_relative_to_itself(project: Project, module) -> None:
    # Written by it, no object has an origin.
    with module("blender_addon.trusted_paths").suspended():
        rig().effigy.origin = ""
    place = project.library.with_name("old.blend")
    bpy.data.libraries.write(str(place), {*bpy.data.scenes, *bpy.data.objects, *bpy.data.collections}, fake_user=True)
    bpy.ops.wm.open_mainfile(filepath=str(place))
    assert stored_paths(rig(), module) == expected(project.avatar, project.capture)


@pytest.mark.parametrize("way", [appended, linked, linked_and_made_local, overridden, pasted, an_autosave_opened])
def test_a_strangers_path_becomes_no_more_known_on_the_way(way, project: Project, module) -> None:
    avatars, trusted = module("blender_addon.avatars"), module("blender_addon.trusted_paths")
    with trusted.suspended():
        rig().effigy.avatar = "//stranger.effigy"
    bpy.ops.wm.save_mainfile()
    way(project)
    assert stored_paths(rig(), module)["avatar"] == project.library.parent / "stranger.effigy"
    assert not avatars.is_known(rig())
    bpy.ops.wm.save_as_mainfile(filepath=str(project.folder / "end.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(project.folder / "end.blend"))
    assert not avatars.is_known(rig())


@pytest.mark.parametrize("origin", ["C:\\film\\ann.blend", "\\\\server\\share\\x.blend", "\x01", "x" * 5000, "//", "a"])
def test_an_odd_origin_gives_no_error_and_no_known_path(origin, project: Project, module, capfd) -> None:
    with module("blender_addon.trusted_paths").suspended():
        rig().effigy.origin = origin
        rig().effigy.avatar = "//unknown.effigy"
    assert not module("blender_addon.avatars").is_known(rig())
    if origin not in ("//", "a"):
        assert module("blender_addon.paths").folder_of(rig()) == project.library.parent
    reopen()
    assert "Traceback" not in "".join(capfd.readouterr())


def packed_text(armature: bpy.types.Object) -> None:
    text = bpy.data.texts.new("ann.effigy")
    text.use_fake_user = False
    text.from_string(base64.b64encode(AVATAR).decode())
    armature.effigy.packed = text


@pytest.mark.parametrize(
    "way", [appended_and_saved, linked_and_opened_again, linked_made_local_and_saved, overridden_and_opened_again]
)
def test_a_packed_avatar_comes_along(way, project: Project, module) -> None:
    packed_text(rig())
    bpy.ops.wm.save_mainfile()
    project.avatar.unlink()
    way(project)
    assert module("blender_addon.avatars").avatar_path(rig()).read_bytes() == AVATAR


def test_an_override_keeps_an_avatar_that_was_packed_into_it(project: Project, module) -> None:
    overridden(project)
    project_bytes = project.avatar.read_bytes()
    packed_text(rig())
    project.avatar.unlink()
    reopen()
    assert rig().effigy.packed and module("blender_addon.avatars").avatar_path(rig()).read_bytes() == project_bytes


def test_pictures_films_and_sounds_are_found_as_well(project: Project, module) -> None:
    """Blender carries its own: here it is held to that, for what an import sets up."""
    picture, sound = project.library.parent / "plate.png", project.library.parent / "ann.wav"
    made = bpy.data.images.new("plate", 4, 4)
    made.filepath_raw, made.file_format = str(picture), "PNG"
    made.save()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    background = camera.data.background_images.new()
    background.image = bpy.data.images.load("//plate.png")
    clip = camera.data.background_images.new()
    clip.source, clip.clip = "MOVIE_CLIP", bpy.data.movieclips.load(str(picture))
    clip.clip.filepath = "//plate.png"
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    with suppress(RuntimeError):
        # One of the tested Blenders is built without sound.
        strips.new_sound("ann", "//ann.wav", 1, 1).sound.filepath = "//ann.wav"
    scene.name = "first"
    bpy.ops.wm.save_mainfile()
    project.new_shot()
    with bpy.data.libraries.load(str(project.library)) as (_, wanted):
        wanted.scenes = ["first"]
    (image, film), brought = wanted.scenes[0].objects["camera"].data.background_images, wanted.scenes[0]
    strips = getattr(brought.sequence_editor, "strips", None) or brought.sequence_editor.sequences
    sounds = [(strip.sound, sound) for strip in strips]
    for owner, right in ((image.image, picture), (film.clip, picture), *sounds):
        assert os.path.samefile(bpy.path.abspath(owner.filepath), right)


def test_a_bake_outlives_the_first_save(project: Project, module) -> None:
    """It is known by its avatar's file, whose stored path is another one after saving."""
    source_of = module("blender_addon.viewport.cache").source_of
    bpy.ops.wm.read_homefile(use_empty=True)
    armature = bpy.data.objects.new("ann", bpy.data.armatures.new("ann"))
    bpy.context.scene.collection.objects.link(armature)
    armature.effigy.avatar = str(project.avatar)
    before = source_of(armature)
    bpy.ops.wm.save_as_mainfile(filepath=str(project.shot))
    assert armature.effigy.avatar.startswith("//") and source_of(armature) == before
