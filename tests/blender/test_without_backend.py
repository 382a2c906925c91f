"""A .blend with a packed avatar is shown, played and rendered on a machine that has the extension only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bpy
from conftest import SCRATCH
from engine_scenes import compare_with_truth, premultiplied, read_png, render_png, stage


def test_avatars_are_posed_played_rendered_and_added_by_the_extension_alone(engine_avatars, tmp_path):
    rig = stage(engine_avatars / "cat.effigy")
    for frame, value in ((1, 0.0), (24, 0.9)):
        rig.key_blocks["jawOpen"].value = value
        rig.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.ops.effigy.pack_avatar()
    bpy.context.scene.frame_set(24)
    expected = render_png(tmp_path / "here.png")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    (tmp_path / "user").mkdir()
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    del environment["EFFIGY_BACKEND_PYTHON"]
    script = Path(__file__).with_name("without_backend.py")
    other = shutil.copyfile(engine_avatars / "cat.effigy", tmp_path / "other.effigy")
    arguments = (next(SCRATCH.glob("*.zip")), tmp_path / "shot.blend", tmp_path / "there.png", other)
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stdout + done.stderr
    found = json.loads(lines[0].removeprefix("FOUND "))
    assert not found["backend"] and found["source"] == "PLAYER" and found["fresh_share"] == 1.0
    assert found["motion"] > 0.01
    assert found["added"].endswith("other.effigy") and found["added_source"] == "PLAYER"
    there = read_png(tmp_path / "there.png")
    assert abs(premultiplied(there) - premultiplied(expected)).max() < 2 / 255 and there[..., 3].mean() > 0.05
    assert found["new_rig"] == {"source": "PLAYER", "fresh": True}
    compare_with_truth(read_png(tmp_path / "new_rig.png"), engine_avatars / "truth_cat.npz")
    first, *_, last = (read_png(tmp_path / f"keyed_{frame:04d}.png") for frame in (1, 2, 3))
    compare_with_truth(first, engine_avatars / "truth_cat.npz")
    assert abs(premultiplied(last) - premultiplied(first)).max() > 0.1
