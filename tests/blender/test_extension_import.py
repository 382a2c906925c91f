"""Importing a video with the operator and a real worker: the rig, its camera and its performance."""

from __future__ import annotations

import shutil
import sys
import time
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest

FIRST, LAST = 10, 21
"""The frames of the clip in `demo_capture`."""


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    return module("blender_addon.active").need_rig(bpy.context)


def test_the_chosen_frames_are_imported_and_no_others(demo_capture, module):
    assert len(list((demo_capture / "frames").glob("*.jpg"))) == LAST - FIRST + 1
    capture = module("blender_addon.worker.session").client().call("capture.read", {"path": str(demo_capture)})
    assert list(capture["frame_numbers"]) == list(range(FIRST - 1, LAST))


def test_an_import_gives_a_rig_a_camera_and_the_scene_its_rate_and_range(rig, demo_capture):
    scene = bpy.context.scene
    assert scene.camera is not None and scene.camera.data.background_images[0].image is not None
    assert (scene.frame_start, scene.frame_end) == (1, LAST - FIRST + 1)
    assert scene.render.resolution_x == scene.render.resolution_y == 256
    assert bpy.context.object == rig.armature and rig.armature.effigy.capture == str(demo_capture)


def test_the_performance_moves_the_face(rig):
    scene, key = bpy.context.scene, rig.mesh.data.shape_keys

    def values():
        depsgraph = bpy.context.evaluated_depsgraph_get()
        return [block.value for block in key.evaluated_get(depsgraph).key_blocks]

    seen = []
    for frame in (1, LAST - FIRST + 1):
        scene.frame_set(frame)
        seen.append(values())
    assert seen[0] != seen[1]


def test_a_prepared_shot_keeps_its_settings_and_the_film_its_speed(demo_capture, module):
    """1001 to 1240 at 24 frames a second with a camera of its own; the film has 25 frames a second."""
    scene = bpy.context.scene
    hero = bpy.data.objects.new("hero", bpy.data.cameras.new("hero"))
    scene.collection.objects.link(hero)
    scene.camera, scene.frame_start, scene.frame_end = hero, 1001, 1240
    module_of = module("blender_addon.scene_set_up")
    before = module_of._settings(scene)
    assert not module_of.is_untouched(scene)
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    assert module_of._settings(scene) == before and scene.camera == hero
    made = module("blender_addon.active").need_rig(bpy.context)
    strip = made.armature.animation_data.nla_tracks[0].strips[0]
    assert strip.frame_start == 1001
    assert strip.frame_end - strip.frame_start == pytest.approx((LAST - FIRST) * 24 / 25, abs=1e-3)
    # Asked for, it is done.
    bpy.ops.effigy.import_capture(directory=str(demo_capture), set_up=True)
    assert (scene.render.fps, scene.frame_start, scene.frame_end) == (25, 1, LAST - FIRST + 1) and scene.camera != hero


@pytest.mark.skipif("aud" not in sys.modules, reason="Blender 4.2 as a module is built without sound")
@pytest.mark.parametrize(("fps", "base"), [(25, 1.0), (30, 1.001)])
@pytest.mark.parametrize("sound_start", [0.0, 0.58, -0.035])
def test_the_sound_of_a_film_is_heard_in_step_with_its_images(module, tmp_path, fps, base, sound_start):
    """A second of tone after a second of silence; frames from the film's eighth on are imported at frame 1."""
    film = tmp_path / "film.wav"
    with wave.open(str(film), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = (8000 * np.sin(np.arange(8000) / 3)).astype(np.int16)
        file.writeframes(np.concatenate((np.zeros(8000, np.int16), tone)).tobytes())
    scene, sound, film_time = bpy.context.scene, module("blender_addon.film_sound"), 7 * base / fps
    scene.render.fps, scene.render.fps_base, scene.frame_start, scene.frame_end = fps, base, 1, 90
    assert sound.add_sound(scene, film, 1, film_time, sound_start)
    editor = scene.sequence_editor
    (strip,) = editor.strips if hasattr(editor, "strips") else editor.sequences
    assert scene.sync_mode == "AUDIO_SYNC"
    # Nothing is heard before the performance, and the strip has no gap at its beginning.
    assert first_frame(strip) == max(1, round(1 + (sound_start - film_time) * fps / base))
    bpy.ops.sound.mixdown(filepath=str(tmp_path / "heard.wav"), container="WAV", codec="PCM", format="S16")
    with wave.open(str(tmp_path / "heard.wav")) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()].astype(int)
        begins = np.flatnonzero(np.abs(heard) > 1000)[0] / file.getframerate()
    assert begins == pytest.approx(1 + sound_start - film_time, abs=2e-3)


def first_frame(strip) -> int:
    """Blender 5.3 has another name for it, and warns of the old one."""
    return strip.left_handle if hasattr(strip, "left_handle") else strip.frame_final_start


def test_a_film_without_sound_adds_no_strip(module, tmp_path):
    (tmp_path / "mute.mp4").write_bytes(b"no film")
    assert not module("blender_addon.film_sound").add_sound(bpy.context.scene, tmp_path / "mute.mp4", 1, 0.0)


def test_importing_a_second_person_does_not_change_the_scenes_settings(rig, demo_capture):
    scene = bpy.context.scene
    scene.render.resolution_x, scene.frame_end, camera = 1920, 250, scene.camera
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    assert len([obj for obj in scene.objects if obj.type == "ARMATURE"]) == 2
    assert (scene.render.resolution_x, scene.frame_end, scene.camera) == (1920, 250, camera)


def test_a_saved_file_keeps_its_paths_relative_and_they_follow_it_elsewhere(rig, demo_capture, tmp_path):
    blend = demo_capture.parent / "shot.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    name = rig.armature.name
    assert bpy.data.objects[name].effigy.capture == "//demo.capture"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere.blend"))
    stored = bpy.data.objects[name].effigy.capture
    assert stored.startswith("//") and Path(bpy.path.abspath(stored)).resolve() == demo_capture.resolve()
    bpy.ops.wm.save_as_mainfile(filepath=str(demo_capture.parent / "copy.blend"), copy=True)
    assert Path(bpy.path.abspath(bpy.data.objects[name].effigy.capture)).resolve() == demo_capture.resolve()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere.blend"))
    assert Path(bpy.path.abspath(bpy.data.objects[name].effigy.capture)).resolve() == demo_capture.resolve()


def test_a_capture_without_a_track_is_tracked_first(demo_capture, tmp_path, module):
    untracked = tmp_path / "again.capture"
    shutil.copytree(demo_capture, untracked)
    (untracked / "track.npz").unlink()
    bpy.ops.effigy.import_capture(directory=str(untracked))
    assert (untracked / "track.npz").is_file() and module("blender_addon.active").has_rig(bpy.context)


def test_a_photograph_gives_a_rig_in_its_pose(demo_capture, tmp_path, module):
    shutil.copy(next((demo_capture / "frames").iterdir()), tmp_path / "photo.jpg")
    bpy.ops.effigy.import_video(
        filepath=str(tmp_path / "photo.jpg"), size=192, capture=str(tmp_path / "photo.capture"), wait=True
    )
    module("blender_addon.active").need_rig(bpy.context)
    scene = bpy.context.scene
    assert (scene.frame_start, scene.frame_end) == (1, 1)
    assert scene.camera.data.background_images[0].image is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing.mp4", "There is no video"),
        (
            lambda folder: _write(folder / "notes.mp4", b"this is no film"),
            "cannot be read|could not be read|not a video|no video",
        ),
    ],
)
def test_a_file_that_is_no_video_is_reported_with_a_sentence(make, message, tmp_path):
    with pytest.raises(RuntimeError, match=message):
        bpy.ops.effigy.import_video(filepath=str(make(tmp_path)))
    assert not list(tmp_path.glob("*.capture")) and len(bpy.data.objects) == 0


def test_a_film_with_a_name_of_80_japanese_characters_is_imported(demo_clip, tmp_path, module):
    film = tmp_path / ("長い名前の映像" * 11 + "長い名.mp4")
    shutil.copyfile(demo_clip, film)
    bpy.ops.effigy.import_video(filepath=str(film), last=4, size=128, landmarks_only=True, wait=True)
    rig = module("blender_addon.active").need_rig(bpy.context)
    # Names of datablocks keep their ends, and the capture has room for the avatar's checkpoint beside it.
    assert rig.armature.name.endswith(" rig") and rig.armature.name.startswith("長い名前の映像長い名前の映像")
    assert bpy.context.scene.camera.name.endswith(" camera")
    (capture,) = tmp_path.glob("*.capture")
    assert capture.name == "長い名前の映像" * 8 + "長.capture"
    assert Path(rig.armature.effigy.capture).name == capture.name


def test_footage_without_a_face_is_reported_with_a_sentence(tmp_path):
    clip = tmp_path / "empty.mp4"
    _film_nothing(clip)
    with pytest.raises(RuntimeError, match="face"):
        bpy.ops.effigy.import_video(filepath=str(clip))
    assert not list(tmp_path.glob("*.capture")) and len(bpy.data.objects) == 0


@pytest.mark.parametrize(("options", "landmarks_only"), [({}, False), ({"landmarks_only": True}, True)])
def test_the_option_landmarks_only_reaches_the_worker(
    options, landmarks_only, demo_clip, tmp_path, module, monkeypatch
):
    importing, calls = module("blender_addon.importing"), []

    def start(*arguments):
        calls.append(arguments)
        raise module("blender_addon.errors").EffigyError("Started.")

    monkeypatch.setattr(importing, "_start", start)
    with pytest.raises(RuntimeError, match="Started"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), capture=str(tmp_path / "x.capture"), **options)
    ((*_, kind, request, _),) = calls
    assert kind == "import" and request.params()["landmarks_only"] is landmarks_only


def test_a_range_that_ends_before_it_starts_is_refused(demo_clip):
    with pytest.raises(RuntimeError, match="lies before the first"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), first=20, last=10)


def test_a_folder_that_is_no_capture_is_refused(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"is not a capture \(it holds no capture.json\)|is not a capture, or it is damaged"
    ):
        bpy.ops.effigy.import_capture(directory=str(tmp_path))


def test_a_project_folder_that_cannot_be_written_is_reported(demo_clip, tmp_path):
    # A file in the place of a folder refuses even root, as a read-only folder does others.
    (tmp_path / "project").write_text("")
    with pytest.raises(RuntimeError, match="cannot be written"):
        bpy.ops.effigy.import_video(filepath=str(demo_clip), last=3, capture=str(tmp_path / "project" / "x.capture"))


def test_two_imports_of_one_video_at_once_go_into_two_captures(demo_clip, tmp_path, module):
    tasks, importing = module("blender_addon.tasks"), module("blender_addon.importing")
    video = tmp_path / "anna.mp4"
    shutil.copyfile(demo_clip, video)
    both = [importing.import_video(bpy.context.scene, video, last=4, size=128, landmarks_only=True) for _ in range(2)]
    assert len({task.params["capture"] for task in both}) == 2
    assert list(tasks.running()) == both
    for task in both:
        assert tasks.wait(task, 120).state == "done", task.message
    assert len([obj for obj in bpy.data.objects if obj.type == "ARMATURE"]) == 2


def test_an_import_can_be_stopped_and_leaves_nothing_incomplete(demo_clip, tmp_path, module):
    tasks, importing = module("blender_addon.tasks"), module("blender_addon.importing")
    task = importing.import_video(bpy.context.scene, demo_clip, capture=tmp_path / "x.capture")
    until_running(module, task)
    index = tasks.all_tasks().index(task)
    assert bpy.ops.effigy.cancel_job(index=index) == {"FINISHED"}
    assert tasks.wait(task, 60).state == "cancelled"
    assert not list(tmp_path.iterdir()) and len(bpy.data.objects) == 0
    with pytest.raises(RuntimeError):
        bpy.ops.effigy.cancel_job(index=index)


@pytest.mark.parametrize("progress", [0.2, 0.98])
def test_a_rig_whose_building_is_stopped_leaves_no_datablock(demo_capture, module, progress):
    kinds = ("actions", "armatures", "cameras", "collections", "images", "materials", "meshes", "objects")
    tasks = module("blender_addon.tasks")
    before = {kind: len(getattr(bpy.data, kind)) for kind in kinds}
    task = module("blender_addon.importing").import_capture(bpy.context.scene, demo_capture)
    until = time.monotonic() + 60
    while task.progress < progress and not task.finished and time.monotonic() < until:
        module("blender_addon.worker.session").client().pump()
        task.advance(0.0001)
    assert not task.finished, task.message
    built = {kind: len(getattr(bpy.data, kind)) for kind in kinds}
    assert built["objects"] > before["objects"]
    task.cancel()
    left = {kind: len(getattr(bpy.data, kind)) - before[kind] for kind in kinds}
    # The material of the skin is the file's: the next rig uses it.
    assert {kind for kind, count in left.items() if count} <= {"materials"} and task in tasks.all_tasks()


def test_a_killed_worker_is_reported_and_the_next_import_works(demo_clip, tmp_path, module):
    tasks, importing, session = (module(f"blender_addon.{name}") for name in ("tasks", "importing", "worker.session"))
    task = importing.import_video(bpy.context.scene, demo_clip, capture=tmp_path / "x.capture")
    until_running(module, task)
    session.client().restart()
    assert tasks.wait(task, 30).state == "failed" and "worker" in task.message
    again = importing.import_video(
        bpy.context.scene, demo_clip, last=3, size=128, landmarks_only=True, capture=tmp_path / "y.capture"
    )
    assert tasks.wait(again, 120).state == "done", again.message


def test_loading_another_file_meanwhile_builds_nothing_in_it_and_says_where_the_result_is(demo_clip, tmp_path, module):
    tasks, importing = module("blender_addon.tasks"), module("blender_addon.importing")
    task = importing.import_video(
        bpy.context.scene, demo_clip, last=3, size=128, landmarks_only=True, capture=tmp_path / "x.capture"
    )
    bpy.ops.wm.read_homefile(use_empty=True)
    assert tasks.wait(task, 120).state == "done"
    assert len(bpy.data.objects) == 0 and str(tmp_path / "x.capture") in task.message
    bpy.ops.effigy.import_capture(directory=str(tmp_path / "x.capture"))
    assert len(bpy.data.objects) == 3


def until_running(module, task) -> None:
    session = module("blender_addon.worker.session")
    until = time.monotonic() + 60
    while not task.job.done and time.monotonic() < until:
        session.client().pump()
        time.sleep(0.02)
    assert task.job.done and task.fraction > 0 and task.stage


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _film_nothing(path: Path) -> None:
    """A second of plain grey, by Blender's own encoder."""
    scene = bpy.context.scene
    render = scene.render
    render.engine, render.resolution_x, render.resolution_y = "BLENDER_WORKBENCH", 160, 120
    scene.frame_end = 12
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    if hasattr(render.image_settings, "media_type"):
        render.image_settings.media_type = "VIDEO"
    render.image_settings.file_format = "FFMPEG"
    render.ffmpeg.format, render.filepath = "MPEG4", str(path)
    bpy.ops.render.render(animation=True)
    bpy.ops.wm.read_homefile(use_empty=True)
    assert path.is_file()
