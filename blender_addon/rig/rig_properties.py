"""The custom properties on a rig's objects, by which a rig is recognised and read.

A rig is an armature and a mesh that is parented to it or deformed by it, each with a custom property `effigy_rig`.
Blender keeps custom properties, parents and modifiers through undo, copying, renaming, appending, linking and saving,
so rigs need no registry and their names do not matter. An armature with several such meshes, copies of one, is in as
many rigs. A `Rig` holds references to Blender objects, which become invalid with the next undo or file
load: call `find_rig` again in every operator, drawing callback and render.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError

RIG_PROPERTY: Final = "effigy_rig"
"""On the armature and on the mesh."""
JOINT_PROPERTY: Final = "effigy_joint"
"""On a bone: the name of its joint."""
HANDLE_PROPERTY: Final = "effigy_handle"
"""On a bone of the face board: the name of its handle."""
SCHEMA: Final = 1
MOST_CHARACTERS: Final = 1 << 16
"""Of a text in the custom property; the names of FLAME's 400 components have 5,000."""
NOTED: Final = 64
"""Vertices whose place at rest is noted on the mesh, so that a transform that was applied to the mesh can be told."""
BONE_NAMES: Final = {"root": "root", "neck": "neck", "jaw": "jaw", "eye_L": "eye.L", "eye_R": "eye.R"}
"""Initial name of each joint's bone; Blender recognises the two sides by `.L` and `.R`."""
TORSO: Final = "torso"
"""The bone of the bust, which is no joint of the head: name, and value of JOINT_PROPERTY. Not every rig has it."""


@dataclass(frozen=True)
class Rig:
    """The two objects of a rig."""

    armature: bpy.types.Object
    mesh: bpy.types.Object

    @property
    def head_name(self) -> str:
        return str(self._stored["head_name"])

    @property
    def head_fingerprint(self) -> str:
        return str(self._stored["head_fingerprint"])

    @property
    def expression_names(self) -> tuple[str, ...]:
        """The head model's expressions in its own order, in which a pose lists their values."""
        return tuple(str(self._stored["expression_names"]).splitlines())

    @property
    def arkit_names(self) -> tuple[str, ...]:
        """ARKit's channels on a head whose own expressions have other names; empty on a head that has them itself."""
        return tuple(str(self._stored.get("arkit_names", "")).splitlines())

    @property
    def slider_names(self) -> tuple[str, ...]:
        """The names of all sliders that pose the face: ARKit's channels, then the head's own expressions."""
        return self.arkit_names + self.expression_names

    @property
    def arkit_expression(self) -> np.ndarray:
        """(K, E) coefficients of the head's own expressions that each ARKit channel stands for."""
        return np.array(self._stored["arkit_expression"], np.float64).reshape(len(self.arkit_names), -1)

    @property
    def arkit_jaw(self) -> np.ndarray:
        """(K, 3) axis-angle by which each ARKit channel rotates the jaw, head space."""
        return np.array(self._stored["arkit_jaw"], np.float64).reshape(-1, 3)

    @property
    def identity_names(self) -> tuple[str, ...]:
        return tuple(identity_name(index) for index in range(len(self._stored["identity"])))

    @property
    def base_identity(self) -> np.ndarray:
        """(S,) coefficients of the person in the Basis shape key."""
        return np.array(self._stored["identity"], np.float64)

    def has_same_head(self, other: Rig) -> bool:
        """Whether both are the same head model with the same person's coefficients, as of videos tracked together."""
        same_model = self.head_fingerprint == other.head_fingerprint
        return same_model and np.array_equal(self.base_identity, other.base_identity)

    @property
    def base_joints(self) -> np.ndarray:
        """(5, 3) joints of `base_identity` at rest, head space, metres."""
        return np.array(self._stored["joints"], np.float64).reshape(5, 3)

    @property
    def joint_identity(self) -> np.ndarray:
        """(S, 5, 3) movement of the joints per unit of an identity coefficient, metres."""
        return np.array(self._stored["joint_identity"], np.float64).reshape(-1, 5, 3)

    @property
    def joints(self) -> np.ndarray:
        """(5, 3) joints of the displayed mesh at rest, head space, metres."""
        return self.base_joints + np.einsum("s,sjc->jc", self.identity_offset, self.joint_identity)

    @property
    def identity_offset(self) -> np.ndarray:
        """(S,) coefficients that the unmuted identity shape keys add to the person's identity."""
        blocks = [self.key_blocks.get(name) for name in self.identity_names]
        return np.array([0.0 if block is None or block.mute else block.value for block in blocks])

    @property
    def noted_vertices(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Indices (K,) of some vertices in ascending order, and their positions (K, 3) in Blender's axes when the rig
        was made. None for a rig of an earlier version.
        """
        stored = self.mesh[RIG_PROPERTY]
        count = _count(stored.get("vertices"))
        if not count or count > NOTED or _count(stored.get("vertex_positions")) != 3 * count:
            return None
        indices = np.array(stored["vertices"], np.int64)
        points = np.array(stored["vertex_positions"], np.float64).reshape(-1, 3)
        return (
            (indices, points)
            if indices[0] >= 0 and (np.diff(indices) > 0).all() and np.isfinite(points).all()
            else None
        )

    @property
    def uid(self) -> int:
        """Tells the rig from all others of this file until the file is closed, also after renaming and undo."""
        return self.mesh.session_uid

    @property
    def key_blocks(self) -> bpy.types.bpy_prop_collection:
        return self.mesh.data.shape_keys.key_blocks

    @property
    def is_editable(self) -> bool:
        """Whether sliders and bones may be changed. A rig linked from another file needs a library override first."""
        return self.armature.library is None and self.mesh.library is None and self.mesh.data.library is None

    @property
    def _stored(self) -> Any:
        return self.armature[RIG_PROPERTY]

    def bone_name(self, joint: str) -> str:
        """The current name of a joint's bone, which an artist may have renamed."""
        bones = self.armature.data.bones
        expected = bones.get(BONE_NAMES[joint])
        if expected is not None and expected.get(JOINT_PROPERTY) == joint:
            return expected.name
        for bone in bones:
            if bone.get(JOINT_PROPERTY) == joint:
                return bone.name
        raise EffigyError(
            f'The rig "{self.armature.name}" has lost its {joint} bone: undo the deletion, or import the rig again.'
        )

    @property
    def torso_bone(self) -> str | None:
        """The current name of the torso's bone; None if the rig has none."""
        return next((bone.name for bone in self.armature.data.bones if bone.get(JOINT_PROPERTY) == TORSO), None)

    def pose_bone(self, joint: str) -> bpy.types.PoseBone:
        return self.armature.pose.bones[self.bone_name(joint)]

    def handle_bones(self) -> dict[str, bpy.types.PoseBone]:
        """The bones of the face board by their handles' names; empty on a rig without one."""
        bones = self.armature.pose.bones
        return {str(bone.bone[HANDLE_PROPERTY]): bone for bone in bones if HANDLE_PROPERTY in bone.bone}

    def expression_keys(self) -> list[bpy.types.ShapeKey]:
        """The shape keys of the expressions, in the head model's order."""
        return self._keys(self.expression_names)

    def slider_keys(self) -> list[bpy.types.ShapeKey]:
        """The shape keys of `slider_names`."""
        return self._keys(self.slider_names)

    def _keys(self, names: tuple[str, ...]) -> list[bpy.types.ShapeKey]:
        blocks = self.key_blocks
        keys = [(name, blocks.get(name)) for name in names]
        for name, key in keys:
            if key is None:
                raise lost_expression(self, name)
        return [key for _, key in keys if key is not None]


def identity_name(index: int) -> str:
    return f"identity_{index:03d}"


def handles_name(name: str) -> str:
    """Name of the shape key that holds what the face board adds to the slider `name`."""
    return f"controls_{name}"


def lost_expression(rig: Rig, name: str) -> EffigyError:
    return EffigyError(
        f'The rig "{rig.mesh.name}" has no shape key "{name}" any more: give it its name back, or import the rig again.'
    )


def find_rig(obj: bpy.types.Object | None) -> Rig | None:
    """The rig whose armature or mesh `obj` is, or None. Raises an `EffigyError` for a rig of a newer Effigy."""
    # A render passes evaluated copies. Their parents and children are not the file's own objects.
    obj = obj and obj.original
    if obj is None:
        return None
    if is_part(obj, "mesh"):
        armature, mesh = armature_of(obj), obj
    elif is_part(obj, "armature"):
        armature, mesh = obj, next(iter(meshes_of(obj)), None)
    else:
        return None
    return None if armature is None or mesh is None or mesh.data.shape_keys is None else _checked(Rig(armature, mesh))


def _checked(rig: Rig) -> Rig:
    schema = rig.armature[RIG_PROPERTY].get("schema", 0)
    if isinstance(schema, (int, float)) and schema > SCHEMA:
        raise EffigyError(
            f'The rig "{rig.armature.name}" was made by a newer Effigy (format {schema}; this version reads up to '
            f"{SCHEMA}): update the extension."
        )
    if not _is_whole(rig.armature[RIG_PROPERTY]):
        raise EffigyError(
            f'The properties of the rig "{rig.armature.name}" are damaged: import its video or add its avatar again.'
        )
    return rig


def armature_of(mesh: bpy.types.Object) -> bpy.types.Object | None:
    """The armature of a rig's mesh: its parent, or for a mesh that an artist has unparented the one that deforms it."""
    if mesh.parent is not None and is_part(mesh.parent, "armature"):
        return mesh.parent
    for modifier in mesh.modifiers:
        if modifier.type == "ARMATURE" and modifier.object is not None and is_part(modifier.object, "armature"):
            return modifier.object
    return None


def meshes_of(armature: bpy.types.Object) -> list[bpy.types.Object]:
    """The meshes of a rig's armature, by name: one, and the copies that an artist has made of it alone."""
    return [obj for obj in bpy.data.objects if is_part(obj, "mesh") and armature_of(obj) == armature]


def what_it_lacks(obj: bpy.types.Object) -> str | None:
    """Why an object that carries a rig's property is part of no rig, as a sentence; None if it is part of one, or is
    no part of Effigy's.
    """
    if is_part(obj, "armature"):
        meshes = meshes_of(obj)
        if not meshes:
            return (
                f"“{obj.name}” is the armature of a rig without its mesh. If the mesh was deleted or joined to another "
                "one, undo that. To copy a rig, select its armature and its mesh, then duplicate both."
            )
        mesh = meshes[0]
    elif is_part(obj, "mesh"):
        if armature_of(obj) is None:
            return (
                f"“{obj.name}” is the mesh of a rig without its armature: undo what took it away, or import the rig "
                "again."
            )
        mesh = obj
    else:
        return None
    return None if mesh.data.shape_keys else f"“{mesh.name}” has lost its shape keys: undo that, or import it again."


def _is_whole(stored: Any) -> bool:
    """Whether the custom property of an armature holds everything that `Rig` reads, in the right sizes."""
    names, arkit = stored.get("expression_names"), stored.get("arkit_names", "")
    texts = (stored.get("head_name"), stored.get("head_fingerprint"), names, arkit)
    if not all(isinstance(text, str) and len(text) <= MOST_CHARACTERS for text in texts):
        return False
    identities, channels = _count(stored.get("identity")), len(arkit.splitlines())
    if identities is None or _count(stored.get("joints")) != 15:
        return False
    sizes = {"joint_identity": 15 * identities}
    if channels:
        sizes |= {"arkit_expression": channels * len(names.splitlines()), "arkit_jaw": 3 * channels}
    return all(_count(stored.get(name)) == size for name, size in sizes.items())


def _count(numbers: Any) -> int | None:
    """The length of an array of numbers; None for anything else. An empty one is a list to Blender."""
    if getattr(numbers, "typecode", "") in ("i", "f", "d"):
        return len(numbers)
    return 0 if isinstance(numbers, list) and not numbers else None


def find_rigs(objects: Iterable[bpy.types.Object]) -> Iterator[Rig]:
    """Every rig with a part among `objects`, such as those of a scene. A rig that is damaged or of a newer Effigy is
    left out, so that it does not keep the others from working: panel Import says what is wrong with it.
    """
    meshes: dict[bpy.types.Object, None] = {}
    armatures: dict[bpy.types.Object, None] = {}
    for obj in objects:
        if is_part(obj, "mesh"):
            meshes[obj.original] = None
        elif is_part(obj, "armature"):
            armatures[obj.original] = None
    for armature in armatures.keys() - {armature_of(mesh) for mesh in meshes}:
        # The mesh of such an armature is in another scene.
        meshes |= dict.fromkeys(meshes_of(armature))
    for mesh in meshes:
        with suppress(EffigyError):
            rig = find_rig(mesh)
            if rig is not None:
                yield rig


def is_part(obj: bpy.types.Object, part: str) -> bool:
    """Whether an object is the `armature` or the `mesh` of a rig."""
    if obj.type != part.upper():
        return False
    stored = obj.get(RIG_PROPERTY)
    # An artist may have made a property of this name; the extension's is a group.
    return hasattr(stored, "get") and stored.get("part") == part and not _is_piece(obj, stored)


def _is_piece(obj: bpy.types.Object, stored: Any) -> bool:
    """Whether a mesh has less than half of the head's vertices, as what *Separate* has taken off, which keeps the
    property: an eyeball is no second head.
    """
    if obj.type != "MESH" or not _count(stored.get("vertices")):
        return False
    # An evaluated mesh has those that its modifiers have left.
    return 2 * len(obj.original.data.vertices) < stored["vertices"][-1]
