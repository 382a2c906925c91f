"""Put an existing avatar on the active rig, or, where there is none, on a new one of the same person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import active, avatars, importing, tasks
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import WorkingOperator


class EFFIGY_OT_add_avatar(WorkingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_avatar"
    bl_label = "Add Avatar"
    bl_description = "Show a trained avatar (.effigy) on the active rig, or on a new rig"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})
    new_rig: BoolProperty(name="New Rig", options={"SKIP_SAVE"}, description="Add a rig of the avatar's person, "
                                                                             "whatever is selected")

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.filepath:
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(self, "new_rig")

    def prepare(self, context: bpy.types.Context):
        if not self.filepath:
            raise EffigyError(f"Choose an avatar ({avatars.SUFFIX}).")
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        return lambda: (path, avatars.describe(path))

    def finish(self, context: bpy.types.Context, result: tuple[Path, dict[str, Any]]) -> None:
        path, info = result
        rig = None if self.new_rig else active.active_rig(context)
        if rig is not None:
            avatars.set_avatar(rig, path, info)
        else:
            task = importing.add_avatar(context.scene, path, info)
            if bpy.app.background:
                tasks.wait_for_success(task)


class EFFIGY_FH_avatar(bpy.types.FileHandler):
    bl_idname = "EFFIGY_FH_avatar"
    bl_label = "Effigy avatar"
    bl_import_operator = "effigy.add_avatar"
    bl_file_extensions = avatars.SUFFIX

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


classes = (EFFIGY_OT_add_avatar, EFFIGY_FH_avatar)
