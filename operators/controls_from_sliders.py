"""Takes the face or the performance from the sliders to the bones of the face board."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.face_board import keys, values
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import sliders


class EFFIGY_OT_controls_from_sliders(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.controls_from_sliders"
    bl_label = "Controls from Sliders"
    bl_description = (
        "Move the bones of the face to where the sliders are, and the sliders to what is left. The face looks as before"
    )
    bl_options = {"REGISTER", "UNDO"}

    performance: BoolProperty(
        name="Whole Performance",
        options={"SKIP_SAVE"},
        description="All frames of the strips below the keys that were set by hand. The result is in strips of its own "
        "above them; the performance stays as it is below. Otherwise the current face",
    )
    key: BoolProperty(
        name="Key It", options={"SKIP_SAVE"}, description="Also key the current face, its sliders and its bones"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll_board(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self.performance = keys.has_strips(active.need_rig(context))
        return self.execute(context)

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(self, "performance")
        row = self.layout.row()
        row.enabled = not self.performance
        row.prop(self, "key")

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        if self.performance:
            self.report({"INFO"}, keys.move_performance(rig, context.scene, 1.0))
            return
        values.move(rig, 1.0)
        if self.key:
            sliders.key_all(rig, context.scene.frame_current)


classes = (EFFIGY_OT_controls_from_sliders,)
