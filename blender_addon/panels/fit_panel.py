"""The panel Fit to the Film: how the tracked mesh is drawn over its film, and which frames fit worst."""

from __future__ import annotations

import bpy

from .. import active
from ..avatars import has_avatar
from ..rig import fit
from ..viewport import landmarks
from ..wrapped_text import region_width, wrapped
from .base import RigPanel


class EFFIGY_PT_fit(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_fit"
    bl_label = "Fit to the Film"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and fit.film_camera(active.need_rig(context)) is not None

    def draw(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        if not has_avatar(rig.armature):
            layout.prop(rig.armature.effigy_view, "over_film")
        layout.prop(rig.armature.effigy_view, "landmarks")
        if rig.armature.effigy_view.landmarks and (problem := landmarks.problem_of(rig)):
            wrapped(layout, problem, region_width(context), "ERROR")
        if fit.errors_of(rig) is None:
            return
        error = fit.error_at(rig, context.scene.frame_current)
        layout.label(text="No face in this frame" if error is None else f"Error in this frame: {error:.1f} px")
        layout.operator("effigy.show_worst_frame", icon="VIEWZOOM")
        row = layout.row(align=True)
        row.operator("effigy.show_unsure_frame", text="", icon="PREV_KEYFRAME").backwards = True
        row.operator("effigy.mark_unsure_frames", icon="MARKER_HLT")
        if fit.has_marks(rig, context.scene):
            row.operator("effigy.mark_unsure_frames", text="", icon="X").clear = True
        row.operator("effigy.show_unsure_frame", text="", icon="NEXT_KEYFRAME")


classes = (EFFIGY_PT_fit,)
