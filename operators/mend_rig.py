"""Mends what an artist has done to a rig that its avatar cannot follow."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import mending


class EFFIGY_OT_mend_rig(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.mend_rig"
    bl_label = "Mend Rig"
    bl_description = (
        "Bring mesh, armature and rest pose together again, where the avatar cannot follow them, and leave the head "
        "where it is; make a part of a rig whole again"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) or active.can_complete(context)

    def run(self, context: bpy.types.Context) -> None:
        if active.can_complete(context):
            rig = mending.complete(context.object, context.view_layer)
            self.report({"INFO"}, f"“{rig.armature.name}” and “{rig.mesh.name}” are a rig now.")
            return
        rig = active.need_rig(context)
        left = mending.mend(rig, context.view_layer)
        if left is None:
            self.report({"INFO"}, f"The avatar of “{rig.armature.name}” follows its rig again.")
        else:
            self.report({"WARNING"}, left)


classes = (EFFIGY_OT_mend_rig,)
