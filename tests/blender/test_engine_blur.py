"""Motion blur and depth of field of the engine Effigy: the mean of sharp images over the shutter and the lens."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from engine_scenes import read_by_backend, set_format, stage

SIDE = 64


def render(path) -> np.ndarray:
    """Scene-linear premultiplied RGBA and depth, (H, W, 5)."""
    set_format("EXR")
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    channels = read_by_backend(path)
    return np.stack([find(channels, f"Combined.{c}") for c in "RGBA"] + [find(channels, "Depth.Z")], -1)


def find(channels, ending):
    return next(value for name, value in channels.items() if name.endswith(ending))


def small(avatar):
    made = stage(avatar)
    scene = bpy.context.scene
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.view_layers[0].use_pass_z = True
    return made


def turning(made):
    """The head turns by 20 degrees a frame, faster and faster."""
    neck = made.pose_bone("neck")
    neck.rotation_mode = "XYZ"
    for frame, angle in ((1, 0.0), (2, 0.35), (3, 0.9)):
        neck.rotation_euler.y = angle
        neck.keyframe_insert("rotation_euler", frame=frame)
    bpy.context.scene.frame_set(2)


def counted(module, monkeypatch) -> list:
    """An entry for each image that is drawn from here on."""
    sums, drawn = module("blender_addon.engine.frame_sum").FrameSum, []
    add = sums.add
    monkeypatch.setattr(sums, "add", lambda *parts: (drawn.append(parts), add(*parts)))
    return drawn


@pytest.mark.parametrize(("name", "position"), [("cat", "CENTER"), ("ann", "END")])
def test_a_turning_head_is_the_mean_of_sharp_images(engine_avatars, tmp_path, module, monkeypatch, name, position):
    scene = bpy.context.scene
    turning(small(engine_avatars / f"{name}.effigy"))
    offset = {"CENTER": -0.25, "END": -0.5}[position]
    drawn, sharp = counted(module, monkeypatch), []
    steps = 32 if name == "cat" else 8
    for step in range(steps):
        frame = 2 + offset + 0.5 * (step + 0.5) / steps
        scene.frame_set(int(frame), subframe=frame % 1)
        sharp.append(render(tmp_path / "sharp.exr"))
    scene.frame_set(2)
    still, mean = render(tmp_path / "still.exr"), np.mean(sharp, 0)
    assert len(drawn) == steps + 1
    scene.render.use_motion_blur, scene.render.motion_blur_position = True, position
    scene.render.motion_blur_shutter = 0.5
    drawn.clear()
    found = render(tmp_path / "blurred.exr")
    assert 8 <= len(drawn) < 32
    assert np.abs(still - mean)[..., :4].max() > 20 / 255
    assert np.abs(found - mean)[..., :4].max() < (2 / 255 if name == "cat" else 4 / 255)
    assert scene.frame_current == 2 and scene.frame_subframe == 0
    # The mean distance of what covers a pixel.
    covered = (found[..., 3] > 0.02) & (mean[..., 3] > 0.02)
    assert np.isfinite(found[..., 4]).all() and (found[..., 4][covered] < 2).all()


def test_a_head_that_keeps_still_is_drawn_once(engine_avatars, tmp_path, module, monkeypatch):
    small(engine_avatars / "cat.effigy")
    sharp = render(tmp_path / "sharp.exr")
    bpy.context.scene.render.use_motion_blur = True
    drawn = counted(module, monkeypatch)
    assert np.array_equal(render(tmp_path / "blurred.exr"), sharp) and len(drawn) == 1


def in_focus(distance: float, fstop: float) -> None:
    dof = bpy.context.scene.camera.data.dof
    dof.use_dof, dof.aperture_fstop, dof.focus_distance = True, fstop, distance


def sharpness(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image[..., :3], axis=0)).sum())


def test_a_head_out_of_focus_is_the_mean_over_the_lens(engine_avatars, tmp_path, module, monkeypatch):
    small(engine_avatars / "cat.effigy")
    scene = bpy.context.scene
    sharp = render(tmp_path / "sharp.exr")
    in_focus(0.68, 90.0)
    assert np.abs(render(tmp_path / "focused.exr") - sharp)[..., :4].max() < 2 / 255
    in_focus(0.35, 1.4)
    drawn = counted(module, monkeypatch)
    blurred = render(tmp_path / "blurred.exr")
    taken = len(drawn)
    assert 4 < taken <= 64 and sharpness(blurred) < 0.8 * sharpness(sharp)
    monkeypatch.setattr(module("blender_addon.engine.exposure"), "AREA", 0.05)
    scene.effigy.blur_images = 200
    many = render(tmp_path / "many.exr")
    difference = np.abs(blurred - many)[..., :4]
    assert len(drawn) - taken == 200 and difference.max() < 5 / 255 and difference.mean() < 0.3 / 255
    # The mean of images through known points of the lens.
    assert abs(blurred[..., 3].sum() / sharp[..., 3].sum() - 1) < 0.02


def test_the_plane_in_focus_stays_and_other_points_move_by_the_blur(module):
    lens_of, view_of = module("blender_addon.engine.lens").Lens, module("blender_addon.engine.camera").WorkerCamera
    lens = lens_of(radius=0.02, focus=0.8, blades=5, rotation=0.3)
    intrinsics = np.array(((200.0, 0, 32), (0, 210, 30), (0, 0, 1)))
    view = view_of(np.eye(4), intrinsics, False, 64, 64)
    points = lens.points(np.random.default_rng(1).random((500, 2)))
    assert np.abs(points.mean(0)).max() < 0.002 and 0.8 < np.linalg.norm(points, axis=1).max() / 0.02 <= 1
    widest = 0.0
    for point in points:
        seen = lens.through(view, point)
        for place in ((0.1, -0.05, 0.8), (0.1, -0.05, 0.5)):
            there = seen.world_to_camera[:3, :3] @ place + seen.world_to_camera[:3, 3]
            pixel = (seen.intrinsics @ (there / there[2]))[:2]
            sharp = (intrinsics @ (np.array(place) / place[2]))[:2]
            moved = np.linalg.norm(pixel - sharp)
            if place[2] == 0.8:
                assert moved < 1e-9
            else:
                widest = max(widest, moved)
    assert 0.8 < 2 * widest / lens.blur(view, np.array([0.5])) <= 1


def test_the_focus_is_blenders(module):
    """An object, or a bone of it, along the axis of the camera; otherwise the distance."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    target = bpy.data.objects.new("target", None)
    for obj in (camera, target):
        bpy.context.scene.collection.objects.link(obj)
    camera.location, camera.scale, target.location = (1, 2, 3), (2, 2, 2), (9, -7, -1.5)
    dof = camera.data.dof
    dof.use_dof, dof.focus_distance, dof.aperture_fstop, dof.aperture_ratio = True, 2.0, 2.0, 2.0
    depsgraph = bpy.context.evaluated_depsgraph_get()
    lens_of = module("blender_addon.engine.lens").lens_of
    lens = lens_of(camera.evaluated_get(depsgraph))
    assert lens.focus == 2.0 and lens.radius == pytest.approx(camera.data.lens / 1000 / 4)
    assert np.abs(lens.points(np.random.default_rng(1).random((99, 2)))).max(0) == pytest.approx(
        (lens.radius / 2, lens.radius), rel=0.1
    )
    dof.focus_object = target
    bpy.context.view_layer.update()
    assert lens_of(camera.evaluated_get(bpy.context.evaluated_depsgraph_get())).focus == pytest.approx(4.5)
    bones = bpy.data.armatures.new("bones")
    dof.focus_object = posed = bpy.data.objects.new("posed", bones)
    bpy.context.scene.collection.objects.link(posed)
    bpy.context.view_layer.objects.active = posed
    bpy.ops.object.mode_set(mode="EDIT")
    bone = bones.edit_bones.new("chin")
    bone.head, bone.tail = (0, 0, 0.5), (0, 1, 0.5)
    bpy.ops.object.mode_set(mode="OBJECT")
    dof.focus_subtarget = "chin"
    bpy.context.view_layer.update()
    assert lens_of(camera.evaluated_get(bpy.context.evaluated_depsgraph_get())).focus == pytest.approx(2.5)
    camera.data.type = "ORTHO"
    assert lens_of(camera.evaluated_get(bpy.context.evaluated_depsgraph_get())) is None


def test_the_shutters_curve_weighs_the_times(module):
    shutter_of, scene = module("blender_addon.engine.shutter").shutter_of, bpy.context.scene
    assert shutter_of(scene, scene.view_layers[0]) is None
    render = scene.render
    render.use_motion_blur, render.motion_blur_shutter, render.motion_blur_position = True, 0.8, "START"
    shares = (np.arange(8) + 0.5) / 8
    even = shutter_of(scene, scene.view_layers[0]).times(shares)
    curve = render.motion_blur_shutter_curve.curves[0]
    for point, place in zip(curve.points, np.linspace(0, 1, len(curve.points))):
        point.location = place, place
    render.motion_blur_shutter_curve.update()
    late = shutter_of(scene, scene.view_layers[0]).times(shares)
    assert even.min() >= 0 and late.max() <= 0.8 and late.mean() > even.mean() + 0.05


def test_a_render_cancelled_between_images_writes_nothing_and_returns_to_its_frame(
    engine_avatars, tmp_path, module, monkeypatch
):
    turning(small(engine_avatars / "cat.effigy"))
    bpy.context.scene.render.use_motion_blur = True
    drawn = counted(module, monkeypatch)
    engine = module("blender_addon.engine.render_engine").EffigyRenderEngine
    exposed, results = engine._exposed, []

    class Cancelled:
        """The engine, cancelled after three images."""

        def __init__(self, own):
            self.own = own

        def __getattr__(self, name):
            return getattr(self.own, name)

        def test_break(self):
            return len(drawn) >= 3

    monkeypatch.setattr(
        engine, "_exposed", lambda self, *parts: results.append(exposed(Cancelled(self), *parts)) or results[-1]
    )
    bpy.ops.render.render()
    assert len(drawn) == 3 and results == [None] and bpy.context.scene.frame_subframe == 0


def test_the_composite_is_blurred_like_its_scene(engine_avatars, tmp_path, module):
    """The avatar pass reads shutter and layer of the artist's scene."""
    turning(small(engine_avatars / "cat.effigy"))
    scene = bpy.context.scene
    scene.render.engine = "BLENDER_WORKBENCH"
    bpy.ops.effigy.set_up_composite()
    avatar_pass = module("blender_addon.engine.avatar_pass")
    scene.render.use_motion_blur, scene.render.motion_blur_shutter = True, 0.3
    scene.effigy.blur_images = 7
    other = avatar_pass.find_pass(scene)
    avatar_pass.sync(other)
    shutter = module("blender_addon.engine.shutter").shutter_of(other, other.view_layers[0])
    assert shutter.closes == pytest.approx(0.15) and other.effigy.blur_images == 7
    scene.view_layers[0].use_motion_blur = False
    avatar_pass.sync(other)
    assert module("blender_addon.engine.shutter").shutter_of(other, other.view_layers[0]) is None
