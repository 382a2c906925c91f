"""The panel Render: choosing the engine and the view transform, and rendering."""

from __future__ import annotations

import bpy

from ..engine.panels import draw_blur, draw_composite, draw_unsupported
from ..wrapped_text import region_width, wrapped
from .base import RigPanel


class EFFIGY_PT_render(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_render"
    bl_label = "Render"
    bl_order = 4

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        scene = context.scene
        layout.prop(scene.render, "engine", text="Engine")
        if scene.view_settings.view_transform != "Standard":
            box = layout.box()
            wrapped(
                box,
                "Avatars have the colours of their footage only with the view transform Standard.",
                region_width(context),
                "COLOR",
            )
            box.operator("effigy.use_standard_view")
        layout.prop(scene.effigy, "enhanced")
        draw_blur(layout, context)
        draw_unsupported(layout, context)
        draw_composite(layout, context)
        row = layout.row(align=True)
        row.operator("render.render", text="Frame", icon="RENDER_STILL")
        row.operator("render.render", text="Animation", icon="RENDER_ANIMATION").animation = True


classes = (EFFIGY_PT_render,)
