"""Adds an existing capture to the scene: one made by another Blender, by the command line, or while another file was
open.
"""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import importing, scene_set_up, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_import_capture(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.import_capture"
    bl_label = "Add Capture"
    bl_description = "Add the rig, the camera and the performance of an existing capture folder to this scene"

    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    set_up: scene_set_up.choice()
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.set_up = scene_set_up.is_untouched(context.scene)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        if not self.directory:
            raise EffigyError("Choose the folder of a capture.")
        task = importing.import_capture(
            context.scene,
            Path(bpy.path.abspath(self.directory)).absolute(),
            self.set_up if self.properties.is_property_set("set_up") else None,
        )
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_import_capture,)
