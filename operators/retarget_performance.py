"""Transfers another person's performance to the rig: from a capture, a track, or a phone's recording of ARKit's 52
channels.
"""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from ..blender_addon import active, tasks, transferring
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_choice import choose_file
from ..blender_addon.performance_properties import head_motion_property, intensity_property, smoothing_property
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_retarget_performance(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.retarget_performance"
    bl_label = "Transfer Performance"
    bl_description = (
        "Transfer another person's performance to this rig: a tracked performance (.npz, .capture), or a recording of "
        "ARKit's channels (Live Link Face, Audio2Face, Face Cap). It is added as strips above the rig's own performance"
    )
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    # A file browser always shows folders, including those of captures.
    filter_glob: StringProperty(default="*.csv;*.tsv;*.txt;*.npz;*.json", options={"HIDDEN"})
    intensity: intensity_property()
    smoothing: smoothing_property(
        "Seconds over which face and head are smoothed. Blinks and eyes are not smoothed", soft_max=0.3
    )
    motion: head_motion_property()
    frame_start: IntProperty(
        name="Start Frame", default=1, description="Frame of the scene at which the performance begins"
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.frame_start = context.scene.frame_start
        return choose_file(self, context)

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        for name in ("intensity", "smoothing", "motion", "frame_start"):
            layout.prop(self, name)

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError(
                "Choose a performance: a capture, a track (.npz) or recorded ARKit channels (.csv, .json, .txt)."
            )
        task = transferring.transfer(
            active.need_rig(context),
            context.scene,
            Path(bpy.path.abspath(self.filepath)).absolute(),
            intensity=self.intensity,
            smoothing=self.smoothing,
            motion=self.motion,
            frame_start=self.frame_start,
        )
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_retarget_performance,)
