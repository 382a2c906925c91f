"""The bundled clip is what its derivation renders with Cycles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FRAME, SIZE = 100, 128
ARRAYS = """
import sys
import av, cv2, numpy as np
from assets.derive.clip_scene import scene_arrays
from backend.assets import asset_path
from backend.formats.track import load_track
from backend.head.formats import load_head

folder, frame, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
arrays = scene_arrays(load_track(asset_path("demo_truth.npz"), load_head()))
arrays["focal"] = arrays["focal"] * size / arrays["size"]
arrays["size"] = np.array(size)
np.savez(folder + "/scene.npz", **arrays)
with av.open(str(asset_path("demo.mp4"))) as film:
    images = [image.to_ndarray(format="bgr24") for _, image in zip(range(frame + 1), film.decode(video=0))]
cv2.imwrite(folder + "/clip.png", cv2.resize(images[-1], (size, size), interpolation=cv2.INTER_AREA))
"""


def pixels(path: Path) -> np.ndarray:
    """(SIZE, SIZE, 3) as stored, the top row first, in 255ths."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    values = np.empty(SIZE * SIZE * 4, np.float32)
    image.pixels.foreach_get(values)
    return 255 * values.reshape(SIZE, SIZE, 4)[::-1, :, :3]


@pytest.mark.skipif(bpy.app.version[:2] < (5, 0), reason="the clip is derived with Blender 5")
def test_a_frame_of_the_clip_is_rendered_again(tmp_path):
    backend = os.environ["EFFIGY_BACKEND_PYTHON"]
    for command in (
        [backend, "-c", ARRAYS, str(tmp_path), str(FRAME), str(SIZE)],
        [
            sys.executable,
            "-m",
            "assets.derive.cycles.render",
            str(tmp_path / "scene.npz"),
            str(tmp_path),
            str(FRAME),
            "--bare",
        ],
    ):
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    drawn, clip = pixels(tmp_path / f"{FRAME:04d}.png"), pixels(tmp_path / "clip.png")
    face = np.s_[SIZE * 3 // 8 : SIZE * 5 // 8, SIZE * 3 // 8 : SIZE * 5 // 8]
    assert np.sqrt(np.mean((drawn[face] - clip[face]) ** 2)) < 12
    assert np.sqrt(np.mean((drawn[face] - np.roll(clip, 3, 1)[face]) ** 2)) > 15, "the comparison sees a shift"
