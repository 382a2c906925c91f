"""Starts Live: a performer's face moves the active rig until Esc, or until Stop is pressed."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.errors import EffigyError
from ..blender_addon.live import session
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_live_start(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.live_start"
    bl_label = "Go Live"
    bl_description = (
        "Move this rig by a performer's face as it happens. First look straight ahead with a resting face for a "
        "second. Esc or Stop ends it, and the rig is as it was before"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable and session.current() is None

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.execute(context) == {"CANCELLED"}:
            return {"CANCELLED"}
        self._started = session.count()
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set("Live: Esc to stop")
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        ended = session.current() is None or session.count() != self._started
        if not ended and (event.type != "ESC" or event.value != "PRESS"):
            return {"PASS_THROUGH"}
        context.workspace.status_text_set(None)
        if ended:
            return {"FINISHED", "PASS_THROUGH"}
        try:
            if said := session.stop():
                self.report({"INFO"}, said)
        except EffigyError as error:
            self.report({"WARNING"}, str(error))
        return {"FINISHED"}

    def run(self, context: bpy.types.Context) -> None:
        session.start(active.need_rig(context))


classes = (EFFIGY_OT_live_start,)
