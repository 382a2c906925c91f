"""Lip sync with the operator and a real worker: strips of mouth and jaw, made again without touching other keys."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest
from rig_scenes import rigging
from speech_files import write_speech

RATE = 24
OPEN, SHUT = 0.75, 1.1
"""Seconds at which the mouth is wide open, and at which the lips meet."""


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = RATE, 1
    return module("blender_addon.active").need_rig(bpy.context)


@pytest.fixture
def line(rig, tmp_path: Path) -> Path:
    return write_speech(tmp_path / "line 3.wav")


def strip_of(target, name: str):
    return next(s for track in target.animation_data.nla_tracks for s in track.strips if s.name == name)


def face_at(rig, seconds: float, start: int = 101) -> tuple[dict[str, float], float]:
    """The sliders' values, and the jaw's angle in radians."""
    bpy.context.scene.frame_set(start + round(seconds * RATE))
    depsgraph = bpy.context.evaluated_depsgraph_get()
    keys = rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
    jaw = rig.armature.evaluated_get(depsgraph).pose.bones[rig.pose_bone("jaw").name]
    return {name: keys[name].value for name in rig.expression_names}, jaw.rotation_quaternion.angle


def paths(action) -> set[str]:
    return {curve.data_path for curve in rigging().action.curves_of(action)}


def points(action) -> list[list[float]]:
    return [
        [value for point in curve.keyframe_points for value in point.co] for curve in rigging().action.curves_of(action)
    ]


def test_a_sound_opens_and_closes_the_mouth_in_strips_that_leave_the_rest_of_the_face_alone(rig, line):
    before = [face_at(rig, seconds)[0] for seconds in (OPEN, SHUT)]
    assert bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=101) == {"FINISHED"}
    lips, jaw = strip_of(rig.mesh.data.shape_keys, "line 3"), strip_of(rig.armature, "line 3")
    assert (lips.frame_start, jaw.frame_start, lips.extrapolation) == (101, 101, "NOTHING")
    assert lips.frame_end == pytest.approx(101 + 2 * RATE, abs=1)
    assert all("mouth" in path or "jaw" in path or "tongue" in path for path in paths(lips.action))
    assert len(paths(lips.action)) > 20
    assert paths(jaw.action) == {f'pose.bones["{rig.pose_bone("jaw").name}"].rotation_quaternion'}
    (wide, opened), (shut, closed) = face_at(rig, OPEN), face_at(rig, SHUT)
    assert opened > np.radians(6) and closed < np.radians(1.5)
    assert shut["mouthPressLeft"] > wide["mouthPressLeft"] + 0.2
    for now, earlier in zip((wide, shut), before, strict=True):
        assert all(
            now[name] == pytest.approx(earlier[name], abs=1e-6) for name in now if name.startswith(("brow", "eye"))
        )


def test_made_again_it_gets_new_keys_where_its_strips_are_and_keys_set_by_hand_stay(rig, line):
    tracked = rigging().performance.tracked_strip(rig).action
    bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=101)
    rig.key_blocks["browInnerUp"].keyframe_insert("value", frame=120)
    rig.key_blocks["mouthSmileLeft"].keyframe_insert("value", frame=120)
    key = rig.mesh.data.shape_keys
    by_hand, keys, of_track = key.animation_data.action, points(key.animation_data.action), points(tracked)
    strip = strip_of(key, "line 3")
    strip.frame_start_ui, first, counted = 150, points(strip.action), len(bpy.data.actions)
    opened = face_at(rig, OPEN)[1]
    bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=101, intensity=0.5)
    assert len(bpy.data.actions) == counted and len(key.animation_data.nla_tracks) == 3
    assert strip_of(key, "line 3").frame_start == 150
    assert points(strip_of(key, "line 3").action) != first
    assert key.animation_data.action == by_hand and points(by_hand) == keys and points(tracked) == of_track
    assert np.radians(2) < face_at(rig, OPEN)[1] < 0.75 * opened


def test_a_sentence_that_is_longer_than_the_scene_says_so(rig, line, module):
    tasks, scene = module("blender_addon.tasks"), bpy.context.scene
    scene.frame_end = 120
    bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=101)
    assert "ends at frame 120, before it: raise its End to 1" in tasks.all_tasks()[-1].message
    assert scene.frame_end == 120
    bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=101)
    assert "raise its End" not in tasks.all_tasks()[-1].message


def test_the_sequencer_gets_the_sound_once_and_gives_it_to_the_operator(rig, line, module):
    if "aud" not in sys.modules:
        pytest.skip("this Blender has no sound")
    lip_sync = module("blender_addon.lip_sync")
    for _ in range(2):
        bpy.ops.effigy.lip_sync(filepath=str(line), frame_start=31)
    (strip,) = lip_sync.strips_in(bpy.context.scene)
    assert lip_sync.file_of(strip) == line and lip_sync.start_of(strip) == 31


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("none.wav", {}, "no sound at"),
        ("table.wav", {}, "is not a sound"),
        ("line 3.wav", {"text": "three blind mice and many more words that nobody says in this line"}, "does not fit"),
        ("line 3.wav", {"phones": "missing.tsv"}, "no phone table at"),
    ],
)
def test_what_cannot_be_spoken_is_reported_with_a_sentence(rig, line, name, settings, message):
    (line.parent / "table.wav").write_text("a,b\n1,2\n")
    if "phones" in settings:
        settings = {"phones": str(line.parent / settings["phones"])}
    with pytest.raises(RuntimeError, match=message):
        bpy.ops.effigy.lip_sync(filepath=str(line.parent / name), **settings)
    assert not rigging().speech.has_speech(rig, line.stem)


def test_a_setting_has_one_range_wherever_a_performance_has_it():
    live = bpy.context.window_manager.effigy_live.bl_rna.properties
    transfer = bpy.ops.effigy.retarget_performance.get_rna_type().properties
    speech = bpy.ops.effigy.lip_sync.get_rna_type().properties
    for name, places in (
        ("intensity", (live, transfer, speech)),
        ("motion", (live, transfer)),
        ("smoothing", (transfer, speech)),
    ):
        ranges = {(each[name].name, each[name].hard_min, each[name].hard_max, each[name].default) for each in places}
        assert len(ranges) == 1 and ranges.pop()[2] > 1, name


def test_curves_of_audio2face_are_strips_of_mouth_and_jaw_that_are_made_anew_beside_keys_set_by_hand(
    rig, tmp_path: Path
):
    names = ["jawOpen", "browInnerUp", *(name for name in rig.expression_names if name.startswith(("mouth", "eye")))]
    opened = [[0.6 if 15 <= frame < 30 else 0.0, 0.9, *[0.0] * (len(names) - 2)] for frame in range(61)]
    path = tmp_path / "line 3.json"
    path.write_text(json.dumps({"exportFps": 30, "facsNames": names, "weightMat": opened}))
    before = face_at(rig, OPEN)[0]
    assert bpy.ops.effigy.lip_sync(filepath=str(path), frame_start=101) == {"FINISHED"}
    key = rig.mesh.data.shape_keys
    lips, (wide, angle), closed = strip_of(key, "line 3"), face_at(rig, OPEN), face_at(rig, 1.5)[1]
    assert all("mouth" in name or "jaw" in name or "tongue" in name for name in paths(lips.action))
    assert angle > np.radians(6) and closed < np.radians(1.5)
    assert wide["browInnerUp"] == pytest.approx(before["browInnerUp"], abs=1e-6)
    rig.key_blocks["mouthSmileLeft"].keyframe_insert("value", frame=120)
    by_hand = points(key.animation_data.action)
    bpy.ops.effigy.lip_sync(filepath=str(path), frame_start=101, intensity=0.5, smoothing=0.05)
    assert points(key.animation_data.action) == by_hand
    assert np.radians(2) < face_at(rig, OPEN)[1] < 0.75 * angle


def test_strips_of_audio2face_are_called_by_the_folder_where_every_file_has_one_name(module):
    lip_sync = module("blender_addon.lip_sync")
    assert lip_sync.title_of(Path("/takes/20260102_101112/animation_frames.csv")) == "20260102_101112"
    assert lip_sync.title_of(Path("/takes/line 3.json")) == lip_sync.title_of(Path("/takes/line 3.wav")) == "line 3"
    assert lip_sync.has_curves(Path("a.CSV")) and not lip_sync.has_curves(Path("a.wav"))
