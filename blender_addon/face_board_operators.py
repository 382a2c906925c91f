"""What *Controls from Sliders* and *Sliders from Controls* share."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from . import active
from .face_board import keys, values
from .reporting import ReportingOperator
from .rig import sliders


class MoveFaceOperator(ReportingOperator):
    """Mixed into an operator that divides the face or the performance anew between sliders and handles."""

    bl_options = {"REGISTER", "UNDO"}
    share = 0.0
    """1 gives as much as possible to the handles, 0 everything to the sliders."""

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

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(self, "performance")
        row = self.layout.row()
        row.enabled = not self.performance
        row.prop(self, "key")

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        is_performed = keys.has_strips(rig)
        if not self.properties.is_property_set("performance"):
            self.performance = is_performed
        if self.performance:
            self.report({"INFO"}, keys.move_performance(rig, context.scene, self.share))
            return
        values.move(rig, self.share)
        if self.key:
            sliders.key_all(rig, context.scene.frame_current)
        elif is_performed:
            self.report({"WARNING"}, "On other frames the performance is as it was: choose Key It to keep this face.")
