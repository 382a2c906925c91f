"""Draws the tracked mesh as a wire over its film, without the lines on the far side of the head, which Blender's own
display as wire shows as well.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors and its context managers as None.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import bpy

from ..rig.rig_properties import Rig, find_rigs
from . import live
from .mesh import MeshBatches
from .splat_framebuffer import ViewCamera

COLOR: Final = (0.35, 0.78, 1.0, 0.3)
"""The colour of the same lines in `overlay`: no skin or hair has this blue."""


@dataclass
class _State:
    """The module's state."""

    meshes: dict[int, MeshBatches] = field(default_factory=dict)
    """By `Rig.uid`."""


_state: Final = _State()


def draw(context: bpy.types.Context, camera: ViewCamera) -> None:
    """Draws the wires of all rigs that are shown so in this view."""
    rigs = [rig for rig in find_rigs(context.view_layer.objects) if _is_drawn(rig, context)]
    for number in set(_state.meshes) - {rig.uid for rig in rigs}:
        del _state.meshes[number]
    for rig in rigs:
        mesh = _state.meshes.setdefault(rig.uid, MeshBatches())
        mesh.update(rig.mesh, context.view_layer.depsgraph, live.state.scene_changed_at)
        mesh.draw_depth(camera)
        mesh.draw_wire(camera, COLOR)


def _is_drawn(rig: Rig, context: bpy.types.Context) -> bool:
    return (
        rig.armature.effigy_view.seen_through
        and rig.mesh.mode == "OBJECT"
        and context.space_data.overlay.show_overlays
        and rig.mesh.visible_in_viewport_get(context.space_data)
        and rig.mesh.visible_get(view_layer=context.view_layer)
    )


def release() -> None:
    """Frees everything on the GPU."""
    _state.meshes.clear()


def unregister() -> None:
    release()
