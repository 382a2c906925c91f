"""*Head Light from Footage*: suns that light an object as the worker says, and that leave the scene as it was."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from light_scenes import AXES, HALF_ANGLE, LIGHT, build_light
from rig_digest import digest
from rig_scenes import make_rig

SIDE = 48


def cap_irradiance(cosine: np.ndarray) -> np.ndarray:
    """As `backend.tracking.observe.light_fit.cap_irradiance`, by random directions."""
    random = np.random.default_rng(0)
    rays = random.normal(size=(400_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    rays = rays[rays[:, 2] > np.cos(HALF_ANGLE)][:20_000]
    walls = np.stack((np.sqrt(1 - cosine**2), 0 * cosine, cosine), -1)
    return np.maximum(walls @ rays.T, 0).mean(-1) / rays[:, 2].mean()


def suns_of(empty) -> list:
    return [child for child in empty.children if child.type == "LIGHT"]


def grey_ball(folder: Path, camera: tuple[float, float, float]) -> np.ndarray:
    """(SIDE, SIDE, 4) linear: a white, matte ball in Cycles, seen from `camera`, which looks at the origin."""
    bpy.ops.mesh.primitive_uv_sphere_add(segments=96, ring_count=48)
    ball = bpy.context.object
    ball.data.polygons.foreach_set("use_smooth", [True] * len(ball.data.polygons))
    material = bpy.data.materials.new("white")
    if material.node_tree is None:
        material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    diffuse, output = tree.nodes.new("ShaderNodeBsdfDiffuse"), tree.nodes.new("ShaderNodeOutputMaterial")
    diffuse.inputs["Color"].default_value = (1, 1, 1, 1)
    tree.links.new(diffuse.outputs[0], output.inputs[0])
    ball.data.materials.append(material)
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(scene.camera)
    scene.camera.location = camera
    scene.camera.rotation_euler = (-bpy.data.objects["Camera"].location).to_track_quat("-Z", "Y").to_euler()
    scene.camera.data.type, scene.camera.data.ortho_scale = "ORTHO", 2.1
    scene.render.engine, scene.cycles.samples, scene.cycles.max_bounces = "CYCLES", 64, 0
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.film_transparent, scene.render.image_settings.file_format = True, "OPEN_EXR"
    scene.render.filepath = str(folder / "ball.exr")
    bpy.ops.render.render(write_still=True)
    return np.array(bpy.data.images.load(scene.render.filepath).pixels).reshape(SIDE, SIDE, 4)[::-1]


def test_a_ball_beside_the_head_is_lit_as_the_footage_says(tmp_path: Path, module):
    rig = make_rig()
    build_light(rig, module("blender_addon.head_light"))
    rig.mesh.hide_render = True
    picture = grey_ball(tmp_path, (0, -5, 0))
    # The camera of the footage looks along +y: its x goes to the right, its y down, its z away.
    x, y = np.meshgrid(*2 * [(np.arange(SIDE) + 0.5 - SIDE / 2) / (SIDE / 2.1)])
    inside = x**2 + y**2 < 0.9
    normals = np.stack((x, y, -np.sqrt(np.maximum(1 - x**2 - y**2, 0))), -1)[inside]
    expected = np.maximum(normals @ np.array(LIGHT["lamps"]).T, 0) @ np.array(LIGHT["lamp_colors"])
    expected += cap_irradiance(np.clip(normals @ AXES.T, -1, 1)) @ np.array(LIGHT["ambient"])
    average = np.array(LIGHT["average"])
    luminance = average @ (0.2126, 0.7152, 0.0722)
    expected *= luminance / average / 0.35
    error = picture[inside][:, :3] - expected
    # The lamp's sun is as large as a soft box, so its shadow's edge is soft.
    assert np.abs(error).mean() < 0.03 * expected.mean()
    assert np.abs(error.mean(0)).max() < 0.02 * expected.mean()


def test_the_light_goes_with_the_rig_and_not_with_its_head(module):
    rig = make_rig()
    key = next(sun for sun in suns_of(build_light(rig, module("blender_addon.head_light"))) if "key" in sun.name)

    def shines_from() -> np.ndarray:
        bpy.context.view_layer.update()
        return np.array(key.matrix_world.to_3x3().normalized().col[2])

    assert shines_from() == pytest.approx((0.6, -0.8, 0), abs=1e-5)
    rig.pose_bone("neck").rotation_quaternion = (0.9, 0, 0.4, 0)
    assert shines_from() == pytest.approx((0.6, -0.8, 0), abs=1e-5)
    rig.armature.rotation_euler.z = np.pi / 2
    assert shines_from() == pytest.approx((0.8, 0.6, 0), abs=1e-5)


def test_suns_are_added_once_and_removed_without_a_trace(demo_capture):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    before, collections = digest(), len(bpy.data.collections)
    assert bpy.ops.effigy.add_head_light() == {"FINISHED"}
    (empty,) = (child for child in bpy.context.object.children if child.type == "EMPTY")
    names = {sun.name for sun in suns_of(empty)}
    assert 3 <= len(names) <= 9 and all(sun.data.energy > 0 for sun in suns_of(empty))
    # A face that looks at the camera is lit from its side of the room.
    assert sum(sun.data.energy * (sun.rotation_quaternion.to_matrix().col[2].y < 0.1) for sun in suns_of(empty)) > 0.5
    weaker = [sun.data.energy for sun in suns_of(empty)]
    assert bpy.ops.effigy.add_head_light(reflectance=0.175) == {"FINISHED"}
    (empty,) = (child for child in bpy.context.object.children if child.type == "EMPTY")
    assert {sun.name for sun in suns_of(empty)} == names
    assert [sun.data.energy for sun in suns_of(empty)] == pytest.approx([2 * each for each in weaker], rel=1e-3)
    assert bpy.ops.effigy.remove_head_light() == {"FINISHED"}
    assert digest() == before and len(bpy.data.collections) == collections and not bpy.data.lights
    assert not bpy.ops.effigy.remove_head_light.poll()


def test_what_the_artist_put_into_the_collection_stays(module):
    rig = make_rig()
    head_light = module("blender_addon.head_light")
    (collection,) = build_light(rig, head_light).users_collection
    own = bpy.data.objects.new("own", None)
    collection.objects.link(own)
    head_light.remove_head_light(rig)
    assert list(collection.objects) == [own]


def test_without_footage_there_is_a_sentence(tmp_path: Path):
    rig = make_rig()
    bpy.context.view_layer.objects.active = rig.armature
    with pytest.raises(RuntimeError, match="not known which capture"):
        bpy.ops.effigy.add_head_light()
    rig.armature.effigy.capture = str(tmp_path)
    with pytest.raises(RuntimeError, match="is not at"):
        bpy.ops.effigy.add_head_light()


@pytest.mark.parametrize(
    "changed", [{"lamps": [[1, 0]]}, {"ambient": [[float("nan")] * 3] * 6}, {"average": [0, 0, 0]}, {"half_angle": 9}]
)
def test_a_light_that_cannot_be_right_is_refused(module, changed):
    head_light = module("blender_addon.head_light")
    with pytest.raises(module("blender_addon.errors").EffigyError, match="install it again"):
        head_light.Light.from_answer(LIGHT | changed)
