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
"""Custom property that identifies a transparent material: its kind, or True in files of earlier versions."""
CLEAR: Final = "clear"
"""Transparent to the camera of a render as well, because the avatar is there instead."""
SEEN_THROUGH: Final = "seen through"
"""Transparent only in solid shading, where the mesh's wire is drawn (`fit_wire`); renders show the mesh."""


def needs_update(rig: Rig) -> bool:
    """Whether the mesh may be changed, and looks otherwise than it should."""
    return _can_change(rig) and _wanted(rig) != _present(rig)


def update_all() -> None:
    """Changes the mesh of every rig in the file where `needs_update`."""
    for scene in bpy.data.scenes:
        for rig in find_rigs(scene.objects):
            if needs_update(rig):
                _make_all(rig.armature, _wanted(rig))


def show_all() -> None:
    """Makes every mesh visible again, for when the extension is disabled and nothing is drawn in its place any more."""
    for rig in find_rigs(bpy.data.objects):
        if _present(rig) and _can_change(rig):
            _make_all(rig.armature, "")


def _make_all(armature: bpy.types.Object, wanted: str) -> None:
    """`_make` for every copy of the mesh on an armature."""
    for rig in (Rig(armature, mesh) for mesh in meshes_of(armature)):
        if _can_change(rig):
            _make(rig, wanted)


def set_hidden(rig: Rig, hidden: bool) -> None:
    """Makes the rig's mesh transparent for its avatar, or visible again."""
    _make(rig, CLEAR if hidden else "")


def _make(rig: Rig, kind: str) -> None:
    """Gives the mesh the transparent material `kind`, or its own materials again if that is empty. The object's colour
    is changed too, because solid shading can be set to show it instead of the material's.
    """
    view = rig.armature.effigy_view
    view.cleared, view.seen_through = kind == CLEAR, kind == SEEN_THROUGH
    rig.mesh.color[3] = 0.0 if kind else 1.0
    for slot in rig.mesh.material_slots:
        ours = slot.link == "OBJECT" and slot.material is not None and slot.material.get(MATERIAL_PROPERTY)
        if kind and (slot.link == "DATA" or ours):
            slot.link, slot.material = "OBJECT", _transparent_material(kind)
        elif not kind and ours:
            slot.link = "DATA"


def _present(rig: Rig) -> str:
    """The kind of transparency that the mesh has now."""
    view = rig.armature.effigy_view
    return CLEAR if view.cleared else SEEN_THROUGH if view.seen_through else ""


def _wanted(rig: Rig) -> str:
    """The kind of transparency that the mesh should have."""
    if _should_hide(rig):
        return CLEAR
    return SEEN_THROUGH if rig.armature.effigy_view.over_film == "WIRE" and not has_avatar(rig.armature) else ""


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


def _transparent_material(kind: str) -> bpy.types.Material:
    """The file's transparent material of a kind, found by `MATERIAL_PROPERTY` and created at the first use."""
    for material in bpy.data.materials:
        stored = material.get(MATERIAL_PROPERTY)
        if material.library is None and (stored == kind or (stored in (True, 1) and kind == CLEAR)):
            return material
    material = bpy.data.materials.new(f"Effigy {kind}")
    material[MATERIAL_PROPERTY] = kind
    material.diffuse_color = (1.0, 1.0, 1.0, 0.0)
    if kind == CLEAR:
        _clear_nodes(material)
    return material


def _clear_nodes(material: bpy.types.Material) -> None:
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
