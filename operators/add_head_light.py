"""Adds suns that light objects as the active head was lit in its footage."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty

from ..blender_addon import active, head_light, tasks
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_add_head_light(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_head_light"
    bl_label = "Head Light from Footage"
    bl_description = (
        "Add suns that light other objects as this face was lit in its video: up to three lamps, and light from all "
        "around. They stay in the room while the head turns. Suns that were added before are replaced"
    )
    bl_options = {"REGISTER"}

    reflectance: FloatProperty(
        name="Skin Reflectance",
        default=head_light.REFLECTANCE,
        min=0.02,
        max=0.95,
        subtype="FACTOR",
        description="Share of the light that this person's skin sends back: about 0.5 for pale, 0.1 for dark skin. The "
        "footage does not tell it. The lower, the stronger the suns",
    )
    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def run(self, context: bpy.types.Context) -> None:
        tasks.wait_if_asked(self, head_light.add_head_light(active.need_rig(context), self.reflectance))


classes = (EFFIGY_OT_add_head_light,)
