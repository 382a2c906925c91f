"""Shows a message in the status bar and in the Info editor."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, StringProperty


class EFFIGY_OT_tell(bpy.types.Operator):
    bl_idname = "effigy.tell"
    bl_label = "Effigy"
    bl_description = "Show a message"
    bl_options = {"INTERNAL"}

    sentence: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    warning: BoolProperty(options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        self.report({"WARNING" if self.warning else "ERROR"}, self.sentence)
        return {"CANCELLED"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return self.execute(context)


classes = (EFFIGY_OT_tell,)
