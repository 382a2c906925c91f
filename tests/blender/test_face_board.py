"""The face board: bones that add to the sliders, on every kind of head, and a performance moved between both."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import evaluated_vertices, make_rig, make_track, read_pose, rigging, tracked_rig

TOLERANCE = 2e-6
"""Of a slider's value: single precision, of a bone that is 0.3 m away from the armature's origin."""


@pytest.fixture
def board(module):
    """The modules of the face board, and a function that adds one."""

    class Modules:
        build, values, keys, layout = (
            module(f"blender_addon.face_board.{name}") for name in ("build", "values", "keys", "layout")
        )

        @staticmethod
        def add(made):
            Modules.build.add_board(made, bpy.context.evaluated_depsgraph_get())
            update(made)
            return made

    return Modules


def update(made) -> None:
    rigging().sliders.refresh(made)
    bpy.context.view_layer.update()


def shown(made) -> dict[str, float]:
    """What the sliders of the open head and its handles show together, as the avatar gets it."""
    return dict(zip(made.expression_names, read_pose(made)["expression"].tolist(), strict=True))


def move(made, name: str, travel: float, **by: float) -> None:
    for axis, value in by.items():
        setattr(made.handle_bones()[name].location, axis, value * travel)
    update(made)


def test_every_slider_has_a_handle_that_moves_it_alone_on_every_head(board):
    for head in ("open", "flame"):
        made = board.add(make_rig(head, head))
        names = made.arkit_names or made.expression_names
        assert len(names) == 52
        rest = evaluated_vertices(made)
        for handle in board.layout.HANDLES:
            for way, sliders in handle.drives.items() if not handle.turns else ():
                assert len(sliders) == 1
                move(made, handle.name, board.layout.TRAVEL, **{way[1]: float(f"{way[0]}1")})
                by_handle = evaluated_vertices(made) - rest
                move(made, handle.name, board.layout.TRAVEL, **{way[1]: 0.0})
                made.key_blocks[sliders[0]].value = 1
                update(made)
                assert np.allclose(by_handle, evaluated_vertices(made) - rest, atol=1e-7)
                # FLAME has no tongue.
                assert np.abs(by_handle).max() > 1e-4 or (head, *sliders) == ("flame", "tongueOut")
                made.key_blocks[sliders[0]].value = 0
                names = tuple(name for name in names if name not in sliders)
        assert not names


def test_a_handle_takes_the_performances_expression_away_before_it_makes_the_opposite_one(board):
    made, travel = board.add(make_rig()), board.layout.TRAVEL
    made.key_blocks["mouthSmileLeft"].value, made.key_blocks["mouthFrownLeft"].value = 0.6, 0.1
    for pulled, smile, frown in ((0, 0.6, 0.1), (-0.3, 0.3, 0.1), (-0.5, 0.1, 0.1), (-0.8, 0.1, 0.4), (0.3, 0.9, 0.1)):
        move(made, "face_lip_corner.L", travel, y=pulled)
        face = shown(made)
        assert face["mouthSmileLeft"] == pytest.approx(smile, abs=TOLERANCE)
        assert face["mouthFrownLeft"] == pytest.approx(frown, abs=TOLERANCE)
    move(made, "face_lip_corner.L", travel, y=5)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(1, abs=TOLERANCE), "a slider ends at its limit"
    assert made.key_blocks["mouthSmileLeft"].value == pytest.approx(0.6), "the artist's value stays"


def test_the_gaze_turns_eyes_and_lids_beside_their_own_rotation(board):
    made, rig, travel = board.add(make_rig()), rigging(), board.layout.TRAVEL
    rig.face_angles.look(made, sideways=0.1, up=0.05)
    move(made, "face_gaze", travel, x=0.5, y=-0.4)
    move(made, "face_gaze.L", travel, x=0.2)
    pose, limits = read_pose(made), rig.joint_limits
    for joint, own in (("eye_L", 0.7), ("eye_R", 0.5)):
        turn = 0.1 + np.radians(own * limits.LOOK_SIDEWAYS), np.radians(0.4 * limits.LOOK_UP) - 0.05
        assert np.allclose(pose[joint][[1, 0]], turn, atol=0.01)
    face = shown(made)
    assert face["eyeLookOutLeft"] == pytest.approx(0.7 + np.degrees(0.1) / limits.LOOK_SIDEWAYS, abs=1e-5)
    assert face["eyeLookInRight"] == pytest.approx(0.5 + np.degrees(0.1) / limits.LOOK_SIDEWAYS, abs=1e-5)
    assert face["eyeLookDownLeft"] == pytest.approx(0.4 - np.degrees(0.05) / limits.LOOK_UP, abs=1e-5)


@pytest.mark.parametrize("head", ["open", "flame"])
def test_a_face_goes_to_the_handles_and_back_without_a_change(board, head):
    made, random = board.add(make_rig(head)), np.random.default_rng(1)
    names = made.arkit_names or made.expression_names
    own = dict(zip(names, random.uniform(0, 1, 52).tolist(), strict=True))
    for name, value in own.items():
        made.key_blocks[name].value = value
    move(made, "face_gaze", board.layout.TRAVEL, x=0.4, y=-0.3)
    move(made, "face_lip_corner.L", board.layout.TRAVEL, y=0.3)
    before = read_pose(made)
    board.values.move(made, 1.0)
    update(made)
    after = read_pose(made)
    assert np.allclose(after["expression"], before["expression"], atol=1e-5)
    assert np.allclose(after["eye_L"], before["eye_L"], atol=1e-6)
    opposite = board.layout.opposite
    held = [name for name in names if not name.startswith("eyeLook") and not opposite(name)]
    assert all(abs(made.key_blocks[name].value) < 1e-6 for name in held)
    board.values.move(made, 0.0)
    update(made)
    assert np.allclose(read_pose(made)["expression"], before["expression"], atol=1e-5)
    gaze = {name: tuple(bone.location) for name, bone in made.handle_bones().items() if any(bone.location)}
    assert set(gaze) == {"face_gaze"}


def test_one_expression_of_each_pair_leaves_nothing_on_the_sliders(board):
    made = board.add(make_rig())
    for name in made.expression_names:
        made.key_blocks[name].value = (
            0.5 if board.layout.opposite(name) is None or name < board.layout.opposite(name) else 0
        )
    values = {name: made.key_blocks[name].value for name in made.expression_names}
    board.values.move(made, 1.0)
    update(made)
    assert not any(block.value for block in made.expression_keys())
    assert shown(made) == pytest.approx(values, abs=1e-5)


def test_the_performance_goes_to_the_handles_and_keys_by_hand_stay(board):
    made, scene = board.add(tracked_rig()), bpy.context.scene
    frames = range(1, 1 + make_track().frame_count)
    scene.frame_set(4)
    made.key_blocks["browInnerUp"].value = made.key_blocks["browInnerUp"].value + 0.1
    made.key_blocks["browInnerUp"].keyframe_insert("value", frame=4)
    move(made, "face_jaw", board.layout.TRAVEL, y=-0.2)
    made.handle_bones()["face_jaw"].keyframe_insert("location", frame=4)

    def faces():
        result = []
        for frame in frames:
            scene.frame_set(frame)
            result.append(read_pose(made)["expression"])
        return np.array(result)

    def keys():
        return [
            [tuple(point.co) for point in curve.keyframe_points]
            for target in (made.mesh.data.shape_keys, made.armature)
            for curve in rigging().action.keyed_curves(target)
        ]

    before, by_hand = faces(), keys()
    for _ in range(2):
        board.keys.move_performance(made, scene, 1.0)
        assert np.allclose(faces(), before, atol=1e-5) and keys() == by_hand
        scene.frame_set(6)
        assert any(abs(bone.location.y) > 0.1 * board.layout.TRAVEL for bone in made.handle_bones().values())
    board.keys.move_performance(made, scene, 0.0)
    assert np.allclose(faces(), before, atol=1e-5) and keys() == by_hand
    moved = {n for n, bone in made.handle_bones().items() if any(bone.location)}
    assert moved == {"face_jaw"}, "what was keyed on a handle by hand stays on it"
    assert [strip.name for _, strip in rigging().action.strips_of(made.armature)].count(board.keys.CONTROLS) == 1


def test_a_face_of_a_heads_own_coefficients_goes_to_the_handles_without_a_change(board):
    made = board.add(make_rig("flame"))
    smile = made.arkit_names.index("mouthSmileLeft")
    random = np.random.default_rng(2)
    own = 0.7 * made.arkit_expression[smile] + random.normal(0, 0.002, len(made.expression_names))
    frames = {2: own, 5: np.zeros(len(own))}
    for frame, values in frames.items():
        for block, value in zip(made.expression_keys(), values.tolist(), strict=True):
            block.slider_min, block.slider_max = -10, 10
            block.value = value
            block.keyframe_insert("value", frame=frame)
    scene = bpy.context.scene
    seen = {}
    for frame in range(2, 6):
        scene.frame_set(frame)
        seen[frame] = read_pose(made)["expression"]
    board.keys.move_performance(made, scene, 1.0)
    for share in (1.0, 0.0):
        for frame in range(2, 6):
            scene.frame_set(frame)
            assert np.allclose(read_pose(made)["expression"], seen[frame], atol=1e-5)
        scene.frame_set(2)
        held = made.handle_bones()["face_lip_corner.L"].location.y / board.layout.TRAVEL
        assert held == pytest.approx(0.7 * share, abs=0.1)
        if share:
            assert max(abs(block.value) for block in made.expression_keys()) < 0.3 * np.abs(own).max()
            board.keys.move_performance(made, scene, 0.0)


def test_the_avatar_follows_a_rig_with_a_face_board(board):
    made = board.add(make_rig())
    move(made, "face_gaze", board.layout.TRAVEL, x=1.0, y=-1.0)
    move(made, "face_jaw", board.layout.TRAVEL, x=0.5, y=-1.0)
    assert rigging().troubles.find_trouble(made, bpy.context.evaluated_depsgraph_get()) is None


@pytest.mark.parametrize("kind", ["take", "lip sync", "loop"])
def test_a_performance_above_the_handles_replaces_theirs(board, module, kind):
    """The same performance again, so that nothing changes unless it is added to that of the handles."""
    made, scene = board.add(tracked_rig()), bpy.context.scene
    board.keys.move_performance(made, scene, 1.0)
    scene.frame_set(6)
    before = read_pose(made)
    assert any(abs(bone.location.y) > 0.1 * board.layout.TRAVEL for bone in made.handle_bones().values())
    if kind == "take":
        rigging().steps.finish(rigging().added_performance.add_performance_steps(made, make_track(), "take", 1))
    elif kind == "lip sync":
        speech = module("blender_addon.rig.speech")
        rigging().steps.finish(speech.add_speech_steps(made, make_track(), "speech", 1))
    else:
        bpy.context.view_layer.objects.active = made.armature
        board.keys.move_performance(made, scene, 0.0)
        takes = module("blender_addon.rig.takes")
        assert takes.take_of(made).name == board.keys.CONTROLS, "it hides the tracked one"
        board.keys.move_performance(made, scene, 1.0)
        with pytest.raises(RuntimeError, match="press Sliders from Controls first"):
            bpy.ops.effigy.simplify_performance()
        rigging().steps.finish(rigging().added_performance.add_performance_steps(made, make_track(), "take", 1))
        assert bpy.ops.effigy.loop_range(take="take", frames="RANGE", first=3, last=11, fade=1) == {"FINISHED"}
    scene.frame_set(6)
    assert np.allclose(read_pose(made)["expression"], before["expression"], atol=1e-4)
    named = {name: bone.location.length for name, bone in made.handle_bones().items()}
    resting = {name for name, far in named.items() if far < 1e-6}
    spoken = {name for name in made.slider_names if rigging().sliders.region_of(name) in ("mouth", "jaw")}
    mouth = {each.name for each in board.layout.HANDLES if all(map(spoken.issuperset, each.drives.values()))}
    assert mouth <= resting and (resting == set(named)) == (kind != "lip sync")
    board.keys.move_performance(made, scene, 1.0)
    assert np.allclose(read_pose(made)["expression"], before["expression"], atol=1e-4), "once more on the handles"


def test_a_gaze_target_moves_the_lids_of_a_performance_on_the_handles_once(board):
    made, scene = tracked_rig(), bpy.context.scene
    bpy.context.view_layer.objects.active = made.armature
    scene.frame_set(6)
    bpy.ops.effigy.add_gaze_target()
    before = read_pose(made)["expression"]
    bpy.ops.effigy.remove_life(what="TARGET")
    board.add(made)
    assert bpy.ops.effigy.controls_from_sliders() == {"FINISHED"}
    assert board.keys.CONTROLS in made.armature.animation_data.nla_tracks, "the whole performance, since there is one"
    bpy.ops.effigy.add_gaze_target()
    scene.frame_set(6)
    looks = [index for index, name in enumerate(made.expression_names) if name.startswith("eyeLook")]
    assert np.allclose(read_pose(made)["expression"][looks], before[looks], atol=1e-4)
    assert any(any(bone.location) for bone in made.handle_bones().values())


def test_removing_keeps_what_handles_without_keys_do_over_a_performance(board):
    made, scene = board.add(tracked_rig()), bpy.context.scene
    move(made, "face_jaw", board.layout.TRAVEL, y=-0.5)
    faces = []
    for _ in range(2):
        for frame in (3, 6):
            scene.frame_set(frame)
            faces.append(read_pose(made)["expression"])
        bpy.context.view_layer.objects.active = made.armature
        if board.build.has_board(made):
            assert bpy.ops.effigy.remove_face_controls() == {"FINISHED"}
    assert np.allclose(faces[:2], faces[2:], atol=1e-5)


def test_removing_keeps_the_face_and_leaves_nothing_behind(board):
    made, scene = tracked_rig(), bpy.context.scene
    left = {kind: getattr(bpy.data, kind).keys() for kind in ("objects", "meshes", "armatures", "curves")}
    keys, bones = made.key_blocks.keys(), made.armature.data.bones.keys()
    drivers = len(made.armature.animation_data.drivers[0].driver.variables)
    board.add(made)
    for frame, pulled in ((2, 0.0), (6, -0.5)):
        scene.frame_set(frame)
        move(made, "face_jaw", board.layout.TRAVEL, y=pulled)
        made.handle_bones()["face_jaw"].keyframe_insert("location", frame=frame)
    scene.frame_set(6)
    before = read_pose(made)["expression"]
    bpy.context.view_layer.objects.active = made.armature
    assert bpy.ops.effigy.remove_face_controls() == {"FINISHED"}
    assert np.allclose(read_pose(made)["expression"], before, atol=1e-5)
    assert made.key_blocks.keys() == keys and made.armature.data.bones.keys() == bones
    assert {kind: getattr(bpy.data, kind).keys() for kind in left} == left
    assert len(made.armature.animation_data.drivers[0].driver.variables) == drivers
    assert not made.pose_bone("eye_L").constraints and not made.armature.data.collections
    board.add(made)
    scene.frame_set(6)
    assert np.allclose(read_pose(made)["expression"], before, atol=1e-5), "muted keys do not act twice"


def test_a_hidden_mesh_goes_on_following_the_handles(board):
    made = board.add(make_rig())
    made.mesh.hide_viewport = made.mesh.hide_render = True
    move(made, "face_lip_corner.L", board.layout.TRAVEL, y=0.5)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(0.5, abs=TOLERANCE)


def test_paste_flipped_mirrors_the_face(board):
    made, travel = board.add(make_rig()), board.layout.TRAVEL
    places = {
        "face_lip_corner.L": {"x": 0.3, "y": 0.7},
        "face_brow_outer.R": {"y": 0.5},
        "face_mouth": {"x": 0.4},
        "face_gaze": {"x": -0.5, "y": 0.2},
        "face_lid_upper.L": {"y": -0.8},
    }
    for name, by in places.items():
        move(made, name, travel, **by)
    face = shown(made)
    mirror = rigging().sliders.mirror_name
    expected = {mirror(name) or name: value for name, value in face.items()}
    bpy.context.view_layer.objects.active = made.armature
    made.armature.select_set(True)
    bpy.ops.object.mode_set(mode="POSE")
    bpy.ops.pose.select_all(action="SELECT")
    bpy.ops.pose.copy()
    bpy.ops.pose.paste(flipped=True)
    bpy.ops.object.mode_set(mode="OBJECT")
    update(made)
    assert shown(made) == pytest.approx(expected, abs=1e-5)
    bpy.ops.effigy.mirror_expression()
    update(made)
    assert shown(made) == pytest.approx(face, abs=1e-5)


def test_reset_expressions_and_starter_expressions_put_handles_to_rest(board):
    made, travel = board.add(make_rig()), board.layout.TRAVEL
    move(made, "face_lip_corner.L", travel, y=-0.7)
    move(made, "face_gaze", travel, x=0.5)
    rigging().presets.apply_preset(made, "Smile")
    update(made)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(0.7, abs=1e-5)
    assert shown(made)["eyeLookOutLeft"] == pytest.approx(0.5, abs=1e-5), "the gaze stays"
    rigging().sliders.reset(made)
    update(made)
    assert max(map(abs, shown(made).values())) < TOLERANCE


def test_a_scaled_armature_has_handles_of_the_same_reach(board):
    made = make_rig()
    bpy.context.view_layer.objects.active = made.armature
    for obj in (made.armature, made.mesh):
        obj.select_set(True)
    made.armature.scale = (10, 10, 10)
    made.armature.rotation_euler = (0, 0, 1)
    bpy.ops.object.transform_apply(location=False, rotation=True, scale=True)
    update(made)
    board.add(made)
    made.handle_bones()["face_lip_corner.L"].location.y = 5 * board.layout.TRAVEL
    update(made)
    assert shown(made)["mouthSmileLeft"] == pytest.approx(0.5, abs=1e-5)


def test_handles_survive_save_append_and_library_override(board, tmp_path):
    made, travel = board.add(make_rig()), board.layout.TRAVEL
    move(made, "face_lip_corner.L", travel, y=0.5)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "ann.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "ann.blend"))
    find = rigging().rig_properties.find_rig
    assert shown(find(bpy.data.objects["Ann rig"]))["mouthSmileLeft"] == pytest.approx(0.5, abs=TOLERANCE)
    for link in (False, True):
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
        with bpy.data.libraries.load(str(tmp_path / "ann.blend"), link=link) as (_, wanted):
            wanted.collections = ["Ann"]
        collection = wanted.collections[0]
        if link:
            bpy.context.scene.collection.children.link(collection)
            collection = collection.override_hierarchy_create(
                bpy.context.scene, bpy.context.view_layer, do_fully_editable=True
            )
        else:
            bpy.context.scene.collection.children.link(collection)
        copy = find(next(obj for obj in collection.all_objects if obj.type == "ARMATURE"))
        bpy.context.view_layer.update()
        assert shown(copy)["mouthSmileLeft"] == pytest.approx(0.5, abs=TOLERANCE)
        move(copy, "face_lip_corner.L", travel, y=-0.25)
        assert shown(copy)["mouthFrownLeft"] == pytest.approx(0.25, abs=TOLERANCE)
        if link:
            with pytest.raises(Exception, match="belong to another file"):
                board.build.remove_board(copy)


def test_what_has_no_arkit_sliders_is_refused_with_a_sentence(board):
    made = make_rig()
    for block in made.expression_keys():
        block.name = f"x{block.name}"
    with pytest.raises(Exception, match="none of ARKit's sliders"):
        board.build.add_board(made, bpy.context.evaluated_depsgraph_get())
