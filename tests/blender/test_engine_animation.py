"""Animations with the engine Effigy: each frame as it is posed then, to pictures and to a film, and in a farm."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from engine_scenes import PACKAGE, SIZE, premultiplied, read_by_backend, read_png, set_format, stage

ROOT = Path(__file__).resolve().parents[2]


def smile(made, frames: tuple[int, int]) -> None:
    """The mouth opens and smiles from the first frame to the last."""
    for name, value in (("jawOpen", 0.9), ("mouthSmileLeft", 1.0), ("mouthSmileRight", 1.0)):
        for frame, share in zip(frames, (0, 1)):
            made.key_blocks[name].value = share * value
            made.key_blocks[name].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = frames


def test_consecutive_frames_differ_where_the_keys_move_the_face(engine_avatars, tmp_path):
    smile(stage(engine_avatars / "ann.effigy"), (1, 3))
    set_format("PNG")
    bpy.context.scene.render.filepath = str(tmp_path / "shot_")
    bpy.ops.render.render(animation=True)
    files = sorted(tmp_path.glob("shot_*.png"))
    assert len(files) == 3
    frames = [premultiplied(read_png(file)) for file in files]
    for before, after in itertools.pairwise(frames):
        change = np.abs(after - before).max(-1)
        rows = np.argwhere(change > 0.1)[:, 0]
        assert len(rows) > 20, "the keys move the mouth and the pictures do not show it"
        # The mouth is in the lower half of the image; the crown keeps still.
        assert rows.min() > 0.4 * SIZE and change[: SIZE // 3].max() < 0.06


def test_a_film_moves_with_camera_and_parent(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 3
    scene.render.film_transparent = False
    parent = bpy.data.objects.new("parent", None)
    scene.collection.objects.link(parent)
    made.armature.parent = parent
    for owner, start, end in ((parent, (0, 1), (0.06, 2)), (scene.camera, (scene.camera.location.z, 2), (0.1, 3))):
        for height, frame in (start, end):
            owner.location.z = height
            owner.keyframe_insert("location", frame=frame)
    set_format("MP4")
    scene.render.filepath = str(tmp_path / "film.mp4")
    bpy.ops.render.render(animation=True)
    frames = read_by_backend(tmp_path / "film.mp4")["frames"].astype(float)
    assert frames.shape == (3, SIZE, SIZE, 3)
    light = [frame.sum(-1) / frame.sum() for frame in frames]
    heights = [float((image.sum(1) * np.arange(SIZE)).sum()) for image in light]
    assert heights[0] - heights[1] > 3 and heights[2] - heights[1] > 3


def test_blender_without_a_window_renders_a_saved_file_and_ends(engine_avatars, tmp_path):
    """As `blender -b file.blend -a` does it, and with the engine registered until the process ends."""
    smile(stage(engine_avatars / "ann.effigy"), (4, 5))
    set_format("PNG")
    bpy.context.scene.render.filepath = "//farm_"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    script = (
        f"import bpy, addon_utils; addon_utils.enable({PACKAGE!r}, default_set=True); "
        f"bpy.ops.wm.open_mainfile(filepath={str(tmp_path / 'shot.blend')!r}); "
        "bpy.ops.render.render(animation=True)"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=os.environ, cwd=ROOT, timeout=120)
    assert ended.returncode == 0
    frames = [read_png(tmp_path / f"farm_{number:04d}.png") for number in (4, 5)]
    assert (frames[0][..., 3] > 0.99).sum() > 1000
    assert np.abs(frames[1] - frames[0]).max() > 0.1


def test_a_frame_that_may_not_fit_on_the_disk_is_not_begun(engine_avatars, tmp_path, monkeypatch, module):
    """Blender would leave a damaged file, which a render without Overwrite takes for a finished frame."""
    smile(stage(engine_avatars / "ann.effigy"), (1, 3))
    set_format("PNG")
    bpy.context.scene.render.filepath = str(tmp_path / "new" / "shot_")
    room, asked = [10**9, 1000], []

    def disk_usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=room.pop(0))

    monkeypatch.setattr(module("blender_addon.engine.output_room").shutil, "disk_usage", disk_usage)
    with pytest.raises(RuntimeError, match="is full: frame 2 may take 0.3 MB.*render again from this frame"):
        bpy.ops.render.render(animation=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shot_0001.png"]
    assert asked == [tmp_path, tmp_path / "new"]
    monkeypatch.undo()
    room[:] = []
    bpy.ops.render.render()
