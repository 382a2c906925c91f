"""Sets the view transform to Standard, which shows the colours of the footage."""

from __future__ import annotations

import bpy


class EFFIGY_OT_use_standard_view(bpy.types.Operator):
    bl_idname = "effigy.use_standard_view"
    bl_label = "Use the Standard View"
    bl_description = (
        "Set the view transform to Standard, so that the avatar has the colours of its footage. AgX "
        "and Filmic make it paler"
    )
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        view = context.scene.view_settings
        view.view_transform, view.look = "Standard", "None"
        view.exposure, view.gamma = 0.0, 1.0
        return {"FINISHED"}


classes = (EFFIGY_OT_use_standard_view,)
