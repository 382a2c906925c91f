"""Another person's performance on a rig, with the operator and a real worker: strips beside the tracked ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import bpy
import numpy as np
import pytest
from rig_scenes import rigging

ROWS, RATE = 90, 30


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    return module("blender_addon.active").need_rig(bpy.context)


@pytest.fixture
def take(rig, tmp_path: Path) -> Path:
    """A Live Link Face table: a smile in the middle of three seconds."""
    lines = [
        ",".join(
            ("Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in rig.expression_names), "HeadYaw")
        )
    ]
    for row in range(ROWS):
        values = [0.7 if name == "mouthSmileLeft" and 40 <= row < 60 else 0.0 for name in rig.expression_names]
        values[rig.expression_names.index("cheekPuff")] = 0.01
        yaw = 0.2 * np.sin(row / 10)
        lines.append(",".join((f"10:00:{row // RATE:02d}:{row % RATE:02d}.000", "61", *map(str, values), str(yaw))))
    path = tmp_path / "take 7.csv"
    path.write_text("\n".join(lines))
    return path


def strips(target) -> list[tuple[str, float, str]]:
    return [
        (strip.name, strip.frame_start, strip.extrapolation)
        for track in target.animation_data.nla_tracks
        for strip in track.strips
    ]


def smile_at(rig, frame: int) -> float:
    bpy.context.scene.frame_set(frame)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    return rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks["mouthSmileLeft"].value


def test_a_phones_recording_plays_in_a_strip_above_the_tracked_one_and_only_while_it_lasts(rig, take):
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = RATE, 1
    tracked = smile_at(rig, 5)
    bpy.ops.effigy.retarget_performance(filepath=str(take), frame_start=101)
    key = rig.mesh.data.shape_keys
    performance = rigging().performance
    assert [name for name, *_ in strips(key)] == [performance.NEUTRAL, performance.TRACKED, "take 7"]
    assert strips(rig.armature)[-1] == ("take 7", 101, "NOTHING")
    assert performance.has_performance(rig) and key.animation_data.action_blend_type == "ADD"
    assert smile_at(rig, 151) - smile_at(rig, 111) == pytest.approx(0.7, abs=0.02)
    assert smile_at(rig, 5) == pytest.approx(tracked, abs=1e-6)


def test_it_keeps_its_time_at_the_scenes_frame_rate_and_its_intensity(rig, take):
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 24, 1
    bpy.ops.effigy.retarget_performance(filepath=str(take), frame_start=1, intensity=0.5, motion=0)
    strip = rig.mesh.data.shape_keys.animation_data.nla_tracks[-1].strips[0]
    assert strip.frame_end - strip.frame_start == pytest.approx((ROWS - 1) * 24 / RATE, abs=1)
    assert smile_at(rig, 41) - smile_at(rig, 11) == pytest.approx(0.35, abs=0.02)


def test_a_capture_is_a_performance_too_also_by_a_file_in_its_folder(rig, demo_capture):
    for number, chosen in enumerate((demo_capture, demo_capture / "capture.json")):
        bpy.ops.effigy.retarget_performance(filepath=str(chosen), frame_start=1)
        assert len(strips(rig.armature)) == 2 + number
    assert strips(rig.armature)[-1][0].startswith("demo")


def test_a_rig_of_an_avatar_alone_takes_a_performance_and_holds_its_ends(demo_avatar, take, module):
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.effigy.add_avatar(filepath=str(demo_avatar))
    bpy.ops.effigy.retarget_performance(filepath=str(take))
    made = module("blender_addon.active").need_rig(bpy.context)
    assert strips(made.armature) == [("take 7", 1, "HOLD")]
    assert smile_at(made, 1 + round(50 * 24 / RATE)) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "no performance at"),
        ("table.csv", "a,b\n1,2\n1,2\n", "52 channels"),
        ("film.mp4", "x", r"is not a performance \(its name ends in .mp4\)"),
    ],
)
def test_a_file_that_is_no_performance_is_reported_with_a_sentence(rig, tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RuntimeError, match=message):
        bpy.ops.effigy.retarget_performance(filepath=str(tmp_path / name))
    assert len(strips(rig.armature)) == 1


def test_tracks_that_an_earlier_blender_left_behind_are_removed_and_those_of_others_are_not(module, tmp_path):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    for path, age in ((old, 90_000), (new, 3600)):
        path.write_bytes(b"track")
        os.utime(path, (time.time() - age,) * 2)
    module("blender_addon.transferring").remove_forgotten(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
