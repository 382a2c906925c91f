"""Every operator that changes the scene is undone in one step: strips, settings, sound, cameras, the artist's keys."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np
import pytest
from light_scenes import LIGHT, build_light
from rig_digest import digest
from rig_scenes import rigging
from speech_files import write_speech

NOTHING_TO_UNDO = {
    "add_shared_folder": "a preference",
    "bake_playback": "computes splats beside the file",
    "cancel_installation": "stops what runs",
    "cancel_job": "stops what runs",
    "choose_head": "a preference",
    "clear_jobs": "the list of jobs",
    "clear_playback": "frees splats beside the file",
    "examine_backend": "reads",
    "export_splats": "writes a file",
    "export_textures": "writes files",
    "export_web_page": "writes a file",
    "install_backend": "writes files",
    "live_neutral": "measures the performer",
    "live_start": "moves the rig until it ends, and puts it back",
    "look_for_files": "a preference",
    "make_pose_library": "writes files, and a preference",
    "remove_pose_library": "deletes its own files, and a preference",
    "remove_shared_folder": "a preference",
    "show_unsure_frame": "goes to a frame",
    "show_worst_frame": "goes to a frame",
    "tell": "shows a message",
    "use_open_head": "a preference",
    "use_own_backend": "a preference",
    "use_python": "a preference",
}
"""Operators that leave the scene as it is, with what they do instead."""
BY_TASK = {
    "add_head_light",
    "bake_to_disk",
    "import_capture",
    "import_video",
    "make_playable",
    "refine_track",
    "resume_training",
    "track_together",
    "train_avatar",
}
"""Operators that return at once; the task that they start changes the scene later, and pushes the step."""

BY_LIVE = {"live_record", "live_stop"}
"""Operators that end a take, which pushes the step: `test_live` shows it."""


@dataclass(frozen=True)
class Place:
    """What the operators need."""

    avatars: Path
    capture: Path
    take: Path
    sound: Path
    """With a phone table beside it."""
    folder: Path


@pytest.fixture(scope="module")
def place(effigy, demo_capture, engine_avatars, tmp_path_factory) -> Place:
    """A .blend with a tracked rig, which has an avatar and keys by hand, and the files for every operator."""
    folder = tmp_path_factory.mktemp("undo")
    capture = folder / "anna.capture"
    shutil.copytree(demo_capture, capture)
    shutil.copy(capture / "track.npz", capture / "track_refined.npz")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    bpy.ops.effigy.import_capture(directory=str(capture))
    bpy.ops.effigy.add_avatar(filepath=str(engine_avatars / "ann.effigy"))
    made = rig()
    for target in (made.armature, made.mesh.data.shape_keys):
        target.animation_data.action_blend_type = "REPLACE"
    bpy.ops.effigy.key_all(head=True)
    bpy.context.scene.frame_set(3)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "shot.blend"))
    take = folder / "take.csv"
    names = [name[0].upper() + name[1:] for name in made.expression_names]
    rows = [f"10:00:00:{row:02d}.000,61," + ",".join("0.2" for _ in names) for row in range(20)]
    take.write_text("\n".join((",".join(("Timecode", "BlendShapeCount", *names)), *rows)))
    return Place(engine_avatars, capture, take, write_speech(folder / "line.wav"), folder)


def rig():
    return rigging().rig_properties.find_rig(bpy.context.object)


def module(name: str):
    return importlib.import_module(f"bl_ext.user_default.effigy.blender_addon.{name}")


def pack(place: Place) -> None:
    bpy.ops.effigy.pack_avatar()


def lose_avatar(place: Place) -> None:
    rig().armature.effigy.avatar = "//gone.effigy"


def take_cat(place: Place) -> None:
    """The avatar that Blender evaluates by itself."""
    rig().armature.effigy.avatar = str(place.avatars / "cat.effigy")


def paint(place: Place) -> str:
    """A texture of cat with a red half."""
    EFFIGY.export_textures(filepath=str(place.folder / "cat"))
    image = bpy.data.images.load(str(place.folder / "cat_color.png"))
    pixels = np.empty(len(image.pixels), np.float32)
    image.pixels.foreach_get(pixels)
    pixels[: len(pixels) // 2].reshape(-1, 4)[:, 0] = 1
    image.pixels.foreach_set(pixels)
    image.save()
    bpy.data.images.remove(image)
    return str(place.folder / "cat_color.png")


def move_mesh(place: Place) -> None:
    rig().mesh.location.x += 0.3


def smile(place: Place) -> None:
    made = rig()
    for target in (made.armature, made.mesh.data.shape_keys):
        for track in target.animation_data.nla_tracks:
            track.mute = True
        target.animation_data.action = None
    made.key_blocks["mouthSmileLeft"].value = 0.7


def transfer(place: Place) -> None:
    EFFIGY.retarget_performance(filepath=str(place.take), frame_start=1)


def spoil_track() -> None:
    stored = rig().armature["effigy_fit"]
    stored["error"] = [1.0] * 5 + [9.0] + [1.0] * (len(stored["error"]) - 6)


def spike(place: Place) -> None:
    """A tracked smile that jumps in one frame."""
    takes = module("rig.takes")
    made = rig()
    (channel,) = takes.channels_of(made, takes.take_of(made), only="mouthSmileLeft")
    values = 0.0 * channel.sample(range(1, 13))
    values[6] = 1
    channel.key(np.arange(1.0, 13), values)


@dataclass(frozen=True)
class Row:
    do: Callable[[Place], object]
    prepare: Callable[[Place], object] = lambda _: None


EFFIGY = bpy.ops.effigy
ROWS = {
    "add_avatar": Row(lambda place: EFFIGY.add_avatar(True, filepath=str(place.avatars / "ben.effigy"), new_rig=True)),
    "add_pose": Row(lambda _: EFFIGY.add_pose(True, name="Mine"), lambda _: pull_corner()),
    "add_face_controls": Row(lambda _: EFFIGY.add_face_controls(True)),
    "remove_face_controls": Row(lambda _: EFFIGY.remove_face_controls(True), lambda _: pull_corner()),
    "controls_from_sliders": Row(
        lambda _: EFFIGY.controls_from_sliders(True, performance=True), lambda _: pull_corner()
    ),
    "sliders_from_controls": Row(lambda _: EFFIGY.sliders_from_controls(True, key=True), lambda _: pull_corner()),
    "add_blinks": Row(lambda _: EFFIGY.add_blinks(True, first=1, last=300)),
    "add_breathing": Row(lambda _: EFFIGY.add_breathing(True)),
    "add_gaze_target": Row(lambda _: EFFIGY.add_gaze_target(True)),
    "add_saccades": Row(lambda _: EFFIGY.add_saccades(True)),
    "apply_preset": Row(lambda _: EFFIGY.apply_preset(True, key=True)),
    "blend_takes": Row(lambda _: EFFIGY.blend_takes(True), transfer),
    "hold_lids": Row(lambda _: EFFIGY.hold_lids(True, frames="RANGE", first=2, last=6)),
    "import_texture": Row(lambda place: EFFIGY.import_texture(True, filepath=paint(place)), take_cat),
    "key_all": Row(lambda _: EFFIGY.key_all(True, head=True)),
    "key_part": Row(lambda _: EFFIGY.key_part(True, part="gaze")),
    "loop_range": Row(lambda _: EFFIGY.loop_range(True, frames="RANGE", first=2, last=8)),
    "mark_unsure_frames": Row(lambda _: EFFIGY.mark_unsure_frames(True), lambda _: spoil_track()),
    "match_plate": Row(lambda _: EFFIGY.match_plate(True, key=True)),
    "mend_rig": Row(lambda _: EFFIGY.mend_rig(True), move_mesh),
    "mirror_expression": Row(lambda _: EFFIGY.mirror_expression(True), smile),
    "mirror_performance": Row(lambda _: EFFIGY.mirror_performance(True)),
    "offset_neutral": Row(lambda _: EFFIGY.offset_neutral(True)),
    "remove_spikes": Row(lambda _: EFFIGY.remove_spikes(True, height=0.05, parts={"lids", "mouth", "eyes"}), spike),
    "scale_performance": Row(lambda _: EFFIGY.scale_performance(True)),
    "simplify_performance": Row(lambda _: EFFIGY.simplify_performance(True)),
    "smooth_performance": Row(lambda _: EFFIGY.smooth_performance(True)),
    "native_splats": Row(lambda _: EFFIGY.native_splats(True), take_cat),
    "pack_avatar": Row(lambda _: EFFIGY.pack_avatar(True)),
    "relink_avatar": Row(
        lambda place: EFFIGY.relink_avatar(True, filepath=str(place.avatars / "ann.effigy")), lose_avatar
    ),
    "remove_life": Row(lambda _: EFFIGY.remove_life(True, what="TARGET"), lambda _: EFFIGY.add_gaze_target()),
    "reset_expression": Row(lambda _: EFFIGY.reset_expression(True), smile),
    "reset_grade": Row(lambda _: EFFIGY.reset_grade(True), lambda _: grade()),
    "remove_head_light": Row(lambda _: EFFIGY.remove_head_light(True), lambda _: light()),
    "retarget_performance": Row(
        lambda place: EFFIGY.retarget_performance(True, filepath=str(place.take), frame_start=20)
    ),
    "lip_sync": Row(lambda place: EFFIGY.lip_sync(True, filepath=str(place.sound), frame_start=20, add_sound=False)),
    "add_shadow_catcher": Row(lambda _: EFFIGY.add_shadow_catcher(True)),
    "set_up_composite": Row(lambda _: EFFIGY.set_up_composite(True)),
    "take_refined_track": Row(lambda _: EFFIGY.take_refined_track(True)),
    "unpack_avatar": Row(lambda _: EFFIGY.unpack_avatar(True), pack),
    "use_standard_view": Row(lambda _: EFFIGY.use_standard_view(True), lambda _: set_look()),
}


def pull_corner() -> None:
    EFFIGY.add_face_controls()
    bone = rig().handle_bones()["face_lip_corner.L"]
    bone.location.y = 0.01
    bone.keyframe_insert("location", frame=3)


def grade() -> None:
    rig().armature.effigy.exposure = 1.0


def light() -> None:
    build_light(rig(), module("head_light"))


def set_look() -> None:
    bpy.context.scene.view_settings.view_transform = "AgX"


def test_every_operator_is_sorted(effigy):
    files = {path.stem for path in (Path(effigy.__file__).parent / "operators").glob("*.py")} - {"__init__"}
    assert files == set(ROWS) | set(NOTHING_TO_UNDO) | BY_TASK | BY_LIVE
    undone = {name for name in files if "UNDO" in getattr(getattr(bpy.types, f"EFFIGY_OT_{name}"), "bl_options", ())}
    assert undone == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_one_step_brings_back_what_was_there(place, name):
    skip_earlier(name)
    bpy.ops.wm.open_mainfile(filepath=str(place.folder / "shot.blend"))
    row = ROWS[name]
    row.prepare(place)
    bpy.context.view_layer.update()
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    assert row.do(place) == {"FINISHED"}
    assert digest() != before
    bpy.ops.ed.undo()
    assert digest() == before


def skip_earlier(name: str) -> None:
    if name in ("bake_to_disk", "native_splats") and "type" not in bpy.types.PointCloud.bl_rna.properties:
        pytest.skip("Blender draws Gaussians by itself from version 5.3 on")


def steps_of(place: Place, name: str) -> object:
    """The steps of the task that an operator starts, with everything that it can do to a scene."""
    importing, scene = module("importing"), bpy.context.scene
    if name == "bake_to_disk":
        take_cat(place)
        return module("native.disk")._bake(scene, bpy.context.view_layer, rig(), place.folder / "splats.usdc", 1, 2)
    if name in ("import_capture", "import_video"):
        film = place.sound
        return importing._build(scene, "second", place.capture, True, {}, film if name == "import_video" else None)
    if name == "refine_track":
        return module("training")._apply_refined_track(place.capture / "track_refined.npz", rig().armature.name)
    if name == "track_together":
        return module("together")._build(scene, (place.capture,))
    if name == "add_head_light":
        head_light = module("head_light")
        return head_light._build(rig().armature.name, head_light.Light.from_answer(LIGHT), 0.35)
    if name == "make_playable":
        networks = module("avatars").avatar_path(rig().armature)
        return module("playable")._use(networks, place.avatars / "ben.effigy")
    return module("training")._show_avatar(place.avatars / "ben.effigy")


@pytest.mark.parametrize("name", sorted(BY_TASK))
def test_a_task_pushes_one_step_that_brings_back_what_was_there(place, name, monkeypatch):
    skip_earlier(name)
    tasks = module("tasks")
    # Blender as a module counts as running without a window, where nothing is pushed.
    monkeypatch.setattr(tasks, "push_undo", lambda title: bpy.ops.ed.undo_push(message=title))
    bpy.ops.wm.open_mainfile(filepath=str(place.folder / "shot.blend"))
    if name in ("train_avatar", "resume_training"):
        training = module("training")
        monkeypatch.setattr(
            training, "last_training", lambda _: type("Last", (), {"avatar": place.avatars / "ben.effigy"})
        )
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    assert tasks.wait(tasks.start_local(name, lambda: steps_of(place, name))).state == "done"
    assert digest() != before
    bpy.ops.ed.undo()
    assert digest() == before
