"""What an artist does to a rig: after each operation the avatar lies where Blender draws the mesh, or a sentence says
why not and *Mend Rig* brings it there; and one undo step brings back what was there.

The truth is the mesh that Blender evaluates, and the head that the backend's forward model poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Matrix
from rig_digest import digest
from rig_scenes import answer, make_rig, make_track, read_pose, rigging, set_pose

TOLERANCE = 1e-4
"""Of the head's size."""
SIZE = 0.25
"""Metres: about the height of a head."""
JOINTS = ("neck", "jaw", "eye_L", "eye_R")


@pytest.fixture(scope="module")
def shot(effigy, tmp_path_factory) -> Path:
    """A .blend with a rig that is moved, turned and scaled, its face and all its joints posed."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    truth, made = answer("open"), make_rig()
    made.armature.location, made.armature.rotation_euler, made.armature.scale = (
        (0.3, -0.2, 0.1),
        (0.2, 0.4, -0.9),
        [1.3] * 3,
    )
    made.pose_bone("root").location = (0.02, 0.05, -0.03)
    set_pose(made, truth["pose_expression"][0], truth["pose_rotations"][0])
    for name, place in (("other", (0.4, 0.1, 0.3)), ("target", (2, -3, 1))):
        empty = bpy.data.objects.new(name, None)
        bpy.context.scene.collection.objects.link(empty)
        empty.location, empty.rotation_euler = place, (0.1, 0.7, 0.3)
    made.armature.effigy.avatar = "//ann.effigy"
    bpy.context.view_layer.objects.active = made.armature
    path = tmp_path_factory.mktemp("rig") / "shot.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


@pytest.fixture
def scene(shot, fresh_file) -> Path:
    bpy.ops.wm.open_mainfile(filepath=str(shot))
    return shot


def rig(name: str = "Ann"):
    return rigging().rig_properties.find_rig(bpy.data.objects[name])


def armature() -> bpy.types.Object:
    return bpy.data.objects["Ann rig"]


def mesh() -> bpy.types.Object:
    return bpy.data.objects["Ann"]


def select(*objects: bpy.types.Object) -> None:
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)
    bpy.context.view_layer.objects.active = objects[0]


def sentence(made) -> str:
    depsgraph = bpy.context.evaluated_depsgraph_get()
    return rigging().troubles.sentence_of(made, depsgraph) or ""


def drawn(made) -> np.ndarray:
    """(V, 3) the mesh's vertices in Blender's world as it is evaluated."""
    evaluated = made.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
    points = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", points)
    world = np.array(evaluated.matrix_world, np.float64)
    return points.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]


def of_avatar(made) -> np.ndarray:
    """(V, 3) the head that the backend makes of the pose, in Blender's world."""
    root = read_pose(made)["root"]
    points = answer("open")["posed_without_root"][0] @ root[:3, :3].T + root[:3, 3]
    return rigging().conventions.points_to_blender(points)


def size_of(made) -> float:
    return SIZE * float(np.cbrt(np.linalg.det(read_pose(made)["root"][:3, :3])))


def assert_where_drawn(made, only: np.ndarray | None = None) -> None:
    """The avatar lies where Blender draws the mesh. `only`: these vertices."""
    truth, pose = answer("open"), read_pose(made)
    assert np.allclose(pose["expression"], truth["pose_expression"][0], atol=1e-6)
    for joint, rotation in zip(JOINTS, truth["pose_rotations"][0][1:]):
        assert np.allclose(pose[joint], rotation, atol=1e-5), joint
    apart = np.linalg.norm(of_avatar(made) - drawn(made), axis=1)[slice(None) if only is None else only]
    assert apart.max() < TOLERANCE * size_of(made), f"{apart.max():.6f} m"


def skull() -> np.ndarray:
    """The vertices that follow the neck alone."""
    return answer("open")["skinning"][:, 1] == 1


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


BESIDE = "was moved without its armature"
ROWS = {
    "move armature": Row(lambda: move(armature())),
    "rotate armature": Row(lambda: turn(armature())),
    "scale armature": Row(lambda: enlarge(armature())),
    "delta of armature": Row(lambda: delta(armature())),
    "far away": Row(far_away),
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
    "deformed twice": Row(by_parent_as_well, "deform it otherwise", stays=False),
    "deformed by its parent alone": Row(by_parent_alone),
    "move jaw bone": Row(move_jaw_bone, "only turn", follows=True),
    "scale root bone": Row(scale_root_bone),
    "squash root bone": Row(squash_root_bone, "“root” is scaled by different", stays=False),
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
    assert changed != before or name in ("apply nothing to mesh", "clear inverse of mesh")
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
        try:
            bpy.ops.effigy.mend_rig(True)
        except RuntimeError as error:
            assert said in str(error)
        assert said in sentence(rig())
        bpy.ops.ed.undo_push(message="not mended")
        return
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    made = rig()
    assert sentence(made) == ""
    assert_where_drawn(made)
    if row.stays:
        assert np.abs(drawn(made)[skull()] - where).max() < TOLERANCE * size_of(made)


def duplicate(*objects, linked: bool = False) -> None:
    select(*objects)
    bpy.ops.object.duplicate(linked=linked)


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_of_both_parts_is_a_rig_of_its_own(scene, linked):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    duplicate(armature(), mesh(), linked=linked)
    copy = rig("Ann.001")
    assert copy.armature == bpy.data.objects["Ann rig.001"] and rig("Ann rig.001") == copy
    copy.armature.location.x += 1
    bpy.context.view_layer.update()
    for each in (rig(), copy):
        assert sentence(each) == ""
        assert_where_drawn(each)
    assert np.allclose(drawn(copy) - drawn(rig()), (1, 0, 0), atol=1e-5)
    bpy.ops.ed.undo_push(message="copied")
    bpy.ops.ed.undo()
    assert digest() == before


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_of_the_mesh_alone_lies_where_it_is_drawn_and_leaves_the_original(scene, linked):
    duplicate(mesh(), linked=linked)
    copied = bpy.data.objects["Ann.001"]
    copied.location.x += 0.4
    bpy.context.view_layer.update()
    copy = rig("Ann.001")
    assert [each.mesh for each in rigging().rig_properties.find_rigs(bpy.context.scene.objects)] == [mesh(), copied]
    assert rig("Ann rig").mesh == mesh() and copy.uid != rig().uid
    assert_where_drawn(rig())
    assert_where_drawn(copy, skull())
    assert np.abs(of_avatar(copy) - of_avatar(rig())).max() > 0.3
    assert sentence(rig()) == "" and BESIDE in sentence(copy)
    if not linked:
        copy.key_blocks["cheekPuff"].value = 0.9
        bpy.context.view_layer.update()
        assert_where_drawn(rig())


def test_a_copy_of_the_armature_alone_never_acts_on_the_original_and_can_be_made_whole(scene, module):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    duplicate(armature())
    copy = bpy.data.objects["Ann rig.001"]
    active = module("blender_addon.active")
    assert "without its mesh" in active.problem(bpy.context) and not active.has_rig(bpy.context)
    with pytest.raises(Exception, match="without its mesh"):
        active.need_rig(bpy.context)
    for refused in (bpy.ops.effigy.key_all, bpy.ops.effigy.reset_expression, bpy.ops.effigy.mirror_expression):
        with pytest.raises(RuntimeError, match="without its mesh"):
            refused()
    assert mesh().data.shape_keys.animation_data.action is None
    copy.location.x += 1
    bpy.context.view_layer.update()
    bpy.ops.ed.undo_push(message="copied")
    copied = digest()
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    made = rig("Ann rig.001")
    assert made.mesh != mesh() and made.mesh.data.shape_keys != mesh().data.shape_keys
    bpy.context.view_layer.update()
    for each in (rig(), made):
        assert_where_drawn(each)
    made.key_blocks["cheekPuff"].value = 0.9
    made.pose_bone("neck").rotation_quaternion = 1, 0, 0, 0
    bpy.context.view_layer.update()
    assert_where_drawn(rig())
    made.key_blocks["cheekPuff"].value = 0
    bpy.ops.ed.undo()
    assert digest() == copied
    bpy.ops.ed.undo()
    assert digest() == before


def test_a_mesh_and_an_armature_that_were_taken_apart_are_joined_again(scene, module):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    # Blender removes the modifier as well.
    unparent(mesh(), "CLEAR")
    active = module("blender_addon.active")
    assert "without its armature" in active.problem(bpy.context)
    bpy.ops.ed.undo_push(message="apart")
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert sentence(rig()) == ""
    assert_where_drawn(rig())
    bpy.ops.ed.undo()
    bpy.ops.ed.undo()
    assert digest() == before


def test_a_mesh_without_shape_keys_is_told(scene, module):
    select(mesh())
    bpy.ops.object.shape_key_remove(all=True)
    assert "lost its shape keys" in module("blender_addon.active").problem(bpy.context)


@pytest.mark.parametrize("how", ["link", "append", "override"])
def test_a_rig_from_another_file_lies_where_it_is_drawn(shot, how):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    with bpy.data.libraries.load(str(shot), link=how != "append") as (_, wanted):
        wanted.collections = ["Ann"]
    collection = wanted.collections[0]
    bpy.context.scene.collection.children.link(collection)
    if how == "override":
        collection = collection.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    made = rigging().rig_properties.find_rig(next(obj for obj in collection.objects if obj.type == "MESH"))
    bpy.context.view_layer.update()
    assert_where_drawn(made)
    if how != "link":
        made.armature.location.x += 1
        made.armature.scale *= 0.8
        bpy.context.view_layer.update()
        assert_where_drawn(made)
    bpy.ops.ed.undo_push(message=how)
    bpy.ops.ed.undo()
    assert digest() == before


@pytest.mark.parametrize("kind", ["LINK_COPY", "FULL_COPY"])
def test_a_copied_scene_shows_the_rig_where_it_is_drawn(scene, kind):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    first = bpy.context.scene
    bpy.ops.scene.new(type=kind)
    copied = next(each for each in bpy.data.scenes if each != first)
    made = next(rigging().rig_properties.find_rigs(copied.objects))
    assert (made.mesh == mesh()) == (kind == "LINK_COPY")
    depsgraph = copied.view_layers[0].depsgraph or bpy.context.evaluated_depsgraph_get()
    depsgraph.update()
    root = rigging().pose.read_pose(made, depsgraph).root
    assert np.allclose(root, read_pose(rig())["root"], atol=1e-6)
    bpy.ops.ed.undo_push(message=kind)
    bpy.ops.ed.undo()
    assert digest() == before


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
