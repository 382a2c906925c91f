"""Keys the whole face at the current frame."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import sliders


class EFFIGY_OT_key_all(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.key_all"
    bl_label = "Key Expression"
    bl_description = "Key all sliders, the neck, the jaw and the eyes at the current frame"
    bl_options = {"REGISTER", "UNDO"}

    head: BoolProperty(name="Head Position", description="Also key the position and rotation of the whole head")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        sliders.key_all(active.need_rig(context), context.scene.frame_current, root=self.head)


classes = (EFFIGY_OT_key_all,)
