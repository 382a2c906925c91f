"""How operators report errors: an `EffigyError` becomes a report, any other exception keeps its traceback.

    class EFFIGY_OT_verb(ReportingOperator, bpy.types.Operator):
        def run(self, context): …                      # raises an EffigyError for the artist

Work that takes longer than a moment but is no job of the worker, such as starting an interpreter, runs in a thread
while Blender's window stays responsive:

    class EFFIGY_OT_verb(ThreadedOperator, bpy.types.Operator):
        def prepare(self, context): …                  # main thread: reads what is needed; returns a function
        def finish(self, context, result): …           # main thread: gets what the function returned
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy

from .errors import EffigyError
from .threads import run_in_thread

POLL_INTERVAL: Final = 0.1
"""Seconds between two checks whether the thread has ended."""


def report_soon(message: str, kind: str = "ERROR") -> None:
    """Shows a message that does not come from an operator in the window, even if no panel of the extension is open.
    `kind` is Blender's type of a report: ERROR, WARNING or INFO.
    """
    print(f"Effigy: {message}")
    if bpy.app.background:
        return

    def report() -> None:
        if windows := bpy.context.window_manager.windows:
            # Blender shows an ERROR report in the window, and also raises it if a script called the operator.
            with suppress(RuntimeError), bpy.context.temp_override(window=windows[0]):
                bpy.ops.effigy.tell("INVOKE_DEFAULT", sentence=message, kind=kind)

    # Deferred, because operators must not be called from handlers or from within another operator.
    bpy.app.timers.register(report, first_interval=0.1)


class ReportingOperator:
    """Mixed into an operator: `execute` runs `run` and reports an `EffigyError`."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            return self.run(context) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}


class ThreadedOperator:
    """Mixed into an operator whose work would block the window. Without a window it waits for the work."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            work = self.prepare(context)
            if bpy.app.background or context.window is None:
                return self.finish(context, work()) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self._future = run_in_thread(work, self.bl_idname)
        self._timer = context.window_manager.event_timer_add(POLL_INTERVAL, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set(f"{self.bl_label}…")
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type != "TIMER" or not self._future.done():
            return {"PASS_THROUGH"}
        self.cancel(context)
        try:
            return self.finish(context, self._future.result()) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Stops waiting. Blender calls this when another file is loaded or the window is closed meanwhile."""
        context.window_manager.event_timer_remove(self._timer)
        if context.workspace is not None:
            context.workspace.status_text_set(None)
