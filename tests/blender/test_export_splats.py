"""Exported splats, opened by readers of the file formats that know nothing of ours: one below, and Blender's own."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, session, stage

TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
C0 = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 √π)."""


def read(path: Path) -> np.ndarray:
    """Any binary little-endian .ply with one element: its header says what there is."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = [line.split() for line in head.decode().splitlines()]
    assert lines[0] == ["ply"] and lines[1] == ["format", "binary_little_endian", "1.0"]
    ((_, element, count),) = [line for line in lines if line[0] == "element"]
    assert element == "vertex"
    table = np.frombuffer(body, [(line[2], TYPES[line[1]]) for line in lines if line[0] == "property"])
    assert len(table) == int(count)
    return table


def columns(table: np.ndarray, *names: str) -> np.ndarray:
    return np.stack([table[name] for name in names], -1).astype(np.float64)


def rotations(table: np.ndarray) -> np.ndarray:
    w, x, y, z = columns(table, "rot_0", "rot_1", "rot_2", "rot_3").T
    return np.stack(
        (
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ),
        -1,
    ).reshape(-1, 3, 3)


@pytest.fixture
def rig(engine_avatars):
    made = stage(engine_avatars / "ann.effigy")
    made.armature.location, made.armature.rotation_euler = (1.0, 2.0, 3.0), (0.3, 0.0, 0.7)
    bpy.context.scene.camera.location = (1.0, 1.0, 3.0)
    bpy.context.view_layer.update()
    return made


def in_blender(rig, module):
    """The splats as the 3D View has them, in Blender's world."""
    baking, request, splats = (
        module(f"blender_addon.viewport.{name}") for name in ("baking", "splats_request", "splats")
    )
    depsgraph = bpy.context.evaluated_depsgraph_get()
    viewpoint = baking.ColorViewpoint(None).in_frame(bpy.context.scene, depsgraph)
    path = Path(bpy.path.abspath(rig.armature.effigy.avatar))
    pose = baking.read_pose(rig, depsgraph)
    answer = session().client().call("avatar.splats", request.SplatsRequest(path, pose, viewpoint).message())
    made = splats.Splats.from_answer(answer, pose.head_motion)
    return made, made.opacities >= splats.ALPHA_MIN


@pytest.mark.parametrize(
    ("axes", "to_file"),
    [("Z_UP", np.eye(3)), ("Y_UP", [[1, 0, 0], [0, 0, 1], [0, -1, 0]]), ("Y_DOWN", [[1, 0, 0], [0, 0, -1], [0, 1, 0]])],
)
def test_the_file_holds_the_splats_of_the_3d_view_in_the_chosen_axes(rig, module, tmp_path, axes, to_file):
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "ann"), axes=axes)
    table, (splats, visible), rotation = read(tmp_path / "ann.ply"), in_blender(rig, module), np.array(to_file, float)
    assert np.allclose(columns(table, "x", "y", "z"), splats.means[visible] @ rotation.T, atol=1e-5)
    scales = np.exp(columns(table, "scale_0", "scale_1", "scale_2"))
    assert np.allclose(scales, splats.scales[visible], rtol=1e-4)
    assert np.allclose(1 / (1 + np.exp(-table["opacity"].astype(float))), splats.opacities[visible], atol=1e-5)
    assert np.allclose(0.5 + C0 * columns(table, "f_dc_0", "f_dc_1", "f_dc_2"), splats.colors[visible], atol=1e-5)
    spread = rotations(table) * scales[:, None]
    xx, xy, xz, yy, yz, zz = splats.covariances[visible].T
    expected = rotation @ np.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), -1).reshape(-1, 3, 3) @ rotation.T
    assert np.allclose(spread @ spread.transpose(0, 2, 1), expected, atol=1e-9, rtol=1e-3)


def test_the_range_is_a_numbered_file_a_frame_and_the_frame_is_given_back(rig, tmp_path):
    scene, smile = bpy.context.scene, rig.key_blocks["mouthSmileLeft"]
    scene.frame_start, scene.frame_end = 9, 11
    for frame, value in ((9, 0.0), (11, 1.0)):
        smile.value = value
        smile.keyframe_insert("value", frame=frame)
    scene.frame_set(4)
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "ann.ply"), animation=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ann_0009.ply", "ann_0010.ply", "ann_0011.ply"]
    assert scene.frame_current == 4
    places = [columns(read(path), "x", "y", "z") for path in sorted(tmp_path.iterdir())]
    assert np.abs(places[1] - places[0]).max() > 1e-4 < np.abs(places[2] - places[1]).max()


def test_this_frame_is_exported_as_it_is_posed_though_it_is_not_keyed(rig, module, tmp_path):
    smile = rig.key_blocks["mouthSmileLeft"]
    smile.keyframe_insert("value", frame=bpy.context.scene.frame_current)
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "keyed.ply"))
    smile.value = 0.1
    bpy.context.view_layer.update()
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "posed.ply"), axes="Z_UP")
    assert smile.value == pytest.approx(0.1)
    splats, visible = in_blender(rig, module)
    posed = columns(read(tmp_path / "posed.ply"), "x", "y", "z")
    assert np.allclose(posed, splats.means[visible], atol=1e-5)
    assert not np.array_equal(posed, columns(read(tmp_path / "keyed.ply"), "x", "z", "y") * (1, 1, -1))


@pytest.fixture
def played(engine_avatars):
    """A rig whose avatar has a baked model."""
    made = stage(engine_avatars / "cat.effigy")
    made.armature.location, made.armature.rotation_euler = (1.0, 2.0, 3.0), (0.3, 0.0, 0.7)
    made.key_blocks["mouthSmileLeft"].value = 0.8
    bpy.context.scene.camera.location = (1.0, 1.0, 3.0)
    bpy.context.view_layer.update()
    return made


def test_an_avatar_with_a_baked_model_is_exported_without_a_worker(played, module, tmp_path, monkeypatch):
    expected, visible = in_blender(played, module)
    monkeypatch.setattr(module("blender_addon.worker.session"), "client", None)
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "cat"), axes="Z_UP")
    table = read(tmp_path / "cat.ply")
    assert np.allclose(columns(table, "x", "y", "z"), expected.means[visible], atol=2e-5)
    found = 0.5 + C0 * columns(table, "f_dc_0", "f_dc_1", "f_dc_2")
    assert np.abs(found - expected.colors[visible]).max() < 1 / 255


IMPORTERS = {
    ".ply": lambda path: bpy.ops.wm.ply_import(filepath=str(path), forward_axis="Y", up_axis="Z"),
    ".spz": lambda path: bpy.ops.wm.spz_import(filepath=str(path)),
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=str(path)),
}


@pytest.mark.skipif(bpy.app.version < (5, 3), reason="Blender reads Gaussians from 5.3 on.")
@pytest.mark.parametrize(("suffix", "turn", "size"), [(".ply", 1e-3, 1e-3), (".spz", 0.3, 0.033), (".glb", 1e-3, 1e-3)])
def test_blender_reads_back_what_it_has_exported(played, module, tmp_path, suffix, turn, size):
    """`turn`: degrees, `size`: natural logarithm of the scales, within which a format keeps them."""
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / f"cat{suffix}"), axes="Z_UP")
    baking, request, splats = (
        module(f"blender_addon.viewport.{name}") for name in ("baking", "splats_request", "splats")
    )
    depsgraph = bpy.context.evaluated_depsgraph_get()
    viewpoint, pose = (
        baking.ColorViewpoint(None).in_frame(bpy.context.scene, depsgraph),
        baking.read_pose(played, depsgraph),
    )
    player = module("blender_addon.player.players").player_of(
        played, Path(bpy.path.abspath(played.armature.effigy.avatar)), depsgraph
    )
    expected = splats.Splats.from_answer(player.splats(pose.message(), viewpoint.message()), pose.head_motion)
    visible = expected.opacities >= splats.ALPHA_MIN
    IMPORTERS[suffix](tmp_path / f"cat{suffix}")
    (cloud,) = [obj for obj in bpy.data.objects if obj.type == "POINTCLOUD"]
    assert np.allclose(np.array(cloud.matrix_world), np.eye(4))

    def get(name: str, field: str, width: int) -> np.ndarray:
        values = np.empty(width * len(cloud.data.points), np.float32)
        cloud.data.attributes[name].data.foreach_get(field, values)
        return values.reshape(-1, width)

    assert np.abs(get("position", "vector", 3) - expected.means[visible]).max() < 1e-4
    base = get("radiance:base", "vector", 4)
    assert np.abs(0.5 + C0 * base[:, :3] - expected.colors[visible]).max() < 2 / 255
    assert np.abs(base[:, 3] - expected.opacities[visible]).max() < 1 / 255
    scales, quaternions = get("scale", "vector", 3), get("rotation", "value", 4)
    axes = splats.quaternion_rows(np.ascontiguousarray(quaternions.T)) * scales.T
    xx, xy, xz, yy, yz, zz = expected.covariances[visible].T
    wanted = np.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), -1).reshape(-1, 3, 3)
    found = np.einsum("ikg,jkg->gij", axes, axes)
    largest = np.linalg.norm(wanted, axis=(1, 2))[:, None, None]
    assert (np.abs(found - wanted) / largest).max() < 2 * (size + np.radians(turn)) + 1e-3


def test_the_format_that_is_chosen_replaces_that_of_the_name(played, tmp_path):
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "cat.ply"), format="SPZ")
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "ann.v2"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ann.v2.ply", "cat.spz"]
    assert (tmp_path / "cat.spz").read_bytes()[:2] == b"\x1f\x8b"


def test_the_worker_writes_the_other_formats_as_well(rig, tmp_path):
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "ann.glb"))
    assert (tmp_path / "ann.glb").read_bytes()[:4] == b"glTF"


def test_all_avatars_of_the_scene_are_in_the_file(rig, engine_avatars, tmp_path):
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "one.ply"))
    add_rig(engine_avatars / "ben.effigy")
    bpy.ops.effigy.export_splats(filepath=str(tmp_path / "two.ply"))
    one, two = read(tmp_path / "one.ply"), read(tmp_path / "two.ply")
    assert len(two) > 1.5 * len(one) and np.array_equal(two[: len(one)], one)


def test_a_folder_that_cannot_be_written_is_a_sentence_and_nothing_is_left(rig, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RuntimeError, match="a file stands where a folder is needed"):
        bpy.ops.effigy.export_splats(filepath=str(tmp_path / "taken" / "ann.ply"))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_blender_asks_before_a_file_is_replaced():
    assert bpy.ops.effigy.export_splats.get_rna_type().properties["check_existing"].default


def test_file_export_leads_to_it(effigy):
    drawn = [draw.__module__ for draw in bpy.types.TOPBAR_MT_file_export.draw._draw_funcs]
    assert any("export_splats" in name for name in drawn)
