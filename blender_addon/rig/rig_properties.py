"""How a rig is known again: by what is written on its objects, never by their names.

A rig is an armature and a mesh parented to it, each with a custom property `effigy_rig`. Blender carries custom
properties and parents through undo, copying, renaming, appending, linking and saving, so that a rig needs no registry.
A `Rig` holds references that the next undo or file load ends: find it anew in each operator, draw or render.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from .data import JOINT_NAMES, RigData

MARK: Final = "effigy_rig"
JOINT_MARK: Final = "effigy_joint"
SCHEMA: Final = 1
BONE_NAMES: Final = {"root": "root", "neck": "neck", "jaw": "jaw", "eye_L": "eye.L", "eye_R": "eye.R"}
"""Joint of the head model -> bone when made; Blender mirrors by `.L` and `.R`."""


@dataclass(frozen=True)
class Rig:
    armature: bpy.types.Object
    mesh: bpy.types.Object

    @property
    def head_name(self) -> str:
        return str(self._mark["head_name"])

    @property
    def head_fingerprint(self) -> str:
        return str(self._mark["head_fingerprint"])

    @property
    def expression_names(self) -> tuple[str, ...]:
        """The head model's expressions in its own order, which is that of a pose's values."""
        return tuple(str(self._mark["expression_names"]).splitlines())

    @property
    def arkit_names(self) -> tuple[str, ...]:
        """ARKit's channels on a head whose own expressions have other names; none on a head that has them itself."""
        return tuple(str(self._mark.get("arkit_names", "")).splitlines())

    @property
    def slider_names(self) -> tuple[str, ...]:
        """Everything that an artist poses the face with: the named channels first."""
        return self.arkit_names + self.expression_names

    @property
    def arkit_expression(self) -> np.ndarray:
        """(K, E): the head's own expressions that ARKit's channels stand for."""
        return np.array(self._mark["arkit_expression"], np.float64).reshape(len(self.arkit_names), -1)

    @property
    def arkit_jaw(self) -> np.ndarray:
        """(K, 3): axis-angle by which they turn the jaw, head space."""
        return np.array(self._mark["arkit_jaw"], np.float64).reshape(-1, 3)

    @property
    def identity_names(self) -> tuple[str, ...]:
        return tuple(identity_name(index) for index in range(len(self._mark["identity"])))

    @property
    def base_identity(self) -> np.ndarray:
        """(S,) of the person whom the Basis shape shows."""
        return np.array(self._mark["identity"], np.float64)

    @property
    def base_joints(self) -> np.ndarray:
        """(5, 3) head space: the joints of `base_identity`."""
        return np.array(self._mark["joints"], np.float64).reshape(5, 3)

    @property
    def joint_identity(self) -> np.ndarray:
        """(S, 5, 3)"""
        return np.array(self._mark["joint_identity"], np.float64).reshape(-1, 5, 3)

    @property
    def key_blocks(self) -> bpy.types.bpy_prop_collection:
        return self.mesh.data.shape_keys.key_blocks

    @property
    def is_editable(self) -> bool:
        """Whether sliders and bones may be changed: a linked rig needs a library override first."""
        return self.armature.library is None and self.mesh.library is None and self.mesh.data.library is None

    @property
    def _mark(self) -> Any:
        return self.armature[MARK]

    def bone_name(self, joint: str) -> str:
        """The bone of a joint, whatever it is called by now."""
        bones = self.armature.data.bones
        usual = bones.get(BONE_NAMES[joint])
        if usual is not None and usual.get(JOINT_MARK) == joint:
            return usual.name
        for bone in bones:
            if bone.get(JOINT_MARK) == joint:
                return bone.name
        raise EffigyError(
            f'The rig "{self.armature.name}" has lost its {joint} bone: undo the deletion, or import the rig again.'
        )

    def pose_bone(self, joint: str) -> bpy.types.PoseBone:
        return self.armature.pose.bones[self.bone_name(joint)]

    def expression_keys(self) -> list[bpy.types.ShapeKey]:
        """The shape keys of the expressions, in the head model's order."""
        return self._keys(self.expression_names)

    def slider_keys(self) -> list[bpy.types.ShapeKey]:
        """The shape keys of `slider_names`."""
        return self._keys(self.slider_names)

    def _keys(self, names: tuple[str, ...]) -> list[bpy.types.ShapeKey]:
        blocks = self.key_blocks
        keys = [blocks.get(name) for name in names]
        if None in keys:
            raise lost_expression(self, names[keys.index(None)])
        return keys


def identity_name(index: int) -> str:
    return f"identity_{index:03d}"


def lost_expression(rig: Rig, name: str) -> EffigyError:
    return EffigyError(
        f'The rig "{rig.mesh.name}" has no shape key "{name}" any more: give it its name back, or import the rig again.'
    )


def mark_rig(armature: bpy.types.Object, mesh: bpy.types.Object, data: RigData) -> Rig:
    armature[MARK] = {
        "schema": SCHEMA,
        "part": "armature",
        "head_name": data.head_name,
        "head_fingerprint": data.head_fingerprint,
        "expression_names": "\n".join(data.expression_names),
        **_arkit_mark(data),
        # Blender's custom properties hold flat arrays only.
        "identity": data.identity.astype(np.float64).tolist(),
        "joints": data.joints.astype(np.float64).ravel().tolist(),
        "joint_identity": data.joint_identity.astype(np.float64).ravel().tolist(),
    }
    mesh[MARK] = {"schema": SCHEMA, "part": "mesh"}
    for joint in JOINT_NAMES:
        armature.data.bones[BONE_NAMES[joint]][JOINT_MARK] = joint
    return Rig(armature, mesh)


def _arkit_mark(data: RigData) -> dict[str, Any]:
    if not data.arkit_names:
        return {}
    return {
        "arkit_names": "\n".join(data.arkit_names),
        "arkit_expression": data.arkit_expression.astype(np.float64).ravel().tolist(),
        "arkit_jaw": data.arkit_jaw.astype(np.float64).ravel().tolist(),
    }


def find_rig(obj: bpy.types.Object | None) -> Rig | None:
    """The rig that an object is part of: its armature, its mesh, or None. Refuses one of a newer Effigy."""
    # A render is handed evaluated copies, whose family is not to be found among the file's objects.
    obj = obj and obj.original
    if obj is None or not (is_part(obj, "armature") or is_part(obj, "mesh")):
        return None
    armature = obj if is_part(obj, "armature") else obj.parent
    if armature is None or not is_part(armature, "armature"):
        return None
    mesh = obj if obj is not armature else next((child for child in armature.children if is_part(child, "mesh")), None)
    if mesh is None or mesh.data.shape_keys is None:
        return None
    schema = armature[MARK].get("schema", 0)
    if schema > SCHEMA:
        raise EffigyError(
            f'The rig "{armature.name}" was made by a newer Effigy (format {schema}; this one knows '
            f"{SCHEMA}): update the extension."
        )
    return Rig(armature, mesh)


def find_rigs(objects: Iterable[bpy.types.Object]) -> Iterator[Rig]:
    """Every rig whose armature is among `objects`, for instance a scene's."""
    for obj in objects:
        if is_part(obj, "armature"):
            rig = find_rig(obj)
            if rig is not None:
                yield rig


def is_part(obj: bpy.types.Object, part: str) -> bool:
    mark = obj.get(MARK)
    # An artist may have put a property of this name there; ours is a group.
    return obj.type == part.upper() and hasattr(mark, "get") and mark.get("part") == part
