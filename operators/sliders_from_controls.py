"""Takes the face or the performance from the bones of the face board to the sliders."""

from __future__ import annotations

import bpy

from ..blender_addon.face_board_operators import MoveFaceOperator


class EFFIGY_OT_sliders_from_controls(MoveFaceOperator, bpy.types.Operator):
    bl_idname = "effigy.sliders_from_controls"
    bl_label = "Sliders from Controls"
    bl_description = (
        "Give the sliders what the bones of the face do, and put the bones to rest. The face looks as before. Where "
        "the gaze looks stays on its bones"
    )
    share = 0.0


classes = (EFFIGY_OT_sliders_from_controls,)
