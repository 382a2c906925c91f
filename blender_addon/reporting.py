"""How an operator tells what is wrong: an `EffigyError` becomes a report, anything else keeps its traceback.

    class EFFIGY_OT_verb(ReportingOperator, bpy.types.Operator):
        def run(self, context): …                      # raises EffigyError where something is wrong

Work that takes longer than a blink but has no job of its own (starting an interpreter, opening a file at the worker) is
done in a thread while Blender's window stays alive:

    class EFFIGY_OT_verb(WorkingOperator, bpy.types.Operator):
        def prepare(self, context): …                  # main thread: read what is needed; returns a function
        def finish(self, context, result): …           # main thread again, with what the function returned
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy

from .errors import EffigyError
from .threads import Work

SECONDS_BETWEEN_LOOKS: Final = 0.1


def tell_soon(sentence: str) -> None:
    """Say something that no operator asked for where an artist looks, even if no panel of ours is open."""
    print(f"Effigy: {sentence}")
    if bpy.app.background:
        return

    def tell() -> None:
        if windows := bpy.context.window_manager.windows:
            # Blender shows an ERROR report, and raises it as well where a script has called.
            with suppress(RuntimeError), bpy.context.temp_override(window=windows[0]):
                bpy.ops.effigy.tell("INVOKE_DEFAULT", sentence=sentence)

    # An operator may not be called from everywhere that finds something to say (a handler, another operator).
    bpy.app.timers.register(tell, first_interval=0.1)


class ReportingOperator:
    """Mixed into an operator: `execute` runs `run` and reports an `EffigyError`."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            return self.run(context) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}


class WorkingOperator:
    """Mixed into an operator whose work would hold up the window. Without a window it is waited for."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            work = self.prepare(context)
            if bpy.app.background or context.window is None:
                return self.finish(context, work()) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self._work = Work(work, self.bl_idname)
        self._timer = context.window_manager.event_timer_add(SECONDS_BETWEEN_LOOKS, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set(f"{self.bl_label}…")
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type != "TIMER" or not self._work.finished:
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)
        try:
            return self.finish(context, self._work.result()) or {"FINISHED"}
        except EffigyError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
