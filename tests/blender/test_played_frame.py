"""The engine Effigy renders an avatar with a baked model by itself, to the backend's picture."""

from __future__ import annotations

import os
import subprocess
import sys

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, compare_with_truth, premultiplied, render_png, session, stage


def without_worker(monkeypatch):
    """From here on."""

    def refuse():
        raise AssertionError("the worker was asked")

    monkeypatch.setattr(session(), "client", refuse)


def by_worker(module, monkeypatch, path):
    """The same picture, drawn by the worker."""
    with monkeypatch.context() as patched:
        patched.setattr(module("blender_addon.engine.played_frame"), "is_playable", lambda *_: False)
        return render_png(path)


def compare(found, expected):
    difference = np.abs(np.dstack((premultiplied(found) - premultiplied(expected), (found - expected)[..., 3])))
    assert expected[..., 3].mean() > 0.01
    assert np.quantile(difference, 0.999) <= 2 / 255 and difference.max() < 10 / 255


def test_the_picture_without_a_worker_is_the_backends(engine_avatars, tmp_path, monkeypatch):
    stage(engine_avatars / "cat.effigy")
    without_worker(monkeypatch)
    compare_with_truth(render_png(tmp_path / "cat.png"), engine_avatars / "truth_cat.npz")


def orthographic(rig):
    bpy.context.scene.camera.data.type, bpy.context.scene.camera.data.ortho_scale = "ORTHO", 0.4


def border(rig):
    render = bpy.context.scene.render
    render.use_border = render.use_crop_to_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.2, 0.9, 0.3, 0.8


def shifted(rig):
    bpy.context.scene.camera.data.shift_x, bpy.context.scene.camera.data.shift_y = 0.1, -0.15
    bpy.context.scene.render.resolution_x = 160


def clipped(rig):
    bpy.context.scene.camera.data.clip_end = 0.72


def posed(rig):
    rig.key_blocks["jawOpen"].value = 0.8
    rig.pose_bone("neck").rotation_quaternion = 0.95, 0.0, 0.3, 0.0
    rig.armature.scale = 1.1, 1.1, 1.1


def holdout(rig):
    rig.mesh.is_holdout = True
    other = add_rig(bpy.path.abspath(rig.armature.effigy.avatar))
    other.armature.location = -0.05, 0.12, 0.05


def test_an_image_larger_than_the_gpus_textures_is_drawn_in_tiles(engine_avatars, tmp_path, module, monkeypatch):
    holdout(stage(engine_avatars / "cat.effigy"))
    whole, played = render_png(tmp_path / "whole.png"), module("blender_addon.engine.played_frame")
    sizes, draw_tile = [], played._draw_tile
    monkeypatch.setattr(played, "TILE", 50)
    monkeypatch.setattr(
        played, "_draw_tile", lambda *parts: sizes.append((parts[2].width, parts[2].height)) or draw_tile(*parts)
    )
    tiled = render_png(tmp_path / "tiled.png")
    assert sizes == [(width, height) for height in (50, 50, 28) for width in (50, 50, 28)]
    assert np.abs(tiled - whole).max() <= 2 / 255 and whole[..., 3].any()


@pytest.mark.parametrize("change", [orthographic, border, shifted, clipped, posed, holdout])
def test_the_picture_is_the_workers(engine_avatars, tmp_path, module, monkeypatch, change):
    change(stage(engine_avatars / "cat.effigy"))
    compare(render_png(tmp_path / "played.png"), by_worker(module, monkeypatch, tmp_path / "worker.png"))


def test_avatars_without_a_baked_model_are_the_workers(engine_avatars, tmp_path, module, monkeypatch):
    stage(engine_avatars / "cat.effigy")
    add_rig(engine_avatars / "ann.effigy").armature.location = 0.1, 0, 0
    monkeypatch.setattr(module("blender_addon.engine.played_frame"), "draw", None)
    assert render_png(tmp_path / "both.png")[..., 3].any()


def test_where_a_shader_cannot_be_built_the_worker_draws(engine_avatars, tmp_path, module, monkeypatch):
    stage(engine_avatars / "cat.effigy")
    shared = module("blender_addon.viewport.shared_shaders")
    module("blender_addon.engine.played_frame")._shaders.release()
    monkeypatch.setitem(shared._MAKERS, "splats", None)
    assert render_png(tmp_path / "cat.png")[..., 3].any()
    module("blender_addon.engine.played_frame")._shaders.release()


def test_without_gpu_and_backend_a_sentence_says_so(engine_avatars, tmp_path, module, monkeypatch):
    stage(engine_avatars / "cat.effigy")
    without_worker(monkeypatch)
    played = module("blender_addon.engine.played_frame")
    monkeypatch.setattr(played, "has_gpu", lambda: False)
    monkeypatch.setattr(played, "state", lambda: module("blender_addon.backend_setup").Readiness(False, ""))
    packages = "install libegl1" if sys.platform == "linux" else ""
    with pytest.raises(RuntimeError, match=f"no graphics context here.*{packages}"):
        render_png(tmp_path / "cat.png")


def test_an_enhancer_that_is_left_out_for_want_of_a_backend_is_told(engine_avatars, module, monkeypatch):
    stage(engine_avatars / "cat.effigy")
    unsupported = module("blender_addon.engine.unsupported")
    ready = module("blender_addon.backend_setup").Readiness
    monkeypatch.setattr(unsupported, "has_enhancer", lambda path: path.name == "cat.effigy")
    assert unsupported.unsupported_settings(bpy.context.scene) == []
    monkeypatch.setattr(unsupported, "state", lambda: ready(False, ""))
    (sentence,) = unsupported.unsupported_settings(bpy.context.scene)
    assert "without their enhancer" in sentence
    bpy.context.scene.effigy.enhanced = False
    assert unsupported.unsupported_settings(bpy.context.scene) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, True), ({"__EGL_VENDOR_LIBRARY_FILENAMES": "none"}, False), ({"MESA_GL_VERSION_OVERRIDE": "3.3"}, False)],
)
def test_no_context_is_asked_for_where_no_driver_gives_one(module, environment, expected):
    """Blender would end its process, also where the worker renders."""
    egl = module("blender_addon.engine.egl").__file__
    code = f"import runpy; print(runpy.run_path({egl!r})['gives_context']())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == str(expected)
