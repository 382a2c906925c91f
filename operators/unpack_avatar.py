"""Writes a packed avatar to a new file beside the .blend, and uses that file."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import StringProperty

from ..blender_addon import active, avatars
from ..blender_addon.file_names import file_name, readable
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.viewport import cache


class EFFIGY_OT_unpack_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.unpack_avatar"
    bl_label = "Unpack Avatar"
    bl_description = (
        "Write the avatar that is stored in this .blend to a new file beside it, or where you choose if the .blend is "
        "not saved. No existing file is replaced"
    )
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        packed = active.need_rig(context).armature.effigy.packed
        if bpy.data.filepath or packed is None:
            return self.execute(context)
        self.filepath = file_name(packed.name, avatars.SUFFIX)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        chosen = Path(bpy.path.abspath(self.filepath)).absolute() if self.filepath else None
        rig = active.need_rig(context)
        with cache.same_avatar(rig):
            path = avatars.unpack(rig.armature, chosen)
        self.report({"INFO"}, f"The avatar is in {readable(str(path))}.")


classes = (EFFIGY_OT_unpack_avatar,)
