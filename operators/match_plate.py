"""Grades the active avatar so that it meets the plate behind it."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty

from ..blender_addon import active
from ..blender_addon.engine.plate_match import match_plate
from ..blender_addon.grading import sentence_of, set_grade
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_match_plate(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.match_plate"
    bl_label = "Match Plate"
    bl_description = (
        "Set exposure, white balance and black level of this avatar from the image or clip behind the scene's camera, "
        "at this frame. Compared are the 5th and 95th percentiles of luminance, and the mean red, green and blue "
        "between them, of the avatar's picture and of the plate"
    )
    bl_options = {"REGISTER", "UNDO"}

    compare: EnumProperty(
        name="Compare With",
        items=(
            (
                "HEAD",
                "Behind the Head",
                "The part of the plate that the head covers: for a plate that shows this person",
            ),
            ("AROUND", "Around the Head", "A border around the head, half as wide as the head: for any other plate"),
        ),
        default="HEAD",
        description="The part of the plate with which the avatar is compared",
    )
    key: BoolProperty(name="Key It", description="Also key the four values at the current frame")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        depsgraph = context.evaluated_depsgraph_get()
        grade = match_plate(rig, context.scene, depsgraph, self.compare == "AROUND")
        set_grade(rig.armature, grade, self.key)
        self.report({"INFO"}, f"“{rig.armature.name}” meets its plate: {sentence_of(grade)}.")


classes = (EFFIGY_OT_match_plate,)
