"""Puts an existing avatar on the active rig or, if there is none, on a new rig of the same person."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, avatars, importing, tasks
from ..blender_addon.avatar_files import AvatarOperator
from ..blender_addon.avatars import AvatarInfo


class EFFIGY_OT_add_avatar(AvatarOperator, bpy.types.Operator):
    bl_idname = "effigy.add_avatar"
    bl_label = "Add Avatar"
    bl_description = "Show a trained avatar (.effigy) on the active rig, or on a new rig"
    bl_options = {"REGISTER", "UNDO"}

    new_rig: BoolProperty(
        name="New Rig",
        options={"SKIP_SAVE"},
        description="Add a new rig of the avatar's person, even if a rig is selected",
    )

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(self, "new_rig")

    def finish(self, context: bpy.types.Context, result: tuple[Path, AvatarInfo]) -> None:
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
