"""The grade of an avatar in renders and the 3D View, and *Match Plate*."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from engine_scenes import SIZE, add_rig, render_png, stage

GRADE = {"exposure": 0.6, "red": 1.2, "blue": 0.8, "black": 0.04}


def give(rig, **values: float) -> None:
    for name, value in values.items():
        setattr(rig.armature.effigy, name, value)


def expected(module, picture: np.ndarray, **values: float) -> np.ndarray:
    """Straight colours of a picture, graded."""
    return module("blender_addon.grade").Grade(**values).colors(picture[..., :3]).clip(0, 1)


def by_worker(module, monkeypatch, path):
    with monkeypatch.context() as patched:
        patched.setattr(module("blender_addon.engine.played_frame"), "is_playable", lambda *_: False)
        return render_png(path)


def plate(path, colors: np.ndarray) -> None:
    """Puts an image with `colors` (H, W, 3), the top row first, behind the scene's camera."""
    height, width = colors.shape[:2]
    image = bpy.data.images.new("plate", width, height)
    pixels = np.dstack((colors, np.ones((height, width))))[::-1]
    image.pixels.foreach_set(np.ascontiguousarray(pixels, np.float32).ravel())
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)
    camera = bpy.context.scene.camera.data
    camera.show_background_images = True
    background = camera.background_images.new()
    background.image = bpy.data.images.load(str(path))


def values(rig) -> np.ndarray:
    return np.array([getattr(rig.armature.effigy, name) for name in GRADE])


def test_player_and_worker_draw_the_same_grade(engine_avatars, tmp_path, module, monkeypatch):
    rig = stage(engine_avatars / "cat.effigy")
    plain = [render_png(tmp_path / "plain.png"), by_worker(module, monkeypatch, tmp_path / "plain_worker.png")]
    give(rig, **GRADE)
    played = render_png(tmp_path / "played.png")
    worker = by_worker(module, monkeypatch, tmp_path / "worker.png")
    head = (plain[0][..., 3] > 0.995) & (plain[1][..., 3] > 0.995)
    assert head.sum() > 1000
    for picture, before in zip((played, worker), plain, strict=True):
        assert (picture[..., 3] == before[..., 3]).all()
        wanted = expected(module, before, **GRADE)
        assert np.abs(wanted - before[..., :3])[head].mean() > 0.03
        # Both pictures are rounded to 255 steps.
        assert np.quantile(np.abs(picture[..., :3] - wanted)[head], 0.99) <= 1.5 / 255
    assert np.quantile(np.abs(played - worker)[head], 0.99) <= 1.01 / 255


def test_two_heads_have_their_own_grades(engine_avatars, tmp_path, module, monkeypatch):
    first = stage(engine_avatars / "cat.effigy")
    second = add_rig(engine_avatars / "cat.effigy")
    first.armature.location.x, second.armature.location.x = -0.1, 0.1
    plain = [render_png(tmp_path / "plain.png"), by_worker(module, monkeypatch, tmp_path / "plain_worker.png")]
    give(first, exposure=1.0)
    played, worker = render_png(tmp_path / "played.png"), by_worker(module, monkeypatch, tmp_path / "worker.png")
    head = (plain[0][..., 3] > 0.99) & (plain[1][..., 3] > 0.99)
    head[:, SIZE // 2 - 8 : SIZE // 2 + 8] = False
    for picture, before in zip((played, worker), plain, strict=True):
        change = np.abs(picture - before)[..., :3].max(-1) * head
        assert change[:, : SIZE // 2].max() > 0.1 and change[:, SIZE // 2 :].max() <= 1 / 255
    assert np.quantile(np.abs(played - worker)[head], 0.99) <= 1.01 / 255


def test_a_keyed_grade_follows_the_frame(engine_avatars, tmp_path):
    rig = stage(engine_avatars / "cat.effigy")
    for frame, exposure in ((1, 0.0), (3, -2.0)):
        rig.armature.effigy.exposure = exposure
        rig.armature.keyframe_insert("effigy.exposure", frame=frame)
    means = []
    for frame in (1, 2, 3):
        bpy.context.scene.frame_set(frame)
        means.append(render_png(tmp_path / f"{frame}.png")[..., :3].mean())
    assert means[0] > 1.2 * means[1] > 1.2 * 1.2 * means[2]


def test_the_3d_view_shows_the_grade(engine_avatars, module):
    rig = stage(engine_avatars / "cat.effigy")
    live, draw = module("blender_addon.viewport.live"), module("blender_addon.viewport.draw")
    splats = module("blender_addon.viewport.splats")
    state, packed = module("blender_addon.viewport.avatar_state").AvatarState(), []
    one = np.ones((1, 3), np.float32)
    state.splats = splats.Splats(one, np.ones((1, 4), np.float32), one, np.ones(1), one / 2, np.eye(4))
    give(rig, **GRADE)
    bpy.context.view_layer.update()
    live._update_pose(rig, state, bpy.context.evaluated_depsgraph_get(), 1.0)
    original, draw.SplatTexture = draw.SplatTexture, packed.append
    try:
        draw._splat_texture((rig.uid,), [(rig, state)])
        give(rig, exposure=0.0, red=1.0, blue=1.0, black=0.0)
        bpy.context.view_layer.update()
        live._update_pose(rig, state, bpy.context.evaluated_depsgraph_get(), 2.0)
        draw._splat_texture((rig.uid,), [(rig, state)])
    finally:
        draw.SplatTexture = original
        draw.release()
    graded, plain = (each.values[0, 10:13] for each in packed)
    assert np.allclose(graded, module("blender_addon.grade").Grade(**GRADE).colors(one / 2), atol=1e-5)
    assert (plain == 0.5).all()


def test_match_plate_gives_the_avatar_the_plates_look(engine_avatars, tmp_path, module):
    rig = stage(engine_avatars / "cat.effigy")
    shown = render_png(tmp_path / "plain.png")
    plate(tmp_path / "plate.png", np.where(shown[..., 3:] > 0.5, expected(module, shown, **GRADE), 0.5))
    assert bpy.ops.effigy.match_plate() == {"FINISHED"}
    assert np.abs(values(rig) - list(GRADE.values())).max() < 0.06, values(rig)
    # The grade that the avatar has already does not enter.
    assert bpy.ops.effigy.match_plate(key=True) == {"FINISHED"}
    assert np.abs(values(rig) - list(GRADE.values())).max() < 0.06
    assert rig.armature.animation_data.action is not None
    assert bpy.ops.effigy.reset_grade() == {"FINISHED"}
    assert values(rig).tolist() == [0, 1, 1, 0]


def test_around_the_head_another_plate_is_matched(engine_avatars, tmp_path, module):
    rig = stage(engine_avatars / "cat.effigy")
    dark = np.zeros((40, 80, 3))
    dark[..., :] = np.linspace(0.02, 0.25, 40)[:, None, None] * np.array((1.0, 0.8, 0.5))
    plate(tmp_path / "plate.png", dark)
    before = render_png(tmp_path / "before.png")
    assert bpy.ops.effigy.match_plate(compare="AROUND") == {"FINISHED"}
    after, head = render_png(tmp_path / "after.png"), before[..., 3] > 0.95
    red, green, blue = after[head].mean(0)[:3]
    assert after[head].mean() < before[head].mean() and red > green > blue
    assert rig.armature.effigy.exposure < 0


def test_the_plate_is_that_of_the_frame(tmp_path, module, demo_clip):
    """A numbered sequence and a film, as image and as clip."""
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    match = module("blender_addon.engine.plate_match")
    for number in (1, 2, 3):
        plate(tmp_path / f"shot.{number:04d}.png", np.full((8, 8, 3), number / 5))
    camera = scene.camera.data
    camera.background_images.clear()
    background = camera.background_images.new()
    background.image = bpy.data.images.load(str(tmp_path / "shot.0001.png"))
    background.image.source, background.image_user.frame_start, background.image_user.frame_duration = "SEQUENCE", 10, 3
    background.frame_method = "STRETCH"
    for frame, level in ((1, 0.2), (11, 0.4), (12, 0.6), (50, 0.6)):
        scene.frame_set(frame)
        assert match._plate(scene, 4, 4).mean() == pytest.approx(level, abs=0.01)
    background.source, background.clip = "MOVIE_CLIP", bpy.data.movieclips.load(str(tmp_path / "shot.0001.png"))
    background.use_camera_clip = False
    background.clip.frame_start = 10
    assert background.clip.source == "SEQUENCE"
    scene.frame_set(11)
    assert match._plate(scene, 4, 4).mean() == pytest.approx(0.4, abs=0.01)
    camera.background_images.clear()
    scene.active_clip = bpy.data.movieclips.load(str(demo_clip))
    films = []
    for frame in (1, 40, 40):
        scene.frame_set(frame)
        films.append(match._plate(scene, 64, 64))
    assert np.abs(films[0] - films[1]).max() > 0.05 and (films[1] == films[2]).all()
    assert not bpy.data.textures and len(bpy.data.images) == 4


def test_a_plate_lies_in_the_cameras_frame_as_blender_puts_it(module):
    placed, scene = module("blender_addon.engine.plate_match")._placed, bpy.context.scene
    wide = np.zeros((10, 20, 3), np.float32)
    wide[:, :10] = 1
    fit, crop = (placed(wide, scene, 20, 20, method) for method in ("FIT", "CROP"))
    assert np.isnan(fit[[0, 4, 15, 19]]).all() and not np.isnan(fit[5:15]).any() and np.isfinite(crop).all()
    assert (fit[10, :10] == 1).all() and (fit[10, 10:] == 0).all() and (crop[:, :10] == 1).all()


def test_what_is_missing_is_said(engine_avatars, tmp_path):
    rig = stage(engine_avatars / "cat.effigy")
    with pytest.raises(RuntimeError, match="no plate behind"):
        bpy.ops.effigy.match_plate()
    plate(tmp_path / "plate.png", np.full((8, 8, 3), 0.5))
    rig.armature.location.x = 5
    with pytest.raises(RuntimeError, match="not before the plate"):
        bpy.ops.effigy.match_plate()
    rig.mesh.hide_viewport = rig.mesh.hide_render = True
    with pytest.raises(RuntimeError, match="hidden|no avatar"):
        bpy.ops.effigy.match_plate()
    scene = bpy.context.scene
    scene.camera = None
    with pytest.raises(RuntimeError, match="no camera"):
        bpy.ops.effigy.match_plate()
