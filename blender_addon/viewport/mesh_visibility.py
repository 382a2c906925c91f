"""Hides the rig's mesh from the view while splats stand for it, so that it can still be clicked.

A hidden object cannot be clicked and one displayed as a wire has lines all over, so the mesh gets a clear material: of
no opacity in solid shading, and transparent to the camera's rays, but not to others, in EEVEE and Cycles: as with the
depth composite, the mesh goes on throwing its shadow and being reflected while the camera sees the avatar. The material
lies on the object's slots; those of the mesh itself keep theirs, and come back with the slot's link.
"""

from __future__ import annotations

from typing import Final

import bpy

from ..avatars import has_avatar
from ..rig.rig_properties import Rig, find_rigs

MARK: Final = "effigy_clear"


def is_undressed(rig: Rig) -> bool:
    """Whether the mesh's display is to be changed."""
    return is_ours_to_change(rig) and wanted(rig) != rig.armature.effigy_view.cleared


def wanted(rig: Rig) -> bool:
    return has_avatar(rig.armature) and rig.armature.effigy_view.mode != "MESH"


def is_ours_to_change(rig: Rig) -> bool:
    return rig.is_editable and rig.mesh.override_library is None


def dress_all() -> None:
    for scene in bpy.data.scenes:
        for rig in find_rigs(scene.objects):
            if is_undressed(rig):
                dress(rig, wanted(rig))


def undress_all() -> None:
    """Give every mesh its own display back: the extension goes, and nobody draws splats in its place."""
    for rig in find_rigs(bpy.data.objects):
        if rig.armature.effigy_view.cleared and is_ours_to_change(rig):
            dress(rig, False)


def dress(rig: Rig, clear: bool) -> None:
    rig.armature.effigy_view.cleared = clear
    rig.mesh.color[3] = 0.0 if clear else 1.0
    for slot in rig.mesh.material_slots:
        if clear and slot.link == "DATA":
            slot.link, slot.material = "OBJECT", _clear_material()
        elif not clear and slot.link == "OBJECT" and slot.material is not None and slot.material.get(MARK):
            slot.link = "DATA"


def _clear_material() -> bpy.types.Material:
    for material in bpy.data.materials:
        if material.library is None and material.get(MARK):
            return material
    material = bpy.data.materials.new("Effigy clear")
    material[MARK] = True
    material.diffuse_color = (1.0, 1.0, 1.0, 0.0)
    if material.node_tree is None:
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    path, mix = nodes.new("ShaderNodeLightPath"), nodes.new("ShaderNodeMixShader")
    body, nothing = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeBsdfTransparent")
    output = nodes.new("ShaderNodeOutputMaterial")
    links.new(path.outputs["Is Camera Ray"], mix.inputs[0])
    links.new(body.outputs[0], mix.inputs[1])
    links.new(nothing.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
    for number, node in enumerate((path, body, nothing, mix, output)):
        node.location = 220 * number, 0
    return material
