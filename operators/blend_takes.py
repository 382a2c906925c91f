"""Blends a take with another one."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, StringProperty

from ..blender_addon.clean_up import CleanUpOperator, names_of_takes
from ..blender_addon.errors import EffigyError
from ..blender_addon.rig.cleaning import blend_takes
from ..blender_addon.rig.takes import take_of, takes_of


class EFFIGY_OT_blend_takes(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.blend_takes"
    bl_label = "Blend Takes"
    bl_description = (
        "Change a take towards another one, such as a transferred performance, at the frames where both play: the "
        "mouth of one with the brows of the other, or half of each"
    )

    other: StringProperty(
        name="Other Take",
        search=names_of_takes,
        options={"SKIP_SAVE"},
        description="The take to blend with; the first other one where it is empty",
    )
    share: FloatProperty(
        name="Share", default=0.5, min=0.0, max=1.0, subtype="FACTOR", description="How much of the other take"
    )
    fade: IntProperty(
        name="Fade", default=8, min=0, soft_max=100, description="Frames in which the change begins and ends"
    )
    mute: BoolProperty(
        name="Mute Other Take", default=True, description="Mute the other take's strips, which would hide the result"
    )

    def run(self, context: bpy.types.Context) -> None:
        rig, choice = self.choice(context)
        own = take_of(rig, choice.take).name
        other = self.other or next((name for name in takes_of(rig) if name != own), "")
        if not other:
            raise EffigyError("There is no other take to blend with: transfer a performance first.")
        count = blend_takes(rig, choice, other, self.share, self.fade)
        if self.mute:
            for strip in take_of(rig, other).strips:
                strip.mute = True
        self.report({"INFO"}, f"{count} channels are blended with “{other}”.")


classes = (EFFIGY_OT_blend_takes,)
