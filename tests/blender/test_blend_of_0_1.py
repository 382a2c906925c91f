"""A .blend that Effigy 0.1 saved opens with today's extension: rigs, keys, settings and shapes are as they were.

tests/files_of_0_1/README.md says what is in the file and how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from rig_scenes import read_pose, rigging

FILES = Path(__file__).resolve().parents[1] / "files_of_0_1"
EXPECTED = json.loads((FILES / "expected_blend.json").read_text("utf-8"))
JOINTS = ("root", "neck", "jaw", "eye_L", "eye_R")


@pytest.fixture(autouse=True)
def opened(fresh_file: None) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(FILES / "person.blend"), use_scripts=False)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FILES / "expected_blend.npz") as archive:
        return {name: archive[name] for name in archive.files}


def rig_named(name: str) -> Any:
    rig = rigging().rig_properties.find_rig(bpy.data.objects[name])
    assert rig is not None, f"{name} is no rig any more"
    return rig


def first_rig() -> Any:
    return rig_named(EXPECTED["armature"])


def mesh_vertices(rig: Any) -> np.ndarray:
    """(V, 3) as Blender evaluates the mesh, in Blender's axes."""
    mesh = rig.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    return points.reshape(-1, 3)


def curves_of(action: bpy.types.Action) -> Iterator[bpy.types.FCurve]:
    if hasattr(action, "fcurves"):
        yield from action.fcurves
        return
    for layer in action.layers:
        for strip in layer.strips:
            for bag in strip.channelbags:
                yield from bag.fcurves


def test_both_rigs_are_found_with_the_person_that_they_were_made_for() -> None:
    found = {rig.armature.name: rig.mesh.name for rig in rigging().rig_properties.find_rigs(bpy.context.scene.objects)}
    assert found == {EXPECTED["armature"]: EXPECTED["mesh"], EXPECTED["second_armature"]: EXPECTED["second_mesh"]}
    rig = first_rig()
    assert (rig.head_name, rig.head_fingerprint) == (EXPECTED["head_name"], EXPECTED["head_fingerprint"])
    np.testing.assert_array_equal(rig.base_identity, EXPECTED["base_identity"])
    np.testing.assert_array_equal(rig.base_joints, np.array(EXPECTED["base_joints"]))
    assert rig.expression_names == tuple(block[0] for block in EXPECTED["key_blocks"][1:53])
    assert rig.bone_name("eye_L") == "my left eye", "a joint's bone is known by its property, not by its name"


def test_the_mesh_the_bones_and_the_sliders_move_as_they_did(expected: dict[str, np.ndarray]) -> None:
    rig, second = first_rig(), rig_named(EXPECTED["second_armature"])
    for index, frame in enumerate(expected["frames"].tolist()):
        bpy.context.scene.frame_set(frame)
        values = [block.value for block in rig.key_blocks]
        assert np.abs(np.subtract(values, expected["slider_values"][index])).max() < 1e-6, frame
        bones = [np.array(rig.armature.matrix_world @ rig.pose_bone(joint).matrix) for joint in JOINTS]
        assert np.abs(np.subtract(bones, expected["bones"][index])).max() < 1e-5, frame
        assert np.abs(mesh_vertices(rig) - expected["vertices"][index]).max() < 1e-5, frame
        assert np.abs(mesh_vertices(second) - expected["second_vertices"]).max() < 1e-5, frame
    assert np.ptp(expected["vertices"], axis=0).max() > 1e-3, (
        "the frames differ, so that the comparison means something"
    )
    assert [block.value for block in second.key_blocks] == expected["second_slider_values"].tolist()
    coefficients, sliders = read_pose(rig)["expression"].copy(), expected["slider_values"][-1][1:53].copy()
    # The jaw is shut there, and lips that are shut already cannot be closed.
    closing = rig.expression_names.index("mouthClose")
    assert 0 == coefficients[closing] < sliders[closing] < 0.01
    sliders[closing] = 0
    assert coefficients == pytest.approx(sliders, abs=1e-6)


def test_sliders_keep_their_names_ranges_and_muting() -> None:
    blocks = [[block.name, block.mute, block.slider_min, block.slider_max] for block in first_rig().key_blocks]
    assert blocks == [
        [name, mute, pytest.approx(low), pytest.approx(high)] for name, mute, low, high in EXPECTED["key_blocks"]
    ]


def test_keys_and_strips_are_kept() -> None:
    for name, curves in EXPECTED["actions"].items():
        found = sorted(
            [curve.data_path, curve.array_index, len(curve.keyframe_points)]
            for curve in curves_of(bpy.data.actions[name])
        )
        assert found == [curve[:3] for curve in curves], name
        sums = {
            (curve.data_path, curve.array_index): sum(point.co[1] for point in curve.keyframe_points)
            for curve in curves_of(bpy.data.actions[name])
        }
        assert all(sums[path, index] == pytest.approx(total, abs=1e-4) for path, index, _, total in curves), name
    rig = first_rig()
    for target in (rig.armature, rig.mesh.data.shape_keys):
        strips = [
            [
                track.name,
                [
                    [strip.name, strip.frame_start, strip.frame_end, strip.action.name, strip.extrapolation]
                    for strip in track.strips
                ],
            ]
            for track in target.animation_data.nla_tracks
        ]
        assert strips == EXPECTED["strips"][target.name]


def test_the_performance_is_known_and_can_be_removed() -> None:
    rig, performance = first_rig(), rigging().performance
    assert performance.has_performance(rig) and not performance.has_performance(rig_named(EXPECTED["second_armature"]))
    performance.remove_performance(rig)
    assert not performance.has_performance(rig)
    names = [track.strips[0].name for track in rig.armature.animation_data.nla_tracks]
    assert names == ["retargeted_track"], "what was retargeted onto the rig stays"


@pytest.mark.parametrize(
    "owner, group",
    [
        ("armature", "effigy"),
        ("armature", "effigy_view"),
        ("scene", "effigy"),
        ("scene", "effigy_view"),
    ],
)
def test_settings_of_the_panels_are_kept(owner: str, group: str) -> None:
    holder = bpy.context.scene if owner == "scene" else first_rig().armature
    stored = EXPECTED[group if owner == "armature" else f"scene_{group}"]
    # Whether the mesh is hidden behind the splats is the extension's own to decide when a file is opened.
    kept = {name: getattr(getattr(holder, group), name) for name in stored if name != "cleared"}
    assert kept == {name: value for name, value in stored.items() if name != "cleared"}


def test_avatars_are_found_beside_the_file_and_inside_it(module: Any) -> None:
    avatars, training = module("blender_addon.avatars"), module("blender_addon.training")
    rig, second = first_rig(), rig_named(EXPECTED["second_armature"])
    assert avatars.avatar_path(rig.armature).samefile(FILES / "person.effigy")
    assert list(avatars.missing(bpy.context.scene)) == []
    assert second.armature.effigy.packed.name == EXPECTED["packed"]
    assert avatars.avatar_path(second.armature).read_bytes() == (FILES / "person.effigy").read_bytes()
    assert training.capture_of(rig).samefile(FILES / "person.capture")
    assert training.has_refined_track(rig) and training.can_resume(rig)


def test_camera_and_engine_are_kept() -> None:
    scene = bpy.context.scene
    assert (scene.camera.name, scene.frame_end, scene.render.engine) == (
        EXPECTED["camera"],
        EXPECTED["frame_end"],
        EXPECTED["engine"],
    )
    assert [scene.render.fps, scene.render.fps_base] == EXPECTED["frame_rate"]
    footage = scene.camera.data.background_images[0].image
    assert Path(bpy.path.abspath(footage.filepath)).samefile(FILES / "person.capture" / "frames" / "000000.jpg")
