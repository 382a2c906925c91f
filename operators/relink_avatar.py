"""Show where an avatar's file is now; every rig that had lost the same file gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.props import StringProperty

from ..blender_addon import active, avatars
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import WorkingOperator


class EFFIGY_OT_relink_avatar(WorkingOperator, bpy.types.Operator):
    bl_idname = "effigy.relink_avatar"
    bl_label = "Relink Avatar"
    bl_description = "Show where the file of this rig's avatar is now"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def prepare(self, context: bpy.types.Context):
        active.need_rig(context)
        if not self.filepath:
            raise EffigyError(f"Choose the avatar's file ({avatars.SUFFIX}).")
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        return lambda: (path, avatars.describe(path))

    def finish(self, context: bpy.types.Context, result: tuple[Path, dict[str, Any]]) -> None:
        path, info = result
        count = avatars.relink(active.need_rig(context), path, info)
        self.report({"INFO"}, f"{path.name} is on {count} rig{'s' if count > 1 else ''}.")


classes = (EFFIGY_OT_relink_avatar,)
