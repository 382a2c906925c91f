"""Exports the avatars as 3D Gaussian Splatting files, for the current frame or for the scene's frame range."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bpy
import numpy as np
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..blender_addon import tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.viewport import baking

SUFFIX: Final = ".ply"
AXES: Final = {
    # From the worker's axes (Y up, Z out of the face) to those of the file.
    "Y_DOWN": np.diag((1.0, -1.0, -1.0)),
    "Y_UP": np.eye(3),
    "Z_UP": np.array(((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))),
}


class EFFIGY_OT_export_splats(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.export_splats"
    bl_label = "Export Splats"
    bl_description = "Export the scene's avatars in their current pose as 3D Gaussian Splatting files (.ply)"

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{SUFFIX}", options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})
    animation: BoolProperty(
        name="Whole Range",
        description="Write a numbered file for each frame of the scene's range, instead of one for the current frame",
    )
    axes: EnumProperty(
        name="Axes",
        default="Y_DOWN",
        description="Which axis points up in the file",
        items=(
            ("Y_DOWN", "Y Down", "For 3D Gaussian Splatting programs and viewers (Z forward)"),
            ("Y_UP", "Y Up", "For game engines and glTF (Z backward)"),
            ("Z_UP", "Z Up", "For Blender"),
        ),
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            self.filepath = str(Path(bpy.data.filepath).with_suffix(SUFFIX)) if bpy.data.filepath else f"avatar{SUFFIX}"
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.use_property_split = True
        self.layout.prop(self, "animation")
        self.layout.prop(self, "axes")

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError(f"Choose a name for the file to write ({SUFFIX}).")
        path = Path(bpy.path.ensure_ext(bpy.path.abspath(self.filepath), SUFFIX)).absolute()
        scene = context.scene
        frames = (scene.frame_start, scene.frame_end) if self.animation else None
        task = baking.export(context, path, AXES[self.axes], frames)
        if self.wait or bpy.app.background:
            tasks.wait_for_success(task)
            self.report({"INFO"}, task.message)


def draw_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator(EFFIGY_OT_export_splats.bl_idname, text="Avatars as Gaussian Splats (.ply, Effigy)")


classes = (EFFIGY_OT_export_splats,)


def register() -> None:
    bpy.types.TOPBAR_MT_file_export.append(draw_menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(draw_menu)
