"""Hides the rig's mesh from the view while splats are shown in its place. The mesh can still be clicked.

A hidden object cannot be clicked, and an object displayed as a wire shows its edges, so the mesh gets a transparent
material instead: with zero opacity in solid shading, and in EEVEE and Cycles transparent to camera rays only. So the
camera sees the avatar in the mesh's place, while the mesh still casts its shadow and appears in reflections, as with
the render engine's depth composite. The material is assigned to the object's slots. The mesh data keeps its own
materials, which return when the slot's link is set back.
"""

from __future__ import annotations

from typing import Final

import bpy

from ..avatars import has_avatar, is_known
from ..rig.rig_properties import Rig, find_rigs, meshes_of
from . import shared_shaders

MATERIAL_PROPERTY: Final = "effigy_clear"
"""Custom property that identifies the transparent material."""


def needs_update(rig: Rig) -> bool:
    """Whether the mesh may be changed, and is either visible but should be hidden, or hidden but should be visible."""
    return _can_change(rig) and _should_hide(rig) != rig.armature.effigy_view.cleared


def update_all() -> None:
    """Hides or shows the mesh of every rig in the file where `needs_update`."""
    for scene in bpy.data.scenes:
        for rig in find_rigs(scene.objects):
            if needs_update(rig):
                hidden = _should_hide(rig)
                for mesh in meshes_of(rig.armature):
                    set_hidden(Rig(rig.armature, mesh), hidden)


def show_all() -> None:
    """Makes every mesh visible again, for when the extension is disabled and no splats are drawn any more."""
    for rig in find_rigs(bpy.data.objects):
        if rig.armature.effigy_view.cleared and _can_change(rig):
            for mesh in meshes_of(rig.armature):
                set_hidden(Rig(rig.armature, mesh), False)


def set_hidden(rig: Rig, hidden: bool) -> None:
    """Makes the rig's mesh transparent, or visible again. The object's colour is changed too, because solid shading can
    be set to show it instead of the material's.
    """
    rig.armature.effigy_view.cleared = hidden
    rig.mesh.color[3] = 0.0 if hidden else 1.0
    for slot in rig.mesh.material_slots:
        if hidden and slot.link == "DATA":
            slot.link, slot.material = "OBJECT", _transparent_material()
        elif (
            not hidden and slot.link == "OBJECT" and slot.material is not None and slot.material.get(MATERIAL_PROPERTY)
        ):
            slot.link = "DATA"


def _should_hide(rig: Rig) -> bool:
    """Whether the artist has chosen to see the rig's avatar rather than its mesh, and splats can be drawn. Does not
    depend on whether splats have arrived, but the mesh stays while the avatar waits for the artist's consent.
    """
    return (
        has_avatar(rig.armature)
        and rig.armature.effigy_view.mode != "MESH"
        and not shared_shaders.failure()
        and is_known(rig.armature)
    )


def _can_change(rig: Rig) -> bool:
    """Whether the mesh belongs to this file: the rig is not linked, and the mesh is not a library override."""
    return rig.is_editable and rig.mesh.override_library is None


def _transparent_material() -> bpy.types.Material:
    """The file's transparent material, found by `MATERIAL_PROPERTY` and created at the first use."""
    for material in bpy.data.materials:
        if material.library is None and material.get(MATERIAL_PROPERTY):
            return material
    material = bpy.data.materials.new("Effigy clear")
    material[MATERIAL_PROPERTY] = True
    material.diffuse_color = (1.0, 1.0, 1.0, 0.0)
    if material.node_tree is None:
        material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    light_path, mix = nodes.new("ShaderNodeLightPath"), nodes.new("ShaderNodeMixShader")
    diffuse, transparent = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeBsdfTransparent")
    output = nodes.new("ShaderNodeOutputMaterial")
    links.new(light_path.outputs["Is Camera Ray"], mix.inputs[0])
    links.new(diffuse.outputs[0], mix.inputs[1])
    links.new(transparent.outputs[0], mix.inputs[2])
    links.new(mix.outputs[0], output.inputs["Surface"])
    for number, node in enumerate((light_path, diffuse, transparent, mix, output)):
        node.location = 220 * number, 0
    return material
