"""The panel Viewport: how the 3D View shows the active rig's avatar, and why it is not up to date; and below it the
panel Match Plate.
"""

from __future__ import annotations

import bpy

from .. import active, grading
from ..avatars import has_avatar
from ..playable_files import networks_beside
from ..player.players import has_bust
from ..viewport import live, shared_shaders
from ..viewport.avatar_state import Source
from ..wrapped_text import region_width, wrapped
from .base import RigPanel

UNFILMED = "This face was never filmed: it is drawn from the rig."


class EFFIGY_PT_view(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_view"
    bl_label = "Viewport"
    bl_order = 2

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and has_avatar(active.need_rig(context).armature)

    def draw(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        shown, scene = rig.armature.effigy_view, context.scene.effigy_view
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(shown, "mode")
        avatar = live.state_of(rig)
        # The file that is shown: to look for it, or to unpack it, at every redraw would take too long.
        if avatar is not None and avatar.file is not None and has_bust(avatar.file[1]):
            layout.prop(rig.armature.effigy, "show_bust")
        if shared_shaders.failure():
            wrapped(layout, shared_shaders.failure(), region_width(context), "ERROR")
        elif avatar is not None and avatar.error:
            wrapped(layout, avatar.error, region_width(context), "ERROR")
        if avatar is not None and avatar.source is not Source.NONE and (avatar.error is None or avatar.fresh):
            layout.label(text=avatar.source.value)
            if avatar.file is not None and networks_beside(avatar.file[1]) is not None:
                layout.prop(scene, "networks")
            if avatar.unfilmed:
                wrapped(layout, UNFILMED, region_width(context), "INFO")
            if avatar.source is Source.WORKER:
                layout.operator("effigy.make_playable", icon="FILE_CACHE")
        heading, column = layout.panel("effigy_display", default_closed=True)
        heading.label(text="Display")
        if column is not None:
            column.active = shown.mode != "MESH"
            column.prop(shown, "scale", slider=True)
            column.prop(shown, "least_opacity", slider=True)
            column.prop(scene, "quality")
            column.prop(scene, "with_overlays")


class EFFIGY_PT_grade(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_grade"
    bl_label = "Match Plate"
    bl_parent_id = "EFFIGY_PT_view"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, active.need_rig(context).armature.effigy
        layout.operator("effigy.match_plate", icon="EYEDROPPER")
        column = layout.column()
        column.use_property_split = True
        for name in grading.NAMES:
            column.prop(settings, name)
        layout.operator("effigy.reset_grade", icon="LOOP_BACK")


classes = (EFFIGY_PT_view, EFFIGY_PT_grade)
