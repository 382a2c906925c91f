"""Tracks the videos of the selected rigs together, so that one avatar can be trained on all of them."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import active, tasks, together
from ..blender_addon.reading import check_file
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_track_together(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.track_together"
    bl_label = "Track Together"
    bl_description = (
        "Track the videos of all selected rigs again as one person, and add a rig for each. An avatar can then be "
        "trained on all of them. The rigs that are there stay as they are"
    )

    cameras: StringProperty(
        name="Cameras",
        subtype="FILE_PATH",
        options={"SKIP_SAVE"},
        description="Only for videos that several calibrated cameras filmed at the same time: their transforms.json, "
        "as nerfstudio writes it. Empty: the videos were filmed one after the other",
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not active.poll(cls, context):
            return False
        if not active.other_selected_rigs(context):
            cls.poll_message_set("Select the rigs of two or more videos of the same person")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def run(self, context: bpy.types.Context) -> None:
        cameras = Path(bpy.path.abspath(self.cameras)).absolute() if self.cameras else None
        if cameras:
            check_file(cameras, "file of cameras")
        rigs = active.other_selected_rigs(context)
        tasks.wait_if_asked(self, together.track_together(context.scene, active.need_rig(context), rigs, cameras))


classes = (EFFIGY_OT_track_together,)
