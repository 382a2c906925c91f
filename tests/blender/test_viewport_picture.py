"""What the 3D View draws of an avatar is what the CPU rasteriser draws, and it stands among objects by depth."""

from __future__ import annotations

import bpy
import engine_truth
import numpy as np
import pytest
from engine_scenes import add_rig, session, stage
from viewport_scenes import camera_of_backend, cube, drawn, lens_of_camera, pose_of, splats_of, viewport

LEVEL = 1 / 255
SIDE = 256
AWAY = np.array((np.sin(engine_truth.TURN), -np.cos(engine_truth.TURN), 0))
"""From the head to the camera."""


def rasterised(subjects):
    return (
        session()
        .client()
        .call("avatar.render", {"subjects": subjects, "camera": camera_of_backend(SIDE), "enhanced": False})
    )


@pytest.fixture
def ann(engine_avatars):
    return stage(engine_avatars / "ann.effigy")


def shown(rig, avatar, lens, **look):
    splats = splats_of(rig, avatar, lens)
    return splats, splats.motion, viewport("splats").Look(**look)


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
def test_the_view_has_the_pixels_of_the_rasteriser(ann, engine_avatars, kind):
    camera = bpy.context.scene.camera.data
    camera.type, camera.ortho_scale, camera.shift_x = kind, 0.4, 0.04
    lens, avatar = lens_of_camera(SIDE), engine_avatars / "ann.effigy"
    ours = drawn([shown(ann, avatar, lens)], lens)
    truth = rasterised([{"avatar": avatar, "pose": pose_of(ann)}])
    head = truth["alpha"] > 0.02
    assert head.sum() > 8000
    difference = np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))
    assert difference[head].mean() < LEVEL and np.percentile(difference[head], 99) < 4 * LEVEL
    assert np.abs(ours[..., 3] - truth["alpha"]).max() < 4 * LEVEL
    # Half a pixel beside it, or without the low pass, it would be far off.
    assert np.abs(ours[:, 1:, :3] - truth["color"][:, :-1])[head[:, 1:]].mean() > 2 * LEVEL


def test_a_posed_scaled_and_moved_head_is_still_the_rasterisers(ann, engine_avatars):
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    ann.armature.parent = bpy.context.scene.camera.parent = parent
    parent.scale, parent.location, parent.rotation_euler = (2, 2, 2), (300, -1, 0.5), (0.3, 0.1, 2)
    ann.pose_bone("neck").rotation_quaternion = 0.97, 0.1, 0.2, 0.05
    ann.key_blocks["jawOpen"].value = 0.7
    lens, avatar = lens_of_camera(SIDE), engine_avatars / "ann.effigy"
    ours = drawn([shown(ann, avatar, lens)], lens)
    truth = rasterised([{"avatar": avatar, "pose": pose_of(ann)}])
    head = truth["alpha"] > 0.02
    assert head.sum() > 8000
    assert np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))[head].mean() < LEVEL


@pytest.mark.parametrize("where, hidden", [(0.3, True), (-0.3, False)], ids=["before", "behind"])
def test_an_object_hides_the_head_or_is_hidden_by_it(ann, engine_avatars, where, hidden):
    lens = lens_of_camera(SIDE)
    head = [shown(ann, engine_avatars / "ann.effigy", lens)]
    alone = drawn(head, lens)
    place = where * AWAY + (0, 0, engine_truth.HEIGHT)
    both = drawn(head, lens, cube(place, 0.06, lens))
    red = np.abs(both - (1, 0, 0, 1)).max(-1) < 0.02
    middle = np.zeros_like(red)
    middle[SIDE // 2 - 8 : SIDE // 2 + 8, SIDE // 2 - 8 : SIDE // 2 + 8] = True
    assert red[middle].all() if hidden else np.abs(both - alone)[middle].max() < 3 * LEVEL
    assert np.abs(both - alone)[: SIDE // 4].max() < 3 * LEVEL


def test_an_object_inside_the_head_shows_only_where_it_comes_out(ann, engine_avatars):
    lens = lens_of_camera(SIDE)
    head = [shown(ann, engine_avatars / "ann.effigy", lens)]
    alone = drawn(head, lens)
    inside = drawn(head, lens, cube((0, 0, engine_truth.HEIGHT), 0.05, lens))
    opaque = alone[..., 3] > 0.99
    assert np.abs(inside - alone)[opaque].max() < 3 * LEVEL
    out = drawn(head, lens, cube((0, 0, engine_truth.HEIGHT), 0.3, lens))
    red = np.abs(out - (1, 0, 0, 1)).max(-1) < 0.02
    assert 0.5 < red[opaque].mean() <= 1 and (red | opaque).sum() > opaque.sum()


def test_the_rigs_own_mesh_does_not_hide_the_splats_and_other_things_do(ann, engine_avatars):
    mesh_module = viewport("mesh")
    lens = lens_of_camera(SIDE)
    head = [shown(ann, engine_avatars / "ann.effigy", lens)]

    def own():
        mesh = mesh_module.DrawnMesh()
        mesh.update(ann.mesh, bpy.context.evaluated_depsgraph_get(), 1.0)
        return mesh

    def fill():
        import gpu
        from mathutils import Matrix

        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            gpu.matrix.load_matrix(Matrix(lens.view.tolist()))
            gpu.matrix.load_projection_matrix(Matrix(lens.projection.tolist()))
            shader = gpu.shader.from_builtin("UNIFORM_COLOR")
            shader.uniform_float("color", (0.0, 0.0, 0.0, 0.0))
            own().surface.draw(shader)

    alone = drawn(head, lens)
    assert np.abs(drawn(head, lens, fill) - alone).max() > 50 * LEVEL
    assert np.abs(drawn(head, lens, fill, [own]) - alone).max() < 3 * LEVEL
    before = drawn(head, lens, cube(0.3 * AWAY + (0, 0, engine_truth.HEIGHT), 0.06, lens), [own])
    assert np.abs(before[SIDE // 2, SIDE // 2] - (1, 0, 0, 1)).max() < 0.02


def test_two_avatars_are_sorted_together(ann, engine_avatars):
    ben = add_rig(engine_avatars / "ben.effigy")
    right = np.array((np.cos(engine_truth.TURN), np.sin(engine_truth.TURN), 0))
    files = {ann: engine_avatars / "ann.effigy", ben: engine_avatars / "ben.effigy"}
    for first, second in ((ann, ben), (ben, ann)):
        first.armature.location, second.armature.location = 0.04 * AWAY - 0.05 * right, -0.04 * AWAY + 0.05 * right
        lens = lens_of_camera(SIDE)
        ours = drawn([shown(rig, files[rig], lens) for rig in (ann, ben)], lens)
        truth = rasterised([{"avatar": files[rig], "pose": pose_of(rig)} for rig in (ann, ben)])
        head = truth["alpha"] > 0.02
        assert np.abs(np.clip(ours[..., :3], 0, 1) - np.clip(truth["color"], 0, 1))[head].mean() < LEVEL


def test_one_picture_turned_in_place_and_orbited_is_sorted_anew(ann, engine_avatars):
    lens = lens_of_camera(SIDE)
    head = shown(ann, engine_avatars / "ann.effigy", lens)

    def views():
        from viewport_scenes import in_gpu

        return in_gpu(lambda: walk([head], kept=True)), in_gpu(lambda: walk([head], kept=False))

    def walk(shown_now, kept):
        """Pictures of several cameras, by one picture that is kept or by a new one each."""
        import gpu

        module = viewport("splat_framebuffer")
        uploaded, pictures, picture = module.Uploaded(viewport("splats").pack(shown_now)), [], module.Picture(False)
        target = gpu.types.GPUOffScreen(SIDE, SIDE, format="RGBA32F")
        for view in cameras:
            picture = picture if kept else module.Picture(False)
            with target.bind():
                frame = gpu.state.active_framebuffer_get()
                frame.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
                now = module.Lens(view, lens.projection, SIDE, SIDE)
                picture.draw(uploaded, now)
                picture.lay_over(now)
                pictures.append(np.array(frame.read_color(0, 0, SIDE, SIDE, 4, 0, "FLOAT").to_list(), np.float32))
        target.free()
        module.release()
        return np.array(pictures)

    from mathutils import Euler, Matrix

    placed = Matrix(np.linalg.inv(lens.view).tolist())
    cameras = [lens.view]
    for angle in (0.1, -0.15):
        # In place, a little aside; the head stays in the picture.
        cameras.append(np.linalg.inv(np.array(placed @ Euler((0, angle, 0)).to_matrix().to_4x4())))
    for angle in (1.5, 3.0, 4.5):
        cameras.append(np.linalg.inv(np.array(Matrix.Rotation(angle, 4, "Z") @ placed)))
    kept, anew = views()
    assert (kept[..., 3].sum((1, 2)) > 3000).all()
    assert np.abs(kept - anew).max() < LEVEL
    assert np.abs(kept[0] - kept[4]).max() > 20 * LEVEL


def test_points_ellipsoids_depth_size_and_least_opacity_look_different(ann, engine_avatars):
    lens, avatar = lens_of_camera(SIDE), engine_avatars / "ann.effigy"
    plain = drawn([shown(ann, avatar, lens)], lens)
    seen = [
        drawn([shown(ann, avatar, lens, **look)], lens)
        for look in ({"kind": "POINTS"}, {"kind": "ELLIPSOIDS"}, {"kind": "DEPTH"}, {"scale": 0.3})
    ]
    for number, picture in enumerate(seen):
        assert picture[..., 3].max() > 0.9
        assert np.abs(picture - plain).mean() > 2 * LEVEL, number
    assert set(np.unique(seen[0][..., 3])) <= {0.0, 1.0}
    grey = seen[2][plain[..., 3] > 0.99][:, :3]
    assert np.ptp(grey, axis=1).max() < 2 * LEVEL and np.ptp(grey) > 0.3
    assert seen[3][..., 3].sum() < 0.9 * plain[..., 3].sum()
    assert viewport("splats").pack([shown(ann, avatar, lens, least_opacity=1.0)]) is None


def test_a_coarse_picture_is_the_same_head_with_larger_pixels(ann, engine_avatars):
    lens, avatar = lens_of_camera(SIDE - 3), engine_avatars / "ann.effigy"
    head = [shown(ann, avatar, lens)]
    fine, coarse = drawn(head, lens), drawn(head, lens, step=2)
    assert np.abs(fine - coarse).mean() < 4 * LEVEL and np.abs(fine - coarse).max() > 4 * LEVEL
    for axis in (0, 1):
        # Not a pixel beside it.
        profile = [
            picture[..., 3].sum(axis) @ np.arange(SIDE - 3) / picture[..., 3].sum() for picture in (fine, coarse)
        ]
        assert abs(profile[0] - profile[1]) < 0.2
