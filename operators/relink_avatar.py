"""Chooses the new location of a missing avatar; every rig that misses the same file gets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy

from ..blender_addon import active, avatars
from ..blender_addon.avatar_files import AvatarOperator
from ..blender_addon.avatars import AvatarInfo


class EFFIGY_OT_relink_avatar(AvatarOperator, bpy.types.Operator):
    bl_idname = "effigy.relink_avatar"
    bl_label = "Relink Avatar"
    bl_description = (
        "Choose where the file of this rig's avatar is now. Other rigs that miss the same file get it as well"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def prepare(self, context: bpy.types.Context) -> Callable[[], tuple[Path, AvatarInfo]]:
        active.need_rig(context)
        return super().prepare(context)

    def finish(self, context: bpy.types.Context, result: tuple[Path, AvatarInfo]) -> None:
        path, info = result
        count = avatars.relink(active.need_rig(context), path, info)
        self.report({"INFO"}, f"{path.name} is on {count} rig{'s' if count > 1 else ''}.")


classes = (EFFIGY_OT_relink_avatar,)
