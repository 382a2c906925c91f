"""Takes the face or the performance from the bones of the face board to the sliders."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.face_board import keys, values
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import sliders


class EFFIGY_OT_sliders_from_controls(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.sliders_from_controls"
    bl_label = "Sliders from Controls"
    bl_description = (
        "Give the sliders what the bones of the face do, and put the bones to rest. The face looks as before. Where "
        "the gaze looks stays on its bones"
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
            self.report({"INFO"}, keys.move_performance(rig, context.scene, 0.0))
            return
        values.move(rig, 0.0)
        if self.key:
            sliders.key_all(rig, context.scene.frame_current)


classes = (EFFIGY_OT_sliders_from_controls,)
