"""Takes the face or the performance from the sliders to the bones of the face board."""

from __future__ import annotations

import bpy

from ..blender_addon.face_board_operators import MoveFaceOperator


class EFFIGY_OT_controls_from_sliders(MoveFaceOperator, bpy.types.Operator):
    bl_idname = "effigy.controls_from_sliders"
    bl_label = "Controls from Sliders"
    bl_description = (
        "Move the bones of the face to where the sliders are, and the sliders to what is left. The face looks as before"
    )
    share = 1.0


classes = (EFFIGY_OT_controls_from_sliders,)
