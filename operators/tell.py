"""Shows a message in the status bar and in the Info editor."""

from __future__ import annotations

import bpy
from bpy.props import StringProperty


class EFFIGY_OT_tell(bpy.types.Operator):
    bl_idname = "effigy.tell"
    bl_label = "Effigy"
    bl_description = "Show a message"
    bl_options = {"INTERNAL"}

    sentence: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    kind: StringProperty(default="ERROR", options={"HIDDEN", "SKIP_SAVE"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        self.report({self.kind}, self.sentence)
        return {"FINISHED"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        # What an operator reports while a script calls it goes to the console only. Later, it goes to the window.
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        self.cancel(context)
        return self.execute(context)

    def cancel(self, context: bpy.types.Context) -> None:
        context.window_manager.event_timer_remove(self._timer)


classes = (EFFIGY_OT_tell,)
