"""Poses of the face as assets: what they hold, that Blender applies them, and a library with pictures of an avatar."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import stage
from rig_scenes import make_rig, read_pose, rigging

KINDS = {"Expressions": 13, "Visemes": 15, "Action Units": 32}
FEW = {"Neutral", "Smile", "Viseme aa", "AU 61 Eyes Left"}


@pytest.fixture
def face(module):
    """Modules of the face board and the pose library."""

    class Modules:
        build, values, layout, expressions, assets = (
            module(f"blender_addon.face_board.{name}")
            for name in ("build", "values", "layout", "expressions", "pose_assets")
        )
        library = module("blender_addon.pose_library")

        @staticmethod
        def add(made):
            Modules.build.add_board(made, bpy.context.evaluated_depsgraph_get())
            bpy.context.view_layer.update()
            return made

    return Modules


@pytest.fixture(scope="module")
def avatar_rig(engine_avatars):
    """An avatar that Blender plays, with a face board; its pose library is removed in the end."""

    def load():
        made = stage(engine_avatars / "cat.effigy")
        bpy.context.view_layer.objects.active = made.armature
        bpy.ops.effigy.add_face_controls()
        return made

    yield load
    if bpy.ops.effigy.remove_pose_library.poll():
        bpy.ops.effigy.remove_pose_library()


def shown(made) -> dict[str, float]:
    rigging().sliders.refresh(made)
    bpy.context.view_layer.update()
    return dict(zip(made.expression_names, read_pose(made)["expression"].tolist(), strict=True))


def test_every_pose_of_the_library_is_held_by_the_handles_alone(face):
    made = face.add(make_rig())
    board = face.values.board_of(made)
    kinds = [expression.kind for expression in face.expressions.EXPRESSIONS]
    assert {kind: kinds.count(kind) for kind in kinds} == KINDS
    neutral = np.zeros(len(board.sliders))
    for number, expression in enumerate(face.expressions.EXPRESSIONS):
        places = face.assets.places_of_expression(board, expression)
        if not any(expression.gaze):
            held = board.total(neutral, board.pull(places), neutral + 1)
            expected = [expression.sliders.get(name, 0) for name in board.sliders]
            assert np.allclose(held, expected, atol=1e-9), expression.name
        if number % 20:
            continue
        rigging().sliders.rest_handles(made)
        face.values.put(made, board, places)
        rigging().sliders.refresh(made)
        bpy.context.view_layer.update()
        pose = face.assets.seen_pose(made, board, places).message()
        read = read_pose(made)
        for name in ("expression", "jaw", "eye_L", "eye_R"):
            assert np.allclose(pose[name], read[name], atol=2e-5), (expression.name, name)


def test_a_picture_of_a_flame_head_has_the_pose_that_blender_evaluates(face):
    made = face.add(make_rig("flame"))
    board = face.values.board_of(made)
    smile = next(each for each in face.expressions.EXPRESSIONS if each.name == "Laugh")
    places = face.assets.places_of_expression(board, smile)
    face.values.put(made, board, places)
    rigging().sliders.refresh(made)
    bpy.context.view_layer.update()
    pose, read = face.assets.seen_pose(made, board, places).message(), read_pose(made)
    assert np.abs(read["jaw"]).max() > 0.05
    assert all(np.allclose(pose[name], read[name], atol=2e-5) for name in ("expression", "jaw"))


def test_visemes_leave_brows_and_gaze_alone_and_units_what_they_do_not_move(face):
    made = face.add(make_rig())
    board = face.values.board_of(made)

    def posed(name):
        expression = next(each for each in face.expressions.EXPRESSIONS if each.name == name)
        return {handle for handle, _ in face.assets.places_of_expression(board, expression)}

    viseme = posed("Viseme aa")
    assert {"face_jaw", "face_lip_corner.L", "board_funnel"} <= viseme
    assert not any(name.startswith(("face_brow", "face_lid", "face_gaze", "board_lids")) for name in viseme)
    assert posed("AU 12 Lip Corner Puller") == {"face_lip_corner.L", "face_lip_corner.R"}
    assert posed("AU 61 Eyes Left") == {"face_gaze"}
    assert "face_gaze" not in posed("Smile") and "face_brow_inner" in posed("Smile")


def test_the_shapes_of_the_visemes_are_those_of_lip_sync(face):
    import ast

    tree = ast.parse((Path(__file__).parents[2] / "backend" / "speech" / "visemes.py").read_text("utf-8"))
    table = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "VISEMES"
    )
    backend = {}
    for key, value in zip(table.keys, table.values, strict=True):
        backend["sil" if isinstance(key, ast.Name) else key.value] = ast.literal_eval(value.args[0])
    ours = {
        name: {each.removesuffix("*"): value for each, value in values.items()}
        for name, values in face.expressions.VISEMES.items()
    }
    assert ours == backend


def test_the_library_has_all_poses_with_pictures_of_the_avatar_and_blender_applies_them(avatar_rig, face, monkeypatch):
    made = avatar_rig()
    bpy.ops.effigy.reset_expression()
    monkeypatch.setattr(face.library, "SIZE", 64)
    few = [each for each in face.expressions.EXPRESSIONS if each.name in FEW]
    monkeypatch.setattr(face.library, "EXPRESSIONS", few)
    actions = len(bpy.data.actions)
    bpy.ops.effigy.make_pose_library()
    assert len(bpy.data.actions) == actions, "nothing is left in the artist's file"
    entry = next(each for each in bpy.context.preferences.filepaths.asset_libraries if each.name == "Effigy Poses")
    catalogs = (Path(entry.path) / "blender_assets.cats.txt").read_text("utf-8")
    assert all(f":{made.mesh.name}/{kind}:" in catalogs for kind in KINDS)
    (file,) = Path(entry.path).glob("avatars/*.blend")
    with bpy.data.libraries.load(str(file), link=False, assets_only=True) as (stored, wanted):
        assert set(stored.actions) == FEW
        wanted.actions = ["Smile", "Neutral", "Viseme aa"]
    pictures = {}
    for action in wanted.actions:
        assert action.asset_data.catalog_id in catalogs
        pixels = np.empty(4 * 64 * 64, np.float32)
        action.preview.image_pixels_float.foreach_get(pixels)
        pictures[action.name] = pixels.reshape(64, 64, 4)
    assert 0.1 < (pictures["Neutral"][..., 3] > 0.5).mean() < 0.95
    assert np.abs(pictures["Smile"] - pictures["Neutral"]).max() > 0.02
    upper, lower = (pictures["Neutral"][half, :, 3].mean() for half in (slice(32, None), slice(0, 16)))
    assert upper > 0.1 and lower > 0
    bpy.context.view_layer.objects.active = made.armature
    bpy.ops.object.mode_set(mode="POSE")
    smile = next(action for action in wanted.actions if action.name == "Smile")
    with bpy.context.temp_override(asset=smile, id=smile):
        made.armature.pose.apply_pose_from_action(smile)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(0.7, abs=1e-5)
    made.armature.pose.blend_pose_from_action(wanted.actions[1], blend_factor=0.5)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(0.35, abs=1e-5)
    (Path(entry.path) / "Mine.blend").write_bytes(b"BLENDER")
    home = Path(entry.path)
    (home / "Mine.blend").write_bytes(b"BLENDER")
    monkeypatch.setattr(face.library, "EXPRESSIONS", few[:1])
    bpy.ops.effigy.make_pose_library()
    assert (home / "blender_assets.cats.txt").read_text("utf-8") == catalogs
    bpy.ops.effigy.remove_pose_library()
    assert not file.exists() and (home / "Mine.blend").exists()
    assert not any(each.name == "Effigy Poses" for each in bpy.context.preferences.filepaths.asset_libraries)
    (home / "Mine.blend").unlink()


def test_the_face_that_is_shown_becomes_a_pose_of_this_file(avatar_rig, face):
    made = avatar_rig()
    bpy.ops.effigy.reset_expression()
    made.key_blocks["mouthFrownLeft"].value = 0.4
    made.key_blocks["browInnerUp"].value = 0.3
    made.handle_bones()["face_jaw"].location.y = -0.5 * face.layout.TRAVEL
    before = shown(made)
    assert bpy.ops.effigy.add_pose(name="Worried") == {"FINISHED"}
    assert shown(made) == before and made.key_blocks["mouthFrownLeft"].value == pytest.approx(0.4)
    action = bpy.data.actions["Worried"]
    assert action.asset_data is not None and action.preview.image_size[0] == 256
    bpy.ops.effigy.reset_expression()
    made.armature.pose.apply_pose_from_action(action)
    assert shown(made) == pytest.approx(before, abs=1e-5)
