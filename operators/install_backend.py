"""Make the backend's private environment, after saying what that costs."""

from __future__ import annotations

import bpy

from ..blender_addon import backend_setup
from ..blender_addon.errors import EffigyError
from ..blender_addon.panels.text import wrapped
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_install_backend(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.install_backend"
    bl_label = "Install Backend"
    bl_description = (
        "Download PyTorch and what else the backend needs into a folder of its own; Blender's Python stays as it is"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not bpy.app.online_access:
            return self.execute(context)
        self._plan = backend_setup.plan(wait=True)
        return context.window_manager.invoke_props_dialog(self, width=520)

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for message in (*self._plan.messages, self._plan.shortage):
            if message:
                wrapped(column, message, 500)
                column.separator()

    def run(self, context: bpy.types.Context) -> None:
        installation = backend_setup.install()
        if bpy.app.background:
            # No timer and no panel: whoever scripts this waits.
            installation.wait()
            if installation.error:
                raise EffigyError(installation.error)


classes = (EFFIGY_OT_install_backend,)
