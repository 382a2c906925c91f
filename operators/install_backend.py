"""Installs the backend into its private environment, after showing what will be downloaded."""

from __future__ import annotations

import bpy

from ..blender_addon import backend_setup
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.wrapped_text import wrapped


class EFFIGY_OT_install_backend(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.install_backend"
    bl_label = "Install Backend"
    bl_description = (
        "Download PyTorch and the other packages of the backend into a separate folder. Blender's own Python does "
        "not change"
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
            # Without a window no timer runs, so a script waits here.
            installation.wait()
            backend_setup.finish()
            if installation.error:
                raise EffigyError(installation.error)


classes = (EFFIGY_OT_install_backend,)
