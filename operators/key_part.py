"""Keys a part of the face at the current frame: the gaze, the jaw, the neck or an eye."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import face_angles

PARTS = (
    ("gaze", "Gaze", "Both eyes, and the lids that follow them"),
    ("jaw", "Jaw", "The jaw bone"),
    ("neck", "Neck", "The neck bone"),
    ("eye_L", "Left Eye", "The bone of the left eye"),
    ("eye_R", "Right Eye", "The bone of the right eye"),
)


class EFFIGY_OT_key_part(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.key_part"
    bl_label = "Key Part of the Face"
    bl_options = {"REGISTER", "UNDO"}

    part: EnumProperty(name="Part", items=PARTS)

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    @classmethod
    def description(cls, context: bpy.types.Context, properties: bpy.types.OperatorProperties) -> str:
        what = next(description for name, _, description in PARTS if name == properties.part)
        return f"Key at the current frame: {what[0].lower()}{what[1:]}"

    def run(self, context: bpy.types.Context) -> None:
        face_angles.key_part(active.need_rig(context), self.part, context.scene.frame_current)


classes = (EFFIGY_OT_key_part,)
