"""The 3D View draws an avatar as the CPU rasteriser does, and composites it with other objects by depth."""

from __future__ import annotations

import time
from types import SimpleNamespace

import bpy
import engine_truth
import numpy as np
import pytest
from engine_scenes import add_rig, session, stage
from viewport_scenes import cube, drawn, in_gpu, pose_of, splats_of, view_camera, viewport, worker_camera

LEVEL = 1 / 255
SIDE = 256
AWAY = np.array((np.sin(engine_truth.AZIMUTH), -np.cos(engine_truth.AZIMUTH), 0))
"""From the head to the camera."""


def rasterised(subjects):
    return (
        session()
        .client()
        .call("avatar.render", {"subjects": subjects, "camera": worker_camera(SIDE), "enhanced": False})
    )


@pytest.fixture
def ann(engine_avatars):
    return stage(engine_avatars / "ann.effigy")


def drawable(rig, avatar, camera, **style):
    splats = splats_of(rig, avatar, camera)
    return splats, splats.motion, viewport("splats").DrawStyle(**style)


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
@pytest.mark.parametrize("step", [1, 2])
def test_depth_from_the_vertex_shader_gives_the_same_image(ann, engine_avatars, kind, step, monkeypatch):
    """Metal and Vulkan before Blender 5 cannot write `gl_FragDepth`; OpenGL can draw both ways."""
    data = bpy.context.scene.camera.data
    data.type, data.ortho_scale, data.shift_x = kind, 0.4, 0.04
    camera = view_camera(SIDE)
    head = [drawable(ann, engine_avatars / "ann.effigy", camera)]
    through = cube((0, 0, engine_truth.HEIGHT), 0.17, camera)
    by_fragment = drawn(head, camera, through, step=step)
    monkeypatch.setattr(viewport("shaders"), "depth_in_vertex_shader", lambda: True)
    by_vertex = drawn(head, camera, through, step=step)
    red = np.abs(by_fragment - (1, 0, 0, 1)).max(-1) < 0.02
    assert red.sum() > 1000 and (~red & (by_fragment[..., 3] > 0.9)).sum() > 1000
    assert (np.abs(by_vertex - by_fragment).max(-1) > LEVEL).sum() <= 3 * step**2


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_the_view_has_the_same_pixels_as_the_rasteriser(ann, engine_avatars, kind):
    data = bpy.context.scene.camera.data
    data.type, data.ortho_scale, data.shift_x = kind, 0.4, 0.04
    camera, avatar = view_camera(SIDE), engine_avatars / "ann.effigy"
    ours = drawn([drawable(ann, avatar, camera)], camera)
    truth = rasterised([{"avatar": avatar, "pose": pose_of(ann)}])
    head = truth["alpha"] > 0.02
    assert head.sum() > 8000
    difference = np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))
    assert difference[head].mean() < LEVEL and np.percentile(difference[head], 99) < 4 * LEVEL
    assert np.abs(ours[..., 3] - truth["alpha"]).max() < 4 * LEVEL
    # Half a pixel of offset, or a missing low-pass filter, would give a much larger difference.
    assert np.abs(ours[:, 1:, :3] - truth["color"][:, :-1])[head[:, 1:]].mean() > 2 * LEVEL


def test_a_posed_scaled_and_moved_head_has_the_same_pixels_as_the_rasteriser(ann, engine_avatars):
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    ann.armature.parent = bpy.context.scene.camera.parent = parent
    parent.scale, parent.location, parent.rotation_euler = (2, 2, 2), (300, -1, 0.5), (0.3, 0.1, 2)
    ann.pose_bone("neck").rotation_quaternion = 0.97, 0.1, 0.2, 0.05
    ann.key_blocks["jawOpen"].value = 0.7
    camera, avatar = view_camera(SIDE), engine_avatars / "ann.effigy"
    ours = drawn([drawable(ann, avatar, camera)], camera)
    truth = rasterised([{"avatar": avatar, "pose": pose_of(ann)}])
    head = truth["alpha"] > 0.02
    assert head.sum() > 8000
    assert np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))[head].mean() < LEVEL


@pytest.mark.parametrize("offset, hidden", [(0.3, True), (-0.3, False)], ids=["before", "behind"])
def test_an_object_hides_the_head_or_is_hidden_by_it(ann, engine_avatars, offset, hidden):
    camera = view_camera(SIDE)
    head = [drawable(ann, engine_avatars / "ann.effigy", camera)]
    alone = drawn(head, camera)
    position = offset * AWAY + (0, 0, engine_truth.HEIGHT)
    both = drawn(head, camera, cube(position, 0.06, camera))
    red = np.abs(both - (1, 0, 0, 1)).max(-1) < 0.02
    middle = np.zeros_like(red)
    middle[SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8] = True
    assert red[middle].all() if hidden else np.abs(both - alone)[middle].max() < 3 * LEVEL
    assert np.abs(both - alone)[: SIDE // 4].max() < 3 * LEVEL


def test_an_object_inside_the_head_is_visible_only_where_it_sticks_out(ann, engine_avatars):
    camera = view_camera(SIDE)
    head = [drawable(ann, engine_avatars / "ann.effigy", camera)]
    alone = drawn(head, camera)
    inside = drawn(head, camera, cube((0, 0, engine_truth.HEIGHT), 0.05, camera))
    opaque = alone[..., 3] > 0.99
    assert np.abs(inside - alone)[opaque].max() < 3 * LEVEL
    out = drawn(head, camera, cube((0, 0, engine_truth.HEIGHT), 0.3, camera))
    red = np.abs(out - (1, 0, 0, 1)).max(-1) < 0.02
    assert 0.5 < red[opaque].mean() <= 1 and (red | opaque).sum() > opaque.sum()


def test_the_rigs_own_mesh_does_not_hide_the_splats_and_other_objects_do(ann, engine_avatars):
    mesh_module = viewport("mesh")
    camera = view_camera(SIDE)
    head = [drawable(ann, engine_avatars / "ann.effigy", camera)]

    def own():
        mesh = mesh_module.MeshBatches()
        mesh.update(ann.mesh, bpy.context.evaluated_depsgraph_get(), 1.0)
        return mesh

    def fill():
        import gpu
        from mathutils import Matrix

        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            gpu.matrix.load_matrix(Matrix(camera.view.tolist()))
            gpu.matrix.load_projection_matrix(Matrix(camera.projection.tolist()))
            shader = gpu.shader.from_builtin("UNIFORM_COLOR")
            shader.uniform_float("color", (0.0, 0.0, 0.0, 0.0))
            own().surface.draw(shader)

    alone = drawn(head, camera)
    assert np.abs(drawn(head, camera, fill) - alone).max() > 50 * LEVEL
    assert np.abs(drawn(head, camera, fill, [own]) - alone).max() < 3 * LEVEL
    before = drawn(head, camera, cube(0.3 * AWAY + (0, 0, engine_truth.HEIGHT), 0.06, camera), [own])
    assert np.abs(before[SIDE // 2, SIDE // 2] - (1, 0, 0, 1)).max() < 0.02


def test_two_avatars_are_sorted_together(ann, engine_avatars):
    ben = add_rig(engine_avatars / "ben.effigy")
    right = np.array((np.cos(engine_truth.AZIMUTH), np.sin(engine_truth.AZIMUTH), 0))
    files = {ann: engine_avatars / "ann.effigy", ben: engine_avatars / "ben.effigy"}
    for first, second in ((ann, ben), (ben, ann)):
        first.armature.location, second.armature.location = 0.04 * AWAY - 0.05 * right, -0.04 * AWAY + 0.05 * right
        camera = view_camera(SIDE)
        ours = drawn([drawable(rig, files[rig], camera) for rig in (ann, ben)], camera)
        truth = rasterised([{"avatar": files[rig], "pose": pose_of(rig)} for rig in (ann, ben)])
        head = truth["alpha"] > 0.02
        assert np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))[head].mean() < LEVEL


def test_a_framebuffer_sorts_again_when_its_view_rotates_or_orbits(ann, engine_avatars):
    camera = view_camera(SIDE)
    head = drawable(ann, engine_avatars / "ann.effigy", camera)

    def views():
        return in_gpu(lambda: walk([head], kept=True)), in_gpu(lambda: walk([head], kept=False))

    def walk(avatars, kept):
        """Images of several views, drawn with one framebuffer that is kept or with a new one for each."""
        import gpu

        module = viewport("splat_framebuffer")
        texture, images = module.SplatTexture(viewport("splats").pack(avatars)), []
        framebuffer = module.SplatFramebuffer(False)
        target = gpu.types.GPUOffScreen(SIDE, SIDE, format="RGBA32F")
        for view in view_matrices:
            framebuffer = framebuffer if kept else module.SplatFramebuffer(False)
            with target.bind():
                frame = gpu.state.active_framebuffer_get()
                frame.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
                now = module.ViewCamera(view, camera.projection, SIDE, SIDE)
                framebuffer.draw(texture, now)
                framebuffer.composite(now)
                images.append(np.array(frame.read_color(0, 0, SIDE, SIDE, 4, 0, "FLOAT").to_list(), np.float32))
        target.free()
        module.release()
        return np.array(images)

    from mathutils import Euler, Matrix

    view_to_world = Matrix(np.linalg.inv(camera.view).tolist())
    view_matrices = [camera.view]
    for angle in (0.1, -0.15):
        # The view rotates in place by a small angle; the head stays in view.
        view_matrices.append(np.linalg.inv(np.array(view_to_world @ Euler((0, angle, 0)).to_matrix().to_4x4())))
    for angle in (1.5, 3.0, 4.5):
        view_matrices.append(np.linalg.inv(np.array(Matrix.Rotation(angle, 4, "Z") @ view_to_world)))
    kept, anew = views()
    assert (kept[..., 3].sum((1, 2)) > 3000).all()
    assert np.abs(kept - anew).max() < LEVEL
    assert np.abs(kept[0] - kept[4]).max() > 20 * LEVEL


def test_points_ellipsoids_depth_size_and_minimum_opacity_change_the_image(ann, engine_avatars):
    camera, avatar = view_camera(SIDE), engine_avatars / "ann.effigy"
    plain = drawn([drawable(ann, avatar, camera)], camera)
    seen = [
        drawn([drawable(ann, avatar, camera, **style)], camera)
        for style in ({"kind": "POINTS"}, {"kind": "ELLIPSOIDS"}, {"kind": "DEPTH"}, {"scale": 0.3})
    ]
    for number, image in enumerate(seen):
        assert image[..., 3].max() > 0.9
        assert np.abs(image - plain).mean() > 2 * LEVEL, number
    assert set(np.unique(seen[0][..., 3])) <= {0.0, 1.0}
    grey = seen[2][plain[..., 3] > 0.99][:, :3]
    assert np.ptp(grey, axis=1).max() < 2 * LEVEL and np.ptp(grey) > 0.3
    assert seen[3][..., 3].sum() < 0.9 * plain[..., 3].sum()
    assert viewport("splats").pack([drawable(ann, avatar, camera, min_opacity=1.0)]) is None


def test_the_draw_handlers_draw_the_avatars_of_a_view(ann, engine_avatars):
    """The handlers of `draw` with the context of a 3D View, which Blender as a module has no window for."""
    camera = view_camera(SIDE)
    draw, live = viewport("draw"), viewport("live")
    live.state.reset()
    space = next(area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D")
    region = SimpleNamespace(as_pointer=lambda: 7, width=SIDE, height=SIDE)
    area = SimpleNamespace(type="VIEW_3D", regions=[region])
    window = SimpleNamespace(screen=SimpleNamespace(areas=[area]))
    context = SimpleNamespace(
        scene=bpy.context.scene,
        object=bpy.context.object,
        preferences=bpy.context.preferences,
        space_data=space,
        region=region,
        region_data=SimpleNamespace(view_matrix=camera.view, window_matrix=camera.projection),
        window_manager=SimpleNamespace(windows=[window]),
        view_layer=SimpleNamespace(
            depsgraph=bpy.context.evaluated_depsgraph_get(), objects=bpy.context.view_layer.objects
        ),
    )
    space.overlay.show_overlays = True
    until = time.monotonic() + 60
    # The first answer may be for the pose before the sliders were evaluated.
    bpy.context.view_layer.update()
    while not (live.state_of(ann) and live.state_of(ann).fresh) and time.monotonic() < until:
        draw._update(context)
        session().client().pump()
    # While an avatar moves it may be drawn at a lower resolution.
    time.sleep(live.SETTLE_SECONDS)
    draw._update(context)

    def image():
        import gpu

        target = gpu.types.GPUOffScreen(SIDE, SIDE, format="RGBA32F")
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
            draw._draw(context)
            pixels = np.array(frame.read_color(0, 0, SIDE, SIDE, 4, 0, "FLOAT").to_list(), np.float32)
        target.free()
        return pixels.reshape(SIDE, SIDE, 4)[::-1]

    try:
        for mode in ("SPLATS", "BOTH"):
            ann.armature.effigy_view.mode = mode
            alpha = in_gpu(image)[..., 3]
            expected = drawn([drawable(ann, engine_avatars / "ann.effigy", camera)], camera)[..., 3]
            # The view's buffer is encoded on writing, which changes the alpha of pixels that are not opaque.
            assert (alpha[expected > 0.99] > 0.9).all() and not alpha[expected == 0].any(), mode
        # Drawing the scene may take longer than a pose counts as moving.
        bpy.context.scene.effigy_view.quality = "ANCHORS"
        ann.key_blocks["jawOpen"].value = 0.4
        bpy.context.view_layer.update()
        draw._update(context)
        time.sleep(live.SETTLE_SECONDS)
        in_gpu(image)
        assert draw.state.views[7].framebuffer._step == 2
        ann.armature.effigy_view.mode = "MESH"
        assert not in_gpu(image).any()
    finally:
        draw.release()


def test_half_the_resolution_shows_the_same_head_with_larger_pixels(ann, engine_avatars):
    camera, avatar = view_camera(SIDE - 3), engine_avatars / "ann.effigy"
    head = [drawable(ann, avatar, camera)]
    fine, coarse = drawn(head, camera), drawn(head, camera, step=2)
    assert np.abs(fine - coarse).mean() < 4 * LEVEL and np.abs(fine - coarse).max() > 4 * LEVEL
    for axis in (0, 1):
        # Not offset by a pixel.
        profile = [image[..., 3].sum(axis) @ np.arange(SIDE - 3) / image[..., 3].sum() for image in (fine, coarse)]
        assert abs(profile[0] - profile[1]) < 0.2
