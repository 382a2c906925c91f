"""What Cycles renders of native splats: frames, motion blur, shadows and holdouts."""

from __future__ import annotations

import itertools
import subprocess
import sys

import bpy
import numpy as np
import pytest
from engine_scenes import PACKAGE, read_png, set_format
from native_scenes import cloud_of, difference, needs_5_3, nod, render, stage_cat, values_of


@pytest.fixture
def cat(engine_avatars, effigy):
    return stage_cat(engine_avatars)


@pytest.fixture
def cloud(cat):
    bpy.ops.effigy.native_splats()
    return cloud_of(cat)


@needs_5_3
@pytest.mark.parametrize(("in_thread", "persistent"), [(False, True), (True, False), (True, True)])
def test_a_still_and_an_animation_show_their_frames(cloud, cat, tmp_path, module, monkeypatch, in_thread, persistent):
    nod(cat)
    if in_thread:
        # As where the window reads the file's data while a thread renders.
        update = module("blender_addon.native.update")
        monkeypatch.setattr(update, "_may_write_file", lambda: not update.state.rendering)
    stills = []
    for frame in (2, 4):
        bpy.context.scene.frame_set(frame)
        stills.append(render(tmp_path / "still.png"))
    bpy.context.scene.frame_set(1)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end, bpy.context.scene.frame_step = 2, 4, 2
    bpy.context.scene.render.use_persistent_data = persistent
    bpy.context.scene.render.filepath = str(tmp_path / "film_")
    bpy.ops.render.render(animation=True)
    films = [read_png(tmp_path / f"film_{frame:04d}.png") for frame in (2, 4)]
    assert stills[0][..., 3].mean() > 0.1 and difference(*stills) > 0.02
    for still, film in zip(stills, films):
        assert difference(still, film) < 0.005


@needs_5_3
@pytest.mark.parametrize("engine", ["CYCLES", "BLENDER_EEVEE"])
def test_an_animation_in_the_background_shows_what_f12_shows(cloud, cat, tmp_path, engine):
    """As by `blender -b shot.blend -a`, in a process of its own; the noise is that of the scene's seed."""
    nod(cat, (1, 4))
    bpy.context.scene.render.engine, bpy.context.scene.eevee.taa_render_samples = engine, 8
    set_format("PNG")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    script = (
        f"import bpy; bpy.ops.preferences.addon_enable(module={PACKAGE!r}); "
        "bpy.ops.wm.open_mainfile(filepath='shot.blend'); bpy.context.scene.render.filepath = '//film_'; "
        f"bpy.ops.render.render(animation=True); bpy.ops.preferences.addon_disable(module={PACKAGE!r})"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=600)
    films = [read_png(tmp_path / f"film_{frame:04d}.png") for frame in (1, 2, 3, 4)]
    for frame in (2, 4):
        bpy.context.scene.frame_set(frame)
        still = render(tmp_path / "still.png")
        assert still[..., 3].mean() > 0.1 and np.abs(films[frame - 1] - still).mean() < 0.002
    assert all(difference(*pair) > 0.01 for pair in itertools.pairwise(films))


@needs_5_3
def test_motion_within_the_exposure_is_blurred(cloud, cat, tmp_path):
    for frame, x in ((1, -0.2), (3, 0.2)):
        cat.armature.location.x = x
        cat.armature.keyframe_insert("location", frame=frame)
        cat.key_blocks["jawOpen"].value = frame / 3
        cat.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_set(2)
    sharp = render(tmp_path / "sharp.png")[..., 3]
    blurred = render(tmp_path / "blurred.png", use_motion_blur=True, motion_blur_shutter=0.5)[..., 3]
    partly = [((alpha > 0.1) & (alpha < 0.9)).mean() for alpha in (sharp, blurred)]
    assert partly[1] > 2 * partly[0] + 0.05
    # A whole frame of the deformation too: the object's own motion is not all.
    assert abs(blurred.mean() - sharp.mean()) < 0.05


@needs_5_3
def test_it_throws_shadows_and_cuts_holes(cloud, cat, tmp_path):
    camera = bpy.context.scene.camera
    bpy.ops.mesh.primitive_plane_add(size=4, location=(0, 0.3, 0), rotation=(np.pi / 2, 0, 0))
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    # From the front and the right, so that the shadow is beside the head.
    sun.data.energy, sun.rotation_euler = 3.0, (np.pi / 2, 0, 0.9)
    bpy.context.scene.collection.objects.link(sun)
    camera.location, camera.rotation_euler = (0, -1.2, 0), (np.pi / 2, 0, 0)
    pictures = {}
    for name, hidden, holdout in (("without", True, False), ("with", False, False), ("hole", False, True)):
        cloud.hide_render, cloud.is_holdout = hidden, holdout
        pictures[name] = render(tmp_path / f"{name}.png")
    assert pictures["without"][..., 3].min() > 0.99
    darker = pictures["without"][..., :3].mean(-1) - pictures["with"][..., :3].mean(-1)
    # The sun shines to the left of the picture, where nothing but the plane is seen.
    assert darker[12:20, :10].max() > 0.2 > 0.05 > np.abs(darker[:, 24:]).max()
    assert pictures["hole"][14:18, 14:18, 3].max() < 0.1 and pictures["hole"][:4, :, 3].min() > 0.99


@needs_5_3
def test_the_last_splats_stay_where_the_avatar_cannot_be_read(cloud, cat, tmp_path, capfd, engine_avatars):
    before = values_of(cloud)
    cat.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    nod(cat)
    bpy.context.scene.frame_set(4)
    assert render(tmp_path / "gone.png")[..., 3].mean() > 0.1
    assert np.array_equal(values_of(cloud)["position"], before["position"])
    assert "gone.effigy" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="no baked model.*press Make Playable"):
        cat.armature.effigy.avatar = str(engine_avatars / "ann.effigy")
        bpy.ops.effigy.native_splats()
