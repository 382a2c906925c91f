"""Installs the backend into its private environment, after showing what will be downloaded."""

from __future__ import annotations

from collections.abc import Callable

import bpy

from ..blender_addon import backend_setup
from ..blender_addon.errors import EffigyError
from ..blender_addon.installation.machine import Machine
from ..blender_addon.reporting import ThreadedOperator
from ..blender_addon.wrapped_text import wrapped


class EFFIGY_OT_install_backend(ThreadedOperator, bpy.types.Operator):
    bl_idname = "effigy.install_backend"
    bl_label = "Install Backend"
    bl_description = (
        "Download PyTorch and the other packages of the backend into a separate folder. Blender's own Python does "
        "not change"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self._confirmed = backend_setup.machine_is_fresh()
        if not self._confirmed:
            # The graphics driver is asked in a thread; then this operator is invoked again.
            self._asks_artist = not bpy.app.background
            return self.execute(context)
        try:
            backend_setup.check_installable()
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self._plan = backend_setup.plan()
        return context.window_manager.invoke_props_dialog(self, width=520, confirm_text="Install")

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for message in (*self._plan.messages, self._plan.shortage):
            if message:
                wrapped(column, message, 500)
                column.separator()

    def prepare(self, context: bpy.types.Context) -> Callable[[], Machine | None]:
        backend_setup.check_installable()
        return (lambda: None) if getattr(self, "_confirmed", False) else backend_setup.this_machine

    def finish(self, context: bpy.types.Context, machine: Machine | None) -> None:
        if machine is not None:
            backend_setup.keep_machine(machine)
        if getattr(self, "_asks_artist", False):
            bpy.ops.effigy.install_backend("INVOKE_DEFAULT")
            return
        installation = backend_setup.install()
        if bpy.app.background:
            # Without a window no timer runs, so a script waits here.
            installation.wait()
            backend_setup.finish()
            if installation.error:
                raise EffigyError(installation.error)


classes = (EFFIGY_OT_install_backend,)
