"""Import footage: capture and track it in the background, then build the rig, its camera and its performance."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from ..blender_addon import importing, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_import_video(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.import_video"
    bl_label = "Import Video"
    bl_description = (
        "Turn a video or a photograph of a person into a head rig with the performance keyed on it, and a "
        "camera that shows the footage"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(
        default=";".join(f"*{extension}" for extension in importing.EXTENSIONS), options={"HIDDEN"}
    )
    first: IntProperty(name="First Frame", default=1, min=1, description="The video's frame to start with")
    last: IntProperty(name="Last Frame", default=0, min=0, description="The video's frame to end with; 0: its last")
    size: IntProperty(
        name="Resolution",
        default=512,
        min=128,
        max=2048,
        step=64,
        subtype="PIXEL",
        description="Side of the square pictures of the head: what is tracked, and the most that can be trained",
    )
    landmarks_only: BoolProperty(
        name="Landmarks Only",
        description="Do not align the frames to the person's own skin: tracked three times as fast, but less "
        "true and less steady",
    )
    capture: StringProperty(
        name="Capture",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
        description="The folder to write; empty: beside the .blend, or beside the video while that is unsaved",
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return when all is done, as a script wants it"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.filepath:
            # Dropped into the window.
            return context.window_manager.invoke_props_dialog(self)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column(align=True)
        column.prop(self, "first")
        column.prop(self, "last")
        layout.prop(self, "size")
        layout.prop(self, "landmarks_only")
        layout.prop(self, "capture")

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError("Choose a video to import.")
        capture = Path(bpy.path.abspath(self.capture)).absolute() if self.capture else None
        task = importing.import_video(
            context.scene,
            Path(bpy.path.abspath(self.filepath)).absolute(),
            first=self.first,
            last=self.last,
            size=self.size,
            capture=capture,
            landmarks_only=self.landmarks_only,
        )
        if self.wait or bpy.app.background:
            tasks.wait_for_success(task)
        self.report(
            {"INFO"}, task.said or "Importing; Blender can be used meanwhile. The Effigy tab shows how far it is."
        )


class EFFIGY_FH_video(bpy.types.FileHandler):
    bl_idname = "EFFIGY_FH_video"
    bl_label = "Video of a person"
    bl_import_operator = "effigy.import_video"
    bl_file_extensions = ";".join(importing.VIDEO_EXTENSIONS)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


def draw_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator(EFFIGY_OT_import_video.bl_idname, text="Video to Head Rig (Effigy)")


classes = (EFFIGY_OT_import_video, EFFIGY_FH_video)


def register() -> None:
    bpy.types.TOPBAR_MT_file_import.append(draw_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(draw_menu)
