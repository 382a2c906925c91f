"""What the active rig's avatar cannot follow, and the button that mends it."""

from __future__ import annotations

import bpy

from .. import active
from ..rig.troubles import find_trouble
from ..wrapped_text import region_width, wrapped


def draw_trouble(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """Draws nothing where there is nothing wrong. What is wrong with a part of a rig says panel Import."""
    if active.can_complete(context):
        layout.operator("effigy.mend_rig", text="Make It Whole", icon="TOOL_SETTINGS")
        return
    depsgraph = context.view_layer.depsgraph
    if depsgraph is None or not active.has_rig(context):
        return
    trouble = find_trouble(active.need_rig(context), depsgraph)
    if trouble is None:
        return
    box = layout.box()
    wrapped(box, trouble.sentence, region_width(context), "ERROR")
    if trouble.mendable:
        box.operator("effigy.mend_rig", icon="TOOL_SETTINGS")
