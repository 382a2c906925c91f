"""What an artist does to a rig: after each operation the avatar lies where Blender draws the mesh, or a sentence says
why not and *Mend Rig* brings it there; and one undo step brings back what was there.

The truth is the mesh that Blender evaluates, and the head that the backend's forward model poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bpy
import numpy as np
import pytest
from mathutils import Matrix
from rig_digest import digest
from rig_place import SIZE, TOLERANCE, armature, assert_where_drawn, drawn, mesh, rig, select, sentence, size_of, skull
from rig_scenes import make_rig, make_track, read_pose, rigging


def apply(*objects, location=False, rotation=False, scale=False) -> None:
    select(*objects)
    bpy.ops.object.transform_apply(location=location, rotation=rotation, scale=scale)


def move(obj) -> None:
    obj.location.x += 0.4


def turn(obj) -> None:
    obj.rotation_euler.z += 0.8


def enlarge(obj) -> None:
    obj.scale *= 1.7


def squash(obj) -> None:
    obj.scale.y *= 0.5


def mirror(obj) -> None:
    obj.scale.x *= -1


def delta(obj) -> None:
    obj.delta_location, obj.delta_rotation_euler, obj.delta_scale = (0.1, 0, 0.2), (0, 0.3, 0), [1.2] * 3


def enlarge_and_apply(*objects) -> None:
    for obj in objects:
        enlarge(obj)
        turn(obj)
        move(obj)
    apply(*objects, location=True, rotation=True, scale=True)


def squash_and_apply(obj) -> None:
    squash(obj)
    apply(obj, scale=True)


def parent(obj, keep: bool) -> None:
    select(bpy.data.objects["other"], obj)
    bpy.ops.object.parent_set(type="OBJECT", keep_transform=keep)
    bpy.data.objects["other"].location.z += 0.5


def parent_unscaled(obj) -> None:
    parent(obj, keep=False)
    bpy.data.objects["other"].scale = 1, 1, 3


def unparent(obj, how: str) -> None:
    select(obj)
    bpy.ops.object.parent_clear(type=how)


def constrain(obj, kind: str) -> None:
    constraint = obj.constraints.new(kind)
    constraint.target = bpy.data.objects["target"]
    if kind == "CHILD_OF":
        constraint.inverse_matrix = Matrix.Translation((-2, 3, -1))


def to_a_bone() -> None:
    other = make_rig(called="Bob")
    other.pose_bone("neck").rotation_quaternion = (0.9, 0.3, 0, 0)
    armature().parent, armature().parent_type, armature().parent_bone = other.armature, "BONE", "neck"


def mesh_to_its_bone() -> None:
    mesh().parent_type, mesh().parent_bone = "BONE", "neck"


def edit_rest_pose() -> None:
    with rigging().armature.edit_bones(armature()) as bones:
        bones["jaw"].head.z += 0.03


def move_rest_pose() -> None:
    with rigging().armature.edit_bones(armature()) as bones:
        for bone in bones:
            bone.head.x += 0.2
            bone.tail.x += 0.2


def move_vertices() -> None:
    mesh().data.transform(Matrix.Translation((0.1, 0, 0)), shape_keys=True)


def no_modifier() -> None:
    mesh().modifiers.clear()


def modifier(**settings) -> None:
    for name, value in settings.items():
        setattr(mesh().modifiers[0], name, value)


def of_another_armature() -> None:
    mesh().modifiers[0].object = make_rig(called="Bob").armature


def by_parent_as_well() -> None:
    mesh().parent_type = "ARMATURE"


def by_parent_alone() -> None:
    mesh().modifiers.clear()
    mesh().parent_type = "ARMATURE"


def move_jaw_bone() -> None:
    armature().pose.bones["jaw"].location.z = 0.02


def scale_root_bone() -> None:
    armature().pose.bones["root"].scale = [1.4] * 3


def squash_root_bone() -> None:
    armature().pose.bones["root"].scale = 1, 1, 2


def flatten() -> None:
    armature().scale.z = 0


def squash_by_delta() -> None:
    armature().delta_scale = 1, 1, 2


def pin_shape_key() -> None:
    mesh().active_shape_key_index, mesh().show_only_shape_key = 5, True


def absolute_keys() -> None:
    mesh().data.shape_keys.use_relative = False


def rename_group() -> None:
    mesh().vertex_groups["jaw"].name = "chin"


def bone_between() -> None:
    with rigging().armature.edit_bones(armature()) as bones:
        added = bones.new("added")
        added.head, added.tail, added.parent = (0, 0, 0), (0, 0, 0.1), bones["root"]
        bones["neck"].parent = added
    armature().pose.bones["added"].location.y = 0.3


def deform_otherwise() -> None:
    lattice = bpy.data.objects.new("lattice", bpy.data.lattices.new("lattice"))
    bpy.context.scene.collection.objects.link(lattice)
    mesh().modifiers.new("Lattice", "LATTICE").object = lattice


def sculpt() -> None:
    """Some vertices of the Basis; Blender moves those of all shape keys with them."""
    mesh().data.transform(Matrix.Identity(4), shape_keys=True)
    basis = mesh().data.shape_keys.reference_key.data
    for index in range(60):
        basis[index].co.z += 0.004


def rename() -> None:
    armature().name, mesh().name = "x", "y"
    bpy.data.objects["x"].data.bones["jaw"].name = "mandible"
    bpy.data.objects["y"].name, bpy.data.objects["x"].name = "Ann", "Ann rig"


def move_to_collections() -> None:
    for number, obj in enumerate((armature(), mesh())):
        collection = bpy.data.collections.new(f"set {number}")
        bpy.context.scene.collection.children.link(collection)
        for old in list(obj.users_collection):
            old.objects.unlink(obj)
        collection.objects.link(obj)


def join_collections() -> None:
    for obj in (armature(), mesh()):
        for old in list(obj.users_collection):
            old.objects.unlink(obj)
        bpy.context.scene.collection.objects.link(obj)
    bpy.data.collections.remove(bpy.data.collections["Ann"])


def bake() -> None:
    select(armature())
    bpy.ops.object.mode_set(mode="POSE")
    bpy.ops.nla.bake(frame_start=1, frame_end=2, only_selected=False, visual_keying=True, bake_types={"POSE", "OBJECT"})
    bpy.ops.object.mode_set(mode="OBJECT")


def tweak() -> None:
    bpy.ops.effigy.key_all(head=True)
    for target in (armature(), mesh().data.shape_keys):
        data = target.animation_data
        track = data.nla_tracks.new()
        strip = track.strips.new("take", 1, data.action)
        if hasattr(strip, "action_slot"):
            strip.action_slot = data.action_slot
        data.action = None
        track.select = strip.select = True
        data.nla_tracks.active = track
        data.use_tweak_mode = True


def far_away() -> None:
    armature().location = 400, -300, 50


@dataclass(frozen=True)
class Row:
    do: Callable[[], object]
    said: str = ""
    """A part of the sentence; empty where the avatar follows everything."""
    stays: bool = True
    """Whether the head stays where it was when this is mended."""
    mended: bool = True
    follows: bool = False
    """Whether the skull is followed although there is a sentence."""


UNSEEN = (
    "apply nothing to mesh",
    "clear inverse of mesh",
    "pin a shape key",
    "absolute shape keys",
    "rename a vertex group",
)
"""What changes nothing that `digest` compares."""
BESIDE = "was moved without its armature"
ROWS = {
    "move armature": Row(lambda: move(armature())),
    "rotate armature": Row(lambda: turn(armature())),
    "scale armature": Row(lambda: enlarge(armature())),
    "delta of armature": Row(lambda: delta(armature())),
    "far away": Row(far_away),
    "flatten armature": Row(flatten, "different amounts", stays=False),
    "squash armature by delta": Row(squash_by_delta, "different amounts", stays=False),
    "mirror armature": Row(lambda: mirror(armature()), "mirrored", stays=False),
    "squash armature": Row(lambda: squash(armature()), "different amounts", stays=False),
    "apply location": Row(lambda: apply(armature(), location=True)),
    "apply rotation": Row(lambda: apply(armature(), rotation=True)),
    "apply scale": Row(lambda: apply(armature(), scale=True)),
    "apply all": Row(lambda: apply(armature(), location=True, rotation=True, scale=True)),
    "squash armature and apply": Row(lambda: squash_and_apply(armature()), "different amounts", stays=False),
    "move mesh": Row(lambda: move(mesh()), BESIDE, follows=True),
    "rotate mesh": Row(lambda: turn(mesh()), BESIDE, follows=True),
    "scale mesh": Row(lambda: enlarge(mesh()), BESIDE, follows=True),
    "delta of mesh": Row(lambda: delta(mesh()), BESIDE, follows=True),
    "mirror mesh": Row(lambda: mirror(mesh()), "“Ann” is mirrored", stays=False),
    "squash mesh": Row(lambda: squash(mesh()), "“Ann” is scaled by different", stays=False),
    "apply nothing to mesh": Row(lambda: apply(mesh(), location=True, rotation=True, scale=True)),
    "enlarge mesh and apply": Row(lambda: enlarge_and_apply(mesh()), BESIDE, follows=True),
    "squash mesh and apply": Row(lambda: squash_and_apply(mesh()), "“Ann” is scaled by different", stays=False),
    "apply all to both": Row(lambda: apply(armature(), mesh(), location=True, rotation=True, scale=True)),
    "enlarge both and apply": Row(lambda: enlarge_and_apply(armature(), mesh()), BESIDE, follows=True),
    "move both": Row(lambda: (move(armature()), move(mesh())), BESIDE, follows=True),
    "parent armature": Row(lambda: parent(armature(), keep=False)),
    "parent armature, keep transform": Row(lambda: parent(armature(), keep=True)),
    "parent armature to uneven": Row(
        lambda: parent_unscaled(armature()), "“other” is scaled by different", mended=False
    ),
    "parent armature to a bone": Row(to_a_bone),
    "parent mesh elsewhere": Row(lambda: parent(mesh(), keep=True), BESIDE, follows=True),
    "unparent mesh, keep transform": Row(lambda: unparent(mesh(), "CLEAR_KEEP_TRANSFORM")),
    "unparent armature": Row(lambda: (parent(armature(), keep=False), unparent(armature(), "CLEAR"))),
    "clear inverse of mesh": Row(lambda: unparent(mesh(), "CLEAR_INVERSE")),
    "mesh to its bone": Row(mesh_to_its_bone, BESIDE, follows=True),
    "copy location of armature": Row(lambda: constrain(armature(), "COPY_LOCATION")),
    "child of for armature": Row(lambda: constrain(armature(), "CHILD_OF")),
    "track to for armature": Row(lambda: constrain(armature(), "TRACK_TO")),
    "copy location of mesh": Row(lambda: constrain(mesh(), "COPY_LOCATION"), BESIDE, mended=False, follows=True),
    "child of for mesh": Row(lambda: constrain(mesh(), "CHILD_OF"), BESIDE, mended=False, follows=True),
    "track to for mesh": Row(lambda: constrain(mesh(), "TRACK_TO"), BESIDE, mended=False, follows=True),
    "edit rest pose": Row(edit_rest_pose, "rest pose"),
    "move rest pose": Row(move_rest_pose, BESIDE, follows=True),
    "move all vertices": Row(move_vertices, BESIDE, follows=True),
    "no armature modifier": Row(no_modifier, "is not deformed by", stays=False),
    "armature modifier off": Row(lambda: modifier(show_viewport=False), "is not deformed by", stays=False),
    "of another armature": Row(of_another_armature, "is not deformed by", stays=False),
    "preserve volume": Row(lambda: modifier(use_deform_preserve_volume=True), "deform it otherwise", stays=False),
    "envelopes": Row(lambda: modifier(use_bone_envelopes=True), "deform it otherwise", stays=False),
    "part of the mesh": Row(lambda: modifier(vertex_group="jaw"), "deform it otherwise", stays=False),
    "deformed twice": Row(by_parent_as_well, "deform it otherwise", stays=False),
    "deformed by its parent alone": Row(by_parent_alone),
    "move jaw bone": Row(move_jaw_bone, "only turn", follows=True),
    "scale root bone": Row(scale_root_bone),
    "squash root bone": Row(squash_root_bone, "“root” is scaled by different", stays=False),
    "bone between root and neck": Row(bone_between, "only turn", mended=False),
    "pin a shape key": Row(pin_shape_key, "shows one shape key alone", stays=False),
    "absolute shape keys": Row(absolute_keys, "not relative", stays=False),
    "rename a vertex group": Row(rename_group, "no vertex group “jaw”", mended=False),
    "lattice": Row(deform_otherwise, "not of its avatar", mended=False, follows=True),
    "rename": Row(rename),
    "move to collections": Row(move_to_collections),
    "join collections": Row(join_collections),
    "bake action": Row(bake),
    "tweak a strip": Row(tweak),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_avatar_lies_where_the_mesh_is_drawn_or_a_sentence_says_why_not(scene, name):
    row = ROWS[name]
    assert_where_drawn(rig())
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    row.do()
    bpy.context.view_layer.update()
    made = rig()
    assert bool(row.said) == bool(sentence(made)) and row.said in sentence(made), sentence(made)
    if not row.said or row.follows:
        assert_where_drawn(made, skull() if row.said else None)
    bpy.ops.ed.undo_push(message=name)
    changed = digest()
    assert changed != before or name in UNSEEN
    if row.said:
        mend(row)
        bpy.ops.ed.undo()
        assert digest() == changed
    bpy.ops.ed.undo()
    assert digest() == before
    assert_where_drawn(rig())


def mend(row: Row) -> None:
    """Presses *Mend Rig*."""
    select(mesh())
    where, said = drawn(rig())[skull()], sentence(rig())
    if not row.mended:
        before = digest()
        try:
            bpy.ops.effigy.mend_rig(True)
        except RuntimeError as error:
            assert said in str(error)
        assert said in sentence(rig()) and digest() == before
        bpy.ops.ed.undo_push(message="not mended")
        return
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    made = rig()
    assert sentence(made) == ""
    assert_where_drawn(made)
    if row.stays:
        assert np.abs(drawn(made)[skull()] - where).max() < TOLERANCE * size_of(made)


def test_an_applied_transform_is_kept_when_joints_are_refreshed_and_a_performance_is_keyed_again(scene):
    rigs = rigging()
    armature().location, armature().rotation_euler, armature().scale = (0, 0, 0), (0.3, 0, 1), [1.5] * 3
    bpy.context.view_layer.update()
    track, made = make_track(), rig()
    rigs.performance.apply_track(made, track)
    bpy.context.scene.frame_set(4)
    before = drawn(made)
    apply(armature(), rotation=True, scale=True)
    rigs.armature.refresh_joints(rig())
    rigs.performance.apply_track(rig(), track)
    bpy.context.scene.frame_set(4)
    assert np.abs(drawn(rig()) - before).max() < TOLERANCE * 1.5 * SIZE
    assert sentence(rig()) == ""


@pytest.mark.parametrize("do", [lambda: apply(armature(), scale=True), lambda: move(mesh()), lambda: None])
def test_a_rig_of_an_earlier_version_is_followed_as_well(scene, do):
    """Nothing is noted on its mesh, so that what was applied to both parts is told by the eyes."""
    del mesh()["effigy_rig"]["vertices"]
    apply(armature(), mesh(), location=True, rotation=True, scale=True)
    bpy.context.view_layer.update()
    assert sentence(rig()) == ""
    assert_where_drawn(rig())
    do()
    bpy.context.view_layer.update()
    assert_where_drawn(rig(), skull())


def test_the_mesh_of_an_earlier_version_is_followed_where_it_goes(scene):
    del mesh()["effigy_rig"]["vertices"]
    move(mesh())
    bpy.context.view_layer.update()
    assert BESIDE in sentence(rig())
    assert_where_drawn(rig(), skull())


def in_edit_mode(do: Callable[[], object]) -> None:
    select(mesh())
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    do()
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.context.view_layer.update()


def root() -> np.ndarray:
    return read_pose(rig())["root"]


def test_vertices_of_other_numbers_are_taken_for_no_transform(scene):
    before = root()
    in_edit_mode(lambda: bpy.ops.mesh.sort_elements(type="REVERSE", elements={"VERT"}))
    assert sentence(rig()) == "" and np.array_equal(root(), before)


def test_what_was_separated_is_no_second_head(scene):
    before = root()
    in_edit_mode(lambda: bpy.ops.mesh.separate(type="LOOSE"))
    pieces = [obj for obj in bpy.data.objects if obj.name.startswith("Ann.")]
    assert len(pieces) > 3
    assert [each.mesh for each in rigging().rig_properties.find_rigs(bpy.context.scene.objects)] == [mesh()]
    assert sentence(rig()) == "" and np.array_equal(root(), before)
    select(mesh(), *pieces)
    bpy.ops.object.join()
    assert sentence(rig()) == "" and np.array_equal(root(), before)


def test_an_applied_transform_is_told_from_what_was_sculpted_as_well(scene):
    enlarge_and_apply(mesh())
    basis = mesh().data.shape_keys.reference_key.data
    before = root()
    for vertex in basis[: len(basis) // 3]:
        vertex.co.z += 0.01 * (1 + np.sin(90 * vertex.co.x))
    bpy.context.view_layer.update()
    assert np.abs(root() - before).max() < TOLERANCE


@pytest.mark.parametrize("sculpted", [0.3, 0.45])
def test_an_applied_transform_is_told_where_a_part_of_the_head_was_pulled_out(sculpted, module):
    """Vertices that lie together and moved together look like another transform."""
    fit, random = module("blender_addon.rig.placement")._fit_affine, np.random.default_rng(0)
    for _ in range(30):
        points, applied = random.normal(size=(64, 3)) * (0.07, 0.09, 0.1), np.eye(4)
        applied[:3] = random.normal(size=(3, 4))
        moved = points.copy()
        middle = points[0]
        near = np.argsort(np.linalg.norm(points - middle, axis=1))[: int(64 * sculpted)]
        moved[near] = middle + 1.5 * (moved[near] - middle) + random.normal(size=3) * 0.03
        found = fit(points, moved @ applied[:3, :3].T + applied[:3, 3])
        assert found is not None and np.abs(found - applied).max() < 1e-6
    assert fit(points, random.normal(size=points.shape)) is None, "no transform at all"


def test_joints_of_another_identity_are_no_edited_rest_pose(scene):
    before = root()
    key = mesh().data.shape_keys.key_blocks["identity_000"]
    key.mute, key.value = False, 2
    rigging().armature.refresh_joints(rig())
    bpy.context.view_layer.update()
    assert sentence(rig()) == "" and np.abs(root()[:3, :3] - before[:3, :3]).max() < 1e-6
    apply(armature(), location=True, rotation=True, scale=True)
    bpy.context.view_layer.update()
    assert sentence(rig()) == "" and np.abs(root()[:3, :3] - before[:3, :3]).max() < 1e-5


def test_a_mesh_that_is_hidden_everywhere_lies_where_it_was(scene):
    mesh().matrix_parent_inverse = Matrix.Translation((0.3, 0, 0.1))
    bpy.context.view_layer.update()
    before = root()
    mesh().hide_viewport = mesh().hide_render = True
    bpy.context.view_layer.update()
    armature().location.x += 1
    bpy.context.view_layer.update()
    assert np.allclose(root()[:3, 3] - before[:3, 3], (1, 0, 0), atol=1e-5)


def test_a_new_armature_modifier_comes_before_the_others(scene):
    mesh().modifiers.clear()
    mesh().modifiers.new("Smoother", "SUBSURF")
    select(mesh())
    assert bpy.ops.effigy.mend_rig() == {"FINISHED"}
    assert [each.type for each in mesh().modifiers] == ["ARMATURE", "SUBSURF"]


def no_number_in_the_rest_pose() -> None:
    with rigging().armature.edit_bones(armature()) as bones:
        bones["jaw"].head.x = np.nan


def no_number_in_a_constraint() -> None:
    constrain(armature(), "COPY_LOCATION")
    bpy.data.objects["target"].location.x = np.nan


def no_number_in_a_bone() -> None:
    armature().pose.bones["jaw"].location.x = np.nan


def apply_no_scale() -> None:
    armature().scale = 0, 0, 0
    apply(armature(), scale=True)


@pytest.mark.parametrize(
    "do", [no_number_in_the_rest_pose, no_number_in_a_constraint, no_number_in_a_bone, apply_no_scale]
)
def test_what_is_no_number_is_said_and_never_called_mended(scene, do):
    do()
    bpy.context.view_layer.update()
    with pytest.raises(Exception, match="no finite number"):
        root()
    assert sentence(rig()) == ""
    select(mesh())
    with pytest.raises(RuntimeError, match="no finite number"):
        bpy.ops.effigy.mend_rig()


def test_a_head_that_cannot_be_mended_is_never_called_mended(scene):
    select(mesh())
    armature().scale = 0, 0, 0
    with pytest.raises(RuntimeError, match="scaled to nothing"):
        bpy.ops.effigy.mend_rig()
    armature().scale = 1, 1, 1
    mesh().scale.z = 0
    apply(mesh(), scale=True)
    with pytest.raises(RuntimeError, match="was flattened"):
        bpy.ops.effigy.mend_rig()
